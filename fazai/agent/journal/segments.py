"""The journal's files: numbered segments of lines, which are appended to, synced, rewritten and removed.

    lock                     held while a process uses the folder, with its number
    journal-00000017         closed: never appended to; rewritten through journal-00000017.tmp and a rename
    journal-00000018         open

Only the last line of the last segment can be torn: each line is on the disk before the next begins, and a
line that could not be written is taken back.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat

from fazai.errors import LockHeld, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_NAME = re.compile(r"journal-([0-9]{8})")
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Segments:
    """The files of one folder. What writes raises OSError, and leaves the lines before as they were."""

    def __init__(self, folder: str, segment_bytes: int, fault: Callable[[str], None]) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._fault = fault
        make_private_folder(folder)
        self._lock = _lock_folder(folder)
        self._directory = os.open(folder, _DIRECTORY)
        #: Bytes of each segment, oldest first.
        self.sizes: dict[int, int] = {}
        for name in sorted(os.listdir(folder)):
            if name.startswith("journal-") and name.endswith(".tmp"):
                os.unlink(name, dir_fd=self._directory)
            elif (found := _NAME.fullmatch(name)) is not None:
                self.sizes[int(found.group(1))] = os.stat(name, dir_fd=self._directory).st_size
        if not self.sizes:
            self._create(1)
        self.open_number = max(self.sizes)
        self._file = os.open(self._name(self.open_number), os.O_WRONLY | _FLAGS, dir_fd=self._directory)
        self._torn = False

    @property
    def total(self) -> int:
        """Bytes of all segments."""
        return sum(self.sizes.values())

    @property
    def end(self) -> tuple[int, int]:
        """The open segment, and how many bytes it has."""
        return self.open_number, self.sizes[self.open_number]

    def path(self, number: int) -> str:
        """Return a segment's path, for people."""
        return os.path.join(self._folder, self._name(number))

    def close(self) -> None:
        """Let go of the folder."""
        for file in (self._file, self._directory, self._lock):
            os.close(file)

    def lines(self, number: int) -> Iterator[tuple[int, bytes]]:
        """Return a segment's lines, each with its offset."""
        offset = 0
        with open(os.open(self._name(number), os.O_RDONLY | _FLAGS, dir_fd=self._directory), "rb") as file:
            while line := file.readline():
                yield offset, line
                offset += len(line)

    def read(self, number: int, offset: int, length: int) -> bytes:
        """Return one line."""
        file = os.open(self._name(number), os.O_RDONLY | _FLAGS, dir_fd=self._directory)
        try:
            return os.pread(file, length, offset)
        finally:
            os.close(file)

    def append(self, line: bytes, name: str) -> tuple[int, int]:
        """Write a line, wait until it is on the disk, and return where it lies; `name` is the faults'."""
        self._take_back()
        if self.sizes[self.open_number] and self.sizes[self.open_number] + len(line) > self._segment_bytes:
            self.rotate()
        offset = self.sizes[self.open_number]
        self._torn = True
        try:
            _write_all(self._file, line, offset)
            self._fault(f"{name}.written")
            os.fsync(self._file)
        except OSError:
            self._take_back(quiet=True)
            raise
        self._torn = False
        self.sizes[self.open_number] = offset + len(line)
        self._fault(f"{name}.synced")
        return self.open_number, offset

    def cut(self, offset: int) -> None:
        """Shorten the open segment to what is whole."""
        os.ftruncate(self._file, offset)
        os.fsync(self._file)
        self.sizes[self.open_number] = offset

    def rotate(self) -> None:
        """Close the open segment and begin another."""
        number = self.open_number + 1
        self._create(number)
        self._fault("segment.created")
        file = os.open(self._name(number), os.O_WRONLY | _FLAGS, dir_fd=self._directory)
        os.close(self._file)
        self._file, self.open_number = file, number

    def rewrite(self, number: int, lines: Iterable[bytes]) -> None:
        """Replace a closed segment's lines, all at once. Raises OSError; then nothing was replaced."""
        temporary = f"{self._name(number)}.tmp"
        size = 0
        try:
            file = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600, dir_fd=self._directory
            )
            with open(file, "wb") as target:
                for line in lines:
                    target.write(line)
                    size += len(line)
                target.flush()
                self._fault("rewrite.written")
                os.fsync(file)
            self._fault("rewrite.synced")
            os.rename(temporary, self._name(number), src_dir_fd=self._directory, dst_dir_fd=self._directory)
            self.sizes[number] = size
            temporary = ""
        finally:
            if temporary:
                self._unlink(temporary)
        self._fault("rewrite.renamed")

    def sync_folder(self) -> None:
        """Wait until the names are on the disk as they are now."""
        os.fsync(self._directory)

    def remove(self, numbers: Iterable[int]) -> None:
        """Remove closed segments."""
        for number in numbers:
            os.unlink(self._name(number), dir_fd=self._directory)
            del self.sizes[number]
            self._fault("segment.removed")
        os.fsync(self._directory)

    def _create(self, number: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS
        os.close(os.open(self._name(number), flags, 0o600, dir_fd=self._directory))
        self.sizes[number] = 0
        os.fsync(self._directory)

    def _unlink(self, name: str) -> None:
        try:
            os.unlink(name, dir_fd=self._directory)
        except OSError:  # it goes when the journal is opened again
            return

    def _take_back(self, quiet: bool = False) -> None:
        """Remove a line of which only a part was written."""
        if not self._torn:
            return
        try:
            self.cut(self.sizes[self.open_number])
        except OSError:
            if not quiet:
                raise
        else:
            self._torn = False

    def _name(self, number: int) -> str:
        return f"journal-{number:08}"


def make_private_folder(folder: str) -> None:
    """Make a folder that nobody else can look into, or see that it is one. Raises StateError."""
    try:
        os.makedirs(os.path.dirname(folder) or ".", 0o755, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        found = os.stat(folder)
    except OSError as error:
        raise StateError(f"the folder cannot be made: {error.strerror}", where=folder) from None
    if not stat.S_ISDIR(found.st_mode):
        raise StateError("this is no folder", where=folder)
    if found.st_uid != os.geteuid():
        raise StateError(
            f"the folder belongs to user {found.st_uid}, the agent runs as {os.geteuid()}", where=folder
        )
    if found.st_mode & 0o077:
        raise StateError("others may look into the folder", where=folder, hint=f"chmod 700 {folder}")


def _lock_folder(folder: str) -> int:
    """Take the folder for this process; the lock goes with it, however it ends."""
    path = os.path.join(folder, "lock")
    file = os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(file, 20, 0).decode("ascii", "replace").strip()
        os.close(file)
        who = f"process {holder}" if holder.isdigit() else "another process"
        raise LockHeld(
            f"{who} uses this folder", where=folder, hint="one agent runs on a machine: end the other one"
        ) from None
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, b"%d\n" % os.getpid(), 0)
    except OSError:  # a full disk: the lock holds all the same
        return file
    return file


def _write_all(file: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        offset += written
        view = view[written:]
