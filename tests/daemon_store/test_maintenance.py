"""fazai store check, vacuum, backup, restore: through the command line, on real files."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from fazai.cli import main
from fazai.errors import StateError
from fazai.store.daemon import NewEvent
from fazai.store.sqlite.daemon import SqliteDaemonStore
from fazai.store.sqlite.schema import FILE_NAME
from tests.daemon_store.conftest import QUIET, sample


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FAZAI_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


def fill(folder: Path, minutes: int = 50) -> None:
    store = SqliteDaemonStore(folder, QUIET)
    asyncio.run(
        store.ingest([sample(f"h{n}", minute, size=2000) for n in range(5) for minute in range(minutes)])
    )
    asyncio.run(store.publish([NewEvent("log", b'{"type":"log"}')] * 100))
    store.close()


def fazai(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(["store", *words])
    out, err = capsys.readouterr()
    return code, out, err


def test_check_says_that_all_is_well(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(folder)
    assert fazai(["check"], capsys)[:2] == (0, fazai(["check"], capsys)[1])
    code, out, _ = fazai(["check", "--output", "json"], capsys)
    found = json.loads(out)
    assert (code, found["ok"], found["rows"]["stream"], found["rows"]["hosts"]) == (0, True, 100, 5)


def test_a_newer_file_is_not_called_damaged(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(folder, 1)
    with contextlib.closing(sqlite3.connect(folder / FILE_NAME)) as connection:
        connection.execute("PRAGMA user_version = 99")
    code, out, err = fazai(["check"], capsys)
    assert (code, "damaged" in out + err) == (1, False)
    with pytest.raises(StateError) as caught:
        SqliteDaemonStore(folder, QUIET)
    for text in (err, str(caught.value.hint)):
        assert "install that one again" in text


#: Root without its capabilities is refused as anybody is.
_PLAIN = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()


def test_a_folder_that_cannot_be_entered(folder: Path) -> None:
    fill(folder, 1)
    folder.chmod(0)
    env = {**os.environ, "FAZAI_STATE_DIR": str(folder)}
    try:
        for words in (("check",), ("vacuum",), ("backup", str(folder.parent / "copy"))):
            command = (*_PLAIN, sys.executable, "-m", "fazai", "store", *words)
            done = subprocess.run(command, env=env, capture_output=True, text=True)
            assert (done.returncode, "Permission denied" in done.stderr) == (3, True), done.stderr
    finally:
        folder.chmod(0o700)


def test_check_finds_a_record_that_cannot_be_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(folder)
    with contextlib.closing(sqlite3.connect(folder / FILE_NAME, isolation_level=None)) as connection:
        connection.execute("UPDATE chunks SET body = zeroblob(100)")
    code, out, err = fazai(["check"], capsys)
    assert code == 1
    assert "cannot be read" in out
    assert "fazai store restore" in err


def test_nothing_to_look_after(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["check"], ["vacuum"], ["backup", "x.sqlite3"]):
        code, _, err = fazai(words, capsys)
        assert code == 3
        assert "there is no file" in err


def test_vacuum_gives_room_back(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(folder, 500)
    with contextlib.closing(sqlite3.connect(folder / FILE_NAME, isolation_level=None)) as connection:
        connection.execute("DELETE FROM chunks")
        connection.execute("DELETE FROM stream")
    before = (folder / FILE_NAME).stat().st_size
    assert fazai(["vacuum"], capsys)[0] == 0
    assert (folder / FILE_NAME).stat().st_size < before


def test_a_backup_while_the_daemon_writes(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(folder)
    store = SqliteDaemonStore(folder, QUIET)
    enough = threading.Event()

    async def write() -> None:
        minute = 50
        while not enough.is_set():
            await store.ingest([sample("h0", minute)])
            minute += 1

    writing = threading.Thread(target=lambda: asyncio.run(write()))
    writing.start()
    file = tmp_path / "backup.sqlite3"
    try:
        assert fazai(["backup", str(file)], capsys)[0] == 0
    finally:
        enough.set()
        writing.join()
        store.close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".backup")] == []
    code, _, err = fazai(["backup", str(file)], capsys)
    assert (code, "is there already" in err) == (3, True)
    other = tmp_path / "other"
    other.mkdir()
    file.rename(other / FILE_NAME)
    copy = SqliteDaemonStore(other, QUIET)
    times = [time_us for time_us, _ in asyncio.run(copy.history("h0", limit=10**6))]
    assert len(times) >= 50
    assert times == [sample("h0", minute).time_us for minute in range(len(times))]
    copy.close()


def test_a_damaged_file_is_replaced_by_the_backup(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(folder)
    file = tmp_path / "backup.sqlite3"
    assert fazai(["backup", str(file)], capsys)[0] == 0
    (folder / FILE_NAME).write_bytes(b"damaged" * 1000)
    code, _, err = fazai(["check"], capsys)
    assert (code, "cannot be used: 1 finding" in err) == (1, True), err
    code, out, _ = fazai(["restore", str(file)], capsys)
    assert code == 0
    assert "the old file is" in out
    assert any(path.read_bytes() == b"damaged" * 1000 for path in folder.glob("*.replaced-*"))
    store = SqliteDaemonStore(folder, QUIET)
    assert len(asyncio.run(store.records("h0", limit=100))) == 50
    assert store.event_range() == (1, 100)
    store.close()


def test_what_is_no_backup_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(folder)
    file = tmp_path / "text"
    file.write_text("no database" * 100)
    assert fazai(["restore", str(file)], capsys)[0] == 3
    with contextlib.closing(sqlite3.connect(tmp_path / "other")) as connection:
        connection.execute("CREATE TABLE x (y)")
    code, _, err = fazai(["restore", str(tmp_path / "other")], capsys)
    assert (code, "not a backup of fazai" in err) == (3, True)
    assert main(["store", "check"]) == 0


def test_nothing_is_restored_below_a_daemon(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(folder)
    file = tmp_path / "backup.sqlite3"
    assert fazai(["backup", str(file)], capsys)[0] == 0
    store = SqliteDaemonStore(folder, QUIET)
    code, _, err = fazai(["restore", str(file)], capsys)
    store.close()
    assert (code, "stop it first" in err) == (5, True)
