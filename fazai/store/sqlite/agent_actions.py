"""Actions of remote agents: what was sent, and the outcomes that came back."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fazai.store.daemon import UNSETTLED, AgentAction, NewEvent, StoreLimits
from fazai.store.sqlite.schema import escape_text
from fazai.store.sqlite.writer import Statement

_COLUMNS = "agent, action, method, digest, client, sent, done, answer"
_INSERT = f"INSERT INTO agent_actions ({_COLUMNS}, bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
_UNSETTLED = ", ".join(f"x'{one.hex()}'" for one in UNSETTLED)
_BEGIN = f"{_INSERT} ON CONFLICT (agent, action) DO UPDATE SET" + (
    " client = excluded.client, sent = excluded.sent, done = NULL, answer = NULL"
    f" WHERE agent_actions.answer IN ({_UNSETTLED})"
    " AND agent_actions.digest = excluded.digest"
)
_FINISH = f"{_INSERT} ON CONFLICT (agent, action) DO UPDATE SET" + (
    " done = excluded.done, answer = excluded.answer, bytes = excluded.bytes"
)
_FIND = f"SELECT {_COLUMNS} FROM agent_actions WHERE agent = ? AND action = ?"  # noqa: S608 - our names
_FIND_OPEN = f"SELECT {_COLUMNS} FROM agent_actions WHERE agent = ? AND done IS NULL LIMIT ?"  # noqa: S608
_TRIMMED = 500  # rows of one step
_MOST_OPEN = 16_384  # that are remembered; of older ones the store is asked

#: Changes rows, and returns how many.
Change = Callable[[Sequence[Statement]], Awaitable[int]]
#: Publishes an event with the statement beside it, both or neither.
Publish = Callable[[NewEvent, Statement], Awaitable[object]]
Query = Callable[[str, tuple[Any, ...]], Awaitable[list[Any]]]


class AgentActionTable:
    """The table of actions. One daemon has the store, and this is the only writer of the table: what is being
    written is known here."""

    def __init__(self, change: Change, publish: Publish, query: Query) -> None:
        self._change = change
        self._publish = publish
        self._query = query
        self._finishing: dict[tuple[str, str], asyncio.Future[None]] = {}
        self._open: dict[tuple[str, str], None] = {}  # begun by this process, and known to have no outcome

    async def begin(self, action: AgentAction) -> AgentAction | None:
        """Record an action as `DaemonStore.begin_agent_action`."""
        await self._wait_finished((action.agent_id, action.action_id))
        if await self._change([(_BEGIN, _row_of(action))]):
            if len(self._open) >= _MOST_OPEN:
                del self._open[next(iter(self._open))]
            self._open[action.agent_id, action.action_id] = None
            return None
        return await self.find(action.agent_id, action.action_id)

    async def finish(self, action: AgentAction, event: NewEvent) -> bool:
        """Record an outcome as `DaemonStore.finish_agent_action`."""
        key = (action.agent_id, action.action_id)
        await self._wait_finished(key)
        own = self._finishing[key] = asyncio.get_running_loop().create_future()
        try:
            found = await self.find(*key) if key not in self._open else None
            if found is not None and found.done is not None and found.answer not in UNSETTLED:
                return False
            await self._publish(event, (_FINISH, _row_of(action)))
            self._open.pop(key, None)
            return True
        finally:
            del self._finishing[key]
            own.set_result(None)

    async def _wait_finished(self, key: tuple[str, str]) -> None:
        while key in self._finishing:
            await asyncio.wait([self._finishing[key]])  # deadline: the store's writer, which answers all

    async def find_open(self, agent_id: str, limit: int) -> list[AgentAction]:
        """Return actions as `DaemonStore.open_agent_actions`."""
        return [AgentAction(*row) for row in await self._query(_FIND_OPEN, (agent_id, limit))]

    async def find(self, agent_id: str, action_id: str) -> AgentAction | None:
        """Return what is recorded of an action."""
        rows = await self._query(_FIND, (agent_id, action_id))
        return AgentAction(*rows[0]) if rows else None


def _row_of(action: AgentAction) -> tuple[Any, ...]:
    kept = action.answer or b""
    if kept in UNSETTLED:  # which are never cut
        kept = b""
    return (
        *(action.agent_id, action.action_id, action.method, action.digest, escape_text(action.client)),
        *(action.sent, action.done, action.answer, len(kept)),
    )


def trim_agent_actions(connection: sqlite3.Connection, limits: StoreLimits, now: float) -> bool:
    """Drop actions that are too old, and the answers of the oldest outcomes where all of them are too large,
    in one transaction; return whether there may be more."""
    old = connection.execute(
        "SELECT agent, action FROM agent_actions WHERE coalesce(done, sent) < ? LIMIT ?",
        (now - limits.actions_age_s, _TRIMMED),
    ).fetchall()
    (size,) = connection.execute("SELECT coalesce(sum(bytes), 0) FROM agent_actions").fetchone()
    large: list[tuple[str, str, int]] = []
    if size > limits.actions_bytes:
        large = connection.execute(
            "SELECT agent, action, bytes FROM agent_actions WHERE bytes > 0"
            " ORDER BY coalesce(done, sent) LIMIT ?",
            (_TRIMMED,),
        ).fetchall()
    if not old and not large:
        return False
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany("DELETE FROM agent_actions WHERE agent = ? AND action = ?", old)
    for agent, action, length in large:
        if size <= limits.actions_bytes:
            break
        connection.execute(
            "UPDATE agent_actions SET answer = NULL, bytes = 0 WHERE agent = ? AND action = ?",
            (agent, action),
        )
        size -= length
    connection.execute("COMMIT")
    return len(old) == _TRIMMED or size > limits.actions_bytes
