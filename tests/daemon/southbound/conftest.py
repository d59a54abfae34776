from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.southbound.world import World, agents_world


@pytest.fixture
def make_world(tmp_path: Path) -> Callable[..., Any]:
    return functools.partial(agents_world, tmp_path)


@pytest.fixture
def world(make_world: Callable[..., Any]) -> Iterator[World]:
    with make_world() as made:
        yield made
