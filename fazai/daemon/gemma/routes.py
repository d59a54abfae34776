"""Plain sessions on the Gemma worker: what the model writes, as a stream of events (SPEC.md, 2.1); no
action is read in it. And the state of the agent system."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal

import msgspec

from fazai import __version__
from fazai.compat.timeouts import deadline
from fazai.daemon.agent_states import WORKER
from fazai.daemon.events.announcer import row_of
from fazai.daemon.gemma.sessions import AgentSession
from fazai.daemon.http.refusal import Refusal
from fazai.daemon.http.routing import STREAM_HEADERS, Route, RouteCall
from fazai.errors import FazaiError, Unreachable
from fazai.providers.gemma.client import GenerationStream
from fazai.timestamps import utc_now
from fazai.wire.base import CONTRACT, MAX_BODY_BYTES, WireError
from fazai.wire.daemon import AgentStatusAnswer, DaemonLimits
from fazai.wire.events import DoneEvent, ErrorEvent, EventBase, TokenEvent, encode_sse
from fazai.wire.sessions import GenerateBody
from fazai.wire.telemetry import MAX_INGEST_BYTES, MAX_INGEST_RECORDS

_GENERATION_S = 130.0


@Route("GET", "/agent/status", "The agent system, its worker and its limits.")
async def show_status(call: RouteCall) -> AgentStatusAnswer:
    """Return the state of the agent system, of its worker, and the limits."""
    try:
        async with deadline(2.0):
            await call.services.sessions.client.status()
        worker: Literal["available", "unavailable"] = "available"
    except (FazaiError, TimeoutError):
        worker = "unavailable"
    return AgentStatusAnswer(
        agent_system="running",
        gemma_worker=worker,
        timestamp=utc_now(),
        contract=CONTRACT,
        version=__version__,
        limits=DaemonLimits(
            max_body_bytes=MAX_BODY_BYTES,
            max_ingest_bytes=MAX_INGEST_BYTES,
            max_ingest_records=MAX_INGEST_RECORDS,
        ),
    )


async def stream_plain(call: RouteCall, body: GenerateBody) -> None:
    """Stream what the model writes to a plain session; each event is in the event log, too, and has its id
    there."""
    services = call.services
    session = services.sessions.find_session(body.session_id, call.who)
    if session.running is not None:
        raise Refusal("session_busy", "an iteration of this session is running", hint="POST /agent/abort")
    task = session.running = asyncio.current_task()
    assert task is not None
    _log(call, f"an iteration begins, for {call.who.name}", body.session_id)
    services.agent_states.begin_generation()
    call.connection.on_lost = lambda: task.cancel("the client went away")
    try:
        # deadline: the route's, RouteEndpoint
        await call.send({"type": "http.response.start", "status": 200, "headers": list(STREAM_HEADERS)})
        try:
            async with deadline(_GENERATION_S), aclosing(_run_iteration(session, body)) as events:
                async for event in events:
                    await _emit(call, body.session_id, event)
        except TimeoutError:
            await _emit(call, body.session_id, _error("it took too long", "timeout"))
        except asyncio.CancelledError:
            if services.stopping:
                raise
            task.uncancel()
            if not call.connection.transport.is_closing():
                await _emit(
                    call, body.session_id, DoneEvent(timestamp=utc_now(), result={"stop_reason": "aborted"})
                )
        # deadline: the route's, RouteEndpoint
        await call.send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        call.connection.on_lost = None
        session.running = None
        services.agent_states.end_generation()


def _log(call: RouteCall, text: str, session_id: str) -> None:
    call.services.log.say(
        "info", text, logger="fazai.daemon.sessions", agent_id=WORKER, session_id=session_id
    )


async def _run_iteration(session: AgentSession, body: GenerateBody) -> AsyncGenerator[EventBase, None]:
    """Yield the events of one iteration: tokens, then `done`, or `error`."""
    try:
        async with session.gemma.stream(_prompt(body)) as stream:  # deadline: `generate`
            async for text in stream.batches():
                yield TokenEvent(timestamp=utc_now(), text=text)
            yield DoneEvent(timestamp=utc_now(), result=_result(stream))
    except Unreachable as error:
        yield _error(error.message, "worker_unavailable")
    except WireError as error:
        yield _error(error.message, error.code)
    except FazaiError as error:
        yield _error(error.message, "internal")


def _error(message: str, code: str) -> ErrorEvent:
    return ErrorEvent(timestamp=utc_now(), message=message, code=code)


def _prompt(body: GenerateBody) -> str:
    """Return the objective, below what the client wants remembered."""
    lines = history_texts(body)
    return "\n".join([*lines, "", body.objective]) if lines else body.objective


def history_texts(body: GenerateBody) -> tuple[str, ...]:
    """Return what the client wants remembered as texts, the oldest first."""
    return tuple(one if isinstance(one, str) else msgspec.json.encode(one).decode() for one in body.history)


def _result(stream: GenerationStream) -> dict[str, Any]:
    result: dict[str, Any] = {"stop_reason": stream.reason or "eos"}
    if stream.usage is not None:
        result["usage"] = msgspec.to_builtins(stream.usage)
    return result


async def _emit(call: RouteCall, session_id: str, event: EventBase) -> None:
    if isinstance(event, DoneEvent | ErrorEvent):
        said = event.result["stop_reason"] if isinstance(event, DoneEvent) else event.message
        _log(call, f"the iteration ended: {said}", session_id)
    event = msgspec.structs.replace(event, session_id=session_id)
    ids = await call.services.store.publish([row_of(event)])
    frame = encode_sse(ids[0], event)  # type: ignore[arg-type]
    # deadline: the route's, RouteEndpoint
    await call.send({"type": "http.response.body", "body": frame, "more_body": True})


ROUTES = (show_status,)
