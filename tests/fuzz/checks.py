"""What must hold for any bytes that a client may send; hypothesis and atheris both ask it."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from fazai.wire.base import MAX_LINE_BYTES, Message, WireError, encode
from fazai.wire.worker import decode_worker_event, decode_worker_request
from fazai.worker.bridge import Options
from fazai.worker.metrics import Metrics
from fazai.worker.server import ClientConnection, Worker
from tests.contract import WORKER_CODES

__all__ = ["check_event", "check_framing", "check_request", "examples"]

M = TypeVar("M", bound=Message)


class Ear(asyncio.Transport):
    """Hears what a connection writes, as it writes it."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__({"socket": sock})
        self.heard = bytearray()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.heard += data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return False


def check_request(line: bytes) -> None:
    """A request is understood and can be said again, or it is refused with a code and a sentence."""
    request = _read(decode_worker_request, line)
    if request is not None:
        assert decode_worker_request(encode(request)) == request


def check_event(line: bytes) -> None:
    """The same of what a client reads."""
    event = _read(decode_worker_event, line)
    if event is not None:
        assert decode_worker_event(encode(event)) == event


def _read(decode: Callable[[bytes], M], line: bytes) -> M | None:
    try:
        return decode(line)
    except WireError as error:
        refused = error
    assert refused.code in WORKER_CODES, refused.code
    assert 0 < len(refused.message) < 1000
    return None


def check_framing(raw: bytes, cuts: Iterable[int]) -> None:
    """One answer a line, the same however the bytes arrive; nothing is raised and nothing is left over."""
    lines = raw.count(b"\n")
    whole = _answers([raw])
    assert len(whole) == lines
    assert _answers(_cut(raw, cuts)) == whole
    for answer in whole:
        if answer.get("type") == "error":
            assert answer["code"] in WORKER_CODES
        elif not answer["ok"]:
            assert answer["code"] in WORKER_CODES
            assert answer["error"]


def _answers(chunks: Iterable[bytes]) -> list[dict[str, Any]]:
    here, there = socket.socketpair()  # a client is the process at the other end
    with here, there:
        connection, ear = ClientConnection(Worker(Options(), Metrics())), Ear(here)
        connection.connection_made(ear)
        for chunk in chunks:
            connection.data_received(chunk)
    return [json.loads(line) for line in bytes(ear.heard).splitlines()]


def _cut(raw: bytes, cuts: Iterable[int]) -> Iterator[bytes]:
    places = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    return (raw[start:end] for start, end in pairwise(places))


def examples() -> list[bytes]:
    """Every request of SPEC.md's first section, those that are refused too."""
    page = (Path(__file__).parents[2] / "SPEC.md").read_text()
    found = re.findall(r"^```json(?:-refused)? worker\.request \w+\n(.+)\n```", page, re.MULTILINE)
    assert found
    assert all(len(text) < MAX_LINE_BYTES for text in found)
    return [text.encode() for text in found]
