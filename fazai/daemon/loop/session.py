"""A session of the action loop in the daemon: its journal, its state, and who watches it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from fazai.daemon.events.announcer import row_of
from fazai.daemon.loop.conversation import Conversation
from fazai.loop.journal import (
    AnyEntry,
    Asked,
    ObjectiveSet,
    SessionState,
    decode_entry,
    encode_entry,
    fold,
    seal,
)
from fazai.store.sessions import SessionRecord, SessionStore
from fazai.wire.actions import ActionBase
from fazai.wire.events import EventBase, encode_sse

#: Takes an event as it goes onto a stream. Called on the loop; it does not wait.
Watcher = Callable[[bytes], None]


class LoopSession:
    """One session. What changes it goes through `append`, which is durable before the state follows; who
    looks at the state first and then appends holds `turn` for both."""

    def __init__(self, record: SessionRecord, entries: list[AnyEntry], store: SessionStore) -> None:
        self.record = record
        self.state: SessionState = fold(entries)
        self.turn = asyncio.Lock()
        self.task: asyncio.Task[Any] | None = None  # which carries the objective on
        self.conversation: Conversation | None = None  # with the model; it lasts while the session waits
        self.watchers: list[Watcher] = []
        self._store = store
        self._entries = entries
        self._writing = asyncio.Lock()  # an append goes on where its caller was given up

    @property
    def session_id(self) -> str:
        return self.record.session_id

    @property
    def length(self) -> int:
        """Entries of the journal."""
        return len(self._entries)

    @property
    def running(self) -> bool:
        """True while a task carries the objective on."""
        return self.task is not None and not self.task.done()

    def entries_since(self, kind: type[AnyEntry] | type[ObjectiveSet] | type[Asked]) -> list[AnyEntry]:
        """Return the entries after the latest one of a kind; all of them where there is none."""
        for number in range(len(self._entries) - 1, -1, -1):
            if isinstance(self._entries[number], kind):
                return self._entries[number + 1 :]
        return list(self._entries)

    async def append(self, *entries: AnyEntry, events: Sequence[EventBase | ActionBase] = ()) -> None:
        """Write entries and publish events, all or nothing; it is done whole where the caller is given up.
        Raises StateError."""
        await asyncio.shield(self._append_in_turn(entries, events))

    async def written(self) -> None:
        """Wait for an append whose caller was given up."""
        async with self._writing:  # deadline: the store's
            return

    async def _append_in_turn(
        self, entries: Sequence[AnyEntry], events: Sequence[EventBase | ActionBase]
    ) -> None:
        async with self._writing:
            await self._append(entries, events)

    async def _append(self, entries: Sequence[AnyEntry], events: Sequence[EventBase | ActionBase]) -> None:
        named = [msgspec.structs.replace(event, session_id=self.session_id) for event in events]
        sealed: list[AnyEntry] = []
        for entry in entries:
            before = sealed or self._entries
            sealed.append(seal(entry, before[-1].chain if before else ""))
        data = [encode_entry(entry) for entry in sealed]
        rows = [row_of(event) for event in named]
        ids = await self._store.append(self.session_id, len(self._entries), data, rows)
        self._entries += sealed
        for entry in sealed:
            self.state.follow(entry)
        for id_, event in zip(ids, named, strict=True):
            frame = encode_sse(id_, event)  # type: ignore[arg-type]  # of a class of the union
            for watcher in self.watchers:
                watcher(frame)

    async def end_conversation(self) -> None:
        """Let the model forget the conversation."""
        if self.conversation is not None:
            conversation, self.conversation = self.conversation, None
            await conversation.close()

    def journal(self) -> list[AnyEntry]:
        """Return all entries, in order."""
        return list(self._entries)


async def load_session(record: SessionRecord, store: SessionStore) -> LoopSession:
    """Read a session. Raises StateError, msgspec.DecodeError for a journal of a later release."""
    entries = [decode_entry(data) for data in await store.journal(record.session_id)]
    return LoopSession(record, entries, store)


def now() -> float:
    """Return the time of an entry."""
    return time.time()
