"""Running commands in turn and measuring them by the operating system's own account."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Sample", "interleave", "run"]


#: Settings of a developer's shell that no installation has: byte code is cached, output is buffered.
_DISTORTING = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONDEVMODE", "PYTHONWARNINGS")


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one command: wall time, CPU time of the process and its children, peak memory."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    exit_code: int
    output: str = ""


@dataclass(slots=True)
class Series:
    samples: list[Sample] = field(default_factory=list)

    def median(self, of: Callable[[Sample], float]) -> float:
        return statistics.median(of(sample) for sample in self.samples)

    @property
    def wall_s(self) -> float:
        return self.median(lambda s: s.wall_s)

    @property
    def cpu_s(self) -> float:
        return self.median(lambda s: s.cpu_s)

    @property
    def peak_bytes(self) -> float:
        return self.median(lambda s: s.peak_bytes)


def run(command: Sequence[str], env: Mapping[str, str] | None = None, expect: Sequence[int] = (0,)) -> Sample:
    """Run once. Raises RuntimeError when the exit code is not one of those expected."""
    env = {name: value for name, value in (env or os.environ).items() if name not in _DISTORTING}
    begun = time.perf_counter()
    process = subprocess.Popen(list(command), env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    output = process.stdout.read()
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - begun
    text = output.decode(errors="replace")
    if process.returncode not in expect:
        raise RuntimeError(f"{' '.join(command)}: exit {process.returncode}\n{text[-2000:]}")
    return Sample(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, process.returncode, text)


def interleave(rounds: int, contenders: Mapping[str, Callable[[], Sample]]) -> dict[str, Series]:
    """Every contender once a round, in turn, after one round that does not count (caches, byte code)."""
    series = {name: Series() for name in contenders}
    for number in range(rounds + 1):
        for name, contender in contenders.items():
            sample = contender()
            if number:
                series[name].samples.append(sample)
    return series
