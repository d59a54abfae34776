"""A time limit for a block of asynchronous code, on every Python from 3.9 on.

Python's own came with 3.11, and holds since 3.11.3 (gh-102780): before that, in a task that is being
cancelled, it let its cancellation out instead of TimeoutError. What cleans up after a cancellation, each step
within a limit of its own, ended at the first step that took too long.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING


class Timeout:
    """`asyncio.Timeout`, for older Pythons: cancels what runs inside when its time comes, and raises
    TimeoutError then. Without a time it never does."""

    def __init__(self, when: float | None) -> None:
        self._when = when
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._expired = False
        self._cancelled_before = 0

    async def __aenter__(self) -> Timeout:
        self._task = asyncio.current_task()
        if sys.version_info >= (3, 11):
            assert self._task is not None
            self._cancelled_before = self._task.cancelling()  # novm
        self.reschedule(self._when)
        return self

    def expired(self) -> bool:
        """Return whether the time came."""
        return self._expired

    def reschedule(self, when: float | None) -> None:
        """Move the limit to a time of the loop's clock, in seconds."""
        self._when = when
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if when is None else asyncio.get_running_loop().call_at(when, self._expire)

    def _expire(self) -> None:
        assert self._task is not None
        self._expired = True
        self._task.cancel()

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        assert self._task is not None
        if self._timer is not None:
            self._timer.cancel()
        if not self._expired:
            return
        if sys.version_info >= (3, 11) and self._task.uncancel() > self._cancelled_before:  # novm
            return  # somebody else cancelled it meanwhile
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError from None


if TYPE_CHECKING or sys.version_info >= (3, 11, 3):
    from asyncio import timeout as deadline  # novm
    from asyncio import timeout_at as deadline_at  # novm
else:

    def deadline(seconds: float | None) -> Timeout:
        """Return a limit of so many seconds from now."""
        return Timeout(None if seconds is None else asyncio.get_running_loop().time() + seconds)

    deadline_at = Timeout


__all__ = ["deadline", "deadline_at"]
