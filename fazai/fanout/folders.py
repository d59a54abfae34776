"""A folder that is fetched from agents: its files one by one, within bounds, and to no other place."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from fazai.errors import DeviceError, InputError
from fazai.fanout.agents import FolderListing
from fazai.fanout.fetching import FileAccess, FileState, has_hash, replacing
from fazai.fanout.sessions import AccessSession
from fazai.model import Change, Diff, Observation, Resource, Target, Verb

#: As many bytes and entries as go to hosts.
FETCH_BYTES: Final = 256 * 1024 * 1024
FETCH_ENTRIES: Final = 10_000
_NAME_BYTES: Final = 255
_DEPTH: Final = 64
#: PATH_MAX, less what the temporary name of a file has beyond its own.
_PATH_BYTES: Final = 4095 - 32
_LETTERS: Final = 4 * 1024 * 1024
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class FolderAccess(FileAccess, Protocol):
    """The way to one host for a folder."""

    async def list_folder(self, path: str) -> FolderListing: ...


@dataclass(frozen=True, slots=True)
class FolderSeen:
    """The files there, and the paths of what the copy here lacks."""

    states: Mapping[str, FileState]
    lacking: tuple[str, ...]
    count: int

    @property
    def digest(self) -> str:
        lines = [f"{path}\0{state.sha256}" for path, state in sorted(self.states.items())]
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class FolderReport:
    """The news of a folder on its way: `tell` hears of bytes (the target, how many of how many), and
    `left_out` has the number of entries that were left out of each target's."""

    tell: Callable[[str, int, int], object]
    left_out: dict[str, int] = field(default_factory=dict)


class FolderSession(AccessSession[FolderAccess]):
    """Session that fetches a folder to `dest`: each file whole or not at all, and not again where it is
    there. Nothing is removed here."""

    def __init__(
        self,
        target: Target,
        access: AbstractAsyncContextManager[FolderAccess],
        dest: Path,
        report: FolderReport,
    ) -> None:
        super().__init__(target, access)
        self._dest, self._report = dest, report
        self._seen: FolderSeen | None = None
        self._root = ""

    async def observe(self, wanted: Sequence[Resource]) -> Observation:
        """Look at the folder there, and at the copy here. Raises Unreachable, DeviceError, Refused,
        InputError."""
        self._root = wanted[0].identity
        listing = await self._way.list_folder(self._root)
        self._report.left_out[self._target.name] = listing.left_out
        try:
            lacking = await asyncio.to_thread(self._check, listing)
        except (DeviceError, InputError) as error:
            text = f"{self._root}: {error.message}"
            raise type(error)(text, where=self._target.name, hint=error.hint) from None
        states: dict[str, FileState] = {}
        total = 0
        for place in listing.files:
            state = states[place] = await self._look(place)
            total += state.size
            if total > FETCH_BYTES:
                text = f"{self._root} has more than {FETCH_BYTES >> 20} MiB"
                raise DeviceError(text, where=self._target.name, hint="fetch an archive of it")
            if not await asyncio.to_thread(has_hash, self._dest / place, state):
                lacking.append(place)
        self._seen = FolderSeen(states, tuple(lacking), 1 + len(listing.folders) + len(listing.files))
        return self._seen

    def _check(self, listing: FolderListing) -> list[str]:
        """Check a listing, and return the folders that are not here. Raises DeviceError, InputError."""
        check_listing(listing, self._dest)
        return [one for one in ("", *listing.folders) if not os.path.isdir(self._dest / one)]

    async def _look(self, place: str) -> FileState:
        path = f"{self._root}/{place}"
        state = await self._way.look(path)
        if state.type != "file" or state.unsafe or not state.sha256:
            text = f"{path} is no file any more that can be read"
            raise DeviceError(text, where=self._target.name, hint="run it again")
        return state

    def diff(self, wanted: Sequence[Resource], seen: Observation, **_: object) -> Diff:
        assert isinstance(seen, FolderSeen)
        steps = tuple(self._step(place, seen) for place in seen.lacking)
        return Diff(steps, unchanged=seen.count - len(steps))

    def _step(self, place: str, seen: FolderSeen) -> Change:
        path, to = f"{self._root}/{place}".rstrip("/"), str(self._dest / place)
        kind = "host.file" if place in seen.states else "host.directory"
        fields = {"path": path, "to": to}
        note = f"fetched to {to}"
        return Change(self._target.name, kind, path, Verb.CREATE, {}, fields, ref=place, note=note)

    async def write(self, change: Change) -> str:
        """Fetch a file, or make a folder here. Raises Unreachable, DeviceError, InputError where it cannot be
        written here."""
        assert self._seen is not None
        path = self._dest / change.ref
        state = self._seen.states.get(change.ref)
        try:
            check_place(self._dest, change.ref)
            folder = change.ref if state is None else change.ref.rpartition("/")[0]
            await asyncio.to_thread(_make_folder, self._dest, folder)
            if state is None:
                return change.ref
            with replacing(path, state.mode) as write:
                await self._way.fetch_file(change.identity, state.size, state.sha256, write)
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}") from None
        self._report.tell(self._target.name, state.size, state.size)
        return change.ref


def check_listing(listing: FolderListing, dest: Path, *, is_merging: bool | None = None) -> None:
    """Check that each path of a listing is a place of its own below `dest`, here. Raises DeviceError for a
    path that is none, InputError for a place that cannot be had. `is_merging`: names that differ in case
    alone are the same here; None: it is looked at."""
    places = (*listing.folders, *listing.files)
    hint = "fetch an archive of it"
    if len(places) > FETCH_ENTRIES:
        raise DeviceError(f"more than {FETCH_ENTRIES} files and folders", hint=hint)
    if sum(map(len, places)) > _LETTERS:
        raise DeviceError(f"the paths have more than {_LETTERS >> 20} MiB", hint=hint)
    for place in places:
        _check_path(place)
    try:
        _check_here(listing, dest, merges_names(dest) if is_merging is None else is_merging)
    except OSError as error:
        text = f"{str(error.filename or dest)[:200]} cannot be looked at: {error.strerror}"
        raise InputError(text, hint="another DEST") from None


def _check_here(listing: FolderListing, dest: Path, is_merging: bool) -> None:
    """Check places in the order of the listing, so that those above each one were checked before it. Raises
    DeviceError, InputError, OSError."""
    folders = {""}
    merged: dict[str, str] = {}
    most = _PATH_BYTES - len(os.fsencode(dest)) - 1
    for number, place in enumerate((*listing.folders, *listing.files)):
        if place.rpartition("/")[0] not in folders:
            raise DeviceError(f"{_show(place)} stands in no folder that was listed before it")
        if len(place.encode()) > most:
            raise InputError(f"{_show(place)} would be too long a path here", hint="a shorter DEST")
        key = unicodedata.normalize("NFC", place).casefold() if is_merging else place
        if key in merged:
            other = merged[key]
            text = f"{_show(other)} and {_show(place)} would be one file here"
            raise InputError(text, hint="another DEST")
        merged[key] = place
        _refuse_link(dest / place)
        if number < len(listing.folders):
            folders.add(place)


def _check_path(place: str) -> None:
    """Check that a text is a path downwards of names that are good here. Raises DeviceError."""
    names = place.split("/")
    if len(names) > _DEPTH:
        raise DeviceError(f"{_show(place)} is more than {_DEPTH} deep", hint="fetch an archive of it")
    for name in names:
        try:
            size = len(name.encode())
        except UnicodeEncodeError:
            size = 0
        if name in ("", ".", "..") or not 0 < size <= _NAME_BYTES or _CONTROL.search(name):
            raise DeviceError(f"{_show(place)} is no path that is written here")


def _show(place: str) -> str:
    return repr(place[:200])


def _parents(place: str) -> Iterator[str]:
    """Yield the folders above a path."""
    parts = place.split("/")
    return ("/".join(parts[:count]) for count in range(1, len(parts)))


def check_place(dest: Path, place: str) -> None:
    """Check that what stands here on the way to a place are folders, and no links. Raises InputError,
    OSError."""
    for parent in (*_parents(place), place):
        if parent:
            _refuse_link(dest / parent)


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise InputError(f"{path} is a link here, and nothing is written through it")


def _make_folder(dest: Path, place: str) -> None:
    """Make a folder and those above it. From `dest` on they are ours alone: the modes of those there are not
    known, and one that only its owner may enter keeps others from files that anybody may read."""
    if os.path.isdir(dest / place):
        return
    if place:
        _make_folder(dest, place.rpartition("/")[0])
    else:
        dest.parent.mkdir(parents=True, exist_ok=True)
    (dest / place).mkdir(0o700, exist_ok=True)


def merges_names(dest: Path) -> bool:
    """Tell whether the file system of `dest` takes names for the same that differ in case alone. Raises
    OSError where nobody can tell what stands there."""
    existing = next(folder for folder in (dest, *dest.parents) if folder.exists())
    probe = existing / f".fazai-Case-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        probe.touch(exist_ok=False)
    except OSError:
        return False  # nothing is written here anyway
    try:
        return probe.with_name(probe.name.swapcase()).exists()
    finally:
        probe.unlink()
