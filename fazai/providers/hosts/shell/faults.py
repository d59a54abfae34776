"""Errors with a next step, for scripts that failed on a host."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from fazai.errors import AccessDenied, DeviceError, Mark, Moved
from fazai.providers.hosts.shell.channel import BlockResult
from fazai.providers.hosts.shell.walking import MOUNTED_HINT, UNSAFE_HINT

_HINTS: Final[tuple[tuple[str, str], ...]] = (
    ("unsafe step", UNSAFE_HINT),
    ("is a mount point", MOUNTED_HINT),
    ("read-only file system", "the filesystem is mounted read-only: look at dmesg and mount"),
    ("i/o error", "the disk is full, or broken: df -h; df -i; dmesg"),  # what dash's printf says of both
    ("no space left", "the disk is full: df -h; df -i"),
    ("disk quota exceeded", "the quota of this user is used up"),
    ("permission denied", "become: true"),
    ("operation not permitted", "become: true"),
    ("there is a directory", "it came after the look: does another resource make it? move it away first"),
    ("there is something else by now", "it came after the look: run it again"),
    ("/proc/sys/", "the kernel has no such setting: is the name right, and its module loaded?"),
    ("directory nonexistent", "declare the folder before it: host.directory"),
    ("no such file or directory", "declare the folder before it: host.directory"),
    ("directory not empty", "recurse: true removes what is in it, too"),
    ("unable to locate package", "update_cache: true reads the lists anew; is the name right?"),
    ("could not get lock", "another package manager is at work there: run it again"),
    ("invalid user", "declare it before: host.user"),
    ("invalid group", "declare it before: host.group"),
    ("unknown user", "declare it before: host.user"),
    ("unknown group", "declare it before: host.group"),
)
_SHOWN_CHARS: Final = 2000
#: Notes that a script of ours prints on the way (`preconditions`).
_FRAME: Final = re.compile(rb"\n[0-9a-f]{32} (?:made|backup) [^\n]*\n")
_RELAYED_BYTES: Final = 256 * 1024


def script_error(
    what: str, where: Mark | str, result: BlockResult, mask: Callable[[str], str]
) -> DeviceError:
    """Return the error of a script that failed: exit status and the end of what it said, masked, with a
    hint."""
    printed = _FRAME.sub(b"", result.err.strip() or result.out).decode("utf-8", "replace")
    said = mask(printed.strip())[-_SHOWN_CHARS:]
    text = f"{what}: exit status {result.exit}" + (f": {said}" if said else "")
    lower = said.lower()
    hint = next((hint for words, hint in _HINTS if words in lower), None)
    kind = AccessDenied if hint == "become: true" else DeviceError
    return kind(text, where=where, hint=hint)


def moved_error(path: str, shown: str, where: Mark | str, undone: bool) -> Moved:
    """Return the error of a script whose preconditions did not hold at `path`, named `shown` for people."""
    text = f"{shown} was changed by another hand since it was looked at: nothing was written to it"
    if undone:
        text = f"{shown} is not as this run left it"
    return Moved(text, path=path, where=where, hint="run it again: it looks first")


class OutputRelay:
    """Hands output on by whole lines, so that no secret is cut in two; a flood is cut off. What begins as a
    frame (with the `nonce`) is ours: the command did not run."""

    def __init__(
        self, say: Callable[[str, str], None], mask: Callable[[str], str], nonce: Callable[[], str]
    ) -> None:
        self._say = say
        self._mask = mask
        self._nonce = nonce
        self._begun = False
        self._rest = {"stdout": bytearray(), "stderr": bytearray()}
        self._left = _RELAYED_BYTES

    def hear(self, stream: str, data: bytes) -> None:
        rest = self._rest[stream]
        rest += data
        if stream == "stdout" and not self._begun:
            frame = f"\n{self._nonce()} moved ".encode()
            if rest.startswith(frame) or frame.startswith(rest):
                return
            self._begun = True
        if len(rest) > self._left:  # of a line without an end nothing is told: who cuts it may cut a secret
            end = len(rest)
        elif b"\n" in data:
            end = rest.rfind(b"\n") + 1
        else:
            return
        self._tell(stream, bytes(rest[:end]))
        del rest[:end]

    def end(self) -> None:
        for stream, rest in self._rest.items():
            if not rest.startswith(f"\n{self._nonce()} moved ".encode()):
                self._tell(stream, bytes(rest))

    def _tell(self, stream: str, data: bytes) -> None:
        if not data or self._left <= 0:
            return
        self._left -= len(data)
        text = self._mask(data.decode("utf-8", "replace"))
        self._say(stream, text if self._left > 0 else "… (more output is not recorded)\n")
