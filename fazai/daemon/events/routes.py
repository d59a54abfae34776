"""/events: the operators' stream of events (server-sent events), and the reports of runs (SPEC.md, 2.2)."""

from __future__ import annotations

import asyncio

from fazai.daemon.events.broadcaster import EventFilter, EventStream
from fazai.daemon.events.replay import replay_log
from fazai.daemon.http.refusal import Refusal
from fazai.daemon.http.routing import STREAM_HEADERS, HttpReply, Route, RouteCall, epoch_us, reply
from fazai.daemon.services import Services
from fazai.wire.daemon import EventsQuery, ReportAnswer, ReportBody, decode_events_query
from fazai.wire.events import is_event_id

_CLOSE = (b"connection", b"close")
#: With where it begins: who loses the connection before the first event comes back there and misses none.
_HELLO = b"retry: 2000\n: fazai\nid: %d\n\n"


@Route(
    "GET",
    "/events",
    "The operators' stream of events.",
    read_query=decode_events_query,
    media="text/event-stream",
    codes=("overloaded",),
    timeout_s=None,
)
async def stream_events(call: RouteCall, query: EventsQuery) -> None:
    """Serve one stream until its client goes, or the daemon stops."""
    services = call.services
    if services.stopping:
        raise Refusal("overloaded", "the daemon is stopping", headers=((b"retry-after", b"2"),))
    if call.scope["http_version"] == "1.0":
        hint = "in a proxy such as nginx: proxy_http_version 1.1"
        raise Refusal("bad_request", "a stream needs HTTP/1.1", hint=hint)
    position = await _start_position(call, query, services)
    if call.scope["method"] == "HEAD":
        await reply(call.send, HttpReply(b"", media="text/event-stream"))
        return
    if len(services.broadcaster.streams) >= services.settings.limits.connections:
        raise Refusal("overloaded", "there are too many streams", headers=((b"retry-after", b"10"),))
    broadcaster = services.broadcaster
    stream = EventStream(call.connection, call.who, _event_filter(query), position)
    broadcaster.add(stream)
    try:
        # deadline: the connection's, HttpConnection.pause_writing
        await call.send({"type": "http.response.start", "status": 200, "headers": [*STREAM_HEADERS, _CLOSE]})
        # deadline: the connection's, HttpConnection.pause_writing
        await call.send({"type": "http.response.body", "body": _HELLO % position, "more_body": True})
        stream.file = stream.connection.begin_stream(broadcaster.stream_bytes)
        if await replay_log(stream, broadcaster, services.store) and query.follow:
            broadcaster.join(stream)  # nothing was awaited since its position was the broadcaster's
    except asyncio.CancelledError:
        if not stream.is_over():
            raise
    finally:
        if stream.task is not None:
            broadcaster.remove(stream)


def _event_filter(query: EventsQuery) -> EventFilter:
    return EventFilter(
        frozenset(query.types), query.target, query.run, query.session, query.agent, query.level
    )


async def _start_position(call: RouteCall, query: EventsQuery, services: Services) -> int:
    """Return the id after which the stream begins: Last-Event-ID (which a browser sends when it comes back,
    with the same URL) before `since` and `since_time`; nothing given: now."""
    last = call.header(b"last-event-id")
    if last is not None:
        if not is_event_id(last):
            raise Refusal(
                "bad_query", "Last-Event-ID is no id of an event", hint="leave it out, or send the last id"
            )
        return int(last)
    if query.since is not None:
        return query.since
    if query.since_time is not None:
        return await services.store.event_id_at(epoch_us(query.since_time))
    return services.broadcaster.sent_id


@Route(
    "POST",
    "/events",
    "Events of a run, from the reconciler that carries it out.",
    role="operator",
    codes=("unavailable",),
)
async def accept_report(call: RouteCall, body: ReportBody) -> ReportAnswer:
    """Store a batch of events of one run."""
    own = call.services.run_queue.records.get(body.run_id) is not None
    return await call.services.reports.accept(body, call.who, own=own)


ROUTES = (stream_events, accept_report)
