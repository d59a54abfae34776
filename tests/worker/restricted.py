"""Runs a command as deploy/fazai-gemma-worker.service restricts it, without systemd: another user without any
capability, no network, a file system that is read-only but for one folder, no memory that is writable and
executable, and no socket but Unix ones."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["wrapper"]

NOBODY = 65534
_PR_SET_MDWE, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 65, 38, 22, 2
_SOCKET = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _EAFNOSUPPORT = 0x7FFF0000, 0x00050000 | 97

_MOUNTS = """
set -eu
own=$1 hidden=$2
shift 2
mount --bind "$own" "$own"
if [ -n "$hidden" ]; then  # this tree or the interpreter lies below a folder that only its owner may pass
    mount -t tmpfs -o mode=755 none /mnt
    at=0
    for kept in "$@"; do
        [ "$kept" = -- ] && break
        at=$((at + 1))
        mkdir "/mnt/$at"
        mount --rbind "$kept" "/mnt/$at"
    done
    mount -t tmpfs -o mode=755 none "$hidden"
    at=0
    for kept in "$@"; do
        [ "$kept" = -- ] && break
        at=$((at + 1))
        mkdir -p "$kept"
        mount --rbind "/mnt/$at" "$kept"
    done
fi
while [ "$1" != -- ]; do shift; done
shift
mount -o remount,bind,ro /
exec "$@"
"""


def wrapper(writable: Path, families: Sequence[int]) -> list[str]:
    """What to put before a command; `families` are the sockets that it may make."""
    kept = {Path(sys.base_prefix), Path(sys.prefix), Path(__file__).parents[2]}
    closed = [folder for path in kept for folder in path.parents if not folder.stat().st_mode & 0o001]
    hidden = min(closed, key=lambda folder: len(folder.parts), default=None)
    below = sorted(path for path in kept if hidden is not None and hidden in path.parents)
    return [
        *("unshare", "--net", "--mount", "--propagation", "private"),
        *("sh", "-c", _MOUNTS, "sh", str(writable), str(hidden or ""), *map(str, below), "--"),
        *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"),
        *("--bounding-set=-all", "--inh-caps=-all"),
        *(sys.executable, __file__, ",".join(map(str, families))),
    ]


def _instruction(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("HBBI", code, yes, no, value)


def _only_families(families: Sequence[int]) -> bytes:
    """A filter as RestrictAddressFamilies= makes one: socket() of another family is EAFNOSUPPORT."""
    machine, number = _SOCKET[platform.machine()]
    n = len(families)
    return b"".join(
        [
            _instruction(_LOAD, 4),
            _instruction(_EQUAL, machine, 0, n + 4),
            _instruction(_LOAD, 0),
            _instruction(_EQUAL, number, 0, n + 2),
            _instruction(_LOAD, 16),
            *(_instruction(_EQUAL, family, n - at, 0) for at, family in enumerate(families)),
            _instruction(_RETURN, _EAFNOSUPPORT),
            _instruction(_RETURN, _ALLOW),
        ]
    )


def _restrict(families: Sequence[int]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    program = _only_families(families)
    held = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(held))
    for call in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _FILTER, ctypes.c_char_p(head), 0, 0),
        (_PR_SET_MDWE, 1, 0, 0, 0),
    ):
        # An older kernel knows no MDWE; systemd then filters mmap instead.
        if libc.prctl(*call) != 0 and call[0] != _PR_SET_MDWE:
            raise OSError(ctypes.get_errno(), f"prctl {call[0]}")


if __name__ == "__main__":
    _restrict([int(word) for word in sys.argv[1].split(",")])
    os.execv(sys.argv[2], sys.argv[2:])
