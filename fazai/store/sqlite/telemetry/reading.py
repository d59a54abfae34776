"""Reads of telemetry: figures and records of one host, from its tail in memory and from the file. Every
function blocks, and may run in any thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fazai.store.sqlite.telemetry import packing
from fazai.store.sqlite.telemetry.hosts import Telemetry

_LATEST_US = 1 << 62
_MOVES = 4  # a record is merged once, then never moved; the rest is for who is slow


class TelemetryReader:
    """Reads beside the writer. `query(sql, params)` returns all rows. Every call may raise StateError."""

    def __init__(self, telemetry: Telemetry, query: Callable[[str, tuple[Any, ...]], list[Any]]) -> None:
        self._telemetry = telemetry
        self._query = query

    def history(
        self, host: str, since_us: int, until_us: int | None, limit: int
    ) -> list[tuple[int, tuple[float, ...]]]:
        """Return times and gauges of a host, as `DaemonStore.history`."""
        until_us = _LATEST_US if until_us is None else until_us
        found = self._telemetry.hosts.get(host)
        if found is None:
            return []
        with self._telemetry.lock:  # before the file is read: what is indexed meanwhile is then seen twice
            times, flat = found.times[:], found.gauges[:]
        width = len(flat) // len(times) if times else 0
        rows = {
            moment: tuple(flat[place * width : (place + 1) * width])
            for place, moment in enumerate(times)
            if since_us <= moment <= until_us
        }
        for refs, gauges in self._spans(found.id, since_us, until_us, limit):
            for (moment, _), row in zip(packing.read_refs(refs), packing.read_gauges(gauges), strict=True):
                if since_us <= moment <= until_us:
                    rows[moment] = row
        return sorted(rows.items())[-limit:]

    def records(self, host: str, since_us: int, limit: int) -> list[tuple[int, bytes]]:
        """Return times and records of a host, as `DaemonStore.records`."""
        found = self._telemetry.hosts.get(host)
        if found is None:
            return []
        with self._telemetry.lock:
            places = dict(zip(found.times, found.refs, strict=True))
        for refs, _ in self._spans(found.id, since_us, _LATEST_US, limit):
            for moment, ref in packing.read_refs(refs):
                places.setdefault(moment, ref)
        newest = sorted((moment for moment in places if moment >= since_us), reverse=True)[:limit]
        bodies = [(moment, self._body(found.id, moment, places[moment])) for moment in newest]
        return [(moment, body) for moment, body in bodies if body is not None]

    def _spans(self, host_id: int, since_us: int, until_us: int, limit: int) -> list[tuple[bytes, bytes]]:
        """Return (refs, gauges) of the newest spans that may hold so many records of this time."""
        return self._query(
            "SELECT refs, gauges FROM spans WHERE host_id = ? AND last_us >= ? AND first_us <= ?"
            " ORDER BY last_us DESC LIMIT ?",
            (host_id, since_us, until_us, limit),
        )

    def _body(self, host_id: int, time_us: int, ref: int) -> bytes | None:
        """Return a record as it came; None when it was trimmed. One that was moved meanwhile is looked up
        again."""
        for _ in range(_MOVES):
            chunk, ordinal = packing.split_ref(ref)
            rows = self._query("SELECT heads, body FROM chunks WHERE id = ?", (chunk,))
            if rows:
                heads, packed = rows[0]
                head, body = packing.read_record(heads, packed, ordinal)
                return body if (head.host_id, head.time_us) == (host_id, time_us) else None
            moved = self._place(host_id, time_us)
            if moved is None or moved == ref:
                return None
            ref = moved
        return None

    def _place(self, host_id: int, time_us: int) -> int | None:
        """Return where a record lies by now."""
        host = self._telemetry.by_id.get(host_id)
        if host is None:
            return None
        with self._telemetry.lock:
            ref = dict(zip(host.times, host.refs, strict=True)).get(time_us)
        if ref is not None:
            return ref
        for refs, _ in self._spans(host_id, time_us, time_us, 10):
            ref = dict(packing.read_refs(refs)).get(time_us, ref)
        return ref
