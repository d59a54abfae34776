"""Leases of boxes: a lock file each, held with flock(2), so that the kernel frees it when its holder dies.

The file says who holds the box, since when and until when, and the token of the latest lease. A holder that
lives and does not renew (a process that was stopped, a machine that slept) is outlived: whoever comes then
puts a file of its own in the place, by which the old holder sees that its lease is lost. All that takes,
renews or replaces a file is done under a lock of the folder, for microseconds. The database has the token as
well, from the first write of the lease on: so it grows also where the file was lost.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from fazai.errors import LockHeld, StateError
from fazai.store.base import Holder, Run
from fazai.store.sqlite.schema import escape_text, state_error

_TRIES, _PAUSE_S = 5, 0.002
_FOLDER_TRIES, _FOLDER_PAUSE_S = 100, 0.01
_HOLDER_BYTES = 4096
_HINT = "plan it again"
_UNKNOWN = Holder("", 0, "", "", 0.0)  # one that holds a box and cannot be read


def fence_failure(error: Exception) -> LockHeld | None:
    """Return what to say where the token of an action is older than the last one that wrote to the box; None
    for every other error."""
    if "generations.token" not in str(error):
        return None
    return LockHeld("another run holds the target by now, and has written to it", hint=_HINT)


class LockFolder:
    """The folder of the lock files. `read_token` reads the last token of a box that the database has; `clock`
    tells seconds since the epoch, by which leases expire."""

    def __init__(self, folder: Path, clock: Callable[[], float], read_token: Callable[[str], int]) -> None:
        self.folder, self.clock, self.read_token = folder, clock, read_token
        self.held: dict[tuple[str, int], FileLease] = {}  # by box and token: the leases of this process
        self._handle: int | None = None

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def path_of(self, box: str) -> str:
        safe = "".join(c if c.isalnum() or c in "-._" else "_" for c in box)[:80]
        return f"{self.folder}/{safe}-{hashlib.sha256(box.encode()).hexdigest()[:8]}.lock"

    def find_holder(self, box: str) -> Holder | None:
        """Return who holds the box just now. The kernel is asked, which lets go when a run dies."""
        try:
            handle = os.open(self.path_of(box), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read_holder(handle)[0] or _UNKNOWN
        finally:
            os.close(handle)
        return None

    def try_lock(self) -> bool:
        """Lock the folder; return False while another process has it. Raises StateError."""
        try:
            if self._handle is None:
                self._handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise state_error(self.folder.parent, error) from error
        return True

    async def lock(self) -> None:
        """Lock the folder, for a step without any wait. Raises StateError where somebody keeps it."""
        for _ in range(_FOLDER_TRIES):
            if self.try_lock():
                return
            await asyncio.sleep(_FOLDER_PAUSE_S)
        raise StateError(
            f"a process keeps the locks in {self.folder} to itself", hint=f"see: fuser -v {self.folder}"
        )

    def unlock(self) -> None:
        assert self._handle is not None
        fcntl.flock(self._handle, fcntl.LOCK_UN)


class FileLease:
    """Lease of one box (`base.Lease`), and the block in which it is held: it is renewed until that ends."""

    def __init__(self, locks: LockFolder, box: str, run: Run, name: str, lease_s: float) -> None:
        self.box, self.owner, self.token, self.expires = box, run.run_id, 0, 0.0
        self._locks, self._run, self._name, self._lease_s = locks, run, name, lease_s
        self._path = locks.path_of(box)
        self._handle, self._inode, self._size, self._since = -1, 0, 0, 0.0
        self._lost: LockHeld | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> FileLease:
        """Take the box. Raises LockHeld, StateError."""
        for left in reversed(range(_TRIES)):
            await self._locks.lock()
            try:
                holder = self._take()
            except OSError as error:
                raise state_error(self._locks.folder.parent, error) from error
            finally:
                self._locks.unlock()
            if holder is None:
                break
            if not left:
                text = _describe(holder, self._name)
                raise LockHeld(text, where=self._name, hint="wait for it, or end that process")
            await asyncio.sleep(_PAUSE_S)  # one that only asks who holds it has it for an instant
        self._locks.held[self.box, self.token] = self
        self._renew_later(self._lease_s / 3)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._locks.held.pop((self.box, self.token), None)
        handle, self._handle = self._handle, -1
        os.close(handle)  # also unlocks; the file stays, as deleting it would race with the next holder

    async def renew(self) -> None:
        """Have the lease last from now on. Raises LockHeld where it was lost, StateError."""
        await self._locks.lock()
        try:
            self._prolong()
        finally:
            self._locks.unlock()

    async def check(self) -> None:
        """Raise LockHeld where the lease was lost; renew one that has expired and that nobody took."""
        if self._lost is not None:
            raise self._lost
        if self._locks.clock() >= self.expires:
            await self.renew()
        else:
            self._check_file()

    # -- under the lock of the folder -------------------------------------------------------------------

    def _take(self) -> Holder | None:
        """Take the lock file, or replace that of a holder whose lease has expired; else return who holds it.
        Raises OSError, StateError."""
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            latest, self._size = _read_holder(handle)
            if _try_flock(handle):
                self._hold(handle, latest)
                handle = -1
                return None
        finally:
            if handle >= 0:
                os.close(handle)
        if latest is None or latest.expires is None or latest.expires > self._locks.clock():
            return latest or _UNKNOWN
        self._replace(latest)
        return None

    def _replace(self, latest: Holder) -> None:
        """Put a file of ours in the place of the one that a process holds beyond its time."""
        draft = f"{self._path}.new"
        handle = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            self._size = 0
            _try_flock(handle)
            self._hold(handle, latest)
            os.rename(draft, self._path)
            handle = -1
        finally:
            if handle >= 0:
                os.close(handle)

    def _hold(self, handle: int, latest: Holder | None) -> None:
        # the database may be the newer one: the file was lost, or is older than a restored database
        token = latest.token if latest is not None else 0
        self.token = 1 + max(token, self._locks.read_token(self.box))
        self._since = self._locks.clock()
        self._write(handle)
        self._handle, self._inode = handle, os.fstat(handle).st_ino

    def _write(self, handle: int) -> None:
        """Write who holds the box, from now on. Raises OSError."""
        from msgspec.json import encode  # 7 ms, which commands that only read the store do without

        run, expires = self._run, self._locks.clock() + self._lease_s
        host, user = escape_text(run.host), escape_text(run.user)
        holder = Holder(run.run_id, run.pid, host, user, self._since, expires, self._name, self.token)
        # blanks over the rest of the last one: cutting it off waits for the disk, each time
        text = encode(holder).ljust(self._size)
        os.pwrite(handle, text, 0)
        self._size, self.expires = len(text), expires

    def _prolong(self) -> None:
        self._check_file()
        try:
            self._write(self._handle)
        except OSError as error:
            raise state_error(self._locks.folder.parent, error) from error

    # -- the file and the timer -------------------------------------------------------------------------

    def _check_file(self) -> None:
        """Raise LockHeld where the file is another one by now: who made it has taken the box. That it is gone
        is no reason, as long as nobody has."""
        try:
            if os.stat(self._path).st_ino == self._inode:
                return
        except FileNotFoundError:
            return
        except OSError as error:
            raise state_error(self._locks.folder.parent, error) from error
        holder = self._locks.find_holder(self.box)
        by = f": {_describe(holder, self._name)}" if holder is not None else " to another run"
        text = f"the lease of {self._name} was lost{by}"
        self._lost = LockHeld(text, where=self._name, hint=_HINT)
        raise self._lost

    def _renew_later(self, delay_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._renew_in_time)

    def _renew_in_time(self) -> None:
        """Renew, and again after a third of the time. Where that fails now, `check` says why: the lease has
        expired then."""
        try:
            free = self._locks.try_lock()
            if free:
                try:
                    self._prolong()
                finally:
                    self._locks.unlock()
        except LockHeld:
            return
        except StateError:
            free = True
        self._renew_later(self._lease_s / 3 if free else _FOLDER_PAUSE_S)


def hold_daemon_lock(folder: Path, refusal: LockHeld) -> int:
    """Return the handle of the lock that a daemon holds as long as it lives, whatever the way it ends. Raises
    OSError, and the refusal while a daemon has it."""
    handle = os.open(folder / "daemon.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not _try_flock(handle):
        os.close(handle)
        raise refusal
    return handle


def _try_flock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_holder(handle: int) -> tuple[Holder | None, int]:
    """Return what the latest holder wrote, None when that cannot be read, and its length."""
    data = os.pread(handle, _HOLDER_BYTES, 0)
    if not data:
        return None, 0
    from msgspec import DecodeError, json

    try:
        return json.decode(data, type=Holder), len(data)
    except DecodeError:
        return None, len(data)


def _describe(holder: Holder, name: str) -> str:
    """Return who holds the box that this run calls by the name, since when and until when."""
    if not holder.run:
        return f"another run holds {name}"
    called = "" if holder.target in ("", name) else f", which it calls {holder.target},"
    who = f"run {holder.run} (pid {holder.pid} of {holder.user} on {holder.host})"
    return f"{who} holds {name}{called} {holder.duration}"
