"""Writes of telemetry: what the writer's thread does with samples, and what it remembers of each host.

Since the last span of a host its newest records are known from memory (the tail), which the heads of the
chunks in `fresh` rebuild after a restart. So a sample costs no write of its own: one row a commit.
"""

from __future__ import annotations

import sqlite3
import threading
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from fazai.store.daemon import GAUGES, HostRecord, NewSample
from fazai.store.sqlite.telemetry import packing
from fazai.store.sqlite.telemetry.packing import CHUNK_BYTES, MAX_ORDINAL, Packer, Row, ref_of

T = TypeVar("T")

NEVER = -(1 << 62)
_NOTHING = (float("nan"),) * len(GAUGES)
SMALL = 8  # records: a chunk with fewer is merged with others of its kind
_AHEAD_US = 300_000_000
_LEARN = 0.25  # weight of the newest time between two records
_LONGEST_S = 86_400.0  # what an agent may declare is no longer, either
_SURE_S = 3600.0  # a longer gap must have passed for the daemon, too


class HostTail:
    """Newest records of a host, in memory. `times` (sorted), `refs` and `gauges` run side by side: the tail.
    `top` is the greatest time that was ever stored: what is later cannot be a duplicate."""

    __slots__ = ("declared", "dirty", "gauges", "id", "record", "refs", "times", "top")

    def __init__(self, id_: int, record: HostRecord) -> None:
        self.id = id_
        self.record = record
        self.declared = False
        self.dirty = True
        self.top = record.time_us
        self.times = array("q")
        self.refs = array("q")
        self.gauges = array("d")

    def knows(self, time_us: int) -> bool:
        place = bisect_left(self.times, time_us)
        return place < len(self.times) and self.times[place] == time_us

    def follow(self, sample: NewSample, ref: int, now_us: int) -> None:
        """`remember` and `_update_record` in one, for a record that is later than all before it."""
        name, time_us, _, gauges, interval_s, _ = sample
        self.times.append(time_us)
        self.refs.append(ref)
        self.gauges.extend(gauges)
        self.top = time_us
        self.dirty = True
        _, last_us, seen_us, records, known_s, silent, _ = self.record
        if interval_s > 0:
            self.declared = True
        elif last_us != NEVER and not self.declared:
            interval_s = _learn_interval(known_s, (time_us - last_us) / 1e6, (now_us - seen_us) / 1e6)
        else:
            interval_s = known_s
        if now_us > seen_us:
            seen_us = now_us
        self.record = HostRecord(name, time_us, seen_us, records + 1, interval_s, silent, gauges)

    def remember(self, time_us: int, ref: int, gauges: tuple[float, ...]) -> None:
        self.top = max(self.top, time_us)
        if not self.times or time_us > self.times[-1]:
            self.times.append(time_us)
            self.refs.append(ref)
            self.gauges.extend(gauges)
            return
        place = bisect_left(self.times, time_us)
        if place < len(self.times) and self.times[place] == time_us:
            self.refs[place] = ref
            return
        self.times.insert(place, time_us)
        self.refs.insert(place, ref)
        width = len(GAUGES)
        self.gauges[place * width : place * width] = array("d", gauges)

    def move(self, time_us: int, old: int, new: int) -> None:
        """Note that the record lies elsewhere now."""
        place = bisect_left(self.times, time_us)
        if place < len(self.times) and self.refs[place] == old:
            self.refs[place] = new


class Telemetry:
    """Handler of the samples that the writer commits. `lock` guards what readers in other threads see of the
    tails."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        self._now_us = now_us
        self.lock = threading.Lock()
        self.hosts: dict[str, HostTail] = {}
        self.by_id: dict[int, HostTail] = {}
        self.small: dict[int, int] = {}  # chunk -> records, of those that are to be merged
        self.tail_records = 0
        self.packer = Packer()
        self.forgetting = HostDeletion(self)
        self.bytes = 0  # of all chunks
        self.added = 0
        self._met: list[HostTail] = []
        self._stored: list[tuple[Sequence[tuple[HostTail, NewSample]], int]] = []  # and their first places
        self._chunks: list[tuple[int, int]] = []

    # -- a group of the writer --------------------------------------------------------------------------

    def apply(
        self, connection: sqlite3.Connection, payloads: Sequence[Sequence[NewSample]]
    ) -> list[list[bool]]:
        self.abandoned()
        newest: dict[str, int] = {}
        fresh: list[tuple[HostTail, NewSample]] = []
        taken: set[tuple[str, int]] | None = (
            None  # only where a record came that is not the newest of its host
        )
        verdicts = []
        known = self.hosts
        for samples in payloads:
            verdict = []
            for sample in samples:
                name, time_us = sample[0], sample[1]
                host = known.get(name) or self._meet(connection, name)
                new = True
                if time_us > newest.get(name, host.top):
                    newest[name] = time_us
                else:
                    if taken is None:
                        taken = {(one.host, one.time_us) for _, one in fresh}
                    new = not (
                        (name, time_us) in taken
                        or host.knows(time_us)
                        or _in_spans(connection, host.id, time_us)
                    )
                verdict.append(new)
                if new:
                    fresh.append((host, sample))
                    if taken is not None:
                        taken.add((name, time_us))
            verdicts.append(verdict)
        for piece in split_into_chunks(fresh, lambda pair: len(pair[1].body)):
            self._write(connection, piece)
        return verdicts

    def committed(self) -> None:
        now_us = self._now_us()
        with self.lock:
            for piece, place in self._stored:
                for ref, (host, sample) in enumerate(piece, place):
                    if sample[1] > host.top == host.record[1]:
                        host.follow(sample, ref, now_us)  # as nearly all
                    else:
                        host.remember(sample.time_us, ref, sample.gauges)
                        _update_record(host, sample, now_us)
                self.tail_records += len(piece)
        self.small.update((chunk, count) for chunk, count in self._chunks if count < SMALL)
        self.bytes += self.added
        self._met, self._stored, self._chunks, self.added = [], [], [], 0

    def abandoned(self) -> None:
        for host in self._met:
            del self.hosts[host.record.host], self.by_id[host.id]
        self._met, self._stored, self._chunks, self.added = [], [], [], 0

    def drop(self, host: HostTail) -> None:
        """Forget a host whose row is gone. When it reports again it is a new one."""
        with self.lock:
            if self.by_id.pop(host.id, None) is not None:
                del self.hosts[host.record.host]
                self.tail_records -= len(host.times)

    def _meet(self, connection: sqlite3.Connection, name: str) -> HostTail:
        record = HostRecord(name, NEVER, 0, 0, 0.0, False, _NOTHING)
        id_ = connection.execute(
            "INSERT INTO hosts (name, time_us, seen_us, records, interval_s, silent, gauges)"
            " VALUES (?, ?, 0, 0, 0, 0, ?)",
            (name, NEVER, packing.write_gauges(_NOTHING)),
        ).lastrowid
        assert id_ is not None
        host = HostTail(id_, record)
        self.hosts[name] = self.by_id[id_] = host
        self._met.append(host)
        return host

    def _write(self, connection: sqlite3.Connection, piece: Sequence[tuple[HostTail, NewSample]]) -> None:
        rows = [(host.id, sample[1], sample[3], sample[2]) for host, sample in piece]
        chunk = self.write_chunk(connection, rows, self._now_us())
        connection.execute("INSERT INTO fresh VALUES (?)", (chunk,))
        self._chunks.append((chunk, len(rows)))
        self._stored.append((piece, ref_of(chunk, 0)))

    def write_chunk(
        self,
        connection: sqlite3.Connection,
        rows: Sequence[Row | tuple[int, int, tuple[float, ...], bytes]],
        made_us: int,
    ) -> int:
        """Write a chunk and return its id; the caller keeps account of `fresh`."""
        heads, body = self.packer.chunk(rows)
        size = len(heads) + len(body)
        self.added += size
        id_ = connection.execute(
            "INSERT INTO chunks (made_us, count, bytes, heads, body) VALUES (?, ?, ?, ?, ?)",
            (made_us, len(rows), size, heads, body),
        ).lastrowid
        assert id_ is not None
        return id_

    # -- opening ----------------------------------------------------------------------------------------

    def load(self, connection: sqlite3.Connection, mark: tuple[int, int]) -> None:
        """Read the hosts, then what is newer than their rows from the heads of the fresh chunks. `mark` says
        how many bytes the chunks up to an id have."""
        rows = connection.execute(
            "SELECT id, name, time_us, seen_us, records, interval_s, silent, gauges FROM hosts"
        )
        for id_, name, time_us, seen_us, records, interval_s, silent, gauges in rows:
            known_s = interval_s if interval_s <= _LONGEST_S else 0.0  # learnt by an earlier release
            record = HostRecord(
                name, time_us, seen_us, records, known_s, bool(silent), tuple(array("d", gauges))
            )
            self.hosts[name] = self.by_id[id_] = host = HostTail(id_, record)
            host.dirty = False
        for id_, last_us in connection.execute("SELECT host_id, max(last_us) FROM spans GROUP BY host_id"):
            if id_ in self.by_id:
                self.by_id[id_].top = max(self.by_id[id_].top, last_us)
        chunks = connection.execute(
            "SELECT id, made_us, count, heads FROM chunks JOIN fresh ON chunk_id = id ORDER BY id"
        )
        for id_, made_us, count, heads in chunks:
            if count < SMALL:
                self.small[id_] = count
            for ordinal, head in enumerate(packing.read_heads(heads)):
                self._recall(head, ref_of(id_, ordinal), made_us)
        upto, self.bytes = mark
        (later,) = connection.execute("SELECT sum(bytes) FROM chunks WHERE id > ?", (upto,)).fetchone()
        self.bytes += later or 0

    def _recall(self, head: packing.Head, ref: int, made_us: int) -> None:
        host = self.by_id.get(head.host_id)
        if host is None:  # forgotten since
            return
        host.remember(head.time_us, ref, head.gauges)
        self.tail_records += 1
        if head.time_us > host.record.time_us:
            sample = NewSample(host.record.host, head.time_us, b"", head.gauges)
            _update_record(host, sample, made_us)


class HostDeletion:
    """Handler of hosts to be forgotten: the writer deletes their rows, history goes with retention."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._gone: list[HostTail] = []

    def apply(self, connection: sqlite3.Connection, payloads: Sequence[HostTail]) -> list[None]:
        self._gone = list(payloads)
        for host in payloads:
            connection.execute("DELETE FROM hosts WHERE id = ?", (host.id,))
        return [None] * len(payloads)

    def committed(self) -> None:
        for host in self._gone:
            self._telemetry.drop(host)
        self._gone = []

    def abandoned(self) -> None:
        self._gone = []


def _update_record(host: HostTail, sample: NewSample, now_us: int) -> None:
    old = host.record
    host.dirty = True
    seen_us = max(now_us, old.seen_us)
    # one from the future (a clock that was wrong) must not stay the newest for ever
    if sample.time_us <= old.time_us <= now_us + _AHEAD_US:
        host.record = HostRecord(
            old.host, old.time_us, seen_us, old.records + 1, old.interval_s, old.silent, old.gauges
        )
        return
    interval_s = old.interval_s
    if sample.interval_s > 0:
        interval_s, host.declared = sample.interval_s, True
    elif old.time_us != NEVER and not host.declared:
        waited_s = (now_us - old.seen_us) / 1e6
        interval_s = _learn_interval(interval_s, abs(sample.time_us - old.time_us) / 1e6, waited_s)
    host.record = HostRecord(
        old.host, sample.time_us, seen_us, old.records + 1, interval_s, old.silent, sample.gauges
    )


def _learn_interval(interval_s: float, gap_s: float, waited_s: float) -> float:
    """Return the time between two records of a host that does not say it, from the newest gap between their
    times. `waited_s` is how long the daemon waited for it: a long gap that it saw nothing of is a clock that
    was set, or a backlog. A pause is no new rhythm: what is far over the known one counts as three."""
    if not 0 < gap_s <= _LONGEST_S or (gap_s > _SURE_S and gap_s > 2 * waited_s):
        return interval_s
    return gap_s if not interval_s else interval_s + _LEARN * (min(gap_s, 3 * interval_s) - interval_s)


def split_into_chunks(items: Sequence[T], size_of: Callable[[T], int]) -> Iterator[Sequence[T]]:
    """Split items into runs that make one chunk each."""
    begin = size = 0
    for end, item in enumerate(items):
        size += size_of(item)
        if (size > CHUNK_BYTES and end > begin) or end - begin >= MAX_ORDINAL:
            yield items[begin:end]
            begin, size = end, size_of(item)
    if begin < len(items):
        yield items[begin:]


def _in_spans(connection: sqlite3.Connection, host_id: int, time_us: int) -> bool:
    rows = connection.execute(
        "SELECT refs FROM spans WHERE host_id = ? AND last_us >= ? AND first_us <= ?",
        (host_id, time_us, time_us),
    )
    return any(time_us == found for (refs,) in rows for found, _ in packing.read_refs(refs))
