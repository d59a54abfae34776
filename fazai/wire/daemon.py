"""Section 2 of SPEC.md: bodies, queries and answers of the HTTP routes, and the status of a refusal."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args

from msgspec import Meta

from fazai.errors import spelling_hint
from fazai.outcome import TargetStatus
from fazai.wire.base import (
    AnswerMessage,
    Count,
    Ident,
    Label,
    Message,
    RequestMessage,
    Timestamp,
    WireError,
    convert_query,
)
from fazai.wire.changes import ActionRecord
from fazai.wire.events import EVENT_TYPES, AgentState, Level, is_event_id

_CODES_BY_STATUS: Mapping[int, tuple[str, ...]] = {
    400: ("bad_json", "bad_query"),
    401: ("unauthorized", "bad_signature", "bad_certificate", "bad_clock", "replayed"),
    403: ("forbidden", "bad_version", "hello_required", "not_allowed"),
    404: ("not_found", "unknown_session", "agent_unknown"),
    405: ("method_not_allowed",),
    409: ("conflict", "session_busy", "plan_mismatch", "cancelled", "interrupted", "not_sent"),
    413: ("too_large",),
    415: ("unsupported_media_type",),
    422: (
        *("bad_request", "unknown_type", "unknown_action", "unknown_method"),
        *("schema_unsupported", "context_full"),
    ),
    429: ("overloaded",),
    500: ("internal",),
    502: ("device_error", "agent_lost"),
    503: ("worker_unavailable", "agent_offline", "unavailable"),
    504: ("timeout",),
}
#: The HTTP status that goes with a code of the contract.
HTTP_STATUS: Mapping[str, int] = MappingProxyType(
    {code: status for status, codes in _CODES_BY_STATUS.items() for code in codes}
)

#: Of a host that signs its requests (SPEC.md, 3.3).
HostKey = Annotated[
    str, Meta(min_length=16, max_length=256, pattern=r"(?#printable ASCII without spaces)\A[!-~]+\Z")
]


class DaemonLimits(Message, frozen=True, kw_only=True, omit_defaults=False):
    max_body_bytes: Count
    max_ingest_bytes: Count
    max_ingest_records: Count


class AgentStatusAnswer(AnswerMessage, frozen=True, kw_only=True):
    """GET /agent/status; the handshake of an HTTP client."""

    agent_system: Literal["running"]
    gemma_worker: Literal["available", "unavailable"]
    timestamp: Timestamp
    contract: str | None = None
    version: str | None = None
    limits: DaemonLimits | None = None


class EventsQuery(RequestMessage, frozen=True, kw_only=True):
    """GET /events: what to show; nothing given shows everything."""

    types: tuple[Ident, ...] = ()
    target: Label | None = None
    session: Ident | None = None
    run: Ident | None = None
    agent: Ident | None = None
    level: Level | None = None
    since: Count | None = None
    since_time: Timestamp | None = None
    follow: bool = True


class ReportedEvent(RequestMessage, frozen=True, kw_only=True):
    """One event of a run; `sequence` counts the events of the run from 1."""

    sequence: Annotated[int, Meta(ge=1, le=2**53)]
    event: dict[str, Any]


class ReportBody(RequestMessage, frozen=True, kw_only=True):
    """POST /events: what a reconciler on this or another machine did. Repeating an event changes nothing."""

    run_id: Ident
    command: Label
    host: Label
    user: Label
    started: Timestamp
    sources: Annotated[tuple[str, ...], Meta(max_length=256)] = ()
    events: Annotated[tuple[ReportedEvent, ...], Meta(max_length=1000)]


class ReportAnswer(AnswerMessage, frozen=True, kw_only=True, omit_defaults=False):
    accepted: Count
    duplicates: Count


class RunsQuery(RequestMessage, frozen=True, kw_only=True):
    """GET /runs: the newest so many."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class AgentsQuery(RequestMessage, frozen=True, kw_only=True):
    """GET /agents. `removed`: also the agents that were removed. Since 1.1."""

    removed: bool = False


class AgentRow(Message, frozen=True, kw_only=True):
    """One agent in the registry; a closed one stays, in the state `closing`, with `closed_at`.
    `removed_at`: when its name was revoked."""

    agent_id: Ident
    name: Label
    protocol: Literal["unix", "http", "websocket", "ssh", "process"]
    state: AgentState
    since: Timestamp
    version: str | None = None
    capabilities: tuple[Ident, ...] = ()
    last_seen: Timestamp | None = None
    closed_at: Timestamp | None = None
    last_error: str | None = None
    contract: Label | None = None
    reconcile: Literal["no", "look", "yes"] | None = None
    latency_ms: Annotated[float, Meta(ge=0)] | None = None
    last_outcome: str | None = None
    removed_at: Timestamp | None = None


class AgentsAnswer(AnswerMessage, frozen=True, kw_only=True):
    """GET /agents. `port`: on which the daemon hears remote agents; absent where it hears none. `ca`: the
    fingerprint of the CA that issues their certificates. `state`: a mark of the state folder."""

    agents: tuple[AgentRow, ...]
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    ca: Ident | None = None
    state: Ident | None = None


class AgentAnswer(AnswerMessage, frozen=True, kw_only=True):
    agent: AgentRow


class AgentKeyBody(RequestMessage, frozen=True, kw_only=True):
    """POST /agents/{host}/key. All keys that hold from now on: one, or two while they change."""

    keys: Annotated[tuple[HostKey, ...], Meta(min_length=1, max_length=2)]


class RunBody(RequestMessage, frozen=True, kw_only=True):
    """POST /runs. The playbook is named as the daemon's configuration names it; no path, no YAML."""

    playbook: Label
    mode: Literal["apply", "check"]
    limit: tuple[Label, ...] = ()
    plan_hash: Ident | None = None
    reason: str | None = None


class RunStartedAnswer(AnswerMessage, frozen=True, kw_only=True):
    """`coalesced`: it joined a run that waits to begin and asks for the same."""

    run_id: Ident
    coalesced: bool = False


class IgnoredAnswer(AnswerMessage, frozen=True, kw_only=True):
    """POST /runs from a git host, for what is no reason to run: a ping, another branch."""

    ignored: str


class ApproveRunBody(RequestMessage, frozen=True, kw_only=True):
    """POST /runs/{id}/approve: the hash is the one that GET /runs/{id}/plan showed."""

    plan_hash: Ident
    reason: str | None = None


RunTrigger = Literal["api", "webhook", "schedule", "approval", "session", "rule"]
PlanState = Literal["pending", "approved", "stale"]


class RunRow(Message, frozen=True, kw_only=True):
    """One run; `totals` counts targets, resources and actions by what became of them. `playbook` and what
    follows: of a run that the daemon started."""

    run_id: Ident
    command: str
    state: Literal["queued", "started", "finished"]
    started_at: Timestamp
    check: bool = False
    finished_at: Timestamp | None = None
    exit_code: Count | None = None
    totals: dict[str, Count] | None = None
    playbook: Label | None = None
    trigger: RunTrigger | None = None
    by: str | None = None
    reason: str | None = None
    error: str | None = None
    plan_hash: Ident | None = None
    plan_state: PlanState | None = None


class PlanRow(Message, frozen=True, kw_only=True):
    """A plan that waits for its approval, or had it. `changes` are those of docs/output.md."""

    run_id: Ident
    playbook: Label
    plan_hash: Ident
    state: PlanState
    created_at: Timestamp
    targets: tuple[Label, ...]
    changes: tuple[dict[str, Any], ...]
    stale: str | None = None
    approved_by: str | None = None
    approved_at: Timestamp | None = None
    apply_run_id: Ident | None = None


class PlanAnswer(AnswerMessage, frozen=True, kw_only=True):
    """GET /runs/{id}/plan."""

    plan: PlanRow


class JobRow(Message, frozen=True, kw_only=True):
    """A job of the configuration. `next_at` is an estimate: it moves with jitter and with what runs."""

    playbook: Label
    modes: tuple[Literal["apply", "approve", "check"], ...]
    every_s: Annotated[float, Meta(gt=0)] | None = None
    jitter_s: Annotated[float, Meta(ge=0)] | None = None
    windows: tuple[str, ...] = ()
    mode: Literal["apply", "check"] | None = None
    next_at: Timestamp | None = None
    running: Ident | None = None
    queued: tuple[Ident, ...] = ()
    last_run: Ident | None = None
    pending_plan: Ident | None = None


class ScheduleAnswer(AnswerMessage, frozen=True, kw_only=True):
    """GET /runs/schedule."""

    jobs: tuple[JobRow, ...]


class TargetRow(Message, frozen=True, kw_only=True):
    target: Label
    status: TargetStatus
    play: str | None = None
    errors: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class ActionRow(ActionRecord, frozen=True, kw_only=True):
    action_id: Ident
    target: Label


class RunsAnswer(AnswerMessage, frozen=True, kw_only=True):
    runs: tuple[RunRow, ...]


class RunAnswer(AnswerMessage, frozen=True, kw_only=True):
    run: RunRow
    targets: tuple[TargetRow, ...]
    actions: tuple[ActionRow, ...]


class HealthAnswer(AnswerMessage, frozen=True, kw_only=True):
    """GET /health and GET /ready."""

    status: Literal["alive", "ready"]
    version: str | None = None


def _check_choices(name: str, words: Iterable[str], known: Collection[str]) -> None:
    """Refuse a word that is none of these: a stream that waited for it would stay silent. Raises
    WireError."""
    for word in words:
        if word not in known:
            hint = spelling_hint(word, known) or f"there are: {', '.join(sorted(known))}"
            raise WireError("bad_query", f"`{name}`: there is no {word[:64]!r}", hint=hint)


def decode_events_query(query: Mapping[str, str]) -> EventsQuery:
    """Read the query of GET /events; `types` is a list with commas. Raises WireError(bad_query)."""
    values: dict[str, Any] = dict(query)
    if "types" in values:
        values["types"] = values["types"].split(",") if values["types"] else []
        _check_choices("types", values["types"], EVENT_TYPES)
    if "level" in values:
        _check_choices("level", [values["level"]], get_args(Level))
    since = values.get("since")
    if isinstance(since, str):
        if not is_event_id(since):
            raise WireError("bad_query", f"`since`: expected the id of an event, got {since[:64]!r}")
        values["since"] = int(since)
    if values.get("follow") in ("true", "false"):
        values["follow"] = values["follow"] == "true"
    return convert_query(values, EventsQuery)
