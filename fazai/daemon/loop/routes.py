"""/agent/*: sessions of the action loop (SPEC.md, 2.1): opened, given objectives, approved, answered,
shown."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from fazai.compat.timeouts import deadline
from fazai.daemon.agent_states import WORKER
from fazai.daemon.events.broadcaster import COMMENT
from fazai.daemon.gemma.routes import history_texts, stream_plain
from fazai.daemon.http.refusal import Refusal
from fazai.daemon.http.routing import STREAM_HEADERS, Route, RouteCall
from fazai.daemon.loop.session import LoopSession, now
from fazai.loop.journal import encode_entry
from fazai.timestamps import timestamp
from fazai.wire.base import OkAnswer, SessionAnswer
from fazai.wire.sessions import (
    AbortBody,
    AnswerBody,
    ApproveBody,
    GenerateBody,
    JournalAnswer,
    JournalQuery,
    LoopSessionAnswer,
    LoopSessionsAnswer,
    ObjectiveUsage,
    OutputAnswer,
    OutputQuery,
    PauseBody,
    ResumeBody,
    SessionRow,
    SessionsBody,
    WaitingFor,
)

_QUEUE = 4096  # frames that a slow reader may be behind
_GRACE_S = 60.0  # beyond an objective's own time
_ENTRIES = 200  # of a journal, in one answer
_SECOND_S = 1.0


@Route(
    "POST",
    "/agent/sessions",
    "Open a session.",
    role="operator",
    codes=("worker_unavailable", "overloaded", "schema_unsupported"),
)
async def create_session(call: RouteCall, body: SessionsBody) -> SessionAnswer:
    """Open a session for the client; a plain one is open at the worker, too."""
    services, params = call.services, body.params
    shaped = params is not None and (params.json_schema is not None or params.grammar is not None)
    if body.plain or shaped:
        session_id = await services.sessions.open_session(call.who.name, params)
    else:
        session_id = (await services.loop.open(call.who.name, params)).session_id
    _log(call, f"{call.who.name} opened a session", session_id)
    return SessionAnswer(session_id=session_id)


@Route(
    "POST",
    "/agent/generate",
    "Give a session an objective, and watch it.",
    role="operator",
    media="text/event-stream",
    codes=("unknown_session", "session_busy"),
    timeout_s=None,
)
async def stream_objective(call: RouteCall, body: GenerateBody) -> None:
    """Stream an objective until it ends or waits for a person; each event is in the event log, too, and has
    its id there. Of a plain session: what the model writes."""
    if call.services.sessions.has(body.session_id):
        await stream_plain(call, body)
        return
    loop = call.services.loop
    session = loop.find_own(body.session_id, call.who)
    frames: asyncio.Queue[bytes] = asyncio.Queue(_QUEUE)
    lost = asyncio.Event()

    def take(frame: bytes) -> None:
        try:
            frames.put_nowait(frame)
        except asyncio.QueueFull:  # the log has all of it: GET /events
            lost.set()

    with loop.watch(session, take):
        _log(call, f"an objective begins, for {call.who.name}", body.session_id)
        history = history_texts(body)
        await loop.start(session, body.objective, call.who.name, history=history, budget=body.budget)
        call.connection.on_lost = lost.set
        try:
            async with deadline(session.state.budget.seconds + _GRACE_S):
                await _send_frames(call, session, frames, lost)
        except TimeoutError:  # an effect may take longer than the objective: GET /events has the rest
            await _pass_on(call, b"", more=False)
        finally:
            call.connection.on_lost = None
            if lost.is_set() and session.running and not body.detach:
                await loop.pause(session, call.who.name, "the client went away")


async def _send_frames(
    call: RouteCall, session: LoopSession, frames: asyncio.Queue[bytes], lost: asyncio.Event
) -> None:
    """Send what the session says until it rests, or the client is gone."""
    # deadline: the caller's
    await call.send({"type": "http.response.start", "status": 200, "headers": list(STREAM_HEADERS)})
    gone = asyncio.ensure_future(lost.wait())  # deadline: the caller's
    try:
        while not lost.is_set():
            if frames.empty() and not session.running:
                break
            taken = asyncio.ensure_future(frames.get())
            waits = {taken, gone, *([session.task] if session.task is not None else [])}
            beat_s = call.services.settings.limits.heartbeat_s
            done, _ = await asyncio.wait(waits, timeout=beat_s, return_when=asyncio.FIRST_COMPLETED)
            if not done:  # a proxy would cut off what is silent
                await _pass_on(call, COMMENT, more=True)
            if not taken.done():
                taken.cancel()
                continue
            await _pass_on(call, taken.result(), more=True)
        if not lost.is_set():
            await _pass_on(call, b"", more=False)
    finally:
        gone.cancel()


async def _pass_on(call: RouteCall, body: bytes, *, more: bool) -> None:
    # deadline: the caller's, and the connection's
    await call.send({"type": "http.response.body", "body": body, "more_body": more})


@Route("POST", "/agent/abort", "End the objective that runs.", role="operator", codes=("unknown_session",))
async def abort_objective(call: RouteCall, body: AbortBody) -> OkAnswer:
    """End the objective; its stream says so. Raises WireError(unknown_session)."""
    plain, loop = call.services.sessions, call.services.loop
    if plain.has(body.session_id):
        if plain.find_session(body.session_id, call.who).running is not None:
            _log(call, f"{call.who.name} aborts the iteration", body.session_id)
        plain.abort(body.session_id, call.who)
        return OkAnswer()
    session = loop.find_own(body.session_id, call.who)
    _log(call, f"{call.who.name} aborts the objective", body.session_id)
    await loop.abort(session, call.who.name)
    return OkAnswer()


def _log(call: RouteCall, text: str, session_id: str) -> None:
    call.services.log.say(
        "info", text, logger="fazai.daemon.sessions", agent_id=WORKER, session_id=session_id
    )


@Route(
    "POST",
    "/agent/pause",
    "Let an objective rest.",
    role="operator",
    codes=("unknown_session", "conflict"),
)
async def pause_objective(call: RouteCall, body: PauseBody) -> OkAnswer:
    """Let an objective rest until it is resumed. Raises Refusal."""
    session = call.services.loop.find_own(body.session_id, call.who)
    await call.services.loop.pause(session, call.who.name, body.reason or "")
    return OkAnswer()


@Route("POST", "/agent/resume", "Go on with it.", role="operator", codes=("unknown_session", "conflict"))
async def resume_objective(call: RouteCall, body: ResumeBody) -> OkAnswer:
    """Go on with an objective that rests; its events are on GET /events. Raises Refusal."""
    session = call.services.loop.find_own(body.session_id, call.who)
    await call.services.loop.resume(session, call.who.name, body.budget)
    return OkAnswer()


@Route(
    "POST",
    "/agent/approve",
    "Let a proposed change happen.",
    role="operator",
    codes=("unknown_session", "conflict", "plan_mismatch"),
)
async def approve_effect(call: RouteCall, body: ApproveBody) -> OkAnswer:
    """Approve a proposal by the hash that was shown with it; the session goes on. Raises Refusal."""
    loop = call.services.loop
    session = loop.find(body.session_id)  # whoever may approve, not only whose session it is
    await loop.approve(session, body.action_id, body.plan_hash, call.who, body.reason)
    return OkAnswer()


@Route(
    "POST",
    "/agent/reject",
    "Refuse a proposed change.",
    role="operator",
    codes=("unknown_session", "conflict", "plan_mismatch"),
)
async def reject_effect(call: RouteCall, body: ApproveBody) -> OkAnswer:
    """Reject a proposal: it cannot be proposed again until what it rests on changes. Raises Refusal."""
    loop = call.services.loop
    session = loop.find(body.session_id)
    await loop.reject(session, body.action_id, body.plan_hash, call.who, body.reason)
    return OkAnswer()


@Route(
    "POST",
    "/agent/answer",
    "Answer what the model asked.",
    role="operator",
    codes=("unknown_session", "conflict"),
)
async def answer_question(call: RouteCall, body: AnswerBody) -> OkAnswer:
    """Answer a question; the session goes on. Raises Refusal."""
    session = call.services.loop.find_own(body.session_id, call.who)
    await call.services.loop.answer(session, body.action_id, body.text, call.who)
    return OkAnswer()


# -- showing


@Route("GET", "/agent/sessions", "The sessions of the action loop.")
async def list_sessions(call: RouteCall) -> LoopSessionsAnswer:
    """Return all sessions, the one that was used last first."""
    rows = sorted(call.services.loop.all(), key=lambda one: one.record.used, reverse=True)
    return LoopSessionsAnswer(sessions=tuple(map(_row, rows)))


@Route("GET", "/agent/sessions/{id}", "One of them.", codes=("unknown_session",))
async def show_session(call: RouteCall) -> LoopSessionAnswer:
    """Return a session. Raises WireError(unknown_session)."""
    return LoopSessionAnswer(session=_row(call.services.loop.find(call.path["id"])))


def _row(session: LoopSession) -> SessionRow:
    record, state = session.record, session.state
    has = bool(state.objective)
    return SessionRow(
        session_id=record.session_id,
        owner=record.owner,
        source=record.source,
        status=state.status,
        created_at=timestamp(record.created),
        used_at=timestamp(record.used),
        objective=state.objective or None,
        why=state.why or None,
        result=state.result,
        tainted=state.tainted,
        waiting=_waiting(session),
        usage=ObjectiveUsage(
            iterations=state.spent.iterations,
            tokens=state.spent.tokens,
            seconds=round(state.spent.elapsed(now()), 3),
            bytes=state.spent.bytes,
        )
        if has
        else None,
        budget=state.budget if has else None,
    )


def _waiting(session: LoopSession) -> WaitingFor | None:
    waiting = session.state.waiting
    if waiting is None:
        return None
    effect = session.state.effects.get(waiting.action_id)
    if effect is None:
        return WaitingFor(
            action_id=waiting.action_id,
            kind="answer",
            question=waiting.question,
            options=waiting.options,
        )
    changes: tuple[Any, ...] = tuple(msgspec.to_builtins(one) for one in effect.changes)
    return WaitingFor(
        action_id=waiting.action_id,
        kind="approval",
        plan_hash=effect.digest,
        tool=effect.tool,
        changes=changes,
        expires=timestamp(effect.expires),
    )


@Route("GET", "/agent/sessions/{id}/journal", "Its journal.", codes=("unknown_session",))
async def show_journal(call: RouteCall, query: JournalQuery) -> JournalAnswer:
    """Return entries of a journal. Raises WireError(unknown_session)."""
    entries = call.services.loop.find_own(call.path["id"], call.who).journal()
    shown = entries[query.since : query.since + _ENTRIES]
    after = query.since + len(shown)
    return JournalAnswer(
        entries=tuple(msgspec.json.decode(encode_entry(entry)) for entry in shown),
        next=after if after < len(entries) else None,
    )


@Route("GET", "/agent/sessions/{id}/outputs/{output}", "A long observation.", codes=("unknown_session",))
async def show_output(call: RouteCall, query: OutputQuery) -> OutputAnswer:
    """Return a range of an observation of which the model was shown a part. Raises WireError, Refusal."""
    session = call.services.loop.find_own(call.path["id"], call.who)
    data = await call.services.store.sessions.output(session.session_id, call.path["output"])
    if data is None:
        raise Refusal("not_found", f"there is no output {call.path['output'][:64]!r}")
    text = data.decode("utf-8", "replace")
    return OutputAnswer(text=text[query.offset : query.offset + query.limit], total=len(text))


ROUTES = (
    *(create_session, stream_objective, abort_objective, pause_objective, resume_objective),
    *(approve_effect, reject_effect, answer_question),
    *(list_sessions, show_session, show_journal, show_output),
)
