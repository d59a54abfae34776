"""Opens folders and files below the roots of agent.yml, so that no link leads anywhere else.

No part of a path may be a link, neither of the root nor below it: what the text of a path puts below one root
would stand below another one, with other rights, and what is compared is what is replaced. Linux 5.6 and
newer resolve a path so by themselves (openat2); elsewhere each part is opened from the one before without
following links, on FreeBSD with O_RESOLVE_BENEATH beside.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat

from fazai.agent.errors import Refused
from fazai.agent.execution.system import FREEBSD, LINUX, call_kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from fazai.agent.config.settings import AgentConfig, FilesRoot

#: A file of more bytes is neither compared nor replaced: its content has to fit into one message.
MAX_FILE_BYTES = 48 * 1024 * 1024

_OPENAT2 = 437  # on each machine of Linux but Alpha and MIPS
_OTHER_NUMBERS = ("alpha", "mips")
_RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 0x02, 0x04, 0x08
_RESOLVE_BENEATH_BSD = 0x00800000  # O_RESOLVE_BENEATH of FreeBSD's sys/fcntl.h
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TRIES = 16
#: What opening a link answers: Linux, FreeBSD, and FreeBSD's ENOTCAPABLE for what leads out of a folder.
_LINKS = (errno.ELOOP, errno.ENOTDIR, errno.EXDEV, errno.EMLINK, *((93,) if FREEBSD else ()))


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_below(folder: int, parts: tuple[str, ...]) -> int:
    """Open the folder at a path below an open one. Raises OSError: ELOOP, ENOTDIR where a part is a link."""
    how = _OpenHow(_FOLDER, 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS)
    path = ctypes.c_char_p(os.fsencode("/".join(parts) or "."))
    if not LINUX or os.uname().machine.startswith(_OTHER_NUMBERS):
        return walk_below(folder, parts)
    for _ in range(_TRIES):
        try:
            return call_kernel(_OPENAT2, folder, path, ctypes.byref(how), ctypes.sizeof(how))
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.EPERM):  # before 5.6, or kept from us by a filter
                return walk_below(folder, parts)
            if error.errno != errno.EAGAIN:  # a folder was moved meanwhile
                raise
    raise OSError(errno.EAGAIN, "folders are being moved all the time")


def walk_below(folder: int, parts: tuple[str, ...]) -> int:
    """Open the same part by part. Raises OSError."""
    flags = _FOLDER | (_RESOLVE_BENEATH_BSD if FREEBSD else 0)
    at = os.open(".", flags, dir_fd=folder)
    for part in parts:
        if part in ("", ".", ".."):
            os.close(at)
            raise OSError(errno.EINVAL, "a part is no name")
        try:
            below = os.open(part, flags, dir_fd=at)
        finally:
            os.close(at)
        at = below
    return at


class Target:
    """A file by its name in an open folder below an open root; `folder` is -1 where there is no such folder.

    A context: the descriptors are closed at its end.
    """

    def __init__(self, path: str, root: int, folder: int, name: str) -> None:
        self.path = path
        self.root = root
        self.folder = folder
        self.name = name

    def __enter__(self) -> Target:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for descriptor in (self.folder, self.root):
            if descriptor >= 0:
                os.close(descriptor)

    def look(self) -> os.stat_result | None:
        """Return what the name stands for at this moment, None for nothing."""
        try:
            return os.stat(self.name, dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def open_file(self) -> int | None:
        """Open the file for reading, None where there is none.

        Raises OSError, and Refused for what is no plain file.
        """
        if self.folder < 0:
            return None
        found = self.look()
        if found is None:
            return None
        self._check_plain(found)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            file = os.open(self.name, flags, dir_fd=self.folder)
        except FileNotFoundError:
            return None
        try:
            self._check_plain(os.fstat(file))
        except Refused:
            os.close(file)
            raise
        return file

    def _check_plain(self, found: os.stat_result) -> None:
        if stat.S_ISLNK(found.st_mode):
            raise Refused("not_allowed", f"{self.path} is a link", "name the file that it leads to")
        if stat.S_ISDIR(found.st_mode):
            raise Refused("bad_request", f"{self.path} is a folder, and a file is meant")
        if not stat.S_ISREG(found.st_mode):
            raise Refused("not_allowed", f"{self.path} is no regular file")
        if found.st_nlink > 1:
            raise Refused(
                "not_allowed",
                f"{self.path} has {found.st_nlink} names (hard links)",
                "the others may stand anywhere",
            )
        if found.st_size > MAX_FILE_BYTES:
            raise Refused(
                "too_large", f"{self.path} has {found.st_size} bytes, {MAX_FILE_BYTES} are the most"
            )


def read_whole(file: int, path: str) -> bytes:
    """Return a file's content from its beginning. Raises Refused where it grows too long."""
    pieces = []
    at = 0
    while piece := os.pread(file, 1 << 20, at):
        pieces.append(piece)
        at += len(piece)
        if at > MAX_FILE_BYTES:
            raise Refused("too_large", f"{path} has more than {MAX_FILE_BYTES} bytes")
    return b"".join(pieces)


def open_target(path: str, config: AgentConfig, write: bool, *, read: bool = False) -> Target:
    """Open the folder of a file that the daemon may compare, or with `write` replace, with `read` fetch.

    The longest root that the path stands below decides. Raises Refused.
    """
    parts = _split_path(path)
    rule = _find_rule(path, parts, config)
    if write and not rule.write:
        raise Refused(
            "not_allowed",
            f"files below {rule.root} are only compared",
            "`write: true` in agent.yml allows it",
        )
    if read and not rule.read:
        raise Refused(
            "not_allowed",
            f"files below {rule.root} are not handed out",
            "`read: true` in agent.yml allows it",
        )
    _protect_own_files(path, parts, config)
    root_parts = _split_path(rule.root)
    root = folder = -1
    try:
        base = os.open(config.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            root = open_below(base, root_parts)
        finally:
            os.close(base)
        try:
            folder = open_below(root, parts[len(root_parts) : -1])
        except FileNotFoundError:
            if write:
                raise
        return Target(path, root, folder, parts[-1])
    except OSError as error:
        if root >= 0:
            os.close(root)
        raise refuse_path(path, error) from None


def make_read_check(config: AgentConfig) -> Callable[[str], bool]:
    """Return what tells whether the policy lets a file be fetched, for many paths: where the agent's own
    files stand is looked up once."""
    root, own = _find_own_places(config)

    def may_read(path: str) -> bool:
        try:
            parts = _split_path(path)
            rule = _find_rule(path, parts, config)
        except Refused:
            return False
        return rule.read and not _is_within((*root, *parts), own)

    return may_read


def refuse_path(path: str, error: OSError) -> Refused:
    """Return the refusal for a path that could not be opened."""
    if error.errno in _LINKS:
        return Refused(
            "not_allowed", f"a part of {path} is a link, or no folder", "name the folder that it leads to"
        )
    if error.errno == errno.ENOENT:
        return Refused("not_found", f"the folder of {path} is not there", "folders are not made here")
    if error.errno in (errno.EACCES, errno.EPERM):
        return Refused("not_allowed", f"the agent's user may not do that with {path}: {error.strerror}")
    if error.errno == errno.EAGAIN:
        return Refused("conflict", f"the folders of {path} are moved all the time")
    if error.errno == errno.ENAMETOOLONG:
        return Refused("bad_request", f"the path is too long: {path[:100]}…")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Refused("unavailable", f"there is no room for {path}: {error.strerror}")
    return Refused("internal", f"{path}: {error.strerror}")


def _split_path(path: str) -> tuple[str, ...]:
    """Return the names of an absolute path. Raises Refused for another one."""
    parts = _names(path)
    if not path.startswith("/") or not {".", ".."}.isdisjoint(parts):
        raise Refused("bad_request", "a path is absolute, without `.` and `..`")
    if any(ord(letter) < 32 or ord(letter) == 127 or 0xD800 <= ord(letter) < 0xE000 for letter in path):
        raise Refused("bad_request", "a path is UTF-8 without control characters")
    return parts


def _find_rule(path: str, parts: tuple[str, ...], config: AgentConfig) -> FilesRoot:
    if not parts or path.endswith("/"):
        raise Refused("bad_request", f"{path} is a folder")
    found: FilesRoot | None = None
    longest = -1
    for rule in config.files:
        root_parts = _split_path(rule.root)
        if parts[: len(root_parts)] == root_parts and longest < len(root_parts):
            found, longest = rule, len(root_parts)
    if found is None:
        raise Refused("not_allowed", f"{path} is below no folder of `files` in agent.yml")
    if len(parts) == longest:
        raise Refused("bad_request", f"{path} is a folder")
    return found


def _protect_own_files(path: str, parts: tuple[str, ...], config: AgentConfig) -> None:
    """Refuse the agent's own key, policy and state, which a root such as /etc would hold."""
    root, own = _find_own_places(config)
    if _is_within((*root, *parts), own):
        raise Refused("not_allowed", f"{path} is the agent's own")


def _find_own_places(config: AgentConfig) -> tuple[tuple[str, ...], set[tuple[str, ...]]]:
    """Return the names of the machine's root, and those of each of the agent's own files, as they are said
    and as they are without links."""
    paths = [way(each) for each in config.own_files for way in (os.path.abspath, os.path.realpath)]
    return _names(os.path.realpath(config.root)), {_names(path) for path in paths}


def _is_within(place: tuple[str, ...], own: set[tuple[str, ...]]) -> bool:
    return any(place[: len(names)] == names for names in own)


def _names(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part)


def forbid_writes(root: int | None) -> None:
    """Let this process write nowhere, or below an open folder only, for good, where the kernel has Landlock.

    The second line behind how paths are resolved: it holds as well where a folder is moved elsewhere after it
    was opened.
    """
    from fazai.agent.execution.landlock import make_ruleset, read_abi, restrict_self
    from fazai.agent.execution.system import forbid_new_privileges

    if read_abi() == 0:
        return
    try:
        ruleset = make_ruleset(() if root is None else (f"/proc/self/fd/{root}",))
    except FileNotFoundError:  # /proc is not mounted
        return
    try:
        forbid_new_privileges()
        restrict_self(ruleset)
    finally:
        os.close(ruleset)
