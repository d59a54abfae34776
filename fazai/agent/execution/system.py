"""Calls of the kernel that Python's library lacks, through ctypes: prctl, procctl, system calls by number.

The FreeBSD half is written from its headers (sys/procctl.h) and is not tested by us.
"""

from __future__ import annotations

import ctypes
import os
import sys

LINUX = sys.platform.startswith("linux")
FREEBSD = sys.platform.startswith("freebsd")

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_SYS_CLOSE_RANGE = 436

_P_PID = 0
_PROC_REAP_ACQUIRE = 2
_PROC_REAP_KILL = 6
_PROC_PDEATHSIG_SET = 11
_PROC_NO_NEW_PRIVS_CTL = 19
_PROC_NO_NEW_PRIVS_ENABLE = 1

_LIBC = ctypes.CDLL(None, use_errno=True)


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


def _last_error() -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))


def _prctl(option: int, value: int) -> None:
    zero = ctypes.c_ulong(0)
    if _LIBC.prctl(ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero) != 0:
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
        _procctl(0, _PROC_PDEATHSIG_SET, ctypes.byref(ctypes.c_int(signal_number)))


def forbid_new_privileges() -> None:
    """Have set-user-id bits and file capabilities ignored in this process and what it starts."""
    if LINUX:
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    elif FREEBSD:  # since 13.1
        value = ctypes.c_int(_PROC_NO_NEW_PRIVS_ENABLE)
        _procctl(0, _PROC_NO_NEW_PRIVS_CTL, ctypes.byref(value))


def close_from(first: int) -> None:
    """Close all descriptors from `first` on."""
    if hasattr(_LIBC, "closefrom"):
        _LIBC.closefrom(ctypes.c_int(first))
        return
    try:
        call_kernel(_SYS_CLOSE_RANGE, first, 0x7FFFFFFF, 0)
    except OSError:  # before Linux 5.9
        os.closerange(first, os.sysconf("SC_OPEN_MAX"))
