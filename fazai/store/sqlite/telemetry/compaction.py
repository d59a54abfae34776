"""Compaction of telemetry in the background: one bounded transaction a call, between two commits.

merge    chunks of few records become chunks of many, host by host: a third fewer bytes
index    the tail becomes spans, and its chunks are no longer fresh
trim     the oldest chunks go when there are too many bytes or they are too old
flush    the rows of hosts follow what memory knows
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Callable, Sequence

from fazai.store.daemon import GAUGES, StoreLimits
from fazai.store.sqlite.telemetry import packing
from fazai.store.sqlite.telemetry.hosts import HostTail, Telemetry, split_into_chunks
from fazai.store.sqlite.telemetry.packing import Row, ref_of

_MERGE_RECORDS = 256
_MERGE_CHUNKS = 512
_MERGE_BYTES = 2 << 20
_INDEX_HOSTS = 250
_TRIM_CHUNKS = 500
_FLUSH_HOSTS = 1000


class TelemetryCompaction:
    """Runs in the writer's thread."""

    def __init__(self, telemetry: Telemetry, limits: StoreLimits, now_us: Callable[[], int]) -> None:
        self._telemetry = telemetry
        self._limits = limits
        self._now_us = now_us
        self._to_index: list[int] = []  # ids of hosts, while the tail is being indexed
        self._boundary = 0
        self.merged = 0

    def step(self, connection: sqlite3.Connection, closing: bool) -> bool:
        """One piece of work; whether there is more to do now. Raises sqlite3.Error, after which the caller
        rolls back and nothing in memory has changed."""
        telemetry = self._telemetry
        telemetry.abandoned()
        if closing:
            return self._flush(connection)
        if self._to_index:
            self._index(connection)
        elif telemetry.tail_records >= self._limits.index_records:
            if telemetry.small:
                self._merge(connection)
            else:
                self._begin_index(connection)
        elif sum(telemetry.small.values()) >= _MERGE_RECORDS:
            self._merge(connection)
        elif not self._trim(connection):
            return self._flush(connection)
        return True

    # -- merge ------------------------------------------------------------------------------------------

    def _merge(self, connection: sqlite3.Connection) -> None:
        """Also one chunk is rewritten when it stands alone: it must leave `small`."""
        telemetry = self._telemetry
        rows, origins, removed, made_us = self._read_small(connection)
        connection.execute("BEGIN IMMEDIATE")
        order = sorted(range(len(rows)), key=lambda number: rows[number][:2])
        moves: list[tuple[Row, int, int]] = []
        for piece in split_into_chunks(order, lambda number: len(rows[number].body)):
            chunk = telemetry.write_chunk(connection, [rows[number] for number in piece], made_us)
            connection.execute("INSERT INTO fresh VALUES (?)", (chunk,))
            moves += [
                (rows[number], origins[number], ref_of(chunk, place)) for place, number in enumerate(piece)
            ]
        for chunk in removed:
            connection.execute("DELETE FROM chunks WHERE id = ?", (chunk,))
            connection.execute("DELETE FROM fresh WHERE chunk_id = ?", (chunk,))
        total = telemetry.bytes + telemetry.added - sum(removed.values())
        write_mark(connection, "telemetry", _last_chunk(connection), total)
        with telemetry.lock:  # a reader that finds the old chunk gone looks here again
            connection.execute("COMMIT")
            for row, old, new in moves:
                host = telemetry.by_id.get(row.host_id)
                if host is not None:
                    host.move(row.time_us, old, new)
        for chunk in removed:
            telemetry.small.pop(chunk, None)
        telemetry.bytes, telemetry.added = total, 0
        self.merged += len(rows)

    def _read_small(self, connection: sqlite3.Connection) -> tuple[list[Row], list[int], dict[int, int], int]:
        """Records, where each lies, the chunks and their bytes, and the time of the oldest."""
        rows: list[Row] = []
        origins: list[int] = []
        removed: dict[int, int] = {}
        oldest_us = self._now_us()
        for chunk in list(self._telemetry.small)[:_MERGE_CHUNKS]:
            found = connection.execute(
                "SELECT made_us, bytes, heads, body FROM chunks WHERE id = ?", (chunk,)
            ).fetchone()
            if found is None:  # trimmed
                removed[chunk] = 0
                continue
            made_us, size, heads, body = found
            try:
                own = list(packing.read_chunk(heads, body))
            except packing.Damaged:  # `fazai store check` finds it; it is not made worse here
                del self._telemetry.small[chunk]
                continue
            rows += own
            origins += [ref_of(chunk, ordinal) for ordinal in range(len(own))]
            removed[chunk] = size
            oldest_us = min(oldest_us, made_us)
            if sum(removed.values()) > _MERGE_BYTES:
                break
        return rows, origins, removed, oldest_us

    # -- index ------------------------------------------------------------------------------------------

    def _begin_index(self, connection: sqlite3.Connection) -> None:
        """Begin to index: from now on the chunks up to the boundary stay where they are."""
        self._boundary = _last_chunk(connection)
        self._to_index = list(self._telemetry.by_id)

    def _index(self, connection: sqlite3.Connection) -> None:
        ids, rest = self._to_index[:_INDEX_HOSTS], self._to_index[_INDEX_HOSTS:]
        hosts = [host for host in map(self._telemetry.by_id.get, ids) if host is not None]
        limit = ref_of(self._boundary + 1, 0)
        connection.execute("BEGIN IMMEDIATE")
        for host in hosts:
            self._write_span(connection, host, limit)
        if not rest:
            connection.execute("DELETE FROM fresh WHERE chunk_id <= ?", (self._boundary,))
        with self._telemetry.lock:
            connection.execute("COMMIT")
            for host in hosts:
                self._telemetry.tail_records -= _forget_tail(host, limit)
        self._to_index = rest

    def _write_span(self, connection: sqlite3.Connection, host: HostTail, limit: int) -> None:
        times, refs, gauges = _tail(host, lambda ref: ref < limit)
        if times:
            places, columns = self._telemetry.packer.span(times, refs, gauges)
            connection.execute(
                "INSERT OR REPLACE INTO spans (host_id, first_us, last_us, max_chunk, refs, gauges)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (host.id, times[0], times[-1], packing.split_ref(max(refs))[0], places, columns),
            )

    # -- trim -------------------------------------------------------------------------------------------

    def _trim(self, connection: sqlite3.Connection) -> bool:
        """Drop the oldest chunks where there are too many; return whether there were."""
        telemetry = self._telemetry
        over = telemetry.bytes - self._limits.telemetry_bytes
        horizon_us = self._now_us() - int(self._limits.telemetry_age_s * 1e6)
        last, freed = 0, 0
        rows = connection.execute(
            "SELECT id, made_us, bytes FROM chunks ORDER BY id LIMIT ?", (_TRIM_CHUNKS,)
        ).fetchall()
        for id_, made_us, size in rows:
            if freed >= over and made_us >= horizon_us:
                break
            last, freed = id_, freed + size
        if not last:
            return False
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM chunks WHERE id <= ?", (last,))
        connection.execute("DELETE FROM fresh WHERE chunk_id <= ?", (last,))
        connection.execute("DELETE FROM spans WHERE max_chunk <= ?", (last,))
        write_mark(connection, "telemetry", _last_chunk(connection), telemetry.bytes - freed)
        connection.execute("COMMIT")
        telemetry.bytes -= freed
        for chunk in [chunk for chunk in telemetry.small if chunk <= last]:
            del telemetry.small[chunk]
        with telemetry.lock:
            for host in telemetry.by_id.values():
                if host.refs and min(host.refs) < ref_of(last + 1, 0):
                    telemetry.tail_records -= _forget_tail(host, ref_of(last + 1, 0))
        return True

    # -- flush ------------------------------------------------------------------------------------------

    def _flush(self, connection: sqlite3.Connection) -> bool:
        hosts = [host for host in self._telemetry.by_id.values() if host.dirty]
        now, rest = hosts[:_FLUSH_HOSTS], hosts[_FLUSH_HOSTS:]
        if now:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "UPDATE hosts SET time_us = ?, seen_us = ?, records = ?, interval_s = ?, silent = ?,"
                " gauges = ? WHERE id = ?",
                [(*host.record[1:6], packing.write_gauges(host.record.gauges), host.id) for host in now],
            )
            connection.execute("COMMIT")
            for host in now:
                host.dirty = False
        return bool(rest)


def read_mark(connection: sqlite3.Connection, name: str) -> tuple[int, int]:
    """(upto, bytes): how many bytes the rows up to this id had when the mark was made; (0, 0) for none."""
    row = connection.execute("SELECT upto, bytes FROM marks WHERE name = ?", (name,)).fetchone()
    return (int(row[0]), int(row[1])) if row else (0, 0)


def write_mark(connection: sqlite3.Connection, name: str, upto: int, size_bytes: int) -> None:
    connection.execute("INSERT OR REPLACE INTO marks VALUES (?, ?, ?)", (name, upto, size_bytes))


def _last_chunk(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'chunks'").fetchone()
    return int(row[0]) if row else 0


def _tail(host: HostTail, wanted: Callable[[int], bool]) -> tuple[array[int], array[int], array[float]]:
    width = len(GAUGES)
    if all(wanted(ref) for ref in host.refs):
        return host.times[:], host.refs[:], host.gauges[:]
    chosen: Sequence[int] = [place for place, ref in enumerate(host.refs) if wanted(ref)]
    gauges = array("d")
    for place in chosen:
        gauges.extend(host.gauges[place * width : (place + 1) * width])
    return array("q", (host.times[p] for p in chosen)), array("q", (host.refs[p] for p in chosen)), gauges


def _forget_tail(host: HostTail, limit: int) -> int:
    """Drop what lies before the reference; how many records that were."""
    before = len(host.times)
    host.times, host.refs, host.gauges = _tail(host, lambda ref: ref >= limit)
    return before - len(host.times)
