"""Leases of boxes: a lock file each, held with flock(2), so that the kernel frees it when its holder dies.

The file says who holds it and since when, and the token of the latest lease. The database has the token as
well, from the first write of that lease on: so it grows also where the file was lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fazai.errors import LockHeld
from fazai.store.base import Lease, Run
from fazai.store.sqlite.schema import state_error

__all__ = ["FENCE", "fence_failure", "find_holder", "hold_lease"]

_TRIES, _PAUSE_S = 5, 0.002

#: Fails where a later lease of the box has written before; its parameters are box, token and run.
FENCE = """
    INSERT INTO leases VALUES (?, ?, ?) ON CONFLICT (box) DO UPDATE SET
        token = CASE WHEN token > excluded.token THEN NULL ELSE excluded.token END, run_id = excluded.run_id
"""


def fence_failure(error: Exception) -> LockHeld | None:
    """Return what to say where `FENCE` failed; None for every other error."""
    if "leases.token" not in str(error):
        return None
    return LockHeld("another run holds the target by now, and has written to it", hint="plan it again")


@contextlib.asynccontextmanager
async def hold_lease(
    folder: Path, box: str, run: Run, name: str, read_token: Callable[[], int]
) -> AsyncIterator[Lease]:
    """Hold the box for the run until the block ends or the process does. `name` is what the run calls it,
    `read_token` reads the last token that the database has. Raises LockHeld, StateError."""
    path = folder / _file_name(box)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise state_error(folder.parent, error) from error
    try:
        await _lock_file(handle, name)
        written = _read_holder(handle).get("token")
        token = 1 + max(read_token(), written if isinstance(written, int) else 0)
        holder = {"run": run.run_id, "pid": run.pid, "host": run.host, "user": run.user, "since": time.time()}
        try:
            # blanks over the rest of the last one: cutting it off waits for the disk, each time
            text = json.dumps({**holder, "target": name, "token": token}).encode()
            os.pwrite(handle, text.ljust(os.fstat(handle).st_size), 0)
        except OSError as error:
            raise state_error(folder.parent, error) from error
        yield Lease(box, run.run_id, token)
    finally:
        os.close(handle)  # also unlocks; the file stays, as deleting it would race with the next holder


def find_holder(folder: Path, box: str) -> str:
    """Return the run that holds the box just now, else an empty text. The kernel is asked, which lets go when
    a run dies."""
    try:
        handle = os.open(folder / _file_name(box), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return str(_read_holder(handle).get("run", ""))
    finally:
        os.close(handle)
    return ""


def _file_name(box: str) -> str:
    safe = "".join(c if c.isalnum() or c in "-._" else "_" for c in box)[:80]
    return f"{safe}-{hashlib.sha256(box.encode()).hexdigest()[:8]}.lock"


async def _lock_file(handle: int, name: str) -> None:
    """Lock the file. Raises LockHeld. One that only asks who holds it has it for an instant."""
    for left in reversed(range(_TRIES)):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if not left:
                raise _held_error(handle, name) from error
            await asyncio.sleep(_PAUSE_S)
        else:
            return


def _read_holder(handle: int) -> dict[str, Any]:
    """Return what the latest holder wrote; empty when that cannot be read."""
    try:
        found = json.loads(os.pread(handle, 4096, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _held_error(handle: int, name: str) -> LockHeld:
    holder = _read_holder(handle)
    try:
        since = datetime.fromtimestamp(holder["since"], UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        theirs = holder.get("target", name)
        called = "" if theirs == name else f", which it calls {theirs},"
        text = (
            f"run {holder['run']} (pid {holder['pid']} of {holder['user']} on {holder['host']})"
            f" holds {name}{called} since {since}"
        )
    except (ValueError, KeyError, TypeError):
        text = f"another run holds {name}"
    return LockHeld(text, where=name, hint="wait for it, or end that process")
