"""A store in a folder of its own, a clock that the test sets, and records as hosts send them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fazai.store.daemon import GAUGES, NewSample, StoreLimits
from fazai.store.sqlite.daemon import SqliteDaemonStore

MINUTE_US = 60_000_000
START_US = 1_790_000_000_000_000
GAUGE_ROW = tuple(float(number) for number in range(len(GAUGES)))
#: No upkeep of its own accord: tests say when.
QUIET = StoreLimits(upkeep_s=3600)


class Clock:
    """Wall time in microseconds."""

    def __init__(self, now_us: int = START_US) -> None:
        self.now_us = now_us

    def __call__(self) -> int:
        return self.now_us


def body_of(host: str, time_us: int, size: int = 200) -> bytes:
    record = {"hostname": host, "timestamp": time_us, "processes": f"{host} {time_us} ".ljust(size, "x")}
    return json.dumps(record).encode()


def sample(host: str, minute: int, *, size: int = 200, gauges: tuple[float, ...] = GAUGE_ROW) -> NewSample:
    time_us = START_US + minute * MINUTE_US
    return NewSample(host, time_us, body_of(host, time_us, size), gauges)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[SqliteDaemonStore]:
    found = SqliteDaemonStore(tmp_path / "state", QUIET, clock)
    yield found
    found.close()
