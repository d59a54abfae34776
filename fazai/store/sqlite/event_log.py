"""Event log: a ring with caps of bytes and age, whose ids never go back."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from fazai.store.daemon import NewEvent, StoredEvent, StoreLimits
from fazai.store.sqlite.telemetry.compaction import read_mark, write_mark
from fazai.timestamps import timestamp

_COLUMNS = "id, time_us, type, data, target, run, session, agent, level"
_INSERT = f"INSERT INTO stream ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - our names
_TRIM_EVENTS = 5000
_ROW_BYTES = 64  # of a row besides its data

#: Returns all rows of SQL and its parameters; in the thread of a reader.
Query = Callable[[str, tuple[Any, ...]], list[Any]]


class EventLog:
    """Handler of the events that the writer commits; it gives them their ids, in the order of the commits."""

    def __init__(self, now_us: Callable[[], int], limits: StoreLimits) -> None:
        self._now_us = now_us
        self._limits = limits
        self._written: list[StoredEvent] = []
        self.listeners: tuple[Callable[[list[StoredEvent]], None], ...] = ()
        self.first = 1
        self.last = 0
        self.bytes = 0
        self.published = 0

    def load(self, connection: sqlite3.Connection) -> None:
        row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'stream'").fetchone()
        self.last = int(row[0]) if row else 0
        (first,) = connection.execute("SELECT min(id) FROM stream").fetchone()
        self.first = first if first is not None else self.last + 1
        upto, self.bytes = read_mark(connection, "events")
        (later,) = connection.execute(
            "SELECT sum(length(data) + ?) FROM stream WHERE id > ?", (_ROW_BYTES, upto)
        ).fetchone()
        self.bytes += later or 0

    def apply(
        self, connection: sqlite3.Connection, payloads: Sequence[Sequence[NewEvent]]
    ) -> list[list[int]]:
        now_us = self._now_us()
        self._written = []
        number = self.last
        results = []
        for events in payloads:
            ids = []
            for event in events:
                number += 1
                ids.append(number)
                self._written.append(StoredEvent(number, now_us, event.type, event.data, *event[2:]))
            results.append(ids)
        connection.executemany(_INSERT, self._written)
        return results

    def committed(self) -> None:
        written, self._written = self._written, []
        if not written:
            return
        self.last = written[-1].id
        self.bytes += sum(len(event.data) + _ROW_BYTES for event in written)
        self.published += len(written)
        for listener in self.listeners:
            listener(written)

    def abandoned(self) -> None:
        self._written = []

    def read_after(self, query: Query, id_: int, limit: int, run: str | None) -> list[StoredEvent]:
        """Return events as `DaemonStore.events_after`. Blocks."""
        only, runs = ("", ()) if run is None else (" AND run = ?", (run,))
        sql = f"SELECT {_COLUMNS} FROM stream WHERE id > ?{only} ORDER BY id LIMIT ?"  # noqa: S608 - our names
        return [_add_timestamp(StoredEvent._make(row)) for row in query(sql, (id_, *runs, limit))]

    def find_id_at(self, query: Query, time_us: int) -> int:
        """Return an id as `DaemonStore.event_id_at`. Blocks."""
        low, high = self.first, self.last
        while low <= high:  # the first id whose event is not older
            middle = (low + high) // 2
            rows = query("SELECT id, time_us FROM stream WHERE id >= ? ORDER BY id LIMIT 1", (middle,))
            if rows and rows[0][1] < time_us:
                low = rows[0][0] + 1
            else:
                high = middle - 1
        return low - 1

    def trim(self, connection: sqlite3.Connection) -> bool:
        """Drop the oldest when they are too many or too old, in one transaction; return whether there may be
        more."""
        horizon_us = self._now_us() - int(self._limits.events_age_s * 1e6)
        over = self.bytes - self._limits.events_bytes
        last = freed = 0
        rows = connection.execute(
            "SELECT id, time_us, length(data) FROM stream ORDER BY id LIMIT ?", (_TRIM_EVENTS,)
        ).fetchall()
        for id_, time_us, size in rows:
            if freed >= over and time_us >= horizon_us:
                break
            last, freed = id_, freed + size + _ROW_BYTES
        if not last:
            return False
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM stream WHERE id <= ?", (last,))
        write_mark(connection, "events", self.last, self.bytes - freed)
        connection.execute("COMMIT")
        self.first = last + 1
        self.bytes -= freed
        return True


def _add_timestamp(event: StoredEvent) -> StoredEvent:
    """Return the event; one that an earlier release stored without its time gets that of its storing."""
    if b'"timestamp":' in event.data or not event.data.startswith(b'{"'):
        return event
    moment = timestamp(event.time_us / 1e6).isoformat().encode()
    return event._replace(data=b'{"timestamp":"%b",%b' % (moment, event.data[1:]))
