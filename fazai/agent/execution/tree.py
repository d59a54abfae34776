"""Finds and kills all that descends from this process, which has become the reaper of its orphans.

A reaper is the parent of every descendant whose own parent ended, so nothing gets away by forking twice or
by a session of its own, and nothing is left exactly when the reaper has no child.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

from fazai.agent.execution.system import FREEBSD, LINUX, kill_reaped

if TYPE_CHECKING:
    from collections.abc import Iterator


def reap_children() -> Iterator[tuple[int, int]]:
    """Yield process and wait status of each child that ended. Raises ChildProcessError once there is none."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        yield pid, status


def kill_descendants() -> None:
    """Send SIGKILL to every descendant that can be seen; call it until the last child is reaped."""
    if FREEBSD:
        with contextlib.suppress(OSError):
            kill_reaped(signal.SIGKILL)
        return
    for pid in find_descendants(os.getpid()) if LINUX else ():
        _kill_one(pid)


def find_descendants(pid: int) -> list[int]:
    """Return the descendants of a process."""
    lists = os.path.exists(f"/proc/{pid}/task/{pid}/children")
    return _follow_children(pid) if lists else _scan_processes(pid)


def _follow_children(pid: int) -> list[int]:
    """Follow the kernel's lists of children, which is quick however many others there are."""
    found: list[int] = []
    left = [pid]
    while left:
        parent = left.pop()
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{parent}/task"):
                with (
                    contextlib.suppress(OSError),
                    open(f"/proc/{parent}/task/{thread}/children", "rb") as file,
                ):
                    children = [int(word) for word in file.read().split()]
                    found += children
                    left += children
    return found


def _scan_processes(pid: int) -> list[int]:
    """Look at the parent of every process, where the kernel keeps no lists of children."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            parent = _read_parent(int(name))
            if parent is not None:
                children.setdefault(parent, []).append(int(name))
    found: list[int] = []
    left = [pid]
    while left:
        more = children.get(left.pop(), [])
        found += more
        left += more
    return found


def _read_parent(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None


def _kill_one(pid: int) -> None:
    """Kill one descendant.

    The number of a child of ours is its own until we reap it, and so is that of its process group, which is
    killed with it, in one step even while it forks. Any other number may be given anew to a stranger at any
    time: that one is killed by a descriptor, after a second look at its parents.
    """
    own = os.getpid()
    with contextlib.suppress(OSError):
        if _read_parent(pid) == own:
            group = os.getpgid(pid)
            os.kill(pid, signal.SIGKILL)
            if group != os.getpgrp():
                os.killpg(group, signal.SIGKILL)
        elif hasattr(os, "pidfd_open"):  # Linux 5.3
            handle = os.pidfd_open(pid)
            try:
                if _descends_from(pid, own):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            finally:
                os.close(handle)
        elif _descends_from(pid, own):
            os.kill(pid, signal.SIGKILL)


def _descends_from(pid: int, ancestor: int) -> bool:
    """Follow the parents of a process up to the ancestor."""
    current: int | None = pid
    for _ in range(10_000):
        current = _read_parent(current) if current else None
        if current == ancestor:
            return True
        if not current or current == 1:
            return False
    return False
