"""Which writes share a commit, and which go ahead of the others."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fazai.errors import StateError
from fazai.store.daemon import AgentAction, NewEvent, StoredEvent
from fazai.store.sqlite.daemon import SqliteDaemonStore
from fazai.store.sqlite.writer import GroupWriter, Pace, StatementHandler

PATIENCE_S = 60.0
EVENT = NewEvent("log", b'{"timestamp":"2026-01-01T00:00:00+00:00","type":"log"}')


class HeldDisk:
    """Holds the writer's thread at the end of a commit with an event, until `go_on`."""

    def __init__(self, store: SqliteDaemonStore) -> None:
        self.is_held, self._may_go = threading.Event(), threading.Event()
        store.on_published(self._hold)

    def _hold(self, events: list[StoredEvent]) -> None:
        if not self.is_held.is_set():
            self.is_held.set()
            assert self._may_go.wait(PATIENCE_S)

    def go_on(self) -> None:
        self._may_go.set()


def action(number: int) -> AgentAction:
    return AgentAction("a1", f"x-{number}", "command.exec", "d" * 64, "me", 1.0)


def outcome(number: int) -> AgentAction:
    return replace(action(number), done=2.0, answer=b'{"ok":true}')


def commits(store: SqliteDaemonStore) -> float:
    return store.counts()["commits"]


def test_an_action_that_begins_goes_ahead_of_what_waits(store: SqliteDaemonStore) -> None:
    """With many rows before it in its commit, or one commit more, an agent would be asked later."""
    order: list[str] = []

    async def write() -> None:
        disk = HeldDisk(store)
        async with asyncio.timeout(PATIENCE_S):
            first = asyncio.create_task(store.publish([EVENT]))
            await asyncio.to_thread(disk.is_held.wait)  # from here on all is queued
            plain = asyncio.create_task(store.put_began("job", 1.0))
            await asyncio.sleep(0)
            begun = asyncio.create_task(store.begin_agent_action(action(1)))
            await asyncio.sleep(0)
            plain.add_done_callback(lambda _: order.append("plain"))
            begun.add_done_callback(lambda _: order.append("begun"))
            disk.go_on()
            await asyncio.gather(first, plain, begun)

    asyncio.run(write())
    assert order == ["begun", "plain"]
    assert commits(store) == 3


def test_several_that_begin_share_a_commit_with_what_waits(store: SqliteDaemonStore) -> None:
    async def write() -> None:
        disk = HeldDisk(store)
        async with asyncio.timeout(PATIENCE_S):
            first = asyncio.create_task(store.publish([EVENT]))
            await asyncio.to_thread(disk.is_held.wait)
            tasks = [asyncio.create_task(store.begin_agent_action(action(number))) for number in range(50)]
            tasks.append(asyncio.create_task(store.put_began("job", 1.0)))
            await asyncio.sleep(0)
            disk.go_on()
            await asyncio.gather(first, *tasks)

    asyncio.run(write())
    assert commits(store) == 2


def test_an_outcome_waits_for_events_to_share_a_commit(store: SqliteDaemonStore) -> None:
    async def write() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await store.begin_agent_action(action(1))
            before = commits(store)
            store.publish_soon([EVENT])
            await asyncio.gather(store.finish_agent_action(outcome(1), EVENT), store.publish([EVENT]))
            assert commits(store) == before + 1
            assert [event.id for event in await store.events_after(0)] == [1, 2, 3]  # in their order

    asyncio.run(write())


def test_what_is_patient_waits_for_nobody_for_long(store: SqliteDaemonStore) -> None:
    """An outcome alone, and an event alone, from a thread without a loop, too."""
    published: list[int] = []
    came = threading.Condition()

    def note(events: list[StoredEvent]) -> None:
        with came:
            published.extend(event.id for event in events)
            came.notify_all()

    def wait(count: int) -> None:
        with came:
            assert came.wait_for(lambda: len(published) >= count, PATIENCE_S)

    async def write() -> None:
        store.on_published(note)
        async with asyncio.timeout(PATIENCE_S):
            await store.begin_agent_action(action(1))
            assert await store.finish_agent_action(outcome(1), EVENT)
            store.publish_soon([EVENT])
            await asyncio.to_thread(wait, 2)
            await asyncio.to_thread(store.publish_soon, [EVENT])
            await asyncio.to_thread(wait, 3)

    asyncio.run(write())
    assert published == [1, 2, 3]


def test_what_was_patient_when_the_store_is_closed_is_written(tmp_path: Path) -> None:
    store = SqliteDaemonStore(tmp_path)

    async def write() -> None:
        await store.begin_agent_action(action(1))
        store.publish_soon([EVENT])  # and the loop ends before its patience does

    asyncio.run(write())
    store.close()
    again = SqliteDaemonStore(tmp_path)
    try:
        assert again.event_range() == (1, 1)
    finally:
        again.close()


@pytest.mark.parametrize("loops", [1, 3])
def test_patience_ends_for_each_loop(store: SqliteDaemonStore, loops: int) -> None:
    """One that is gone had promised to wake the writer, and cannot: the next one does."""
    for number in range(loops):

        async def leave(number: int = number) -> None:
            store.publish_soon([EVENT])
            await asyncio.sleep(0)

        asyncio.run(leave())

    async def finish() -> None:
        async with asyncio.timeout(PATIENCE_S):
            assert await store.finish_agent_action(outcome(1), EVENT)

    asyncio.run(finish())
    assert store.event_range() == (1, loops + 1)


class ClosedMeanwhile(GroupWriter):
    """Is closed from another thread between the look whether it is open and the queue."""

    def check_alive(self) -> None:
        super().check_alive()
        self.close_meanwhile()

    def close_meanwhile(self) -> None:
        self.close()


@pytest.mark.parametrize("pace", list(Pace))
def test_what_is_queued_after_the_end_is_refused(tmp_path: Path, pace: Pace) -> None:
    async def write(writer: GroupWriter) -> None:
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(StateError, match="the store is closed"):
                await writer.write(StatementHandler(), [], pace=pace)

    writer = ClosedMeanwhile(tmp_path, "a-writer")
    writer.start()
    asyncio.run(write(writer))


@pytest.mark.parametrize("pace", list(Pace))
def test_what_is_queued_behind_the_end_is_refused(tmp_path: Path, pace: Pace) -> None:
    """The thread has found the end already, and does its last work."""
    ending = threading.Event()

    class Late(ClosedMeanwhile):
        def close_meanwhile(self) -> None:
            closing.start()
            assert ending.wait(PATIENCE_S)

    def keep_up(connection: sqlite3.Connection, closing: bool) -> bool:
        ending.set()
        while not writer.waiting:
            time.sleep(0.001)
        return False

    async def write() -> None:
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(StateError, match="the store is closed"):
                await writer.write(StatementHandler(), [], pace=pace)

    writer = Late(tmp_path, "a-writer", keep_up)
    closing = threading.Thread(target=writer.close)
    writer.start()
    asyncio.run(write())
    closing.join()
