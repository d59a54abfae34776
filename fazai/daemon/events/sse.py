"""GET /events: a stream of events from its first to its last byte (server-sent events, SPEC.md, 2.2)."""

from __future__ import annotations

import asyncio

from fazai.daemon.events.broadcaster import Broadcaster, EventFilter, EventStream, encode_frame
from fazai.daemon.http.auth import Guard
from fazai.daemon.http.refusal import Refusal
from fazai.daemon.http.routing import HttpReply, Route, RouteCall, epoch_us, reply
from fazai.daemon.services import Services
from fazai.store.daemon import DaemonStore
from fazai.timestamps import utc_now
from fazai.wire.daemon import EventsQuery, decode_events_query
from fazai.wire.events import ErrorEvent, GapEvent, encode_sse, is_event_id

__all__ = ["ROUTES", "catch_up", "end_revoked_streams", "stream_events"]

#: With where it begins: who loses the connection before the first event comes back there and misses none.
_HELLO = b"retry: 2000\n: fazai\nid: %d\n\n"
_BATCH = 1000
_LOOK_S = 1.0  # streams of a token that was revoked end after at most so long
_HEADERS = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would collect them
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"connection", b"close"),
)


async def stream_events(call: RouteCall) -> None:
    """Serve one stream until its client goes, or the daemon stops."""
    query: EventsQuery = call.query
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
        await call.send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
        # deadline: the connection's, HttpConnection.pause_writing
        await call.send({"type": "http.response.body", "body": _HELLO % position, "more_body": True})
        stream.file = stream.connection.begin_stream(broadcaster.stream_bytes)
        if await _catch_up(stream, broadcaster, services.store) and query.follow:
            broadcaster.join(stream)  # nothing was awaited since its position was the broadcaster's
    except asyncio.CancelledError:
        if not stream.is_over():
            raise
    finally:
        if stream.task is not None:
            broadcaster.remove(stream)


async def catch_up(stream: EventStream, broadcaster: Broadcaster, store: DaemonStore) -> None:
    """Bring a stream up to date that could not follow live; then let it follow live again. Its own task."""
    if await _catch_up(stream, broadcaster, store):
        broadcaster.join(stream)


async def end_revoked_streams(broadcaster: Broadcaster, guard: Guard) -> None:
    """End the streams of clients that may no longer read them, until the daemon stops."""
    while True:
        await asyncio.sleep(_LOOK_S)
        streams = broadcaster.streams
        await guard.refresh()  # deadline: Guard.refresh
        gone = {who for who in {stream.who for stream in streams} if not guard.is_still_valid(who)}
        why = "the token was revoked, or has expired"
        event = ErrorEvent(timestamp=utc_now(), message=why, code="unauthorized")
        for stream in [stream for stream in streams if stream.who in gone and not stream.stopping]:
            broadcaster.end(stream, event)


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


async def _catch_up(stream: EventStream, broadcaster: Broadcaster, store: DaemonStore) -> bool:
    """Write from the log until the stream is where the live ones are. Return False when it was ended."""
    if stream.position > broadcaster.sent_id:  # an id of another log: begin anew, and say so
        stream.position = 0
    if stream.unsent > broadcaster.stream_bytes and not await _wait_for_reader(stream, broadcaster):
        return False
    while stream.position < broadcaster.sent_id and not stream.is_over():
        up_to = broadcaster.sent_id
        found = broadcaster.recent_events(stream.position, up_to)
        if found is None:
            _write_trim_gap(stream, store.event_range()[0])
            rows = await store.events_after(stream.position, _BATCH)
            if store.event_range()[0] > stream.position + 1:
                continue  # trimmed meanwhile: that is said first
            found = [(row, encode_frame(row)) for row in rows if row.id <= up_to]
            if not found:  # the rest was trimmed, or ids were skipped
                stream.position = max(stream.position, min(up_to, store.event_range()[0] - 1))
                if not rows or rows[0].id > up_to:
                    stream.position = up_to
                continue
        if stream.is_over():
            return False
        block = b"".join(frame for event, frame in found if stream.filter.wants(event))
        if block:
            stream.write(block)
        stream.position = found[-1][0].id
        if stream.unsent > broadcaster.stream_bytes and not await _wait_for_reader(stream, broadcaster):
            return False
    return not stream.is_over()


def _write_trim_gap(stream: EventStream, first: int) -> None:
    """Write a gap where events that the stream has not had are no longer in the log."""
    if first > stream.position + 1:
        gap = GapEvent(
            timestamp=utc_now(), lost_from=stream.position + 1, lost_to=first - 1, reason="trimmed"
        )
        stream.write(encode_sse(first - 1, gap))
        stream.position = first - 1


async def _wait_for_reader(stream: EventStream, broadcaster: Broadcaster) -> bool:
    """Wait until the client took what is unsent. One that takes nothing for `stall_s` is cut off, with a gap
    whose id is the last one written: coming back with it, the client misses nothing."""
    left = stream.unsent
    until = broadcaster.monotonic() + broadcaster.stall_s
    while left > broadcaster.stream_bytes // 2:
        if stream.is_over():
            return False
        if (now := broadcaster.monotonic()) >= until:
            gap = GapEvent(
                timestamp=utc_now(),
                lost_from=stream.position + 1,
                lost_to=max(broadcaster.last_id, stream.position + 1),
                reason="slow_reader",
            )
            stream.write(encode_sse(stream.position, gap))
            broadcaster.cut_off += 1
            return False
        await stream.wait_drained(min(1.0, until - now))
        if stream.unsent < left:
            left, until = stream.unsent, broadcaster.monotonic() + broadcaster.stall_s
    return True


ROUTES = (
    Route(
        method="GET",
        path="/events",
        summary="The operators' stream of events.",
        handler=stream_events,
        query=EventsQuery,
        read_query=decode_events_query,
        media="text/event-stream",
        codes=("overloaded",),
        timeout_s=None,
    ),
)
