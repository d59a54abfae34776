"""What holds for all tests: none is skipped where CI says so, each has a time limit, grids are thinned.

A test over its limit fails, with a dump of all threads. One that cannot even do that (it hangs in C, or keeps
what is raised in it) ends its process half a minute later, with another dump; pytest-xdist names the test and
starts another process. Limits are for machines that are busy: who meets one has found a wait without an end.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import sys
import zlib
from collections import Counter
from collections.abc import Generator, Sequence
from pathlib import Path
from types import FrameType

import pytest

LIMIT_S, SLOW_LIMIT_S, SOAK_LIMIT_S = 120, 900, 3600
_LAST_S = 30
_HERE = Path(__file__).parent
_STDERR = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_STDERR] = os.dup(
        sys.__stderr__.fileno() if sys.__stderr__ else 2
    )  # not what pytest captures
    # What processes inherit; to its own workers pytest-xdist gives its `sys.path`.
    os.environ["PYTHONPATH"] = f"{_HERE / 'lean'}:{_HERE.parent}"


def limit_s(item: pytest.Item) -> int:
    """Return the seconds that a test may take; `FAZAI_TEST_LIMIT_S` replaces the limit of fast ones."""
    if item.get_closest_marker("gemma"):
        return SOAK_LIMIT_S
    if item.get_closest_marker("slow"):
        return SLOW_LIMIT_S
    return int(os.environ.get("FAZAI_TEST_LIMIT_S", LIMIT_S))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    seconds, stderr = limit_s(item), item.config.stash[_STDERR]

    def fail(_number: int, _frame: FrameType | None) -> None:
        os.write(stderr, f"\n{item.nodeid}: over its limit of {seconds} s\n".encode())
        faulthandler.dump_traceback(stderr)
        pytest.fail(f"over its limit of {seconds} s; all threads are above, on standard error", pytrace=True)

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(seconds)
    faulthandler.dump_traceback_later(seconds + _LAST_S, exit=True, file=stderr)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the garbage collector from going through ten thousand tests again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Thin out grids for the fast tests, before `-m` selects; slow ones begin, so that none is waited for."""
    for item in slow_in_turn(items):
        item.add_marker("slow")
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def slow_in_turn(items: Sequence[pytest.Item]) -> list[pytest.Function]:
    """Return the tests marked `in_turn(parameter, …)` that are left to the slow run.

    Each combination of the other parameters keeps one value of these, the next combination the next value.
    Where a test begins is given by its name, so that the tests of a file cover all values.
    """
    values: dict[str, list[object]] = {}
    seen: Counter[tuple[str, int]] = Counter()
    found: list[tuple[pytest.Function, str, int, int]] = []
    for item in items:
        mark = item.get_closest_marker("in_turn")
        if mark is None or not isinstance(item, pytest.Function):
            continue
        value, test = [item.callspec.params[name] for name in mark.args], item.nodeid.partition("[")[0]
        of_test = values.setdefault(test, [])
        if value not in of_test:
            of_test.append(value)
        own = of_test.index(value)
        found.append((item, test, own, seen[test, own]))  # the others are the same for the nth of each value
        seen[test, own] += 1
    return [
        item
        for item, test, own, combination in found
        if (zlib.crc32(test.encode()) + combination) % len(values[test]) != own
    ]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped and os.environ.get("FAZAI_NO_SKIPS"):
        terminalreporter.write_line(f"{len(skipped)} tests were skipped that must run here", red=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("FAZAI_NO_SKIPS") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
