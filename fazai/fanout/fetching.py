"""A file that is fetched from hosts: the session of each, and the ledger, in which no host is written to."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from fazai.errors import DeviceError, InputError
from fazai.fanout.ledger import FanoutStore
from fazai.fanout.sessions import AccessSession
from fazai.model import Change, Diff, Observation, Resource, Target
from fazai.store.base import LEASE_S, Action, Lease, Run


class FileState(Protocol):
    """The state of a path on a host."""

    @property
    def type(self) -> str: ...
    @property
    def mode(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def sha256(self) -> str: ...
    @property
    def unsafe(self) -> str:
        """The reason why the path cannot be trusted; empty: it can."""
        ...


class FileAccess(Protocol):
    """The way to one host for a file."""

    async def look(self, path: str) -> FileState: ...
    async def fetch_file(self, path: str, size: int, sha256: str, write: Callable[[bytes], object]) -> None:
        """Hand the bytes of a file that has this size and hash to `write`. Raises DeviceError where it is
        another one, Unreachable."""
        ...


@dataclass(frozen=True, slots=True)
class FileSeen:
    """The file on the host, and whether the copy here is the same."""

    state: FileState
    same: bool

    @property
    def digest(self) -> str:
        return self.state.sha256


class FetchSession(AccessSession[FileAccess]):
    """Session that fetches one file to `dest`: whole or not at all, and not again where it is there. `tell`
    gets the target's name, how much was read, and how much there is."""

    def __init__(
        self,
        target: Target,
        access: AbstractAsyncContextManager[FileAccess],
        dest: Path,
        tell: Callable[[str, int, int], object],
    ) -> None:
        super().__init__(target, access)
        self._dest, self._tell = dest, tell
        self._state: FileState | None = None

    async def observe(self, wanted: Sequence[Resource]) -> Observation:
        """Look at the file there, and at the copy here. Raises Unreachable, DeviceError."""
        path, where = wanted[0].identity, self._target.name
        state = await self._way.look(path)
        if state.unsafe:
            raise DeviceError(f"{path}: {state.unsafe}", where=where)
        if state.type != "file":
            what = "is not there" if state.type == "missing" else f"is no file ({state.type})"
            hint = "become: true" if state.type == "denied" else None
            raise DeviceError(f"{path} {what}", where=where, hint=hint)
        if not state.sha256:
            raise DeviceError(f"{path} may not be read", where=where, hint="become: true")
        self._state = state
        return FileSeen(state, await asyncio.to_thread(has_hash, self._dest, state))

    def diff(self, wanted: Sequence[Resource], seen: Observation, **_: object) -> Diff:
        assert isinstance(seen, FileSeen)
        if seen.same:
            return Diff(unchanged=1)
        return Diff((self.step_for(wanted[0]),))

    def step_for(self, resource: Resource) -> Change:
        return replace(super().step_for(resource), note=f"fetched to {resource.fields['to']}")

    async def write(self, change: Change) -> str:
        """Fetch the file. Raises Unreachable, DeviceError, InputError where it cannot be written here."""
        assert self._state is not None
        state = self._state
        try:
            self._dest.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._dest, state.mode) as write:
                await self._way.fetch_file(change.identity, state.size, state.sha256, self._counted(write))
        except OSError as error:
            raise InputError(f"{self._dest} cannot be written: {error.strerror}") from None
        return change.ref

    def _counted(self, write: Callable[[bytes], object]) -> Callable[[bytes], object]:
        done = 0

        def write_counted(data: bytes) -> None:
            nonlocal done
            write(data)
            done += len(data)
            self._tell(self._target.name, done, 0 if self._state is None else self._state.size)

        return write_counted


def has_hash(path: Path, state: FileState) -> bool:
    """Tell whether a file of ours has the content of one on a host."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size != state.size:
                return False
            return hashlib.file_digest(file, "sha256").hexdigest() == state.sha256
    except OSError:
        return False


@contextlib.contextmanager
def replacing(path: Path, mode: int) -> Iterator[Callable[[bytes], object]]:
    """Write beside `path`, and give it that name once all is on the disk. Nobody reads it before who could
    not read it there."""
    umask = os.umask(0)
    os.umask(umask)
    start = os.fsencode(path.name)[:200].decode(errors="ignore")  # a name has 255 bytes at most
    temporary = path.with_name(f".{start}.{os.getpid()}.{os.urandom(4).hex()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file.write
            os.fchmod(file.fileno(), mode & 0o777 & ~umask)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # it is there only when something failed
            temporary.unlink()


class _FreeLease:
    """Stands for the right to write to a box to which nothing is written."""

    def __init__(self, box: str, owner: str) -> None:
        self.box, self.owner, self.token, self.expires = box, owner, 0, 0.0

    async def renew(self) -> None:
        pass

    async def check(self) -> None:
        pass


class ReadingStore(FanoutStore):
    """The ledger of a run that reads from targets: none is held, and none is recorded as written to."""

    @contextlib.asynccontextmanager
    async def _free(self, box: str, owner: str) -> AsyncIterator[Lease]:
        yield _FreeLease(box, owner)

    def lease(
        self, box: str, run: Run, name: str = "", lease_s: float = LEASE_S
    ) -> AbstractAsyncContextManager[Lease]:
        return self._free(box, run.run_id)

    async def action_begin(self, action: Action, services: Sequence[str]) -> None:
        pass

    async def action_end(self, action_id: str, status: str, *, ref: str = "", error: str = "") -> None:
        pass
