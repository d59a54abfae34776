"""The worker's log: one JSON object a line (SPEC.md, section 5), or text for people."""

from __future__ import annotations

import contextlib
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Literal

import msgspec

from fazai.errors import InputError

__all__ = ["Log"]

Level = Literal["debug", "info", "warning", "error", "critical"]


class Log:
    """Writes to stderr, or to a file that `reopen` opens again (SIGHUP, after logrotate moved it)."""

    def __init__(self, path: Path | None = None, *, text: bool = False) -> None:
        self._path = path
        self._text = text
        self._file: IO[str] | None = None
        self.reopen()

    def reopen(self) -> None:
        """Raises InputError; then it goes on where it was."""
        if self._path is None:
            return
        try:
            opened = self._path.open("a", encoding="utf-8")
        except OSError as error:
            raise InputError(f"the log cannot be opened: {error.strerror}", where=str(self._path)) from None
        before, self._file = self._file, opened
        if before is not None:
            before.close()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def say(self, level: Level, message: str, *, session_id: str | None = None) -> None:
        with contextlib.suppress(OSError):  # a full disk must not end the worker
            self._say(level, message, session_id)

    def _say(self, level: Level, message: str, session_id: str | None) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        out = self._file or sys.stderr
        if self._text:
            print(f"{now} {level:8} {message}", file=out, flush=True)
            return
        line = {"timestamp": now, "level": level, "logger": "fazai.worker", "message": message}
        if session_id is not None:
            line["session_id"] = session_id
        print(msgspec.json.encode(line).decode(), file=out, flush=True)
