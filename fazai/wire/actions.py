"""Section 2 of SPEC.md: the typed actions that a model proposes and the handler interprets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from msgspec import Meta

from fazai.wire.base import MAX_BODY_BYTES, Family, Ident, Label, Request, Timestamp, WireError, parse_object

__all__ = [
    "Action",
    "ActionBase",
    "AskAction",
    "CommitKbAction",
    "DoneAction",
    "ObserveAction",
    "PlanAction",
    "ResearchAction",
    "ShellAction",
    "ToolSpecAction",
    "UseToolAction",
    "decode_action",
    "decode_proposal",
]

Text = Annotated[str, Meta(max_length=65_536)]


class ActionBase(Request, frozen=True, kw_only=True, tag_field="action"):
    """Base of the actions. The fields here are the handler's to set: they are what a person approves."""

    constants: ClassVar[Mapping[str, Any]] = {"type": "action"}
    timestamp: Timestamp | None = None
    agent_id: Ident | None = None
    session_id: Ident | None = None
    action_id: Ident | None = None
    plan_hash: Ident | None = None


class PlanAction(ActionBase, frozen=True, kw_only=True, tag="plan"):
    steps: tuple[Text, ...]


class ShellAction(ActionBase, frozen=True, kw_only=True, tag="shell"):
    """A command line that only a person or a policy can let run; never sent to a firewall."""

    command: Annotated[str, Meta(min_length=1, max_length=65_536)]


class ResearchAction(ActionBase, frozen=True, kw_only=True, tag="research", rename={"max_docs": "maxDocs"}):
    queries: Annotated[tuple[Label, ...], Meta(min_length=1, max_length=16)]
    max_docs: Annotated[int, Meta(ge=1, le=50)] | None = None


class ToolSpecAction(ActionBase, frozen=True, kw_only=True, tag="tool_spec"):
    name: Label
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


Action = (
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

_ACTIONS: Family[Action] = Family(Action, tag="action", unknown="unknown_action", limit_bytes=MAX_BODY_BYTES)


def decode_action(data: bytes | str) -> Action:
    """The data of an `action` event. Strict, for an action is an instruction.

    Raises WireError: bad_json, bad_request, unknown_type, unknown_action.
    """
    value = parse_object(data, unique_names=True)
    kind = value.pop("type", "action")
    if kind != "action":
        raise WireError("unknown_type", f"expected an action, got the type {str(kind)[:64]!r}")
    return _ACTIONS.convert(value)


def decode_proposal(data: bytes | str) -> Action:
    """The action that a model wrote, with or without `type`; it cannot give itself an id or a plan's hash.

    Raises WireError as decode_action does.
    """
    action = decode_action(data)
    taken = [name for name in ActionBase.__struct_fields__ if getattr(action, name) is not None]
    if taken:
        raise WireError("bad_request", f"`{taken[0]}`: only the handler sets it")
    return action
