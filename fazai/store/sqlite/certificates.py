"""Certificates, enrolments and revocations of a state folder, beside a daemon that may use the same file."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import astuple, fields
from pathlib import Path

from fazai.store.certificates import (
    CertificateRecord,
    EnrolmentRecord,
    Revocation,
    RevocationList,
    TrustHolder,
)
from fazai.store.sqlite.schema import FILE_NAME, connect, migrate, state_error

_DAY_S = 86_400.0
_KEEP_CERTIFICATES_S = 400 * _DAY_S
_KEEP_OF_A_NAME = 100  # who renews day and night fills no disk
_KEEP_ENROLMENTS_S = 30 * _DAY_S

_CERTIFICATE = ", ".join(field.name for field in fields(CertificateRecord))
_ENROLMENT = ", ".join(field.name for field in fields(EnrolmentRecord))


class CertificateFile:
    """The certificates of a state folder, which is made 0700 when it is not there. Raises StateError.

    Two connections, so that reading never waits for a write that waits for others."""

    def __init__(self, folder: Path) -> None:
        self._reader = _LockedConnection(folder)
        self._writer = _LockedConnection(folder)

    def close(self) -> None:
        self._reader.close()
        self._writer.close()

    # -- certificates

    def certificates(self) -> list[CertificateRecord]:
        with self._read() as connection:
            rows = connection.execute(
                f"SELECT {_CERTIFICATE} FROM certificates ORDER BY name, issued"  # noqa: S608 - our names
            ).fetchall()
        return [CertificateRecord(*row) for row in rows]

    def names(self) -> dict[str, float]:
        with self._read() as connection:
            query = "SELECT name, max(issued) FROM certificates WHERE revoked IS NULL GROUP BY name"
            return dict(connection.execute(query))

    def find_certificate(self, fingerprint: str) -> CertificateRecord | None:
        with self._read() as connection:
            row = connection.execute(
                f"SELECT {_CERTIFICATE} FROM certificates WHERE fingerprint = ?",  # noqa: S608 - our names
                (fingerprint,),
            ).fetchone()
        return CertificateRecord(*row) if row else None

    def find_returned(self, old: str, request: str) -> CertificateRecord | None:
        with self._read() as connection:
            row = connection.execute(
                f"SELECT {_CERTIFICATE} FROM certificates WHERE predecessor = ? AND request = ?"  # noqa: S608
                " AND origin = 'returned'",
                (old, request),
            ).fetchone()
        return CertificateRecord(*row) if row else None

    def add_certificate(self, record: CertificateRecord, predecessor: str | None = None) -> bool:
        with self._write() as connection:
            if predecessor is not None and _is_revoked(connection, record.name, predecessor):
                return False
            _insert_certificate(connection, record)
            return True

    def add_returned(self, record: CertificateRecord, old: CertificateRecord) -> bool:
        with self._write() as connection:
            if _is_revoked(connection, old.name, old.fingerprint):
                return False
            connection.execute(*_insert("certificates", _CERTIFICATE, astuple(old), "OR IGNORE"))
            used = connection.execute(
                "UPDATE certificates SET returned = ? WHERE fingerprint = ? AND returned IS NULL",
                (record.issued, old.fingerprint),
            )
            if used.rowcount != 1:
                return False
            _insert_certificate(connection, record)
            return True

    # -- the CAs that agents trust

    def put_trust_holder(self, holder: TrustHolder) -> None:
        with self._write() as connection:
            connection.execute("INSERT OR REPLACE INTO trust_holders VALUES (?, ?, ?, ?)", astuple(holder))

    def trust_holders(self) -> dict[str, TrustHolder]:
        with self._read() as connection:
            rows = connection.execute("SELECT name, bundle, time, problem FROM trust_holders").fetchall()
        return {row[0]: TrustHolder(*row) for row in rows}

    # -- enrolments

    def put_enrolment(self, enrolment: EnrolmentRecord) -> None:
        with self._write() as connection:
            _withdraw_enrolments(connection, enrolment.name, enrolment.created)
            connection.execute(*_insert("enrolments", _ENROLMENT, astuple(enrolment)))
            connection.execute(
                "DELETE FROM enrolments WHERE expires < ?", (enrolment.created - _KEEP_ENROLMENTS_S,)
            )

    def enrolments(self) -> list[EnrolmentRecord]:
        with self._read() as connection:
            rows = connection.execute(
                f"SELECT {_ENROLMENT} FROM enrolments ORDER BY created, hash"  # noqa: S608 - our names
            ).fetchall()
        return [EnrolmentRecord(*row) for row in rows]

    def find_enrolment(self, hash_: str) -> EnrolmentRecord | None:
        with self._read() as connection:
            row = connection.execute(
                f"SELECT {_ENROLMENT} FROM enrolments WHERE hash = ?",  # noqa: S608 - our names
                (hash_,),
            ).fetchone()
        return EnrolmentRecord(*row) if row else None

    def redeem_enrolment(self, hash_: str, record: CertificateRecord) -> bool:
        with self._write() as connection:
            used = connection.execute(
                "UPDATE enrolments SET used = ?, fingerprint = ? WHERE hash = ? AND name = ?"
                " AND used IS NULL AND withdrawn IS NULL AND expires > ?",
                (record.issued, record.fingerprint, hash_, record.name, record.issued),
            )
            if used.rowcount != 1:
                return False
            _insert_certificate(connection, record)
            return True

    def count_refusal(self, hash_: str, now: float) -> None:
        with self._write() as connection:
            connection.execute(
                "UPDATE enrolments SET refused = refused + 1, last_refused = ? WHERE hash = ?", (now, hash_)
            )

    # -- revocations

    def revoke(self, revocation: Revocation) -> list[CertificateRecord]:
        name, fingerprint = revocation.name, revocation.fingerprint
        with self._write() as connection:
            rows = connection.execute(
                f"SELECT {_CERTIFICATE} FROM certificates WHERE name = ? AND revoked IS NULL"  # noqa: S608
                " AND (? = '' OR fingerprint = ?) ORDER BY issued",
                (name, fingerprint, fingerprint),
            ).fetchall()
            connection.execute(
                "UPDATE certificates SET revoked = ? WHERE name = ? AND revoked IS NULL"
                " AND (? = '' OR fingerprint = ?)",
                (revocation.time, name, fingerprint, fingerprint),
            )
            if not fingerprint:
                _withdraw_enrolments(connection, name, revocation.time)
            # with nothing new to say, what was said the first time stays
            either = "REPLACE" if rows or revocation.reason else "IGNORE"
            connection.execute(
                f"INSERT OR {either} INTO revocations (name, fingerprint, time, reason)"  # noqa: S608
                " VALUES (?, ?, ?, ?)",
                (name, fingerprint, revocation.time, revocation.reason),
            )
            _next_version(connection)
        return [CertificateRecord(*row) for row in rows]

    def lift_revocation(self, name: str) -> bool:
        with self._write() as connection:
            gone = connection.execute("DELETE FROM revocations WHERE name = ? AND fingerprint = ''", (name,))
            _next_version(connection)
            return gone.rowcount == 1

    def revocations(self, version: int = -1) -> RevocationList | None:
        with self._read() as connection:
            connection.execute("BEGIN")  # one view of all tables
            try:
                (found,) = connection.execute("SELECT version FROM revocation_version").fetchone()
                return None if found == version else _read_revocations(connection, found)
            finally:
                connection.execute("COMMIT")

    def _read(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        return self._reader.use()

    @contextlib.contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """Give a transaction: it is committed when the block ends, rolled back when it raises."""
        with self._writer.use() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")


class _LockedConnection:
    """A connection that one thread at a time uses; opened at the first use, and again after an error."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def use(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._connected()
            except (sqlite3.Error, OSError) as error:
                self._drop()
                raise state_error(self._folder, error) from error

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            connection = connect(self._folder / FILE_NAME)
            try:
                migrate(connection)
            except sqlite3.Error:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


def _insert(
    table: str, columns: str, values: tuple[object, ...], or_: str = ""
) -> tuple[str, tuple[object, ...]]:
    places = ", ".join("?" * len(values))
    return f"INSERT {or_} INTO {table} ({columns}) VALUES ({places})", values  # noqa: S608 - our names


def _insert_certificate(connection: sqlite3.Connection, record: CertificateRecord) -> None:
    """Store a new certificate, and drop those that expired long ago. One that succeeds none is for a machine
    that was perhaps made anew: which CAs the one before it trusted says nothing of it."""
    connection.execute(*_insert("certificates", _CERTIFICATE, astuple(record)))
    if record.origin in ("enrolled", "issued"):
        connection.execute("DELETE FROM trust_holders WHERE name = ?", (record.name,))
    connection.execute(
        "DELETE FROM certificates WHERE not_after < ?", (record.issued - _KEEP_CERTIFICATES_S,)
    )
    connection.execute(
        "DELETE FROM certificates WHERE name = ? AND returned IS NULL AND fingerprint NOT IN"
        " (SELECT fingerprint FROM certificates WHERE name = ? ORDER BY issued DESC LIMIT ?)",
        (record.name, record.name, _KEEP_OF_A_NAME),
    )
    connection.execute(  # of a revoked name it is one more that is good
        "UPDATE revocation_version SET version = version + 1"
        " WHERE EXISTS (SELECT 1 FROM revocations WHERE name = ? AND fingerprint = '')",
        (record.name,),
    )


def _withdraw_enrolments(connection: sqlite3.Connection, name: str, now: float) -> None:
    connection.execute(
        "UPDATE enrolments SET withdrawn = ? WHERE name = ? AND used IS NULL AND withdrawn IS NULL",
        (now, name),
    )


def _next_version(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE revocation_version SET version = version + 1")


def _is_revoked(connection: sqlite3.Connection, name: str, fingerprint: str) -> bool:
    return _read_revocations(connection, 0, name).find(name, fingerprint) is not None


def _read_revocations(
    connection: sqlite3.Connection, version: int, name: str | None = None
) -> RevocationList:
    """Read all that is revoked, or what concerns one name."""
    rows = connection.execute(
        "SELECT name, time, reason, fingerprint FROM revocations WHERE ? IS NULL OR name = ?", (name, name)
    ).fetchall()
    found = [Revocation(*row) for row in rows]
    valid: dict[str, set[str]] = {one.name: set() for one in found if not one.fingerprint}
    for known, fingerprint in connection.execute(
        "SELECT name, fingerprint FROM certificates WHERE revoked IS NULL AND name IN"
        " (SELECT name FROM revocations WHERE fingerprint = '')"
    ):
        if known in valid:
            valid[known].add(fingerprint)
    return RevocationList(
        version,
        {one.name: (frozenset(valid[one.name]), one) for one in found if not one.fingerprint},
        {one.fingerprint: one for one in found if one.fingerprint},
    )
