"""file.apply: replaces a file, whole or not at all.

The new content is written beside the file under a random name, gets its owner and mode there, is synced, and
takes the file's name where that still is the file which the request means. Readers see the old one or the new
one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import signal
import stat
import time

from fazai.agent.children import write_all
from fazai.agent.errors import Refused
from fazai.agent.files.attributes import Wanted, keep_attributes, read_wanted
from fazai.agent.files.diffing import hash_content, read_content
from fazai.agent.files.opening import forbid_writes, open_target, read_whole, refuse_path
from fazai.agent.files.patches import apply_patch, is_too_long
from fazai.faults import no_fault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import Any

    from fazai.agent.config.settings import AgentConfig
    from fazai.agent.files.opening import Target

_LEFTOVER = re.compile(r"\.fazai-[0-9a-f]{32}\.tmp")
#: There are no hard links here, or none to a file of this user.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
#: What an agent that was killed left beside a file goes after this; no action takes longer.
_LEFTOVER_S = 2 * 3600


def apply_file(
    request: dict[str, Any],
    config: AgentConfig,
    *,
    confine: Callable[[int | None], None] = forbid_writes,
    now: Callable[[], float] = time.time,
    fault: Callable[[str], None] = no_fault,
) -> dict[str, Any]:
    """Make a file what `patch` or `content_base64` says, if it still is what that was made for.

    Raises Refused: `conflict` where it is not; then nothing is changed.
    """
    path: str = request["path"]
    wanted = read_wanted(request)
    try:
        with open_target(path, config, write=True) as target:
            confine(target.root)
            _check_folders(target)
            _remove_leftovers(target, now() - _LEFTOVER_S)
            file = target.open_file()
            try:
                have = None if file is None else read_whole(file, path)
                content = _make_content(request, have)
                if have != content or file is None or wanted.differs(os.fstat(file)):
                    _replace(target, file, hash_content(have), content, wanted, fault)
            finally:
                if file is not None:
                    os.close(file)
    except OSError as error:
        raise refuse_path(path, error) from None
    return {"applied": True}


def _check_folders(target: Target) -> None:
    """Refuse folders in which somebody else decides what stands where."""
    for folder in (target.root, target.folder):
        found = os.fstat(folder)
        if found.st_uid not in (0, os.geteuid()):
            raise Refused(
                "not_allowed",
                f"the folder of {target.path}, or its root, belongs to user {found.st_uid}",
                "a folder of root's or of the agent's own user is needed",
            )
        if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            raise Refused(
                "not_allowed",
                f"everybody may write to the folder of {target.path}, or to its root",
                "chmod o-w, or a+t",
            )


def _remove_leftovers(target: Target, since: float) -> None:
    """Remove what an agent that was killed left: old, or a second name of a file that was new."""
    with os.scandir(target.folder) as entries:
        names = [entry.name for entry in entries if _LEFTOVER.fullmatch(entry.name)]
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(name, dir_fd=target.folder, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode) and (found.st_mtime < since or found.st_nlink > 1):
                os.unlink(name, dir_fd=target.folder)


def _make_content(request: dict[str, Any], have: bytes | None) -> bytes:
    """Return what the file is to hold. Raises Refused where the request was made for another content."""
    path, base = request["path"], request.get("base_sha256")
    if base is not None and base != hash_content(have):
        raise Refused("conflict", f"{path} moved on: it is not what was compared", "compare it again")
    if request.get("patch") is None:
        return read_content(request, "content", "content_base64")
    patch: str = request["patch"]
    try:
        text = None if have is None else have.decode()
        patch.encode()
    except UnicodeDecodeError:
        raise Refused(
            "conflict", f"{path} is no text, a patch was made from one", "compare it again"
        ) from None
    except UnicodeEncodeError:
        raise Refused("bad_request", "`patch` holds half a surrogate pair: it is no text") from None
    if is_too_long(text or "") or is_too_long(patch):
        raise Refused("too_large", f"{path} is too long for a patch", "send its whole content")
    return apply_patch(path, text, patch, base_known=base is not None).encode()


def _replace(
    target: Target,
    file: int | None,
    digest: str,
    content: bytes,
    wanted: Wanted,
    fault: Callable[[str], None],
) -> None:
    name = f".fazai-{os.urandom(16).hex()}.tmp"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    temporary = os.open(name, flags, 0o600, dir_fd=target.folder)
    with _remove_at_end(target.folder, name):
        try:
            fault("temporary.created")
            write_all(temporary, content)
            keep_attributes(target.path, file, temporary, wanted)
            fault("temporary.written")
            os.fsync(temporary)
            fault("temporary.synced")
            with _held_back():
                _check_unmoved(target, file, digest)
                _check_same(target, name, temporary)
                fault("checked")
                _take_name(target, name, new=file is None)
                fault("renamed")
            os.fsync(target.folder)
            fault("folder.synced")
        finally:
            os.close(temporary)


@contextlib.contextmanager
def _remove_at_end(folder: int, name: str) -> Iterator[None]:
    """Remove the temporary file where it still has its name, also when the action is cancelled (SIGTERM)."""

    def remove() -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)

    def end(number: int, _frame: FrameType | None) -> None:
        remove()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        remove()
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Hold back what cancels the action; once all inside is done it is too late and dropped."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        yield
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def _check_unmoved(target: Target, file: int | None, digest: str) -> None:
    """Check that the name still stands for the file that was read, with the same content. Raises Refused."""
    found = target.look()
    if file is None:
        same = found is None
    else:
        opened = os.fstat(file)
        same = found is not None and os.path.samestat(found, opened) and opened.st_nlink == 1
        same = same and hashlib.sha256(read_whole(file, target.path)).hexdigest() == digest
    if not same:
        raise Refused("conflict", f"{target.path} moved on while it was written", "compare it again")


def _check_same(target: Target, name: str, temporary: int) -> None:
    """Check that nobody put something else in place of the temporary file. Raises Refused."""
    found = os.stat(name, dir_fd=target.folder, follow_symlinks=False)
    if not os.path.samestat(found, os.fstat(temporary)):
        raise Refused("conflict", f"somebody meddles with the folder of {target.path}")


def _take_name(target: Target, name: str, new: bool) -> None:
    """Give the temporary file its name; a new file replaces nothing that came meanwhile."""
    if new:
        try:
            os.link(
                name,
                target.name,
                src_dir_fd=target.folder,
                dst_dir_fd=target.folder,
                follow_symlinks=False,
            )
        except FileExistsError:
            raise Refused("conflict", f"{target.path} is there now", "compare it again") from None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
        else:
            os.unlink(name, dir_fd=target.folder)
            return
    os.rename(name, target.name, src_dir_fd=target.folder, dst_dir_fd=target.folder)
