"""Bearer tokens of a state folder, for `fazai token`, beside a daemon that may be running on the same
file."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec

from fazai.store.daemon import Token
from fazai.store.sqlite.schema import FILE_NAME, connect, migrate, state_error


class TokenFile:
    """The tokens of a state folder, which is made 0700 when it is not there. Raises StateError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def tokens(self) -> list[Token]:
        """Return all tokens, the oldest first."""
        with self._open() as connection:
            rows = connection.execute("SELECT value FROM tokens").fetchall()
        return sorted((msgspec.json.decode(row[0], type=Token) for row in rows), key=lambda one: one.created)

    def put(self, token: Token) -> None:
        """Create it, or replace the one with the same hash; durable when it returns."""
        with self._open() as connection:
            value = msgspec.json.encode(token).decode()
            connection.execute("INSERT OR REPLACE INTO tokens VALUES (?, ?)", (token.hash, value))

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        before = os.umask(0o077)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.closing(connect(self._folder / FILE_NAME)) as connection:
                migrate(connection)
                yield connection
        except (sqlite3.Error, OSError) as error:
            raise state_error(self._folder, error) from error
        finally:
            os.umask(before)
