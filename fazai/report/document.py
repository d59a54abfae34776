"""The JSON document of `--output json`, as types: its schema is made from them, tests hold the output to it.

Additions keep the format's number; a removed or changed field raises it.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

__all__ = ["Change", "Document", "Error", "Target", "Totals"]


class Error(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Something that went wrong: its class, text, place and next step."""

    error: str
    message: str
    exit_code: int
    where: str | None = None
    hint: str | None = None


class Change(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One difference. `before` and `after` hold the fields that differ, secrets as "***"; `options` are
    declared fields that say how it is written; `from` says at which file:line:column a field was declared."""

    kind: str
    identity: str
    verb: Literal["create", "update", "delete", "move", "run"]
    status: Literal["planned", "done", "failed", "undone", "refused", "left"]
    before: dict[str, Any]
    after: dict[str, Any]
    ref: str
    origins: dict[str, str] = msgspec.field(name="from")
    options: dict[str, Any] = {}
    note: str | None = None
    adopts: bool = False
    declared: str | None = None
    error: str | None = None
    action_id: str | None = None


class Target(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """How one target ended. `unchanged` counts resources, `activated` names services."""

    name: str
    provider: str
    play: str
    status: Literal[
        "converged",
        "changed",
        "pending",
        "failed",
        "unreachable",
        "refused",
        "locked",
        "stale",
        "interrupted",
        "skipped",
    ]
    exit_code: int
    resources: int
    unchanged: int
    changes: list[Change]
    activated: list[str]
    to_activate: list[str]
    not_activated: list[str]
    errors: list[Error]
    notes: list[str]
    duration_s: float


class Totals(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Counts of changes (changed, pending, undone, refused), resources (resources, unchanged) and targets."""

    targets: int
    resources: int
    changed: int
    pending: int
    unchanged: int
    undone: int
    refused: int
    failed: int
    unreachable: int
    locked: int
    stale: int
    skipped: int


class Document(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One run. Where the input was bad there is no run: `targets` is empty and `errors` says everything."""

    format: Literal["fazai-run/1"]
    command: str
    exit_code: int
    targets: list[Target]
    errors: list[Error]
    run_id: str | None = None
    check: bool | None = None
    started: str | None = None
    duration_s: float | None = None
    interrupted: bool | None = None
    totals: Totals | None = None
    plays: list[str] | None = None
