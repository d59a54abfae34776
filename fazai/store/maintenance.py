"""Maintenance of the state file: check it, shrink it, copy it while it is used, restore it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fazai.errors import LockHeld, StateError, missing_file
from fazai.store.sqlite.checkpoints import empty_log
from fazai.store.sqlite.leases import hold_daemon_lock
from fazai.store.sqlite.notes.checking import REINDEX_HINT, damaged_index, damaged_notes, rebuild_index
from fazai.store.sqlite.schema import (
    FILE_NAME,
    MIGRATIONS,
    NEWER_HINT,
    connect,
    migrate,
    open_reader,
    state_error,
)
from fazai.store.sqlite.telemetry import packing

_FINDINGS = 100
_PAGES_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Findings of a check; `problems` is empty for a file that is well."""

    size_bytes: int
    version: int
    rows: dict[str, int]
    problems: tuple[str, ...]
    hint: str = "bring a backup back with: fazai store restore FILE"


def check(folder: Path) -> CheckResult:
    """Read through the whole file, every chunk of telemetry, every note and their index. Works while it is
    used. Raises StateError when there is none."""
    path = _existing_file(folder / FILE_NAME)
    found = _check(path)
    if "notes" not in found.rows or found.version > len(MIGRATIONS):
        return found
    wrong: list[str] = []
    try:
        wrong += damaged_index(path)
    except sqlite3.Error as error:
        wrong.append(f"the index of notes cannot be checked: {error}")
    hint = REINDEX_HINT if wrong and not found.problems else found.hint
    return replace(found, problems=(*found.problems, *wrong), hint=hint)


def reindex(folder: Path, find_words: Callable[[str, str, Sequence[str], str], Sequence[str]]) -> int:
    """Build the index of notes anew from the notes, which are checked first; return how many there are.
    Raises StateError for notes that are not what was stored, LockHeld while a daemon uses the folder."""
    path = _existing_file(folder / FILE_NAME)
    refusal = LockHeld(f"a daemon uses the state folder {folder}", hint="stop it first")
    try:
        with open(hold_daemon_lock(folder, refusal), "rb"), contextlib.closing(connect(path)) as connection:
            migrate(connection)
            connection.execute("BEGIN IMMEDIATE")  # what is checked is what the index is built from
            problems = [
                str(row[0]) for row in connection.execute("PRAGMA integrity_check('notes')") if row[0] != "ok"
            ]
            problems += damaged_notes(connection)
            if problems:
                hint = "bring a backup back with: fazai store restore FILE"
                raise StateError(f"the notes themselves are damaged: {problems[0]}", hint=hint)
            count = rebuild_index(connection, find_words)
            connection.execute("COMMIT")
            return count
    except (sqlite3.Error, OSError) as error:
        raise state_error(folder, error) from error


def _check(path: Path) -> CheckResult:
    problems: list[str] = []
    rows: dict[str, int] = {}
    version = 0
    try:
        with contextlib.closing(open_reader(path)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            problems += [
                str(row[0])
                for row in connection.execute(f"PRAGMA integrity_check({_FINDINGS})")
                if row[0] != "ok"
            ]
            connection.execute("BEGIN")  # what a table is looked for in is what is read of it
            names = [
                row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            ]
            for name in sorted(name for name in names if not name.startswith(("sqlite_", "notes_index"))):
                (rows[name],) = connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()  # noqa: S608
            if "chunks" in names:
                problems += _bad_chunks(connection)
            if "notes" in names:
                problems += damaged_notes(connection)
    except sqlite3.Error as error:
        problems.append(str(error))
    if version > len(MIGRATIONS):
        problems.append("it was written by a newer fazai")
    found = CheckResult(_size_with_log(path), int(version), rows, tuple(problems))
    return found if version <= len(MIGRATIONS) else replace(found, hint=NEWER_HINT)


def _size_with_log(path: Path) -> int:
    """Return the bytes of a file with those in its write-ahead log."""
    log = path.with_name(f"{path.name}-wal")
    return path.stat().st_size + (log.stat().st_size if log.exists() else 0)


def _bad_chunks(connection: sqlite3.Connection) -> Iterator[str]:
    for id_, count, heads, body in connection.execute("SELECT id, count, heads, body FROM chunks"):
        try:
            found = [len(row.body) for row in packing.read_chunk(heads, body)]
        except (packing.Damaged, ValueError) as error:
            yield f"chunk {id_} cannot be read: {error}"
            continue
        if len(found) != count:
            yield f"chunk {id_} has {len(found)} records instead of {count}"


def vacuum(folder: Path) -> tuple[int, int]:
    """Give the room of what was dropped back to the disk; bytes before and after. Needs as much free space as
    the file has; others wait meanwhile. Raises StateError."""
    path = _existing_file(folder / FILE_NAME)
    try:
        before = _size_with_log(path)
        with contextlib.closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
            connection.execute("PRAGMA wal_autocheckpoint=0")
            connection.execute("VACUUM")
            empty_log(path, connection, "TRUNCATE")
        return before, _size_with_log(path)
    except sqlite3.Error as error:
        raise state_error(folder, error) from error


def backup(folder: Path, to: Path, progress: Callable[[int, int], None] = lambda done, of: None) -> int:
    """Copy the file while it is used, as it is at one moment; its bytes. The copy appears whole or not at
    all, and is only readable by us. Raises StateError; an existing file is never replaced."""
    path = _existing_file(folder / FILE_NAME)
    if to.exists():
        raise StateError(f"{to} is there already", hint="name a file that is not")
    draft = to.with_name(f".{to.name}.{os.getpid()}")
    try:
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        with (
            contextlib.closing(open_reader(path)) as source,
            contextlib.closing(sqlite3.connect(draft, isolation_level=None)) as target,
        ):
            # all pages of one read transaction: in steps, each commit of the daemon would begin it anew
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()
            source.backup(target, pages=-1, progress=lambda _, left, of: progress(of - left, of))
            source.execute("COMMIT")
            target.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
        _sync_to_disk(draft)
        os.link(draft, to)
        _sync_to_disk(to.parent)
        return to.stat().st_size
    except sqlite3.Error as error:
        raise state_error(folder, error) from error
    except OSError as error:
        raise StateError(
            f"{to} cannot be written: {error.strerror}", hint="see its folder and disk"
        ) from error
    finally:
        for leftover in (draft, Path(f"{draft}-journal"), Path(f"{draft}-wal"), Path(f"{draft}-shm")):
            leftover.unlink(missing_ok=True)


def restore(folder: Path, source: Path) -> Path | None:
    """Bring a backup back. It is checked first; what it replaces is kept beside it, and its path returned.

    Raises StateError for a backup that is not well, LockHeld while a daemon uses the folder.
    """
    found = _check(_existing_file(source))
    if found.problems:
        raise StateError(f"{source} is not a good backup: {found.problems[0]}", hint="take an older one")
    if "runs" not in found.rows:
        raise StateError(f"{source} is not a backup of fazai")
    path = folder / FILE_NAME
    draft = folder / f".{FILE_NAME}.{os.getpid()}"
    kept = None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        refusal = LockHeld(f"a daemon uses the state folder {folder}", hint="stop it first")
        with open(hold_daemon_lock(folder, refusal), "rb"):
            _copy_file(source, draft)
            if path.exists():
                kept = folder / f"{FILE_NAME}.replaced-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
                _set_aside(path, kept)
            os.rename(draft, path)
            _sync_to_disk(folder)
    except OSError as error:
        raise StateError(
            f"{path} cannot be written: {error.strerror}", hint="see its owner and disk"
        ) from error
    finally:
        draft.unlink(missing_ok=True)
    return kept


def _copy_file(source: Path, draft: Path) -> None:
    with (
        open(source, "rb") as read,
        open(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as write,
    ):
        while data := read.read(_PAGES_AT_ONCE * 4096):
            write.write(data)
        write.flush()
        os.fsync(write.fileno())


def _set_aside(path: Path, kept: Path) -> None:
    """Rename the file with its log: what is in that belongs to the old file, and must never be played into
    the new one."""
    os.rename(path, kept)
    for end in ("-wal", "-shm"):
        side = path.with_name(path.name + end)
        if side.exists():
            os.rename(side, kept.with_name(kept.name + end))


def _existing_file(path: Path) -> Path:
    try:
        there = path.is_file()
    except OSError as error:
        raise StateError(f"{path} cannot be read: {error.strerror}", hint="see its owner and mode") from None
    if not there:
        raise missing_file(StateError, "file", path, "FAZAI_STATE_DIR says where the state folder is")
    return path


def _sync_to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
