"""How much the keeper of entries does, counted: very many entries and jobs cost their sum."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fazai.daemon.rules import keeper as keeper_module
from fazai.daemon.rules.book import RuleBook
from fazai.daemon.rules.keeper import EntryKeeper
from fazai.daemon.runs.child import entries_path
from fazai.rules.entries import parse_entries
from fazai.store.rules import Entry
from fazai.store.sqlite.daemon import SqliteDaemonStore
from fazai.store.sqlite.schema import FILE_NAME

JOBS, MANY = 20, 12_000
NOW = 1_800_000_000.0


class Counted(list[Entry]):
    """Rows, and how many were looked at."""

    looks = 0

    def __iter__(self) -> Iterator[Entry]:
        for one in super().__iter__():
            Counted.looks += 1
            yield one


def make_entries() -> list[Entry]:
    """As many of each job; every tenth is over."""
    return [
        Entry(
            f"job{number % JOBS}",
            f"alias{number % 3}",
            f"203.{number >> 8}.{number & 255}.1",
            NOW - 100,
            NOW + (600 if number % 10 else -1),
            "rule",
            "why",
        )
        for number in range(MANY)
    ]


def test_a_step_looks_at_each_entry_a_few_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = make_entries()
    with contextlib.closing(SqliteDaemonStore(tmp_path)) as store:
        with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
            connection.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", entries)
            connection.commit()
        calls = {"parse_address": 0, "parse_entries": 0}

        def count_calls(name: str) -> None:
            function = getattr(keeper_module, name)

            def counted(*args: Any, **more: Any) -> Any:
                calls[name] += 1
                return function(*args, **more)

            monkeypatch.setattr(keeper_module, name, counted)

        for name in calls:
            count_calls(name)
        found = store.rules.entries

        async def read() -> list[Entry]:
            return Counted(await found())

        monkeypatch.setattr(store.rules, "entries", read)
        # the run queue and the policy are not reached: nothing is due to be planned
        queue = cast(
            "Any", SimpleNamespace(jobs={f"job{n}": SimpleNamespace(entries=True) for n in range(JOBS)})
        )
        policy = cast("Any", SimpleNamespace(generation=""))
        book = RuleBook(tmp_path / "rules.yml", {}, cast("Any", None))
        keeper = EntryKeeper(store, queue, policy, book, cast("Any", None), tmp_path, now=lambda: NOW)

        async def steps() -> tuple[int, dict[str, int]]:
            await keeper.load()
            keeper._due.clear()
            Counted.looks = 0
            calls.update(parse_address=0, parse_entries=0)
            await keeper.step()
            return Counted.looks, dict(calls)

        looks, called = asyncio.run(steps())
    assert looks <= 3 * MANY
    assert called["parse_address"] <= 2 * MANY
    assert called["parse_entries"] == 0  # what the files have is known since they were written
    for job in ("job0", "job7"):
        standing = parse_entries(entries_path(tmp_path, job).read_bytes(), "", NOW)
        wanted = [one.address for one in entries if one.job == job and one.until > NOW]
        assert sorted(address for row in standing.values() for address in row) == sorted(wanted)
