"""Section 2 of SPEC.md: server-sent events."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from msgspec import Meta, field

from fazai.model import Verb
from fazai.outcome import ActionStatus, TargetStatus
from fazai.wire.actions import ActionBase, ProposedAction
from fazai.wire.base import Count, Ident, Label, Message, Timestamp, encode

AgentState = Literal["registration", "handshake", "execution", "observation", "closing"]
Level = Literal["debug", "info", "warning", "error", "critical"]
RunState = Literal["started", "finished"]
#: A status or `unknown`; msgspec reads no union of an enumeration and a literal.
_EARLIER = (*TargetStatus, "unknown")
EarlierStatus = Annotated[
    str,
    Meta(
        pattern=rf"(?#a status of a target, or unknown)\A(?:{'|'.join(_EARLIER)})\Z",
        extra_json_schema={"enum": list(map(str, _EARLIER))},
    ),
]


class EventBase(Message, frozen=True, kw_only=True, tag_field="type"):
    """Base of the events: the time, and the ids that apply. `sequence` counts the events of a run that were
    reported with POST /events, `reported_by` is who did, as the daemon knows it."""

    timestamp: Timestamp
    agent_id: Ident | None = None
    session_id: Ident | None = None
    run_id: Ident | None = None
    action_id: Ident | None = None
    target: Label | None = None
    sequence: Count | None = None
    reported_by: str | None = None


class TokenEvent(EventBase, frozen=True, kw_only=True, tag="token"):
    text: str


class LogEvent(EventBase, frozen=True, kw_only=True, tag="log"):
    level: Level
    message: str
    logger: str | None = None


class ObserveEvent(EventBase, frozen=True, kw_only=True, tag="observe"):
    note: str


class DoneEvent(EventBase, frozen=True, kw_only=True, tag="done"):
    result: Any = None


class PlanEvent(EventBase, frozen=True, kw_only=True, tag="plan"):
    steps: tuple[str, ...]


class AskEvent(EventBase, frozen=True, kw_only=True, tag="ask"):
    question: str
    options: tuple[str, ...] = ()


class ExecLogEvent(EventBase, frozen=True, kw_only=True, tag="exec_log"):
    stream: Literal["stdout", "stderr"]
    chunk: str


class ResearchDoc(Message, frozen=True, kw_only=True):
    title: str
    url: str | None = None
    text: str | None = None


class ResearchResultEvent(EventBase, frozen=True, kw_only=True, tag="research_result"):
    docs: tuple[ResearchDoc, ...]


class ErrorEvent(EventBase, frozen=True, kw_only=True, tag="error"):
    message: str
    code: str | None = None


class RunEvent(EventBase, frozen=True, kw_only=True, tag="run"):
    """A run of the reconciler began or ended; `exit_code` is there once it ended."""

    run_id: Ident
    state: RunState
    command: str | None = None
    check: bool = False
    exit_code: Count | None = None
    totals: dict[str, Count] | None = None


class PlayEvent(EventBase, frozen=True, kw_only=True, tag="play"):
    """A play begins on so many targets."""

    name: str
    targets: Count


class TargetEvent(EventBase, frozen=True, kw_only=True, tag="target"):
    """Work on a target begins."""

    target: Label
    status: Literal["started"]
    play: str | None = None


class ChangeEvent(EventBase, frozen=True, kw_only=True, tag="change"):
    """One difference, and what became of it. `before` and `after` hold the fields that differ, secrets as
    `***`; `options` are declared fields that say how it is written; `ref` is the target's own name of the
    item."""

    target: Label
    kind: Label
    identity: str
    verb: Verb
    before: dict[str, Any]
    after: dict[str, Any]
    status: ActionStatus
    ref: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    note: str | None = None
    adopts: bool = False
    error: str | None = None


class ActivateEvent(EventBase, frozen=True, kw_only=True, tag="activate"):
    """A service was activated: what had been saved for it took effect."""

    target: Label
    service: Label


class UndoEvent(EventBase, frozen=True, kw_only=True, tag="undo"):
    """A step failed: so many changes of this run were taken back, so many could not be."""

    target: Label
    undone: Count
    kept: Count


class OutcomeEvent(EventBase, frozen=True, kw_only=True, tag="outcome"):
    """The end of work on a target. `was`: how an earlier run left it, where that it is converged now is
    news."""

    target: Label
    status: TargetStatus
    play: str | None = None
    changed: Count = 0
    pending: Count = 0
    unchanged: Count = 0
    duration_s: Annotated[float, Meta(ge=0)] | None = None
    errors: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    was: EarlierStatus | None = None


class TelemetryEvent(EventBase, frozen=True, kw_only=True, tag="telemetry"):
    """A host reported; `timestamp` is the record's."""

    hostname: Label
    load: tuple[float, ...] | None = None


class AgentEvent(EventBase, frozen=True, kw_only=True, tag="agent"):
    """An agent entered a state of its life cycle."""

    agent_id: Ident
    state: AgentState
    reason: str | None = None


class GapEvent(EventBase, frozen=True, kw_only=True, tag="gap"):
    """Events `lost_from` to `lost_to` (ids, both included) are not delivered on this stream."""

    lost_from: Count
    lost_to: Count
    reason: Literal["trimmed", "slow_reader"]

    def __post_init__(self) -> None:
        if self.lost_to < self.lost_from:
            raise ValueError("`lost_to` is before `lost_from`")


PlainEvent = (
    TokenEvent
    | LogEvent
    | ObserveEvent
    | DoneEvent
    | PlanEvent
    | AskEvent
    | ExecLogEvent
    | ResearchResultEvent
    | ErrorEvent
    | RunEvent
    | PlayEvent
    | TargetEvent
    | ChangeEvent
    | ActivateEvent
    | UndoEvent
    | OutcomeEvent
    | TelemetryEvent
    | AgentEvent
    | GapEvent
)
Event = PlainEvent | ProposedAction

EVENT_TYPES = (*(str(one.__struct_config__.tag) for one in get_args(PlainEvent)), "action")


def is_event_id(text: str) -> bool:
    """Return whether the text can be an event's id: a decimal number of at most 18 digits."""
    return text.isascii() and text.isdigit() and len(text) <= 18


def event_type(event: Event) -> str:
    """Return the name that stands after `event:` and as `type` in the data."""
    return "action" if isinstance(event, ActionBase) else str(event.__struct_config__.tag)


def encode_sse(event_id: int, event: Event) -> bytes:
    """Write the event as it goes onto the stream, the empty line that ends it included."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event_id, event_type(event).encode(), encode(event))
