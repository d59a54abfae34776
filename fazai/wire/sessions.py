"""Section 2.1 of SPEC.md: sessions of the action loop, their objectives, and what people say to them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from fazai.wire.base import AnswerMessage, Count, Ident, Label, Message, RequestMessage, Timestamp
from fazai.wire.worker import SessionParams

Objective = Annotated[str, Meta(min_length=1, max_length=262_144)]
Reason = Annotated[str, Meta(max_length=1000)]
SessionStatus = Literal["idle", "running", "waiting", "paused", "ended"]


class SessionsBody(RequestMessage, frozen=True, kw_only=True):
    """POST /agent/sessions. `plain`: the session passes on what the model writes, and reads no action in it;
    so it is, too, where `params` has a schema or grammar of its own."""

    params: SessionParams | None = None
    plain: bool = False


class Budget(RequestMessage, frozen=True, kw_only=True):
    """The most that an objective may use. `bytes` counts what the model was shown of its observations."""

    iterations: Annotated[int, Meta(ge=1, le=200)] = 20
    tokens: Annotated[int, Meta(ge=1, le=1_000_000)] = 20_000
    seconds: Annotated[int, Meta(ge=1, le=86_400)] = 900
    bytes: Annotated[int, Meta(ge=1, le=67_108_864)] = 1_048_576


class GenerateBody(RequestMessage, frozen=True, kw_only=True):
    """POST /agent/generate. `history` is what the client wants remembered: text or objects, oldest first.
    `detach`: the objective goes on when the client goes away; else it rests then."""

    session_id: Ident
    objective: Objective
    history: Annotated[tuple[Any, ...], Meta(max_length=1000)] = ()
    budget: Budget | None = None
    detach: bool = False


class AbortBody(RequestMessage, frozen=True, kw_only=True):
    """POST /agent/abort."""

    session_id: Ident


class PauseBody(RequestMessage, frozen=True, kw_only=True):
    """POST /agent/pause."""

    session_id: Ident
    reason: Reason | None = None


class ResumeBody(RequestMessage, frozen=True, kw_only=True):
    """POST /agent/resume. `budget`: a new one, which counts from the objective's beginning."""

    session_id: Ident
    budget: Budget | None = None


class ApproveBody(RequestMessage, frozen=True, kw_only=True):
    """POST /agent/approve and /agent/reject: the hash is the one that was shown with the action."""

    session_id: Ident
    action_id: Ident
    plan_hash: Ident
    reason: Reason | None = None


class AnswerBody(RequestMessage, frozen=True, kw_only=True):
    """POST /agent/answer: a person's word to what the model asked."""

    session_id: Ident
    action_id: Ident
    text: Annotated[str, Meta(min_length=1, max_length=4000)]


class ObjectiveUsage(Message, frozen=True, kw_only=True, omit_defaults=False):
    """Usage of an objective so far."""

    iterations: Count
    tokens: Count
    seconds: Annotated[float, Meta(ge=0)]
    bytes: Count


class WaitingFor(Message, frozen=True, kw_only=True):
    """Thing that a session waits for: a person's word on an effect, or an answer."""

    action_id: Ident
    kind: Literal["approval", "answer"]
    plan_hash: Ident | None = None
    tool: Label | None = None
    changes: tuple[dict[str, Any], ...] = ()
    expires: Timestamp | None = None
    question: str | None = None
    options: tuple[str, ...] = ()


class SessionRow(Message, frozen=True, kw_only=True):
    """A session of the action loop."""

    session_id: Ident
    owner: Label
    source: Literal["api", "mcp", "rule"]
    status: SessionStatus
    created_at: Timestamp
    used_at: Timestamp
    objective: str | None = None
    why: str | None = None
    result: Any = None
    tainted: bool = False
    waiting: WaitingFor | None = None
    usage: ObjectiveUsage | None = None
    budget: Budget | None = None


class LoopSessionsAnswer(AnswerMessage, frozen=True, kw_only=True):
    """GET /agent/sessions, the latest first."""

    sessions: tuple[SessionRow, ...]


class LoopSessionAnswer(AnswerMessage, frozen=True, kw_only=True):
    """GET /agent/sessions/{id}."""

    session: SessionRow


class JournalAnswer(AnswerMessage, frozen=True, kw_only=True):
    """GET /agent/sessions/{id}/journal: entries of objectives, actions, decisions and outcomes, in order.
    `next` is there where more follow."""

    entries: tuple[dict[str, Any], ...]
    next: Count | None = None


class JournalQuery(RequestMessage, frozen=True, kw_only=True):
    """GET /agent/sessions/{id}/journal: from which entry on."""

    since: Count = 0


class OutputQuery(RequestMessage, frozen=True, kw_only=True):
    """GET /agent/sessions/{id}/outputs/{output}: a range of a long observation, in characters."""

    offset: Count = 0
    limit: Annotated[int, Meta(ge=1, le=65_536)] = 4096


class OutputAnswer(AnswerMessage, frozen=True, kw_only=True):
    """A range of a long observation, and how long it is."""

    text: str
    total: Count
