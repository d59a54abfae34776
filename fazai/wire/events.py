"""Section 2 of SPEC.md: server-sent events."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta, field

from fazai.model import Verb
from fazai.outcome import ActionStatus, TargetStatus
from fazai.wire.actions import ActionBase, ProposedAction, decode_action
from fazai.wire.base import (
    MAX_BODY_BYTES,
    Count,
    Family,
    Ident,
    Label,
    Message,
    Timestamp,
    WireError,
    encode,
    parse_object,
)

AgentState = Literal["registration", "handshake", "execution", "observation", "closing"]
LIFE_CYCLE: tuple[AgentState, ...] = ("registration", "handshake", "execution", "observation", "closing")
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
    """When it happened, and the ids that an event may carry; each where it applies. `sequence` counts the
    events of a run that were reported with POST /events, `reported_by` is who did, as the daemon knows it."""

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
    """What was saved for a service took effect."""

    target: Label
    service: Label


class UndoEvent(EventBase, frozen=True, kw_only=True, tag="undo"):
    """A step failed: so many changes of this run were taken back, so many could not be."""

    target: Label
    undone: Count
    kept: Count


class OutcomeEvent(EventBase, frozen=True, kw_only=True, tag="outcome"):
    """How a target ended. `was`: how an earlier run left it, where that it is converged now is news."""

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

_EVENTS: Family[PlainEvent] = Family(
    PlainEvent, tag="type", unknown="unknown_type", limit_bytes=MAX_BODY_BYTES
)
EVENT_TYPES = (*_EVENTS.tags, "action")


def decode_event(data: bytes | str) -> Event:
    """Read the data of one server-sent event.

    Raises WireError: bad_json, bad_request, unknown_type, unknown_action. A reader skips an event of an
    unknown type: a later minor version may have added it.
    """
    value = parse_object(data)
    if value.get("type") == "action":
        return decode_action(data)
    return _EVENTS.convert(value)


@dataclass(frozen=True, slots=True)
class SseFrame:
    """One server-sent event and its id."""

    id: int
    event: Event


def is_event_id(text: str) -> bool:
    """Return whether the text can be an event's id: a decimal number of at most 18 digits."""
    return text.isascii() and text.isdigit() and len(text) <= 18


def event_type(event: Event) -> str:
    """Return the name that stands after `event:` and as `type` in the data."""
    return "action" if isinstance(event, ActionBase) else str(event.__struct_config__.tag)


def encode_sse(event_id: int, event: Event) -> bytes:
    """Write the event as it goes onto the stream, the empty line that ends it included."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event_id, event_type(event).encode(), encode(event))


def decode_sse(frame: bytes) -> SseFrame:
    """Read what `encode_sse` wrote. Raises WireError when id, event or data is missing or they disagree."""
    fields: dict[str, str] = {}
    try:
        lines = re.split(r"\r\n|\n|\r", frame.decode())
    except UnicodeDecodeError:
        raise WireError("bad_json", "the text is not valid UTF-8") from None
    for line in lines:
        name, colon, value = line.partition(":")
        if not name:  # an empty line, or a comment (the heartbeat)
            continue
        if not colon or name in fields:
            raise WireError("bad_request", f"not a field of an event, or twice: {name[:64]!r}")
        fields[name] = value.removeprefix(" ")
    missing = [name for name in ("id", "event", "data") if name not in fields]
    if missing:
        raise WireError("bad_request", f"the event has no {' and no '.join(missing)}")
    if not is_event_id(fields["id"]):
        raise WireError("bad_request", f"`id`: expected a number, got {fields['id'][:64]!r}")
    event = decode_event(fields["data"])
    if fields["event"] != event_type(event):
        said = fields["event"][:64]
        raise WireError("bad_request", f"`event` says {said!r}, the data says {event_type(event)!r}")
    return SseFrame(int(fields["id"]), event)
