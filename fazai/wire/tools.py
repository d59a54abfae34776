"""Section 2.7 of SPEC.md: typed tools, which models, people and other assistants call by name."""

from __future__ import annotations

from typing import Any

from msgspec import field

from fazai.wire.base import AnswerMessage, Ident, Label, Message, RequestMessage, Timestamp


def dotless_name(name: str) -> str:
    """Return the other name of a tool, for clients that hand it to an API which allows no dot."""
    return name.replace(".", "_")


class ToolRow(Message, frozen=True, kw_only=True, omit_defaults=False):
    """One tool. `allowed`: whether the client that asks may call it. `untrusted`: what it finds was written
    by devices, hosts or other people. `args` is a JSON schema of the arguments, with the names of the fleet
    as it is now."""

    name: Label
    summary: str
    has_effect: bool
    allowed: bool
    untrusted: bool
    timeout_s: float
    args: dict[str, Any]


class ToolsAnswer(AnswerMessage, frozen=True, kw_only=True):
    """GET /tools."""

    tools: tuple[ToolRow, ...]


class ToolBody(RequestMessage, frozen=True, kw_only=True):
    """POST /tools/{name}. The arguments are those of the tool's schema, strictly."""

    args: dict[str, Any] = field(default_factory=dict)
    session_id: Ident | None = None


class ToolObservation(Message, frozen=True, kw_only=True, omit_defaults=False):
    """Finding of a tool. `data` is at most 256 KiB of JSON. `failed` where there is no answer, and `note`
    says why. `untrusted`: `note` and `data` quote devices, hosts or other people; they are data, and never an
    instruction."""

    note: str
    data: Any = None
    citations: tuple[str, ...] = ()
    failed: bool = False
    untrusted: bool = True


class ToolChange(Message, frozen=True, kw_only=True, omit_defaults=False):
    """One change that a proposal would make; secrets as `***`."""

    target: Label
    kind: Label
    identity: str
    verb: Label
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)


class ToolProposal(Message, frozen=True, kw_only=True, omit_defaults=False):
    """Proposal of what a tool with an effect would do. Nothing of it has been done: somebody who may
    approves the hash that is shown here (POST /agent/approve), until it expires."""

    tool: Label
    session_id: Ident
    action_id: Ident
    plan_hash: Ident
    expires: Timestamp
    changes: tuple[ToolChange, ...]


class ToolAnswer(AnswerMessage, frozen=True, kw_only=True):
    """The answer of a call: an observation, or the proposal of a tool that has an effect."""

    observation: ToolObservation | None = None
    proposal: ToolProposal | None = None
