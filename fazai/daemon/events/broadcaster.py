"""One broadcaster for all streams of events.

Each event is encoded once. Streams with the same filter form a group; what piled up since the last delivery
goes out as one chunk of bytes, the same object to every member. A stream whose reader has not taken
`stream_bytes` leaves its group and reads on from the log at its own pace (`replay.py`), so that no burst is
lost and none is buffered for it.
"""

from __future__ import annotations

import asyncio
import os
import time
from bisect import bisect_right
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fazai.compat.timeouts import deadline
from fazai.daemon.events.announcer import log_event
from fazai.daemon.http.auth import Principal
from fazai.daemon.http.server import HttpConnection
from fazai.daemon.settings import ServerLimits
from fazai.service.prometheus import Family, Histogram, Metric
from fazai.store.daemon import StoredEvent
from fazai.wire.events import Event, Level, encode_sse

_LEVELS = ("debug", "info", "warning", "error", "critical")
_BLOCK_BYTES = 64 * 1024
_REST_S = 0.1  # the longest pause between two deliveries of a busy broadcaster
_BUSY = 1.0  # it rests so many times as long as it took
_QUICK_S = 0.002
COMMENT = b": \n\n"
_DELIVERY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_STREAMS = Metric("fazai_sse_streams", "gauge", "Open streams.")
_DELIVERED = Metric("fazai_sse_delivered_total", "counter", "Events written onto streams that follow live.")
_CUT_OFF = Metric(
    "fazai_sse_cut_off_total", "counter", "Streams that ended because their reader was too slow."
)


@dataclass(frozen=True, slots=True)
class EventFilter:
    """The events that a stream wants; None and empty mean all. `level` is about `log` events alone."""

    types: frozenset[str] = frozenset()
    target: str | None = None
    run: str | None = None
    session: str | None = None
    agent: str | None = None
    level: Level | None = None

    def wants(self, event: StoredEvent) -> bool:
        """Return whether an event passes the filter."""
        return (
            (not self.types or event.type in self.types)
            and (self.target is None or event.target == self.target)
            and (self.run is None or event.run == self.run)
            and (self.session is None or event.session == self.session)
            and (self.agent is None or event.agent == self.agent)
            and (self.level is None or event.type != "log" or _is_at_least(event.level, self.level))
        )


def _is_at_least(level: str | None, wanted: str) -> bool:
    """Return whether a level is known, and at least as grave as the wanted one."""
    return level in _LEVELS and _LEVELS.index(level) >= _LEVELS.index(wanted)


def encode_frame(event: StoredEvent) -> bytes:
    """Return the event in the format of server-sent events."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.id, event.type.encode(), event.data)


def encode_chunk(block: bytes) -> bytes:
    """Return the block as a chunk of HTTP/1.1's chunked encoding."""
    return b"%x\r\n%b\r\n" % (len(block), block)


class EventStream:
    """A client's stream of events. `position` is the last id that was written to it, or passed over by its
    filter; while it follows live, the broadcaster knows better. `task` brings it up to date while it does
    not."""

    __slots__ = ("connection", "file", "filter", "position", "stopping", "task", "who")

    def __init__(
        self, connection: HttpConnection, who: Principal, wanted: EventFilter, position: int
    ) -> None:
        self.connection = connection
        self.who = who
        self.filter = wanted
        self.position = position
        self.task: asyncio.Task[Any] | None = None
        self.file = -1
        self.stopping = False

    def is_over(self) -> bool:
        """Return whether the client is gone, or the stream is being ended."""
        return self.stopping or self.connection.transport.is_closing()

    @property
    def unsent(self) -> int:
        """The bytes that the client has not taken yet."""
        return self.connection.transport.get_write_buffer_size()

    def write(self, block: bytes) -> None:
        """Write a block as one chunk, through the transport."""
        self.connection.transport.write(encode_chunk(block))

    def send(self, chunk: bytes) -> None:
        """Write a chunk at once, past the transport where that has nothing queued: half the cost of asking it
        to."""
        transport = self.connection.transport
        if transport.is_closing():  # its file may be another's by now
            return
        if self.file < 0 or transport.get_write_buffer_size():
            transport.write(chunk)
            return
        try:
            sent = os.write(self.file, chunk)
        except BlockingIOError:
            sent = 0
        except OSError:  # the reader is gone, as the transport learns itself
            return
        if sent < len(chunk):
            transport.write(chunk[sent:])

    async def wait_drained(self, timeout_s: float) -> None:
        """Wait until the client took most of what is unsent, or is gone; at most `timeout_s`."""
        future = asyncio.get_running_loop().create_future()
        connection = self.connection
        connection.on_drained = lambda: None if future.done() else future.set_result(None)
        try:
            async with deadline(timeout_s):
                await future
        except TimeoutError:
            pass
        finally:
            connection.on_drained = None


class Broadcaster:
    """Writes each event to all streams that want it. Runs on one event loop; the store's listener hands
    events over to `publish`."""

    def __init__(self, limits: ServerLimits, last_id: int) -> None:
        self._limits = limits
        self.stream_bytes = limits.stream_bytes
        self.stall_s = limits.stall_s
        self.monotonic: Callable[[], float] = time.monotonic  # by which a reader stalls
        self._groups: dict[EventFilter, set[EventStream]] = {}
        self._ids: list[int] = []
        self._recent: list[tuple[StoredEvent, bytes]] = []
        self._recent_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._beat: asyncio.TimerHandle | None = None
        self.sent_id = last_id  # the position of all that follow live
        self.last_id = last_id
        self.delivery = Histogram(
            "fazai_sse_delivery_seconds", "From an event to its writing onto a stream.", _DELIVERY_S
        )
        self.delivered = 0
        self.cut_off = 0
        self.streams: set[EventStream] = set()
        self._awaited: list[tuple[int, asyncio.Future[None]]] = []
        #: What brings a stream up to date that cannot follow live.
        self.catch_up: Callable[[EventStream], Coroutine[Any, Any, None]] | None = None

    # -- events in

    def publish(self, events: Sequence[StoredEvent]) -> None:
        """Take over new events, in the order of their ids. To be called on the loop."""
        for event in events:
            if event.id <= self.last_id:
                continue
            frame = encode_frame(event)
            self._ids.append(event.id)
            self._recent.append((event, frame))
            self._recent_bytes += len(frame)
            self.last_id = event.id
        self._trim()
        self._schedule(0.0)
        for wanted, future in self._awaited:
            if wanted <= self.last_id and not future.done():
                future.set_result(None)

    async def wait_for_event(self, id_: int) -> None:
        """Wait until the event of this id was taken over."""
        if self.last_id < id_:
            future = asyncio.get_running_loop().create_future()
            self._awaited.append((id_, future))
            await future
            self._awaited.remove((id_, future))

    def _trim(self) -> None:
        """Forget the oldest tenth of the events in memory at once, so that it is seldom done."""
        if self._recent_bytes <= self._limits.recent_bytes:
            return
        drop = 0
        while drop < len(self._recent) and self._recent_bytes > self._limits.recent_bytes * 0.9:
            self._recent_bytes -= len(self._recent[drop][1])
            drop += 1
        del self._ids[:drop], self._recent[:drop]

    def forget_recent(self) -> None:
        """Keep no event in memory: whoever is behind reads the log."""
        self._deliver()
        self._ids.clear()
        self._recent.clear()
        self._recent_bytes = 0

    def recent_events(self, position: int, up_to: int) -> list[tuple[StoredEvent, bytes]] | None:
        """Return the events after `position` that are in memory, about a block of them; None when memory
        begins later."""
        if not self._ids or self._ids[0] > position + 1:
            return None
        found: list[tuple[StoredEvent, bytes]] = []
        size, first = 0, bisect_right(self._ids, position)
        for event, frame in self._recent[first : first + 1000]:
            size += len(frame)
            if event.id > up_to or (found and size > _BLOCK_BYTES):
                break
            found.append((event, frame))
        return found

    # -- events out

    def _schedule(self, rest_s: float) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(rest_s, self._deliver)

    def _deliver(self) -> None:
        self._timer = None
        if self.sent_id >= self.last_id:
            return
        begun = time.monotonic()
        batch = self.recent_events(self.sent_id, self.last_id)
        if batch:
            self._to_groups(batch)
            self.sent_id = batch[-1][0].id
        else:  # a burst larger than the memory: all read on from the log
            for stream in [one for group in self._groups.values() for one in group]:
                self._leave(stream, self.sent_id)
            self.sent_id = self.last_id
        rest_s = min(_REST_S, _BUSY * (time.monotonic() - begun))
        if self.sent_id < self.last_id or rest_s > _QUICK_S:  # what comes meanwhile goes out together
            self._schedule(rest_s)

    def _to_groups(self, batch: list[tuple[StoredEvent, bytes]]) -> None:
        whole: bytes | None = None
        limit, deliveries = self.stream_bytes, 0
        for wanted, group in self._groups.items():
            frames = [frame for event, frame in batch if wanted.wants(event)]
            if not frames:
                continue
            if len(frames) == len(batch):
                whole = chunk = whole or encode_chunk(b"".join(frames))
            else:
                chunk = encode_chunk(b"".join(frames))
            behind: list[EventStream] = []
            for stream in group:
                if stream.unsent > limit:
                    behind.append(stream)
                else:
                    stream.send(chunk)
            for stream in behind:
                self._leave(stream, self.sent_id)
            deliveries += len(frames) * (len(group))
        self.delivered += deliveries
        if deliveries:
            self.delivery.observe(max(0.0, time.time() - batch[0][0].time_us / 1e6), deliveries)

    # -- streams

    def join(self, stream: EventStream) -> None:
        """Let a stream follow live from now on; its position is `sent_id`."""
        stream.task = None
        self._groups.setdefault(stream.filter, set()).add(stream)

    def _leave(self, stream: EventStream, position: int) -> None:
        """Let a stream that cannot follow live read on from the log."""
        assert self.catch_up is not None, "whoever builds the broadcaster says how"
        self._groups[stream.filter].discard(stream)
        stream.position = position
        task = stream.task = asyncio.get_running_loop().create_task(self.catch_up(stream))
        task.add_done_callback(lambda _: self.remove(stream) if stream.task is task else None)

    def add(self, stream: EventStream) -> None:
        """Register a new stream, which its `task` brings up to date."""
        self.streams.add(stream)
        stream.task = asyncio.current_task()
        stream.connection.on_lost = lambda: self._lost(stream)
        if self._beat is None:
            self._beat = asyncio.get_running_loop().call_later(self._limits.heartbeat_s, self._heartbeat)

    def _lost(self, stream: EventStream) -> None:
        if stream.task is None:
            self.remove(stream)
        else:
            stream.task.cancel()

    def remove(self, stream: EventStream) -> None:
        """Forget a stream; its connection ends when what was written to it is taken."""
        self.streams.discard(stream)
        group = self._groups.get(stream.filter)
        if group is not None:
            group.discard(stream)
            if not group:
                del self._groups[stream.filter]
        stream.task = stream.connection.on_lost = None
        stream.connection.end_stream()

    def _heartbeat(self) -> None:
        comment = encode_chunk(COMMENT)
        for stream in self.streams:
            if not stream.is_over() and stream.unsent == 0:
                stream.send(comment)
        loop = asyncio.get_running_loop()
        self._beat = loop.call_later(self._limits.heartbeat_s, self._heartbeat) if self.streams else None

    def end_all(self, text: str) -> None:
        """Deliver what is there, tell every stream that the daemon stops, and end it."""
        while self.sent_id < self.last_id:
            self._deliver()
        for timer in (self._timer, self._beat):
            if timer is not None:
                timer.cancel()
        event = log_event("info", text, "fazai.daemon")
        for stream in list(self.streams):
            self.end(stream, event)

    def end(self, stream: EventStream, event: Event) -> None:
        """Write a last event to a stream, and end it. The event has the id of the one before it."""
        position = self.sent_id if stream.task is None else stream.position
        if not stream.is_over():
            stream.write(encode_sse(position, event))
        stream.stopping = True
        if stream.task is None:
            self.remove(stream)
        else:
            stream.task.cancel()

    def families(self) -> Iterable[Family]:
        """Return the metrics of the streams."""
        yield self.delivery.family()
        yield _STREAMS.single(len(self.streams))
        yield _DELIVERED.single(self.delivered)
        yield _CUT_OFF.single(self.cut_off)
