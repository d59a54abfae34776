"""The JSON document of `--output json`, as types: its schema is made from them, tests hold the output to it.

Additions keep the format's number; a removed or changed field raises it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from fazai.outcome import TargetStatus
from fazai.wire.changes import ChangeRecord


class ErrorDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that went wrong: its class, text, place and next step."""

    error: str
    message: str
    exit_code: int
    where: str | None = None
    hint: str | None = None


class ChangeDocument(ChangeRecord, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One difference. `before` and `after` hold the fields that differ, secrets as "***"; `options` are
    declared fields that say how it is written; `from` says at which file:line:column a field was declared."""

    kind: str  # of any length: what was refused is shown as well
    ref: str
    origins: dict[str, str] = msgspec.field(name="from")
    declared: str | None = None
    action_id: str | None = None


class ResultDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The output of a program on a target. `exit_status` null: it was ended, or its answer never came;
    `truncated`: it printed more than is kept."""

    exit_status: int | None
    stdout: str
    stderr: str
    truncated: bool


class TargetDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The outcome of one target. `unchanged` counts resources, `activated` names services; `ending` is of
    `fazai exec` and `cp`: `timed out`, `unknown`, `cancelled`, `not asked`, `would be asked`, else as the
    status; `result` is of `fazai exec`."""

    name: str
    provider: str
    play: str
    status: TargetStatus
    exit_code: int
    resources: int
    unchanged: int
    changes: list[ChangeDocument]
    activated: list[str]
    to_activate: list[str]
    not_activated: list[str]
    errors: list[ErrorDocument]
    notes: list[str]
    duration_s: float
    ending: str | None = None
    result: ResultDocument | None = None


class TotalsDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
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


class Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run. Where the input was bad there is no run: `targets` is empty and `errors` says everything.
    `unanswered` names targets that were not reached, did not end in time, or of which it is not known what
    became; `not_asked` those that the run did not come to."""

    format: Literal["fazai-run/1"]
    command: str
    exit_code: int
    targets: list[TargetDocument]
    errors: list[ErrorDocument]
    run_id: str | None = None
    check: bool | None = None
    started: str | None = None
    duration_s: float | None = None
    interrupted: bool | None = None
    totals: TotalsDocument | None = None
    plays: list[str] | None = None
    unanswered: list[str] | None = None
    not_asked: list[str] | None = None
