"""What this machine has for a model: memory, cores, and what the installed llama.cpp can do with them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from fazai.errors import InputError
from fazai.worker.bridge import import_native, list_devices

#: Answers of fz_matrix_way (enum fz_way).
ROWS, REPACKED, NO_KERNEL = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine, as a model meets it. `problem` says why llama.cpp cannot be asked; empty: it can."""

    cores: int
    memory_bytes: int  # that is free, or can be made so
    llama_cpp: str | None
    devices: tuple[str, ...]
    gpu: bool
    problem: str = ""


def look_at_machine() -> Machine:
    """Look at this machine. Without the native part it is the memory and the cores alone."""
    cores = len(os.sched_getaffinity(0))
    memory = available_memory(Path("/"))
    try:
        native = import_native()
    except InputError as error:
        return Machine(cores, memory, None, (), False, error.message)
    release = bytes(native.ffi.string(native.lib.fz_loaded())).decode(errors="replace")
    return Machine(cores, memory, release, list_devices(native), bool(native.lib.fz_gpu()))


def matrix_way(type_: int, columns: int, rows: int) -> int | None:
    """Return how llama.cpp multiplies by a matrix here: ROWS, REPACKED, NO_KERNEL; None: it does not say."""
    try:
        way = int(import_native().lib.fz_matrix_way(type_, columns, rows))
    except InputError:
        return None
    return way if way >= 0 else None


def available_memory(root: Path) -> int:
    """Return how many bytes a new process may take: what the kernel calls available, or what is left to the
    control group of this process. 0: it is not known."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return 0
    return min([free, *_left_to_groups(root)])


def _left_to_groups(root: Path) -> list[int]:
    """Return what is left to each control group (version 2) that this process is in and that has a limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    own = next((line[3:] for line in lines if line.startswith("0::")), "/").strip("/")
    found = []
    for folder in [Path(own), *Path(own).parents]:
        group = root / "sys/fs/cgroup" / folder
        try:
            most, taken = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        except (OSError, ValueError):  # no limit is the word max
            continue
        found.append(max(0, most - taken))
    return found
