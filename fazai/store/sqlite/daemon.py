"""The daemon's embedded store: the file of the state folder, one writer thread, readers beside it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from fazai.errors import LockHeld, StateError
from fazai.store.base import Store
from fazai.store.daemon import (
    AgentAction,
    AgentRecord,
    FirewallRecord,
    HostRecord,
    NewEvent,
    NewSample,
    Nonce,
    RunRecord,
    StoredEvent,
    StoreLimits,
    Token,
)
from fazai.store.sessions import SessionStore
from fazai.store.sqlite.agent_actions import AgentActionTable, trim_agent_actions
from fazai.store.sqlite.checkpoints import Checkpointer
from fazai.store.sqlite.event_log import EventLog
from fazai.store.sqlite.leases import hold_daemon_lock
from fazai.store.sqlite.ledger import SqliteStore
from fazai.store.sqlite.notes.table import NoteTable
from fazai.store.sqlite.readers import Readers
from fazai.store.sqlite.rules import SqliteRuleStore
from fazai.store.sqlite.schema import FILE_NAME, connect, escape_text, migrate, state_error
from fazai.store.sqlite.sessions import SqliteSessionStore
from fazai.store.sqlite.state_files import import_state_files, keep_record
from fazai.store.sqlite.telemetry import packing
from fazai.store.sqlite.telemetry.compaction import TelemetryCompaction, read_mark
from fazai.store.sqlite.telemetry.hosts import Telemetry
from fazai.store.sqlite.telemetry.reading import TelemetryReader
from fazai.store.sqlite.writer import (
    GroupWriter,
    Pace,
    Statement,
    StatementHandler,
    WriteHandler,
    resolve_waiter,
)

T = TypeVar("T")

_QUICK_CHECK_BYTES = 64 << 20  # a file up to this size is read through at start: a fraction of a second
_READERS = 4  # reads at a time
_REST_S = 0.002  # about what an fsync takes
_FOLLOWED = "followed"  # the row beside the notices that says up to which event they were made
_KEEP_NONCE = "INSERT OR REPLACE INTO nonces VALUES (?, ?, ?)"


class SqliteDaemonStore:
    """`folder` is created 0700 when it is not there.

    Raises StateError when the file cannot be used or is damaged (the hint says how to restore it), LockHeld
    when another daemon has it. `now_us` is the wall clock.
    """

    def __init__(
        self,
        folder: Path,
        limits: StoreLimits | None = None,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        checkpointer: Checkpointer | None = None,
    ) -> None:
        self.folder = folder
        self._checkpointer = checkpointer or Checkpointer(folder)
        self.limits = limits or StoreLimits()
        self._path = folder / FILE_NAME
        self._now_us = now_us
        self._ledger: SqliteStore | None = None
        self._readers = Readers(folder, _READERS)
        self._watcher = Readers(folder, 1)  # of tokens: its connection says whether another wrote
        self._telemetry = Telemetry(now_us)
        self._stored = TelemetryReader(self._telemetry, self._readers.query)
        self._events = EventLog(now_us, self.limits)
        self._statements = StatementHandler()
        self._nonces: dict[tuple[str, str], int] = {}
        self._upkeep = TelemetryCompaction(self._telemetry, self.limits, now_us)
        hint = "the daemon ends; systemd starts it again"
        self._writer = GroupWriter(
            folder,
            "fazai-daemon-store",
            self._keep_up,
            self.limits.upkeep_s,
            _REST_S,
            hint,
            self._checkpointer,
        )
        self._actions = AgentActionTable(self._change_at_once, self._publish_beside, self._query)
        self.sessions: SessionStore = SqliteSessionStore(self._change, self._publish_with, self._query)
        self.rules = SqliteRuleStore(self._change_at_once, self._query)
        self.notes = NoteTable(self._writer, self._readers, self.limits.notes)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            text = f"another daemon uses the state folder {folder}"
            hint = "end it, or set FAZAI_STATE_DIR to another folder"
            self._lock = hold_daemon_lock(folder, LockHeld(text, hint=hint))
        except OSError as error:
            raise state_error(folder, error) from error
        try:
            self._open()
        except (sqlite3.Error, packing.Damaged, OSError) as error:
            os.close(self._lock)
            raise state_error(folder, error) from error
        except StateError:
            os.close(self._lock)
            raise
        self._checkpointer.start()
        self._writer.start()

    def _open(self) -> None:
        with contextlib.closing(connect(self._path)) as connection:
            migrate(connection)
            import_state_files(connection, self.folder)
            if self._path.stat().st_size <= _QUICK_CHECK_BYTES:
                found = [row[0] for row in connection.execute("PRAGMA quick_check(1)")]
                if found != ["ok"]:
                    damage = sqlite3.DatabaseError(found[0])
                    damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
                    raise damage
            self._telemetry.load(connection, read_mark(connection, "telemetry"))
            self._events.load(connection)
            for agent, nonce, expires_us in connection.execute("SELECT * FROM nonces"):
                self._nonces[agent, nonce] = expires_us

    @property
    def ledger(self) -> Store:
        if self._ledger is None:
            self._ledger = SqliteStore(
                self.folder,
                forgives=True,
                keep_runs=self.limits.ledger_runs,
                targets_age_s=self.limits.targets_age_s,
                checkpointer=self._checkpointer,
            )
        return self._ledger

    def check_alive(self) -> None:
        self._writer.check_alive()
        if self._ledger is not None:
            self._ledger.check_alive()

    def close(self) -> None:
        self._writer.close()
        self._watcher.close()
        self._readers.close()
        self._checkpointer.close()
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _keep_up(self, connection: sqlite3.Connection, closing: bool) -> bool:
        more = self._upkeep.step(connection, closing)
        if closing:
            return more
        now_us = self._now_us()
        old = [key for key, expires_us in list(self._nonces.items()) if expires_us < now_us]
        if old:
            connection.execute("DELETE FROM nonces WHERE expires_us < ?", (now_us,))
        for key in old:
            self._nonces.pop(key, None)
        more = trim_agent_actions(connection, self.limits, now_us / 1e6) or more
        more = self.notes.trim(connection, now_us / 1e6) or more
        return self._events.trim(connection) or more

    # -- telemetry --------------------------------------------------------------------------------------

    async def ingest(self, samples: Sequence[NewSample]) -> list[bool]:
        verdicts: list[bool] = await self._writer.write(
            self._telemetry, samples, sum([len(sample.body) for sample in samples])
        )
        return verdicts

    async def ingest_signed(self, samples: Sequence[NewSample], nonce: Nonce) -> list[bool] | None:
        return await self._write_once(
            nonce, self._telemetry, samples, sum([len(sample.body) for sample in samples])
        )

    def ingest_then(
        self, samples: Sequence[NewSample], told: Callable[[list[bool] | StateError], object]
    ) -> None:
        size_bytes = sum([len(sample.body) for sample in samples])
        self._writer.write_then(self._telemetry, samples, size_bytes, told, asyncio.get_running_loop())

    def hosts(self) -> list[HostRecord]:
        return [host.record for host in list(self._telemetry.hosts.values()) if host.record.records]

    def host(self, host: str) -> HostRecord | None:
        found = self._telemetry.hosts.get(host)
        return found.record if found is not None and found.record.records else None

    async def history(
        self, host: str, since_us: int = 0, until_us: int | None = None, limit: int = 10_000
    ) -> list[tuple[int, tuple[float, ...]]]:
        return await self._readers.run(self._stored.history, host, since_us, until_us, limit)

    async def records(self, host: str, since_us: int = 0, limit: int = 100) -> list[tuple[int, bytes]]:
        return await self._readers.run(self._stored.records, host, since_us, limit)

    async def mark_silent(self, silent: Mapping[str, bool]) -> None:
        jobs = []
        for name, value in silent.items():
            host = self._telemetry.hosts.get(name)
            if host is not None:
                host.record = host.record._replace(silent=value)
                jobs.append(("UPDATE hosts SET silent = ? WHERE id = ?", (int(value), host.id)))
        if jobs:
            await self._writer.write(self._statements, jobs)

    async def forget_host(self, host: str) -> bool:
        found = self._telemetry.hosts.get(host)
        if found is None:
            return False
        await self._writer.write(self._telemetry.forgetting, found)
        return True

    # -- events -----------------------------------------------------------------------------------------

    async def publish(self, events: Sequence[NewEvent]) -> list[int]:
        ids: list[int] = await self._writer.write(
            self._events, [_escape_texts(event) for event in events], sum(len(event.data) for event in events)
        )
        return ids

    def publish_soon(self, events: Sequence[NewEvent]) -> None:
        self._writer.write_soon(self._events, [_escape_texts(event) for event in events])

    def on_published(self, listener: Callable[[list[StoredEvent]], None]) -> None:
        self._events.listeners = (*self._events.listeners, listener)

    async def events_after(self, id_: int, limit: int = 1000, run: str | None = None) -> list[StoredEvent]:
        return await self._readers.run(self._events.read_after, self._readers.query, id_, limit, run)

    def event_range(self) -> tuple[int, int]:
        return self._events.first, self._events.last

    async def event_id_at(self, time_us: int) -> int:
        return await self._readers.run(self._events.find_id_at, self._readers.query, time_us)

    # -- what is known of the others --------------------------------------------------------------------

    async def put_agent(self, agent: AgentRecord) -> None:
        await self._put("agents", agent.agent_id, agent)

    async def delete_agent(self, agent_id: str) -> bool:
        return await self._delete("agents", "agent_id", agent_id)

    async def agents(self) -> list[AgentRecord]:
        return await self._all("agents", AgentRecord)

    async def begin_agent_action(self, action: AgentAction) -> AgentAction | None:
        return await self._actions.begin(action)

    async def finish_agent_action(self, action: AgentAction, event: NewEvent) -> bool:
        return await self._actions.finish(action, event)

    async def open_agent_actions(self, agent_id: str, limit: int) -> list[AgentAction]:
        return await self._actions.find_open(agent_id, limit)

    async def agent_action(self, agent_id: str, action_id: str) -> AgentAction | None:
        return await self._actions.find(agent_id, action_id)

    async def put_firewall(self, firewall: FirewallRecord) -> None:
        await self._put("firewalls", firewall.id, firewall)

    async def delete_firewall(self, id_: str) -> bool:
        return await self._delete("firewalls", "id", id_)

    async def firewalls(self) -> list[FirewallRecord]:
        return await self._all("firewalls", FirewallRecord)

    async def put_run_records(self, records: Sequence[RunRecord]) -> None:
        await self._writer.write(self._statements, [keep_record(record) for record in records])

    async def delete_run_record(self, run_id: str) -> bool:
        return await self._delete("daemon_runs", "run_id", run_id)

    async def run_records(self) -> list[RunRecord]:
        return await self._all("daemon_runs", RunRecord)

    async def put_plan(self, run_id: str, plan: bytes) -> None:
        job = ("UPDATE daemon_runs SET plan = ? WHERE run_id = ?", (plan, run_id))
        await self._writer.write(self._statements, [job], len(plan))

    async def plan(self, run_id: str) -> bytes | None:
        rows = await self._query("SELECT plan FROM daemon_runs WHERE run_id = ?", (run_id,))
        return rows[0][0] if rows else None

    async def put_began(self, job: str, time: float) -> None:
        statement = ("INSERT OR REPLACE INTO schedule VALUES (?, ?)", (job, time))
        await self._writer.write(self._statements, [statement])

    async def began(self) -> dict[str, float]:
        return dict(await self._query("SELECT job, began FROM schedule"))

    async def put_notices(self, notices: Mapping[str, bytes], followed: int | None = None) -> None:
        rows = dict(notices) if followed is None else {**notices, _FOLLOWED: str(followed).encode()}
        jobs = [("INSERT OR REPLACE INTO notices VALUES (?, ?)", row) for row in rows.items()]
        await self._writer.write(self._statements, jobs, sum(map(len, rows.values())))

    async def delete_notices(self, ids: Sequence[str]) -> None:
        jobs = [("DELETE FROM notices WHERE id = ?", (id_,)) for id_ in ids]
        await self._writer.write(self._statements, jobs)

    async def notices(self) -> tuple[list[bytes], int | None]:
        rows = dict(await self._query("SELECT id, value FROM notices ORDER BY id"))
        followed = rows.pop(_FOLLOWED, None)
        return list(rows.values()), None if followed is None else int(followed)

    async def put_token(self, token: Token) -> None:
        await self._put("tokens", token.hash, token)

    async def tokens(self, version: int = -1) -> tuple[int, list[Token]] | None:
        def read() -> tuple[int, list[Token]] | None:
            ((found,),) = self._watcher.query("PRAGMA data_version")
            return (found, _read_values(self._watcher, "tokens", Token)) if found != version else None

        return await self._watcher.run(read)

    async def use_nonce(self, nonce: Nonce) -> bool:
        return await self._write_once(nonce, self._statements, ()) is not None

    async def _write_once(
        self, nonce: Nonce, handler: WriteHandler, payload: Any, size_bytes: int = 0
    ) -> Any | None:
        """Write the payload and the nonce in one commit, and return the handler's result; None where the
        nonce was used before."""
        agent, text, expires_us, now_us = nonce
        key = (agent, text)
        if self._nonces.get(key, -1) >= now_us:
            return None
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Any] = loop.create_future()

        def tell(result: Any) -> None:  # also where nobody waits any more
            if isinstance(result, StateError):
                self._nonces.pop(key, None)
            resolve_waiter(waiter, result)

        statement = (_KEEP_NONCE, (agent, text, expires_us))
        self._writer.write_then(handler, payload, size_bytes, tell, loop, statement)
        self._nonces[key] = expires_us  # before it is durable: whoever asks meanwhile is refused
        return await waiter

    def counts(self) -> Mapping[str, float]:
        return {
            "commits": self._writer.commits,
            "writes": self._writer.jobs,
            "failures": self._writer.failures + self._checkpointer.failures,
            "lost": self._writer.lost,
            "queue": self._writer.waiting,
            "telemetry_bytes": self._telemetry.bytes,
            "tail_records": self._telemetry.tail_records,
            "events_bytes": self._events.bytes,
            "events_published": self._events.published,
            "file_bytes": _file_size(self._path) + _file_size(self._path.with_name(FILE_NAME + "-wal")),
        }

    async def _put(self, table: str, key: str, value: Any) -> None:
        text = msgspec.json.encode(value).decode()
        await self._writer.write(
            self._statements,
            [(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", (key, text))],  # noqa: S608 - our names
        )

    async def _change(self, statements: Sequence[Statement]) -> int:
        changed: int = await self._writer.write(self._statements, statements)
        return changed

    async def _publish_with(self, events: Sequence[NewEvent], statement: Statement) -> list[int]:
        size_bytes = sum(len(event.data) for event in events)
        ids: list[int] = await self._writer.write(
            self._events, [_escape_texts(event) for event in events], size_bytes, statement
        )
        return ids

    async def _change_at_once(self, statements: Sequence[Statement]) -> int:
        changed: int = await self._writer.write(self._statements, statements, pace=Pace.URGENT)
        return changed

    async def _publish_beside(self, event: NewEvent, statement: Statement) -> object:
        return await self._writer.write(
            self._events, [_escape_texts(event)], len(event.data), statement, pace=Pace.PATIENT
        )

    async def _delete(self, table: str, column: str, key: str) -> bool:
        job = (f"DELETE FROM {table} WHERE {column} = ?", (key,))  # noqa: S608 - our names
        return bool(await self._writer.write(self._statements, [job]))

    async def _all(self, table: str, of: type[T]) -> list[T]:
        return await self._readers.run(_read_values, self._readers, table, of)

    async def _query(self, sql: str, params: tuple[Any, ...] = ()) -> list[Any]:
        return await self._readers.run(self._readers.query, sql, params)


def _read_values(readers: Readers, table: str, of: type[T]) -> list[T]:
    rows = readers.query(f"SELECT value FROM {table} ORDER BY 1")  # noqa: S608 - our names
    return [msgspec.json.decode(row[0], type=of) for row in rows]


def _escape_texts(event: NewEvent) -> NewEvent:
    """Escape names that are no UTF-8, which SQLite alone takes: they may come from anywhere."""
    if all(text is None or text.isascii() for text in event[2:]):
        return event
    return NewEvent(event.type, event.data, *map(escape_text, event[2:]))


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise StateError(f"{path} cannot be looked at: {error.strerror}") from error
