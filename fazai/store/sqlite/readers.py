"""Threads that read the state file beside its writer, so that an event loop never waits for the disk."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from fazai.errors import StateError
from fazai.store.sqlite.schema import FILE_NAME, open_reader, state_error

T = TypeVar("T")


class Readers:
    """Pool of threads that read, each on a connection of its own: they wait neither for the writer nor for
    each other. A read that finds all of them busy waits until one is free; its caller may give up meanwhile.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        self._folder = folder
        self._threads = ThreadPoolExecutor(threads, "fazai-store-reader")
        self._idle: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """Call `work`, which may use `query`, in one of the threads, and return its result. Raises
        StateError."""
        try:
            future = asyncio.get_running_loop().run_in_executor(self._threads, work, *args)
        except RuntimeError:
            raise StateError("the store is closed") from None
        return await future

    def query(self, sql: str, params: tuple[Any, ...] = ()) -> list[Any]:
        """Return all rows. Blocks; for `work` alone. Raises StateError."""
        try:
            try:
                connection = self._idle.get_nowait()
            except queue.Empty:
                connection = open_reader(self._folder / FILE_NAME)
            try:
                return connection.execute(sql, params).fetchall()
            finally:
                self._idle.put(connection)
        except sqlite3.Error as error:
            raise state_error(self._folder, error) from error

    def close(self) -> None:
        """Wait for the reads that go on, and refuse what comes later."""
        self._threads.shutdown(cancel_futures=True)
        while not self._idle.empty():
            self._idle.get_nowait().close()
