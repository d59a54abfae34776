"""Section 2 of SPEC.md, planned: the typed actions that a model proposes, and their approval.

The contract fixes these messages, and no process speaks them yet: a daemon passes an `action` event on, and
that is all.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from msgspec import Meta
from msgspec.structs import force_setattr

from fazai.wire.base import (
    MAX_BODY_BYTES,
    Family,
    Ident,
    Label,
    RequestMessage,
    Timestamp,
    WireError,
    parse_object,
)

Text = Annotated[str, Meta(max_length=65_536)]
ShellWord = Annotated[str, Meta(max_length=65_536, pattern=r"(?#text without NUL)\A[^\x00]*\Z")]


class ActionBase(RequestMessage, frozen=True, kw_only=True, tag_field="action"):
    """Base of the actions. The fields here are the handler's to set: they are what a person approves."""

    constants: ClassVar[Mapping[str, Any]] = {"type": "action"}
    timestamp: Timestamp | None = None
    agent_id: Ident | None = None
    session_id: Ident | None = None
    action_id: Ident | None = None
    plan_hash: Ident | None = None
    changes: tuple[dict[str, Any], ...] = ()
    expires: Timestamp | None = None


class PlanAction(ActionBase, frozen=True, kw_only=True, tag="plan"):
    steps: tuple[Text, ...]


class ShellAction(ActionBase, frozen=True, kw_only=True, tag="shell"):
    """A program on a target that only a person or a policy can let run; never sent to a firewall.

    `command` is how models before 1.1 say it: it is split once, when it is read, and never goes to a shell.
    """

    target: Label | None = None
    argv: Annotated[tuple[ShellWord, ...], Meta(max_length=4096)] = ()
    command: Annotated[str, Meta(min_length=1, max_length=65_536)] | None = None

    def __post_init__(self) -> None:
        if bool(self.argv) == (self.command is not None):
            raise ValueError("expected either `argv` or `command`")
        if self.command is not None:
            try:
                words = tuple(shlex.split(self.command))
            except ValueError as error:
                raise ValueError(f"`command` cannot be split into words: {error}") from None
            if not words:
                raise ValueError("`command` has no words")
            force_setattr(self, "argv", words)
            force_setattr(self, "command", None)


class ResearchAction(ActionBase, frozen=True, kw_only=True, tag="research", rename={"max_docs": "maxDocs"}):
    queries: Annotated[tuple[Label, ...], Meta(min_length=1, max_length=16)]
    max_docs: Annotated[int, Meta(ge=1, le=50)] | None = None


class ToolSpecAction(ActionBase, frozen=True, kw_only=True, tag="tool_spec"):
    """Names a program with places for parameters, `{name}`, which an admin approves before its first use."""

    name: Label
    argv: Annotated[tuple[ShellWord, ...], Meta(max_length=64)] = ()
    description: Text | None = None
    parameters: dict[str, Any] | None = None


class UseToolAction(ActionBase, frozen=True, kw_only=True, tag="use_tool"):
    name: Label
    args: dict[str, Any] | None = None


class AskAction(ActionBase, frozen=True, kw_only=True, tag="ask"):
    question: Text
    options: tuple[Text, ...] = ()


class ObserveAction(ActionBase, frozen=True, kw_only=True, tag="observe"):
    summary: Text


class CommitKbAction(ActionBase, frozen=True, kw_only=True, tag="commit_kb"):
    title: Label
    snippet: Text
    tags: tuple[Label, ...] = ()
    source: str | None = None


class DoneAction(ActionBase, frozen=True, kw_only=True, tag="done"):
    result: Any = None


ProposedAction = (
    PlanAction
    | ShellAction
    | ResearchAction
    | ToolSpecAction
    | UseToolAction
    | AskAction
    | ObserveAction
    | CommitKbAction
    | DoneAction
)

#: Actions that do nothing but speak.
PLAIN_ACTIONS = (PlanAction, ResearchAction, AskAction, ObserveAction, DoneAction)

_ACTIONS: Family[ProposedAction] = Family(
    ProposedAction, tag="action", unknown="unknown_action", limit_bytes=MAX_BODY_BYTES
)


def decode_action(data: bytes | str) -> ProposedAction:
    """Read the data of an `action` event. Strict, for an action is an instruction.

    Raises WireError: bad_json, bad_request, unknown_type, unknown_action.
    """
    value = parse_object(data, unique_names=True)
    kind = value.pop("type", "action")
    if kind != "action":
        raise WireError("unknown_type", f"expected an action, got the type {str(kind)[:64]!r}")
    return _ACTIONS.convert(value)


def decode_proposal(data: bytes | str) -> ProposedAction:
    """Read the action that a model wrote, with or without `type`; it cannot give itself an id or a plan's
    hash.

    Raises WireError as decode_action does.
    """
    action = decode_action(data)
    taken = [name for name in ActionBase.__struct_fields__ if getattr(action, name)]
    if taken:
        raise WireError("bad_request", f"`{taken[0]}`: only the handler sets it")
    return action
