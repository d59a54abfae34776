"""Sessions of the action loop in the state's file."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec

from fazai.store.events import NewEvent
from fazai.store.sessions import SessionRecord, ToolSpecRecord
from fazai.store.sqlite.writer import Statement

T = TypeVar("T")

#: Changes rows, and returns how many.
Change = Callable[[Sequence[Statement]], Awaitable[int]]
#: Publishes events with the statement beside them, all or nothing; returns their ids.
Publish = Callable[[Sequence[NewEvent], Statement], Awaitable[list[int]]]
Query = Callable[[str, tuple[Any, ...]], Awaitable[list[Any]]]

_APPEND = "INSERT INTO loop_journal SELECT ?, ? + key, value FROM json_each(?)"
_PUT = "INSERT OR REPLACE INTO loop_sessions VALUES (?, ?)"
_OUTPUTS = 16  # of a session
_DROP_OUTPUTS = (
    "DELETE FROM loop_outputs WHERE session_id = ? AND rowid NOT IN"
    " (SELECT rowid FROM loop_outputs WHERE session_id = ? ORDER BY rowid DESC LIMIT ?)"
)
_TABLES = ("loop_sessions", "loop_journal", "loop_outputs")


class SqliteSessionStore:
    """The tables of the sessions; see `SessionStore`."""

    def __init__(self, change: Change, publish: Publish, query: Query) -> None:
        self._change = change
        self._publish = publish
        self._query = query

    async def put(self, record: SessionRecord) -> None:
        await self._change([(_PUT, (record.session_id, msgspec.json.encode(record).decode()))])

    async def all(self) -> list[SessionRecord]:
        return await self._values("SELECT value FROM loop_sessions ORDER BY session_id", SessionRecord)

    async def delete(self, session_id: str) -> None:
        await self._change(
            [(f"DELETE FROM {name} WHERE session_id = ?", (session_id,)) for name in _TABLES]  # noqa: S608
        )

    async def append(
        self, session_id: str, seq: int, entries: Sequence[bytes], events: Sequence[NewEvent] = ()
    ) -> list[int]:
        texts = msgspec.json.encode([entry.decode() for entry in entries]).decode()
        statement = (_APPEND, (session_id, seq, texts))
        if events:
            return await self._publish(events, statement)
        await self._change([statement])
        return []

    async def journal(self, session_id: str) -> list[bytes]:
        sql = "SELECT entry FROM loop_journal WHERE session_id = ? ORDER BY seq"
        return [row[0].encode() for row in await self._query(sql, (session_id,))]

    async def put_output(self, session_id: str, output_id: str, data: bytes) -> None:
        await self._change(
            [
                ("INSERT INTO loop_outputs VALUES (?, ?, ?)", (session_id, output_id, data)),
                (_DROP_OUTPUTS, (session_id, session_id, _OUTPUTS)),
            ]
        )

    async def output(self, session_id: str, output_id: str) -> bytes | None:
        sql = "SELECT data FROM loop_outputs WHERE session_id = ? AND output_id = ?"
        rows = await self._query(sql, (session_id, output_id))
        return rows[0][0] if rows else None

    async def put_tool_spec(self, record: ToolSpecRecord) -> None:
        text = msgspec.json.encode(record).decode()
        await self._change([("INSERT OR REPLACE INTO loop_tools VALUES (?, ?)", (record.name, text))])

    async def tool_specs(self) -> list[ToolSpecRecord]:
        return await self._values("SELECT value FROM loop_tools ORDER BY name", ToolSpecRecord)

    async def delete_tool_spec(self, name: str) -> bool:
        return bool(await self._change([("DELETE FROM loop_tools WHERE name = ?", (name,))]))

    async def _values(self, sql: str, of: type[T]) -> list[T]:
        return [msgspec.json.decode(row[0], type=of) for row in await self._query(sql, ())]
