"""Limits of a program: a cgroup of its own (version 2) where one can be made, else limits of processes.

The cgroup also ends all that is in it at once (`cgroup.kill`), however fast it forks. It is named after the
process that made it, so that one whose maker was killed is found and ended by the next; those of makers that
are numbered in another namespace are left alone.
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import time
from typing import TYPE_CHECKING

from fazai.agent.execution.system import LINUX

if TYPE_CHECKING:
    from fazai.agent.config.settings import ProgramLimits

_PREFIX = "fazai-command"
#: The cgroup of the agent itself, below the one that was given to it.
_AGENT = "fazai-agent"


class CgroupLeaf:
    """A cgroup for one program and all that it starts."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def enter(self) -> None:
        """Move this process into it. Raises OSError."""
        write_file(f"{self._path}/cgroup.procs", b"0")

    def limit(self, limits: ProgramLimits) -> tuple[bool, bool]:
        """Set the bounds of memory and of processes; tells which of the two the kernel will keep."""
        memory = processes = False
        if limits.memory is None and limits.processes is None:
            return memory, processes
        controllers = _read(f"{self._path}/cgroup.controllers").split()
        if limits.memory is not None and "memory" in controllers:
            memory = _write(f"{self._path}/memory.max", str(limits.memory))
            _write(f"{self._path}/memory.swap.max", "0")
            _write(f"{self._path}/memory.oom.group", "1")
        if limits.processes is not None and "pids" in controllers:
            processes = _write(f"{self._path}/pids.max", str(limits.processes))
        return memory, processes

    def kill(self) -> None:
        """Kill everything in it, also what is being forked."""
        _write(f"{self._path}/cgroup.kill", "1")

    def is_empty(self) -> bool:
        """Tell whether nothing lives in it."""
        return "populated 1" not in _read(f"{self._path}/cgroup.events")

    def remove(self) -> None:
        """Remove it, and those that its program made below it; one in which something lives stays for whoever
        comes next."""
        os.close(self.handle)
        try:
            os.rmdir(self._path)
        except OSError:
            for folder, _, _ in os.walk(self._path, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)


def make_leaf(limits: ProgramLimits) -> CgroupLeaf | None:
    """Make a cgroup below this process's own; None where there is no version 2, or it cannot be written."""
    parent = find_own_cgroup()
    if parent is None:
        return None
    for needed, controller in ((limits.memory, "memory"), (limits.processes, "pids")):
        if needed is not None and controller not in _read(f"{parent}/cgroup.subtree_control").split():
            _write(f"{parent}/cgroup.subtree_control", f"+{controller}")  # else: limits of processes
    path = f"{parent}/{_own_prefix()}{os.getpid()}-{_ticks_since_boot()}"
    try:
        os.mkdir(path, 0o755)
        leaf = CgroupLeaf(path)
    except OSError:
        return None
    if not os.access(f"{path}/cgroup.kill", os.W_OK) or not os.access(f"{path}/cgroup.procs", os.W_OK):
        leaf.remove()
        return None
    return leaf


def settle_in_cgroup() -> None:
    """Move this process, the agent itself, out of the way where its cgroup was given to it (`Delegate=yes`).

    A cgroup that hands controllers down holds no processes of its own: the agent goes into one below it, and
    each program into another.
    """
    own = find_own_cgroup()
    if own is not None and _is_delegated(own):
        with contextlib.suppress(OSError):
            os.makedirs(f"{own}/{_AGENT}", exist_ok=True)
            _write(f"{own}/{_AGENT}/cgroup.procs", "0")


@functools.lru_cache(maxsize=1)  # the agent asks before it forks, and its children know
def find_own_cgroup() -> str | None:
    """Return the cgroup of version 2 below which programs get theirs, None where it may not be divided."""
    path = _locate_cgroup() if LINUX else None
    if path is not None and os.path.basename(path) == _AGENT and _is_delegated(os.path.dirname(path)):
        path = os.path.dirname(path)
    return path if path is not None and os.access(path, os.W_OK) else None


def _locate_cgroup() -> str | None:
    """Return the folder of this process's cgroup."""
    own = next((line[3:] for line in _read("/proc/self/cgroup").splitlines() if line.startswith("0::")), None)
    for line in _read("/proc/self/mountinfo").splitlines() if own is not None else ():
        fields, _, rest = line.partition(" - ")
        if rest.startswith("cgroup2 ") and own is not None:
            root, mount = fields.split(" ")[3:5]
            below = own[len(root) :] if root != "/" and own.startswith(root) else own
            return f"{mount}{below}".rstrip("/")
    return None


def _is_delegated(path: str) -> bool:
    """Tell whether the service manager gave this cgroup to us: it says so at the folder."""
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(path, name) == b"1":
                return True
    return False


def end_orphaned_leaves(parent: str | None = None) -> int:
    """Kill what is left in cgroups whose maker is gone, and remove them; returns how many there were."""
    folder = parent if parent is not None else find_own_cgroup()
    found = 0
    if folder is None:
        return found
    prefix = _own_prefix()
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            pid, _, made = name[len(prefix) :].partition("-")
            if not name.startswith(prefix) or not pid.isdigit() or not made.isdigit():
                continue
            if not _is_its_maker(int(pid), int(made)):
                leaf = CgroupLeaf(f"{folder}/{name}")
                leaf.kill()
                _wait_until_empty(leaf)
                leaf.remove()
                found += 1
    return found


@functools.lru_cache(maxsize=1)
def _own_prefix() -> str:
    """Return how the names of cgroups begin whose makers are numbered as this process is."""
    return f"{_PREFIX}-{os.stat('/proc/self/ns/pid').st_ino}-"


def _wait_until_empty(leaf: CgroupLeaf) -> None:
    """Wait a second at most: the killed are gone at once, unless the kernel holds one of them."""
    end = time.monotonic() + 1
    while not leaf.is_empty() and time.monotonic() < end:
        time.sleep(0.002)


def limit_processes(limits: ProgramLimits, *, memory_held: bool, processes_held: bool) -> None:
    """Set this process's own limits, and those of what it starts, but for those that its cgroup keeps."""
    if limits.memory is not None and not memory_held:
        _lower(resource.RLIMIT_AS, limits.memory)
    if limits.processes is not None and not processes_held:
        _lower(resource.RLIMIT_NPROC, limits.processes)
    if limits.cpu_seconds is not None:
        _lower(resource.RLIMIT_CPU, limits.cpu_seconds)
    if limits.files is not None:
        _lower(resource.RLIMIT_NOFILE, limits.files)


def limit_core() -> None:
    """Have this process, and what it starts, leave no core behind."""
    _lower(resource.RLIMIT_CORE, 0)


def _lower(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (bound, bound))


def _is_its_maker(pid: int, made: int) -> bool:
    """Tell whether this process lived when a cgroup was made, and is not one that got its number later."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return len(fields) > 19 and int(fields[19]) <= made + 1


def _ticks_since_boot() -> int:
    """Return the time as the kernel tells when a process began."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


def _read(path: str) -> str:
    """Return the beginning of a file of the kernel's; nothing where it cannot be read."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    found = b""
    try:
        while data := os.read(file, 65_536):
            found += data
    except OSError:
        return ""
    finally:
        os.close(file)
    return found.decode("utf-8", "replace")


def _write(path: str, text: str) -> bool:
    try:
        write_file(path, text.encode())
    except OSError:
        return False
    return True


def write_file(path: str, data: bytes) -> None:
    """Write into a file of the kernel's. Raises OSError."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, data)
    finally:
        os.close(file)
