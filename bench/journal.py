"""The store's share of each target: take its lease, journal the first action, let go."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from fazai.model import Change, Verb
from fazai.store.base import Action, Run, Store
from fazai.store.factory import open_store

TARGETS = 2000
RUN = Run("0" * 26, "apply", ("site.yml",), "ana", "ops", 1, 0.0)


def main(rounds: int = 7, targets: int = TARGETS, widths: tuple[int, ...] = (1, 32, 256)) -> list[str]:
    """Make the table: CPU and wall time a target, so many at once."""
    return [
        "| targets at once | CPU a target | wall a target |",
        "|---|---|---|",
        *(_row(width, list(_measure(rounds, targets, width))) for width in widths),
    ]


def _row(width: int, found: list[tuple[float, float]]) -> str:
    cpu, wall = (statistics.median(column) for column in zip(*found, strict=True))
    return f"| {width} | {cpu:.0f} µs | {wall:.0f} µs |"


def _measure(rounds: int, targets: int, width: int) -> Iterator[tuple[float, float]]:
    """Yield the microseconds of CPU and of the clock that a target takes, once for each round; all lock files
    are there before."""
    with tempfile.TemporaryDirectory() as folder, closing(open_store(Path(folder))) as store:
        for number in range(rounds + 1):
            cpu, wall = time.process_time(), time.perf_counter()
            asyncio.run(_take_all(store, number, targets, width))
            if number:
                cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
                yield cpu / targets * 1e6, wall / targets * 1e6


async def _take_all(store: Store, number: int, targets: int, width: int) -> None:
    for first in range(0, targets, width):
        some = range(first, min(targets, first + width))
        await asyncio.gather(*(_take(store, number, each) for each in some))


async def _take(store: Store, number: int, each: int) -> None:
    box, name = f"ssh://10.0.{each >> 8}.{each & 255}:22", f"web-{each:04d}"
    change = Change(name, "host.file", "/etc/motd", Verb.CREATE, {}, {"mode": "0644"}, "")
    async with store.lease(box, RUN, name) as lease:
        action = Action(f"{number}-{each}", RUN.run_id, change, box=box, token=lease.token)
        await store.action_begin(action, ["sshd"])
