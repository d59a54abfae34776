"""The agent's event loop: files that become ready, and timers. One thread, no asyncio, which costs memory.

`clock` and `wait` are parameters, so that a test can let hours pass without waiting for them.
"""

from __future__ import annotations

import heapq
import selectors
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: The kernel takes no number that is much longer.
_LONGEST_WAIT_S = 3600.0

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE


class Timer:
    """A call at a later time, which can be taken back."""

    __slots__ = ("at", "call", "order")

    def __init__(self, at: float, order: int, call: Callable[[], None]) -> None:
        self.at = at
        self.order = order
        self.call: Callable[[], None] | None = call

    def __lt__(self, other: Timer) -> bool:
        return (self.at, self.order) < (other.at, other.order)

    def cancel(self) -> None:
        """Take the call back; nothing where it was made already."""
        self.call = None


class Loop:
    """Calls back when a file is ready or a time has come, until `stop`."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[Any, float | None], Any] | None = None,
    ) -> None:
        self.clock = clock
        self._selector = selectors.DefaultSelector()
        self._wait = wait or _wait
        self._timers: list[Timer] = []
        self._count = 0
        self._stopped = False

    def watch(self, fd: int, events: int, call: Callable[[int], None]) -> None:
        """Call back with the ready events of a file; an earlier watch of it is replaced."""
        known = self._selector.get_map()
        if fd in known:
            self._selector.modify(fd, events, call)
        else:
            self._selector.register(fd, events, call)

    def forget(self, fd: int) -> None:
        """End the watch of a file; nothing where there is none."""
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """Call back once after `delay_s`."""
        self._count += 1
        timer = Timer(self.clock() + max(delay_s, 0.0), self._count, call)
        heapq.heappush(self._timers, timer)
        return timer

    def stop(self) -> None:
        """End `run` after the call that is being made."""
        self._stopped = True

    def run(self) -> None:
        """Serve until `stop`."""
        self._stopped = False
        while not self._stopped:
            self.turn()

    def turn(self) -> None:
        """Wait once for files or the next timer, and make the calls."""
        for key, events in self._wait(self._selector, self._next_delay()):
            # An earlier call of this turn may have closed it, and its number may be another file's by now.
            watched = self._selector.get_map().get(key.fd)
            if watched is not None and watched.data == key.data:
                key.data(events)
        now = self.clock()
        while self._timers and (self._timers[0].call is None or self._timers[0].at <= now):
            timer = heapq.heappop(self._timers)
            call, timer.call = timer.call, None
            if call is not None:
                call()

    def close(self) -> None:
        """Give back what the loop holds."""
        self._selector.close()
        self._timers.clear()

    def _next_delay(self) -> float | None:
        """Return the seconds until the next timer, None without one; timers that were taken back are dropped
        here, so that they do not heap up."""
        while self._timers and self._timers[0].call is None:
            heapq.heappop(self._timers)
        return min(max(self._timers[0].at - self.clock(), 0.0), _LONGEST_WAIT_S) if self._timers else None


def _wait(selector: Any, timeout: float | None) -> Any:
    return selector.select(timeout)
