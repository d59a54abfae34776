"""Limits of time: Python's own, and the one for older Pythons, which is held to the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from fazai.compat import timeouts
from tests.daemon.live import PATIENCE_S

Limit = Callable[[float | None], Any]


def older(seconds: float | None) -> timeouts.Timeout:
    return timeouts.Timeout(None if seconds is None else asyncio.get_running_loop().time() + seconds)


@pytest.fixture(params=[timeouts.deadline, older], ids=["deadline", "older Pythons"])
def limit(request: pytest.FixtureRequest) -> Limit:
    found: Limit = request.param
    return found


async def never() -> None:
    await asyncio.Event().wait()


def test_it_ends_what_takes_too_long_and_nothing_else(limit: Limit) -> None:
    async def wait() -> str:
        for enough in (PATIENCE_S, None):
            async with limit(enough) as until:
                await asyncio.sleep(0)
            assert not until.expired()
        with pytest.raises(TimeoutError):
            async with limit(0) as until:
                await never()
        assert until.expired()
        with pytest.raises(KeyError):
            async with limit(0):
                raise KeyError("its own error")
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        return "went on"

    assert asyncio.run(wait()) == "went on"


def test_limits_within_limits(limit: Limit) -> None:
    async def wait() -> list[str]:
        found = []
        try:
            async with limit(0):
                try:
                    async with limit(PATIENCE_S):
                        await never()
                except TimeoutError:
                    found.append("the inner one, which had time")
        except TimeoutError:
            found.append("the outer one")
        return found

    assert asyncio.run(wait()) == ["the outer one"]


def test_a_limit_may_be_moved(limit: Limit) -> None:
    async def wait() -> None:
        async with limit(PATIENCE_S) as until:
            until.reschedule(asyncio.get_running_loop().time())
            await never()

    with pytest.raises(TimeoutError):
        asyncio.run(wait())


def test_limits_hold_while_a_cancelled_task_cleans_up(limit: Limit) -> None:
    """Each step of the cleaning has its own; the cancellation goes on after it."""

    async def work(steps: list[str]) -> None:
        try:
            await never()
        except asyncio.CancelledError:
            for step in ("first", "second"):
                try:
                    async with limit(0):
                        await never()
                except TimeoutError:
                    steps.append(step)
            raise

    async def cancel() -> list[str]:
        steps: list[str] = []
        task = asyncio.ensure_future(work(steps))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return steps

    assert asyncio.run(cancel()) == ["first", "second"]


def test_a_cancellation_from_elsewhere_is_none_of_a_limit(limit: Limit) -> None:
    async def work() -> None:
        async with limit(PATIENCE_S):
            await never()

    async def cancel() -> None:
        task = asyncio.ensure_future(work())
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel())
