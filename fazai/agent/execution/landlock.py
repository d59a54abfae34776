"""Landlock: lets a process and all that it starts write below given paths only (Linux 5.13 and newer).

Only writing is taken away: what may be read or run is left to the file modes. What could not be restricted
by an older kernel (truncating before ABI 3, moving between folders is always refused before ABI 2) is told by
`missing_rights`.
"""

from __future__ import annotations

import ctypes
import os
import stat

from fazai.agent.execution.system import LINUX, call_kernel

_CREATE_RULESET = 444
_ADD_RULE = 445
_RESTRICT_SELF = 446
_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1

_WRITE_FILE = 1 << 1
_TRUNCATE = 1 << 14
_REFER = 1 << 13
#: Removing and making of everything: folders, files, devices, sockets, pipes, links.
_CHANGE_FOLDER = sum(1 << bit for bit in range(4, 13))

#: Always writable: programs throw away their output there.
_HARMLESS = ("/dev/null",)


class _RulesetAttributes(ctypes.Structure):
    _fields_ = (("handled_access_fs", ctypes.c_uint64),)


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def read_abi() -> int:
    """Return the version of Landlock that the kernel has, 0 for none."""
    if not LINUX:
        return 0
    try:
        return call_kernel(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    except OSError:  # not built, or not switched on at boot
        return 0


def missing_rights(abi: int) -> str | None:
    """Return words for what this version cannot take away; None where nothing is missing."""
    if abi == 0:
        return "this kernel has no Landlock"
    return "this kernel's Landlock cannot forbid truncating files (Linux 6.2 can)" if abi < 3 else None


def _handled_rights(abi: int) -> int:
    return _WRITE_FILE | _CHANGE_FOLDER | (_REFER if abi >= 2 else 0) | (_TRUNCATE if abi >= 3 else 0)


def make_ruleset(paths: tuple[str, ...]) -> int:
    """Return a descriptor of rules under which only these paths, and what is below them, can be written.
    Raises OSError, with the path where one is missing."""
    rights = _handled_rights(read_abi())
    attributes = _RulesetAttributes(rights)
    ruleset = call_kernel(_CREATE_RULESET, ctypes.byref(attributes), ctypes.sizeof(attributes), 0)
    for path in (*paths, *_HARMLESS):
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            folder = stat.S_ISDIR(os.fstat(handle).st_mode)
            allowed = rights if folder else rights & (_WRITE_FILE | _TRUNCATE)
            rule = _PathBeneath(allowed, handle)
            call_kernel(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), 0)
        finally:
            os.close(handle)
    return ruleset


def restrict_self(ruleset: int) -> None:
    """Put this process under the rules, for good; it must not be able to gain privileges. Raises OSError."""
    call_kernel(_RESTRICT_SELF, ruleset, 0)
