"""The log of a process: one JSON object a line (SPEC.md, section 5), or text for people."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, Literal

import msgspec

from fazai.errors import InputError
from fazai.timestamps import utc_now

Level = Literal["debug", "info", "warning", "error", "critical"]


class Log:
    """Writes log lines to stderr, or to a file that `reopen` opens again (SIGHUP, after logrotate moved it).
    `logger` is the part of fazai that speaks. Raises InputError for a file that cannot be written."""

    def __init__(self, path: Path | None = None, *, text: bool = False, logger: str = "fazai") -> None:
        self._path = path
        self._text = text
        self._logger = logger
        self._file: IO[str] | None = None
        self.reopen()

    def reopen(self) -> None:
        """Open the file again. Raises InputError, and goes on with the file before."""
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
        """Close the file, if it is one."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def say(self, level: Level, message: str, *, logger: str | None = None, **ids: str | None) -> None:
        """Write one line. `ids` are those of section 5: agent_id, session_id, run_id, action_id, target. A
        log that cannot be written (a full disk, a reader that went away) never stops the process."""
        now = utc_now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        known = {name: value for name, value in ids.items() if value is not None}
        if self._text:
            more = "".join(f"  {name}={value}" for name, value in known.items())
            line = f"{now} {level:8} {_without_control_characters(message + more)}"
        else:
            fields = {"timestamp": now, "level": level, "logger": logger or self._logger, "message": message}
            line = msgspec.json.encode({**fields, **known}).decode()
        with suppress(OSError, ValueError):
            print(line, file=self._file or sys.stderr, flush=True)


class LogHandler(logging.Handler):
    """Writes what a library logs to our log."""

    def __init__(self, log: Log, logger: str) -> None:
        super().__init__()
        self._log, self._logger = log, logger

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, asyncio.CancelledError):  # a request that the stop cut off
            return
        text = record.getMessage().strip()
        self._log.say("error", f"{text}: {error!r}" if error else text, logger=self._logger)


def _without_control_characters(text: str) -> str:
    """Return the text without what would steer a terminal; further lines of it cannot be taken for others."""
    if text.isprintable():
        return text
    shown = (c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
    return "".join(shown).replace("\n", "\n    ")
