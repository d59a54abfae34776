"""The one SQLite file of the state folder: its tables, release by release, and how it is opened.

Migrations go forward only, each in a transaction of its own; a released one is never edited. `fazai apply`
and the daemon use the file at the same time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fazai.config import STATE_FILE
from fazai.errors import StateError, StoreFull

FILE_NAME = STATE_FILE

BUSY_S = 30.0
_LOG_PAGES = 5000  # of 4 KiB, to which the log's file is cut when it begins anew

#: Version 1 is release 0.1.0: the reconciler's ledger. Version 2: the daemon. Version 3: by the box, where it
#: was by the name of the target: what was remembered by name stays, and is found under the name. Version 4:
#: tokens of leases, and what stood in files beside this one: the runs of the daemon and its schedule.
#: Version 5: certificates of agents, enrolment tokens, revocations. Version 6: actions of remote agents.
#: Version 7: indexes of the events of a run, and of actions that have no outcome; which CA issued a
#: certificate, and who trusts which CAs. Version 8: sessions of the action loop.
#: Version 9: uses of the policy's rules, and what event rules keep.
#: Version 10: notices.
#: Version 11: notes of the knowledge base, with the index of their words. `folded` holds the words of a note
#: between spaces: no character of it but a space separates them.
MIGRATIONS = (
    """
    CREATE TABLE runs (
        run_id TEXT PRIMARY KEY, command TEXT NOT NULL, sources TEXT NOT NULL, user TEXT NOT NULL,
        host TEXT NOT NULL, pid INTEGER NOT NULL, started REAL NOT NULL, finished REAL, exit_code INTEGER,
        summary TEXT NOT NULL DEFAULT '{}'
    ) WITHOUT ROWID;
    CREATE TABLE actions (
        action_id TEXT PRIMARY KEY, run_id TEXT NOT NULL, target TEXT NOT NULL, kind TEXT NOT NULL,
        identity TEXT NOT NULL, verb TEXT NOT NULL, before TEXT NOT NULL, after TEXT NOT NULL,
        ref TEXT NOT NULL DEFAULT '', started REAL NOT NULL, finished REAL, status TEXT NOT NULL,
        error TEXT NOT NULL DEFAULT '', settled INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX actions_by_run ON actions (run_id);
    CREATE INDEX actions_open ON actions (target) WHERE finished IS NULL AND settled = 0;
    CREATE TABLE pending (
        target TEXT NOT NULL, service TEXT NOT NULL, run_id TEXT NOT NULL, since REAL NOT NULL,
        PRIMARY KEY (target, service)
    ) WITHOUT ROWID;
    CREATE TABLE adopted (
        target TEXT NOT NULL, ref TEXT NOT NULL, kind TEXT NOT NULL, identity TEXT NOT NULL,
        run_id TEXT NOT NULL, since REAL NOT NULL, PRIMARY KEY (target, ref)
    ) WITHOUT ROWID;
    CREATE TABLE generations (target TEXT PRIMARY KEY, generation INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL, time REAL NOT NULL, type TEXT NOT NULL,
        target TEXT NOT NULL, data TEXT NOT NULL
    );
    CREATE INDEX events_by_run ON events (run_id);
    """,
    """
    CREATE TABLE hosts (
        id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, time_us INTEGER NOT NULL,
        seen_us INTEGER NOT NULL, records INTEGER NOT NULL, interval_s REAL NOT NULL,
        silent INTEGER NOT NULL, gauges BLOB NOT NULL
    );
    CREATE TABLE chunks (
        id INTEGER PRIMARY KEY AUTOINCREMENT, made_us INTEGER NOT NULL, count INTEGER NOT NULL,
        bytes INTEGER NOT NULL, heads BLOB NOT NULL, body BLOB NOT NULL
    );
    CREATE TABLE fresh (chunk_id INTEGER PRIMARY KEY);
    CREATE TABLE spans (
        id INTEGER PRIMARY KEY, host_id INTEGER NOT NULL, first_us INTEGER NOT NULL, last_us INTEGER NOT NULL,
        max_chunk INTEGER NOT NULL, refs BLOB NOT NULL, gauges BLOB NOT NULL
    );
    CREATE UNIQUE INDEX spans_by_host ON spans (host_id, last_us);
    CREATE INDEX spans_by_chunk ON spans (max_chunk);
    CREATE TABLE stream (
        id INTEGER PRIMARY KEY AUTOINCREMENT, time_us INTEGER NOT NULL, type TEXT NOT NULL,
        data BLOB NOT NULL, target TEXT, run TEXT, session TEXT, agent TEXT, level TEXT
    );
    CREATE TABLE marks (name TEXT PRIMARY KEY, upto INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE agents (agent_id TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE firewalls (id TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE tokens (hash TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE nonces (
        agent TEXT NOT NULL, nonce TEXT NOT NULL, expires_us INTEGER NOT NULL, PRIMARY KEY (agent, nonce)
    ) WITHOUT ROWID;
    CREATE INDEX nonces_by_expiry ON nonces (expires_us);
    CREATE TABLE targets (
        target TEXT PRIMARY KEY, status TEXT NOT NULL, pending INTEGER NOT NULL, run_id TEXT NOT NULL,
        time REAL NOT NULL, rank INTEGER NOT NULL
    ) WITHOUT ROWID;
    INSERT INTO targets
        SELECT target, coalesce(json_extract(data, '$.status'), ''),
            coalesce(json_extract(data, '$.pending'), 0), run_id, max(time), 0
        FROM events WHERE type = 'outcome' GROUP BY target;
    """,
    """
    ALTER TABLE actions ADD COLUMN box TEXT NOT NULL DEFAULT '';
    UPDATE actions SET box = target;
    DROP INDEX actions_open;
    CREATE INDEX actions_open ON actions (box) WHERE finished IS NULL AND settled = 0;
    ALTER TABLE pending RENAME COLUMN target TO box;
    ALTER TABLE adopted RENAME COLUMN target TO box;
    ALTER TABLE generations RENAME COLUMN target TO box;
    CREATE TABLE names (
        known TEXT NOT NULL, name TEXT NOT NULL, time REAL NOT NULL, PRIMARY KEY (known, name)
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE generations ADD COLUMN token INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE daemon_runs (run_id TEXT PRIMARY KEY, value TEXT NOT NULL, plan BLOB) WITHOUT ROWID;
    CREATE TABLE schedule (job TEXT PRIMARY KEY, began REAL NOT NULL) WITHOUT ROWID;
    """,
    """
    CREATE TABLE certificates (
        fingerprint TEXT PRIMARY KEY, serial TEXT NOT NULL, name TEXT NOT NULL, origin TEXT NOT NULL,
        issued REAL NOT NULL, not_before REAL NOT NULL, not_after REAL NOT NULL,
        revoked REAL, returned REAL, predecessor TEXT, request TEXT NOT NULL DEFAULT '',
        pem TEXT NOT NULL DEFAULT ''
    ) WITHOUT ROWID;
    CREATE INDEX certificates_by_name ON certificates (name, issued);
    CREATE INDEX certificates_by_end ON certificates (not_after);
    CREATE INDEX certificates_by_predecessor ON certificates (predecessor) WHERE predecessor IS NOT NULL;
    CREATE TABLE enrolments (
        hash TEXT PRIMARY KEY, name TEXT NOT NULL, created REAL NOT NULL, expires REAL NOT NULL, used REAL,
        withdrawn REAL, fingerprint TEXT, refused INTEGER NOT NULL DEFAULT 0, last_refused REAL
    ) WITHOUT ROWID;
    CREATE TABLE revocations (
        name TEXT NOT NULL, fingerprint TEXT NOT NULL DEFAULT '', time REAL NOT NULL, reason TEXT NOT NULL,
        PRIMARY KEY (name, fingerprint)
    ) WITHOUT ROWID;
    CREATE TABLE revocation_version (version INTEGER NOT NULL);
    INSERT INTO revocation_version VALUES (0);
    """,
    """
    CREATE TABLE agent_actions (
        agent TEXT NOT NULL, action TEXT NOT NULL, method TEXT NOT NULL, digest TEXT NOT NULL,
        client TEXT NOT NULL, sent REAL, done REAL, answer BLOB, bytes INTEGER NOT NULL,
        PRIMARY KEY (agent, action)
    ) WITHOUT ROWID;
    CREATE INDEX agent_actions_by_time ON agent_actions (coalesce(done, sent), bytes);
    """,
    """
    CREATE INDEX stream_by_run ON stream (run) WHERE run IS NOT NULL;
    CREATE INDEX agent_actions_open ON agent_actions (agent) WHERE done IS NULL;
    ALTER TABLE certificates ADD COLUMN issuer TEXT NOT NULL DEFAULT '';
    CREATE TABLE trust_holders (
        name TEXT PRIMARY KEY, bundle TEXT NOT NULL, time REAL NOT NULL, problem TEXT NOT NULL
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE loop_sessions (session_id TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE loop_journal (
        session_id TEXT NOT NULL, seq INTEGER NOT NULL, entry TEXT NOT NULL, PRIMARY KEY (session_id, seq)
    ) WITHOUT ROWID;
    CREATE TABLE loop_outputs (
        session_id TEXT NOT NULL, output_id TEXT NOT NULL, data BLOB NOT NULL,
        PRIMARY KEY (session_id, output_id)
    );
    CREATE TABLE loop_tools (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    """,
    """
    CREATE TABLE policy_uses (rule TEXT NOT NULL, time REAL NOT NULL, effect TEXT NOT NULL);
    CREATE INDEX policy_uses_by_rule ON policy_uses (rule, time);
    CREATE TABLE entries (
        job TEXT NOT NULL, alias TEXT NOT NULL, address TEXT NOT NULL, since REAL NOT NULL,
        until REAL NOT NULL, rule TEXT NOT NULL, why TEXT NOT NULL, PRIMARY KEY (job, alias, address)
    ) WITHOUT ROWID;
    CREATE TABLE rule_marks (
        rule TEXT NOT NULL, "group" TEXT NOT NULL, time REAL NOT NULL, PRIMARY KEY (rule, "group")
    ) WITHOUT ROWID;
    CREATE INDEX rule_marks_by_time ON rule_marks (time);
    """,
    """
    CREATE TABLE notices (id TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    """,
    """
    CREATE TABLE notes (
        id INTEGER PRIMARY KEY AUTOINCREMENT, standing INTEGER NOT NULL, created REAL NOT NULL,
        last_written REAL NOT NULL, length INTEGER NOT NULL, bytes INTEGER NOT NULL, folded TEXT NOT NULL,
        hash TEXT NOT NULL UNIQUE, status TEXT NOT NULL, origin TEXT NOT NULL, target TEXT NOT NULL,
        written INTEGER NOT NULL, verified REAL, verified_by TEXT NOT NULL, author TEXT NOT NULL,
        session TEXT NOT NULL, run TEXT NOT NULL, source TEXT NOT NULL, tags TEXT NOT NULL,
        title TEXT NOT NULL, text TEXT NOT NULL
    );
    CREATE INDEX notes_by_standing ON notes (standing, last_written);
    CREATE TABLE note_links (
        note INTEGER NOT NULL, other INTEGER NOT NULL, relation TEXT NOT NULL,
        PRIMARY KEY (note, other, relation)
    ) WITHOUT ROWID;
    CREATE INDEX note_links_back ON note_links (other, relation, note);
    CREATE TABLE note_words (word TEXT PRIMARY KEY, notes INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE note_totals (notes INTEGER NOT NULL, bytes INTEGER NOT NULL, words INTEGER NOT NULL);
    INSERT INTO note_totals VALUES (0, 0, 0);
    CREATE VIRTUAL TABLE notes_index USING fts5 (
        folded, content='notes', content_rowid='id', detail=none, columnsize=0,
        tokenize="ascii tokenchars '#%&''+-./:@_~='"
    );
    CREATE TRIGGER notes_inserted AFTER INSERT ON notes BEGIN
        INSERT INTO notes_index (rowid, folded) VALUES (new.id, new.folded);
        UPDATE note_totals SET notes = notes + 1, bytes = bytes + new.bytes, words = words + new.length;
    END;
    CREATE TRIGGER notes_deleted AFTER DELETE ON notes BEGIN
        INSERT INTO notes_index (notes_index, rowid, folded) VALUES ('delete', old.id, old.folded);
        UPDATE note_totals SET notes = notes - 1, bytes = bytes - old.bytes, words = words - old.length;
    END;
    CREATE TRIGGER notes_updated AFTER UPDATE OF id, folded, length, bytes ON notes BEGIN
        INSERT INTO notes_index (notes_index, rowid, folded) VALUES ('delete', old.id, old.folded);
        INSERT INTO notes_index (rowid, folded) VALUES (new.id, new.folded);
        UPDATE note_totals SET bytes = bytes + new.bytes - old.bytes, words = words + new.length - old.length;
    END;
    """,
)

_NO_ROOM = frozenset({errno.ENOSPC, errno.EFBIG, errno.EDQUOT})
_PROBE_BYTES = 64 << 10
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def connect(path: Path) -> sqlite3.Connection:
    """Open a connection that may write; the file is ours alone. Raises sqlite3.Error."""
    _keep_private(path)
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")  # a journal that a power cut forgets is none
        connection.execute("PRAGMA wal_autocheckpoint=0")  # writers see to that: `checkpoints` says why
        connection.execute(f"PRAGMA journal_size_limit={_LOG_PAGES * 4096}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _keep_private(path: Path) -> None:
    """Create the file with the mode 0600 whatever the umask is (its log and its index follow it), and take
    from others what an earlier release let them read. An existing one is not opened: to close it again would
    end the locks of this process. What cannot be done here is said by SQLite, or by
    `factory.describe_openness`."""
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(OSError):
            file = path.with_name(path.name + suffix)
            found = file.lstat()
            if stat.S_ISREG(found.st_mode) and found.st_mode & 0o077 and found.st_uid == os.geteuid():
                file.chmod(0o600)


def open_reader(path: Path) -> sqlite3.Connection:
    """Open a connection that only reads, of a file that is there. Raises sqlite3.Error."""
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA query_only=1")
    return connection


NEWER_HINT = "install that one again, or bring a backup from before it back with: fazai store restore FILE"


class _Newer(sqlite3.DatabaseError):
    """Nothing is wrong with the file."""


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to this release's version. Raises sqlite3.Error."""
    while (version := _version(connection)) < len(MIGRATIONS):
        connection.execute("BEGIN IMMEDIATE")
        try:
            if _version(connection) == version:  # else another process was faster
                for statement in split_statements(MIGRATIONS[version]):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        except sqlite3.Error:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
    if version > len(MIGRATIONS):
        raise _Newer("it was written by a newer fazai")


def split_statements(script: str) -> Iterator[str]:
    """Yield the statements of a script; those of a trigger belong to it."""
    statement = ""
    for piece in script.split(";")[:-1]:
        statement += f"{piece};"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def state_error(folder: Path, error: Exception) -> StateError:
    """Return what SQLite or the operating system says as an error with the next step."""
    code = _code(error) & 0xFF
    if isinstance(error, _Newer):
        return StateError(f"the state folder {folder} cannot be used: {error}", hint=NEWER_HINT)
    if code == sqlite3.SQLITE_FULL or _has_no_room(folder, error):
        return StoreFull(
            f"the state folder {folder} takes no more data: {error}",
            hint="free space on its disk; nothing else needs to be done",
        )
    if code == sqlite3.SQLITE_IOERR:
        return StateError(
            f"the disk of the state folder {folder} fails: {error}",
            hint="see the kernel's log (dmesg), then: fazai store check",
        )
    if code in _BROKEN:
        return StateError(
            f"the file {folder / FILE_NAME} is damaged: {error}",
            hint="see: fazai store check; bring a backup back with: fazai store restore FILE",
        )
    if isinstance(error, FileExistsError | NotADirectoryError):
        return StateError(
            f"the state folder {folder} cannot be used: it is a file, or lies below one",
            hint="set FAZAI_STATE_DIR to a folder",
        )
    why = error.strerror if isinstance(error, OSError) and error.strerror else error
    return StateError(
        f"the state folder {folder} cannot be used: {why}",
        hint="free it, mend its owner and mode, or set FAZAI_STATE_DIR to another folder",
    )


def _has_no_room(folder: Path, error: Exception) -> bool:
    """Return whether the disk is full. SQLite calls ENOSPC full, but a limit of the file's size or a quota an
    I/O error, and the number that the system gave is lost on its way here. So it is tried: as much as a page,
    where the files end now."""
    if isinstance(error, OSError):
        return error.errno in _NO_ROOM
    if _code(error) & 0xFF != sqlite3.SQLITE_IOERR:
        return False
    try:
        end = max((path.stat().st_size for path in folder.glob(f"{FILE_NAME}*")), default=0)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
            os.pwrite(probe.fileno(), bytes(_PROBE_BYTES), end)
    except OSError as failed:
        return failed.errno in _NO_ROOM
    return False


def _code(error: Exception) -> int:
    return int(getattr(error, "sqlite_errorcode", 0) or 0)


def escape_text(value: Any) -> Any:
    """Escape text that is no UTF-8, which SQLite alone takes: names from the environment, from devices and
    from reports may hold other bytes."""
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-8", "backslashreplace").decode()
    return value
