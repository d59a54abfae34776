"""The lab in a thread with its own loop: for synchronous tests and for clients that measure their own CPU."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Self, TypeVar

from fazai.lab.lab import Lab, LabFirewall
from fazai.lab.settings import LabSettings

T = TypeVar("T")


class LabThread:
    """A lab whose loop has a thread: `with LabThread() as lab: firewall = lab.start("fw")`."""

    def __init__(self, folder: Path | None = None) -> None:
        self._lab = Lab(folder)
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lab", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.run(self._lab.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the lab's loop and wait for its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def start(self, name: str, settings: LabSettings | None = None) -> LabFirewall:
        """Start a firewall, or return the running one of that name."""
        return self.run(self._lab.start(name, settings))
