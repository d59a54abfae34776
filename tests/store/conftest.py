"""Every kind of store, for the contract: a test asks for `open_ledger` or `open_daemon` and is run once for
each. Both open the same place each time, so that a test can look at what lasts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from fazai.store.base import Store
from fazai.store.daemon import DaemonStore, StoreLimits
from fazai.store.factory import open_daemon_store, open_store


class OpenLedger(Protocol):
    def __call__(self, clock: Callable[[], float] = ...) -> contextlib.AbstractContextManager[Store]: ...


class OpenDaemon(Protocol):
    def __call__(self, **limits: Any) -> contextlib.AbstractContextManager[DaemonStore]: ...


def _sqlite(folder: Path) -> str:
    return f"sqlite://{folder}"


#: A new kind of store adds the function that names an empty place of its own.
PLACES = {"sqlite": _sqlite}


@pytest.fixture(params=sorted(PLACES))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return PLACES[request.param](tmp_path / "state")


@pytest.fixture
def open_ledger(place: str) -> OpenLedger:
    @contextlib.contextmanager
    def opened(clock: Callable[[], float] = time.time) -> Iterator[Store]:
        with contextlib.closing(open_store(place, keep_runs=10, clock=clock)) as store:
            yield store

    return opened


@pytest.fixture
def open_daemon(place: str) -> OpenDaemon:
    @contextlib.contextmanager
    def opened(**limits: Any) -> Iterator[DaemonStore]:
        with contextlib.closing(
            open_daemon_store(place, StoreLimits(**{"upkeep_s": 3600, **limits}))
        ) as store:
            yield store

    return opened
