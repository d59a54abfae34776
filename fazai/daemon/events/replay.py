"""Brings streams up to date from the event log: new ones, and those whose reader was too slow to follow
live."""

from __future__ import annotations

from fazai.daemon.events.broadcaster import Broadcaster, EventStream, encode_frame
from fazai.store.daemon import DaemonStore
from fazai.timestamps import utc_now
from fazai.wire.events import GapEvent, encode_sse

_BATCH = 1000


async def catch_up(stream: EventStream, broadcaster: Broadcaster, store: DaemonStore) -> None:
    """Bring a stream up to date that could not follow live; then let it follow live again. Its own task."""
    if await replay_log(stream, broadcaster, store):
        broadcaster.join(stream)


async def replay_log(stream: EventStream, broadcaster: Broadcaster, store: DaemonStore) -> bool:
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
