"""`FAZAI_TEST_CPU=FILE pytest -p tests.cpu …`: what each test costs, as lines of JSON, and a sum at the end.

A line is the test's id, and in seconds: CPU of this process, CPU of its children that have ended, and time.
"""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Generator
from pathlib import Path

import pytest

OUT = Path(os.environ.get("FAZAI_TEST_CPU", "test-cpu.jsonl"))


def _used() -> tuple[float, float, float]:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime, children.ru_utime + children.ru_stime, time.monotonic()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    before = _used()
    try:
        return (yield)
    finally:
        spent = [round(after - begun, 3) for after, begun in zip(_used(), before, strict=True)]
        with OUT.open("a") as out:
            out.write(json.dumps([item.nodeid, *spent]) + "\n")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = [json.loads(line) for line in OUT.read_text().splitlines()] if OUT.exists() else []
    own, children = sum(row[1] for row in rows), sum(row[2] for row in rows)
    terminalreporter.write_line(
        f"CPU of {len(rows)} tests: {own:.1f} s, of what they started: {children:.1f} s"
    )
