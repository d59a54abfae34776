"""A time limit for a block of asynchronous code, for Python 3.9 as well."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING or sys.version_info >= (3, 11):
    from asyncio import timeout as deadline  # novm
else:

    class deadline:  # noqa: N801 - as asyncio.timeout
        """`asyncio.timeout`: cancels what runs inside after so many seconds, and raises TimeoutError then."""

        def __init__(self, seconds: float) -> None:
            self._seconds = seconds
            self._expired = False

        async def __aenter__(self) -> None:
            task = asyncio.current_task()
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, self._seconds), self._expire, task)

        def _expire(self, task: asyncio.Task[object]) -> None:
            self._expired = True
            task.cancel()

        async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
            self._timer.cancel()
            if self._expired and kind is not None and issubclass(kind, asyncio.CancelledError):
                raise TimeoutError from None


__all__ = ["deadline"]
