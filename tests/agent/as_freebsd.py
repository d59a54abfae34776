"""Runs the agent's process where the system is FreeBSD as far as Python tells.

    python -m tests.agent.as_freebsd CONFIG

What Python lacks there is taken away, /proc is not there, and the calls of procctl(2) are carried out by this
kernel's own, for the numbers, the structure and the errors of FreeBSD's sys/procctl.h alone. It is no
FreeBSD: what its kernel does otherwise is not seen.
"""

from __future__ import annotations

import builtins
import ctypes
import errno
import fcntl
import io
import os
import selectors
import signal
import sys
from typing import Any

_PROCCTL = {"reap acquire": 2, "reap kill": 6, "death signal": 11, "no new privileges": 19}
_KILL_BYTES = 80  # of struct procctl_reaper_kill
_ENOTCAPABLE = 93


class FreeBsdLibrary:
    """The C library, with procctl and closefrom, and without what is Linux's."""

    def __init__(self) -> None:
        self._real = ctypes.CDLL(None, use_errno=True)
        self._is_reaper = False

    def closefrom(self, first: ctypes.c_int) -> None:
        os.closerange(first.value, 1024)

    def procctl(self, idtype: Any, id_: Any, command: Any, data: Any) -> int:
        assert idtype.value == 0, "P_PID"
        assert id_.value in (0, os.getpid())
        assert ctypes.sizeof(id_) == 8, "id_t"
        if command.value == _PROCCTL["reap acquire"]:
            if self._is_reaper or data is not None:
                return self._fail(errno.EBUSY if self._is_reaper else errno.EINVAL)
            self._is_reaper = True
            return int(self._real.prctl(36, 1, 0, 0, 0))
        if command.value == _PROCCTL["reap kill"]:
            request = data._obj
            assert ctypes.sizeof(request) == _KILL_BYTES
            return self._kill(request) if self._is_reaper else self._fail(_ENOTCAPABLE)
        if command.value == _PROCCTL["death signal"]:
            return int(self._real.prctl(1, data._obj.value, 0, 0, 0))
        assert command.value == _PROCCTL["no new privileges"]
        assert id_.value == 0, "another process is looked at as a debugger would"
        assert data._obj.value == 1
        return int(self._real.prctl(38, 1, 0, 0, 0))

    def _kill(self, request: Any) -> int:
        found = list(_descendants(os.getpid()))
        if not found:
            return self._fail(errno.ESRCH)
        for pid in found:
            os.kill(pid, request.rk_sig)
            request.rk_killed += 1
        return 0

    def _fail(self, code: int) -> int:
        ctypes.set_errno(code)
        return -1


def _descendants(pid: int) -> Any:
    with _REAL_OPEN(f"/proc/{pid}/task/{pid}/children") as file:
        for child in map(int, file.read().split()):
            yield child
            yield from _descendants(child)


_REAL_OPEN = builtins.open


def _hide_proc() -> None:
    def is_hidden(path: Any) -> bool:
        return isinstance(path, (str, bytes)) and os.fsdecode(path).startswith(("/proc", "/sys"))

    def hiding(real: Any) -> Any:
        def call(path: Any, *arguments: Any, **more: Any) -> Any:
            if is_hidden(path):
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
            return real(path, *arguments, **more)

        return call

    for name in ("open", "stat", "lstat", "listdir", "scandir", "access", "readlink"):
        setattr(os, name, hiding(getattr(os, name)))
    builtins.open = io.open = hiding(io.open)


def become_freebsd() -> None:
    """Take away what Python lacks there."""
    sys.platform = "freebsd14"
    library = FreeBsdLibrary()
    real = ctypes.CDLL
    ctypes.CDLL = lambda name, *rest, **more: library if name is None else real(name, *rest, **more)  # type: ignore[assignment,misc]
    for module, names in {
        fcntl: ("F_SETSIG", "F_GETSIG"),
        os: (
            *("memfd_create", "pidfd_open", "O_PATH", "O_TMPFILE", "listxattr", "getxattr", "setxattr"),
            *("removexattr", "sched_getaffinity", "eventfd"),
        ),
        signal: ("pidfd_send_signal", "SIGPWR", "SIGPOLL"),
        selectors: ("EpollSelector",),
    }.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    selectors.DefaultSelector = selectors.PollSelector  # type: ignore[misc,assignment]
    _hide_proc()


def main() -> int:
    """Run the agent with its own handlers."""
    become_freebsd()
    from fazai.agent.main import main as run

    return run(["run", "--config", sys.argv[1]])


if __name__ == "__main__":
    sys.exit(main())
