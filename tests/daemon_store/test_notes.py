"""Notes in the state file: the index cannot drift from them, whatever is killed; damage is told apart."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fazai.cli.main import main
from fazai.errors import LockHeld, StateError
from fazai.kb.content import words_of_note
from fazai.store import maintenance
from fazai.store.daemon import StoreLimits
from fazai.store.notes import Note, NoteLimits, SearchBudget, hash_content
from fazai.store.sqlite.daemon import SqliteDaemonStore
from fazai.store.sqlite.notes import checking
from fazai.store.sqlite.schema import FILE_NAME, MIGRATIONS, connect, migrate, split_statements
from tests.daemon_store.conftest import QUIET, START_US, Clock

ROOT = Path(__file__).parents[2]
NOW = START_US / 1e6

#: A process that adds, verifies and removes notes, and says what was acknowledged.
STORM = """
import asyncio, random, sys
from pathlib import Path
from tests.daemon_store.test_notes import make_note
from fazai.errors import StoreFull
from fazai.store.daemon import StoreLimits
from fazai.store.notes import NoteLimits
from fazai.store.sqlite.daemon import SqliteDaemonStore

chance = random.Random(int(sys.argv[2]))
limits = StoreLimits(upkeep_s=0.05, notes=NoteLimits(notes=60))

async def client(store, name, out):
    mine = []
    for number in range(100_000):
        try:
            added = await store.notes.add(make_note(f"{sys.argv[2]} {name} {number}", chance))
        except StoreFull:
            for one in await store.notes.page(0, 20, 1 << 20):
                await store.notes.remove(one.id)
            continue
        out.write(b"+%d\\n" % added.note.id)
        mine.append(added.note.id)
        if chance.random() < 0.3:
            await store.notes.verify(chance.choice(mine), "x", 1.0)
        if chance.random() < 0.5:
            gone = mine.pop(chance.randrange(len(mine)))
            if await store.notes.remove(gone):
                out.write(b"-%d\\n" % gone)

async def main():
    store = SqliteDaemonStore(Path(sys.argv[1]), limits)
    with open(1, "wb", buffering=0) as out:
        await asyncio.gather(*(client(store, n, out) for n in range(4)))

asyncio.run(main())
"""


def make_note(title: str, chance: random.Random) -> Note:
    text = " ".join(chance.choices(["alpha", "beta", "gamma", "fw-01", "é", "192.0.2.1"], k=20))
    origin: Any = chance.choice(["person", "model", "run", "import"])
    words = words_of_note(title, text, (), "")
    hash_ = hash_content(title, text, (), "")
    return Note(title=title, text=text, hash=hash_, origin=origin, created=NOW, words=words)


def fill(folder: Path, count: int = 5) -> None:
    chance = random.Random(1)
    with contextlib.closing(SqliteDaemonStore(folder, QUIET)) as store:

        async def each() -> None:
            for number in range(count):
                await store.notes.add(make_note(f"note {number}", chance))

        asyncio.run(each())


def damage(folder: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(folder / FILE_NAME, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema=0")
        for statement in statements:
            connection.execute(statement)


def test_a_storm_that_is_killed_leaves_no_drift(tmp_path: Path) -> None:
    for round_ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", STORM, str(tmp_path), str(round_)], stdout=subprocess.PIPE, cwd=ROOT
        )
        assert process.stdout is not None
        acknowledged = [process.stdout.readline() for _ in range(120)]
        process.send_signal(signal.SIGKILL)
        acknowledged += process.stdout.read().splitlines(keepends=True)
        process.wait()
        process.stdout.close()
        assert maintenance.check(tmp_path).problems == ()
        with contextlib.closing(SqliteDaemonStore(tmp_path, QUIET)) as store:
            kept = {one.id for one in asyncio.run(store.notes.page(0, 1000, 1 << 30))}
        said = [line for line in acknowledged if line.endswith(b"\n")]
        assert len(said) >= 120
        removed = {int(line[1:]) for line in said if line.startswith(b"-")}
        assert removed & kept == set()
        assert len(kept) <= 60


def test_a_word_that_is_gone_from_all_notes_is_gone(tmp_path: Path) -> None:
    with contextlib.closing(SqliteDaemonStore(tmp_path, QUIET)) as store:
        notes = store.notes
        chance = random.Random(1)
        ids = [asyncio.run(notes.add(make_note(f"n{number}", chance))).note.id for number in range(3)]
        for id_ in ids:
            asyncio.run(notes.verify(id_, "x", NOW))
            asyncio.run(notes.remove(id_))
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        assert connection.execute("SELECT count(*) FROM note_words").fetchone() == (0,)
        assert connection.execute("SELECT * FROM note_totals").fetchone() == (0, 0, 0)


@pytest.mark.parametrize(
    ("statement", "said", "hint"),
    [
        ("UPDATE notes SET text = 'another' WHERE id = 2", "note kb-2 is not what was stored", "restore"),
        ("UPDATE notes SET tags = '{' WHERE id = 3", "note kb-3 is not what was stored", "restore"),
        (
            "INSERT INTO notes_index (notes_index) VALUES ('delete-all')",
            "the index of notes is not",
            "reindex",
        ),
        (
            "INSERT INTO notes_index (rowid, folded) VALUES (77, 'alpha')",
            "the index of notes is not",
            "reindex",
        ),
        ("DELETE FROM notes_index_data WHERE id > 10", "the index of notes is not", "reindex"),
        ("UPDATE note_words SET notes = 9 WHERE word = 'alpha'", "the counts of 1 words are not", "reindex"),
        (
            "DELETE FROM note_words WHERE word IN ('alpha', 'beta')",
            "the counts of 2 words are not",
            "reindex",
        ),
        ("UPDATE note_totals SET notes = 9", "the totals of notes are not", "reindex"),
    ],
)
def test_planted_damage_is_told_apart(tmp_path: Path, statement: str, said: str, hint: str) -> None:
    fill(tmp_path)
    assert maintenance.check(tmp_path).problems == ()
    damage(tmp_path, statement)
    found = maintenance.check(tmp_path)
    assert any(problem.startswith(said) for problem in found.problems), found.problems
    assert f"fazai store {hint}" in found.hint
    if hint == "reindex":
        assert maintenance.reindex(tmp_path, words_of_note) == 5
        assert maintenance.check(tmp_path).problems == ()
    else:
        with pytest.raises(StateError, match="the notes themselves are damaged: note kb-"):
            maintenance.reindex(tmp_path, words_of_note)


def test_both_kinds_of_damage_are_told(tmp_path: Path) -> None:
    fill(tmp_path)
    damage(tmp_path, "UPDATE notes SET title = 'x' WHERE id = 1", "UPDATE note_totals SET notes = 9")
    found = maintenance.check(tmp_path)
    assert len(found.problems) == 2
    assert "restore" in found.hint


def test_the_check_changes_nothing_and_works_beside_a_daemon(tmp_path: Path) -> None:
    fill(tmp_path)
    with contextlib.closing(SqliteDaemonStore(tmp_path, QUIET)) as store:
        before = asyncio.run(store.notes.count())
        assert maintenance.check(tmp_path).problems == ()
        assert asyncio.run(store.notes.count()) == before
        asyncio.run(store.notes.add(make_note("another", random.Random(2))))
        with pytest.raises(LockHeld, match="a daemon uses the state folder"):
            maintenance.reindex(tmp_path, words_of_note)


def refuse_write(folder: Path, statement: str) -> None:
    """Another process writes, and cannot: whoever looks has the file."""
    other = sqlite3.connect(folder / FILE_NAME, timeout=0, isolation_level=None)
    with contextlib.closing(other), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute(statement)


def test_a_note_that_goes_while_the_index_is_checked_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path)
    counted = checking._count_all

    def count_and_write(connection: sqlite3.Connection) -> Any:
        found = counted(connection)
        refuse_write(tmp_path, "DELETE FROM notes WHERE id = 1")
        return found

    monkeypatch.setattr(checking, "_count_all", count_and_write)
    assert maintenance.check(tmp_path).problems == ()


def test_an_index_is_built_from_the_notes_that_were_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path)
    checked = checking.damaged_notes

    def check_and_write(connection: sqlite3.Connection) -> list[str]:
        found = list(checked(connection))
        refuse_write(tmp_path, "UPDATE notes SET text = 'another' WHERE id = 1")
        return found

    monkeypatch.setattr(maintenance, "damaged_notes", check_and_write)
    assert maintenance.reindex(tmp_path, words_of_note) == 5


def test_an_index_that_was_built_anew_finds_the_same(tmp_path: Path) -> None:
    fill(tmp_path, 30)

    def found() -> list[tuple[int, str]]:
        with contextlib.closing(SqliteDaemonStore(tmp_path, QUIET)) as store:
            asyncio.run(store.notes.verify(3, "x", NOW))
            return asyncio.run(
                store.notes.search(
                    ["alpha", "fw-01"],
                    lambda all_, _: sorted((one.id, one.folded) for one in all_),
                    budget=SearchBudget(),
                )
            )

    wanted = found()
    assert len(wanted) == 30
    damage(tmp_path, "INSERT INTO notes_index (notes_index) VALUES ('delete-all')", "DELETE FROM note_words")
    maintenance.reindex(tmp_path, words_of_note)
    assert found() == wanted
    with contextlib.closing(SqliteDaemonStore(tmp_path, QUIET)) as store:
        asyncio.run(store.notes.remove(3))  # the triggers are there again
        assert 3 not in [id_ for id_, _ in asyncio.run(_search(store))]
    assert maintenance.check(tmp_path).problems == ()


async def _search(store: SqliteDaemonStore) -> list[tuple[int, str]]:
    return await store.notes.search(
        ["alpha"], lambda all_, _: [(one.id, one.folded) for one in all_], budget=SearchBudget()
    )


def test_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAZAI_STATE_DIR", str(tmp_path))
    fill(tmp_path)
    damage(tmp_path, "UPDATE note_totals SET notes = 9")
    assert main(["store", "check"]) == 1
    assert "fazai store reindex" in capsys.readouterr().err
    assert main(["store", "reindex"]) == 0
    assert capsys.readouterr().out == "the index has 5 notes\n"
    assert main(["store", "check"]) == 0
    assert "notes 5" in capsys.readouterr().out


def test_old_notes_of_machines_go(tmp_path: Path) -> None:
    clock = Clock()
    limits = replace(QUIET, upkeep_s=0.01, notes=NoteLimits(age_s=100.0))
    with contextlib.closing(SqliteDaemonStore(tmp_path, limits, clock)) as store:
        origins: tuple[Any, ...] = ("model", "device", "run", "import", "person")
        for origin in origins:
            note = make_note(origin, random.Random(1))
            asyncio.run(store.notes.add(replace(note, origin=origin, created=NOW)))
        asyncio.run(store.notes.verify(1, "x", NOW))
        clock.now_us += 101_000_000

        def left() -> list[str]:
            return [one.title for one in asyncio.run(store.notes.page(0, 100, 1 << 20))]

        _until(lambda: left() == ["model", "import", "person"])
    assert maintenance.check(tmp_path).problems == ()


def _until(holds: Callable[[], bool]) -> None:
    for _ in range(6000):
        if holds():
            return
        asyncio.run(asyncio.sleep(0.01))
    raise AssertionError("it did not come true")


def test_a_file_of_the_release_before_gets_the_tables(tmp_path: Path) -> None:
    with contextlib.closing(connect(tmp_path / FILE_NAME)) as connection:
        for script in MIGRATIONS[:7]:
            for statement in split_statements(script):
                connection.execute(statement)
        connection.execute("PRAGMA user_version = 7")
        migrate(connection)
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    fill(tmp_path)
    assert maintenance.check(tmp_path).problems == ()


def test_statements_of_triggers_stay_together() -> None:
    trigger = "CREATE TRIGGER t AFTER INSERT ON a BEGIN DELETE FROM a; DELETE FROM a; END"
    script = f"CREATE TABLE a (x);\n {trigger};\n SELECT ';';\n "
    assert [found.split()[0] for found in split_statements(script)] == ["CREATE", "CREATE", "SELECT"]
    for migration in MIGRATIONS:
        assert "".join(split_statements(migration)) == migration.rstrip().removesuffix("\n")


def test_a_store_without_notes_is_checked_as_before(tmp_path: Path) -> None:
    with contextlib.closing(SqliteDaemonStore(tmp_path, StoreLimits())):
        pass
    found = maintenance.check(tmp_path)
    assert (found.problems, found.rows["notes"]) == ((), 0)
