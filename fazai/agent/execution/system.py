"""Calls of the kernel that Python's library lacks, through ctypes: prctl, procctl, system calls by number.

The FreeBSD half is written from its source (sys/procctl.h, kern_procctl.c) and was never run there.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

LINUX = sys.platform.startswith("linux")
FREEBSD = sys.platform.startswith("freebsd")

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_SYS_CLONE3 = 435
_CLONE_INTO_CGROUP = 0x200000000

_P_PID = 0
_PROC_REAP_ACQUIRE = 2
_PROC_REAP_KILL = 6
_PROC_PDEATHSIG_CTL = 11
_PROC_NO_NEW_PRIVS_CTL = 19
_PROC_NO_NEW_PRIVS_ENABLE = 1

_LIBC = ctypes.CDLL(None, use_errno=True)
if LINUX:
    _LIBC.prctl.argtypes = (ctypes.c_int, *(4 * (ctypes.c_ulong,)))
#: The same, without letting go of the interpreter's lock: the child of a fork holds it as well.
_LOCKED_LIBC = ctypes.PyDLL(None, use_errno=True)


class _CloneArguments(ctypes.Structure):
    """struct clone_args of Linux 5.7."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            *("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls"),
            *("set_tid", "set_tid_size", "cgroup"),
        )
    )


class _ReaperKill(ctypes.Structure):
    """struct procctl_reaper_kill of FreeBSD."""

    _fields_ = (
        ("rk_sig", ctypes.c_int),
        ("rk_flags", ctypes.c_uint),
        ("rk_subtree", ctypes.c_int),
        ("rk_killed", ctypes.c_uint),
        ("rk_fpid", ctypes.c_int),
        ("rk_pad0", ctypes.c_uint * 15),
    )


def call_kernel(number: int, *arguments: object) -> int:
    """Make a system call of Linux by its number. Raises OSError."""
    _LIBC.syscall.restype = ctypes.c_long
    values = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = int(_LIBC.syscall(ctypes.c_long(number), *values))
    if result < 0:
        raise _last_error()
    return result


def fork_into_cgroup(folder: int) -> int:
    """Fork a child that is in a cgroup from its beginning; 0 is returned in the child. Raises OSError where
    the kernel cannot. A process that exists already enters one only after all processors have passed a point
    of rest, which takes ten milliseconds.

    Python's own care at a fork is left out: the child has one thread, and may only become another program.
    """
    arguments = _CloneArguments(flags=_CLONE_INTO_CGROUP, exit_signal=signal.SIGCHLD, cgroup=folder)
    _LOCKED_LIBC.syscall.restype = ctypes.c_long
    size = ctypes.c_size_t(ctypes.sizeof(arguments))
    pid = int(_LOCKED_LIBC.syscall(ctypes.c_long(_SYS_CLONE3), ctypes.byref(arguments), size))
    if pid < 0:
        raise _last_error()
    return pid


def _last_error() -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, value, 0, 0, 0) != 0:
        raise _last_error()


def _procctl(pid: int, command: int, data: object) -> None:
    if _LIBC.procctl(ctypes.c_int(_P_PID), ctypes.c_int64(pid), ctypes.c_int(command), data) != 0:
        raise _last_error()


def become_reaper() -> bool:
    """Make this process the parent of all orphans among its descendants; tells whether the system can."""
    if LINUX:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    elif FREEBSD:
        _procctl(os.getpid(), _PROC_REAP_ACQUIRE, None)
    return LINUX or FREEBSD


def kill_reaped(signal_number: int) -> None:
    """Send a signal to all descendants of this reaper at once (FreeBSD). Raises OSError without any."""
    request = _ReaperKill(rk_sig=signal_number)
    _procctl(os.getpid(), _PROC_REAP_KILL, ctypes.byref(request))


def die_with_parent(signal_number: int) -> None:
    """Have this process get a signal when its parent ends. A later change of user would undo it."""
    if LINUX:
        _prctl(_PR_SET_PDEATHSIG, signal_number)
    elif FREEBSD:
        _procctl(0, _PROC_PDEATHSIG_CTL, ctypes.byref(ctypes.c_int(signal_number)))


def forbid_new_privileges() -> None:
    """Have set-user-id bits and file capabilities ignored in this process and what it starts."""
    if LINUX:
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    elif FREEBSD:  # since 13.1
        value = ctypes.c_int(_PROC_NO_NEW_PRIVS_ENABLE)
        _procctl(0, _PROC_NO_NEW_PRIVS_CTL, ctypes.byref(value))
