"""Every wait of the client ends, every answer has its bound: peers that are silent, drip, flood, go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from fazai.errors import DeviceError, FazaiError, Unreachable
from fazai.providers.opnsense.api.answers import DECODED_AT_ONCE_BYTES, decode_json, decode_large_json
from fazai.providers.opnsense.api.budget import MIB, AnswerLease, Budget
from fazai.providers.opnsense.api.client import Api
from tests.opnsense.api.peer import Speak, error_of, said, speaking, with_peer
from tests.opnsense.helpers import run

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def dripping(first: bytes, each: bytes) -> Speak:
    """A little, again and again, without an end."""

    async def speak(writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while True:
            writer.write(each)
            await writer.drain()
            await asyncio.sleep(0.02)

    return speak


def flooding(first: bytes, each: bytes) -> Speak:
    """As much as the line takes, without an end."""

    async def speak(writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while True:
            writer.write(each)
            await writer.drain()

    return speak


async def search(api: Api) -> FazaiError:
    return await error_of(api.search("firewall/alias/searchItem"))


NOT_IN_TIME = "did not answer firewall/alias/searchItem within 0.3 s"
NOT_WHOLE = "the answer to firewall/alias/searchItem was not complete after 0.3 s"
WAITS: dict[str, tuple[Speak, str]] = {
    "says nothing": (speaking(), NOT_IN_TIME),
    "says half a head": (speaking(HEAD), NOT_IN_TIME),
    "says a head": (speaking(HEAD + b"Content-Length: 100\r\n\r\n"), NOT_WHOLE),
    "says a body without its end": (
        speaking(HEAD + b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"a":\r\n'),
        NOT_WHOLE,
    ),
    "drips a head": (dripping(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"), NOT_IN_TIME),
    "drips a body": (dripping(HEAD + b"Content-Length: 1000000\r\n\r\n", b" "), NOT_WHOLE),
    "asks for patience without end": (dripping(b"", b"HTTP/1.1 102 Processing\r\n\r\n"), NOT_IN_TIME),
}


@pytest.mark.parametrize("name", WAITS)
def test_a_wait_ends_with_the_timeout_of_the_request(name: str) -> None:
    speak, text = WAITS[name]
    error = run(with_peer(speak, search, timeout_s=0.3, connect_timeout_s=0.3))
    assert isinstance(error, Unreachable)
    assert text in error.message


def test_a_handshake_that_is_never_answered_ends_with_the_time_to_connect() -> None:
    async def silent(api: Api) -> FazaiError:
        return await search(api)

    error = run(with_peer(speaking(), silent, scheme="https", connect_timeout_s=0.3))
    assert "did not answer within 0.3 s" in error.message


FLOODS: dict[str, tuple[Speak, str]] = {
    "a body that says its length": (
        flooding(HEAD + b"Content-Length: 209715200\r\n\r\n", b" " * 65536),
        "answered firewall/alias/searchItem with more than 1 MiB",
    ),
    "a body without a length": (
        flooding(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b" " * 65536 + b"\r\n"),
        "answered firewall/alias/searchItem with more than 1 MiB",
    ),
    "heads": (flooding(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 1000), "closed the connection"),
    "one head": (flooding(b"HTTP/1.1 200 OK\r\nX-A: ", b"b" * 65536), "closed the connection"),
    "no HTTP at all": (flooding(b"", b"\0" * 65536), "closed the connection"),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends_at_its_bound(name: str) -> None:
    speak, text = FLOODS[name]
    assert text in run(with_peer(speak, search)).message


def test_what_is_too_much_says_the_setting() -> None:
    error = run(with_peer(speaking(said(b" " * (MIB + 1))), search))
    assert isinstance(error, DeviceError)
    assert error.hint == "raise max_answer: if it really has so much to say"
    body = b'{"rows":[],"total":0,"more":"' + b"x" * MIB + b'"}'
    assert run(with_peer(speaking(said(body)), _rows, max_answer_bytes=2 * MIB)) == []


async def _rows(api: Api) -> list[dict[str, Any]]:
    return await api.search("firewall/alias/searchItem")


def test_a_stream_of_events_without_events_ends() -> None:
    async def stream(api: Api) -> FazaiError:
        return await error_of(api.stream("diagnostics/cpu_usage/stream", 2))

    speak = dripping(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"2\r\n\n\n\r\n")
    error = run(with_peer(speak, stream, timeout_s=0.3))
    assert error.message == "the stream diagnostics/cpu_usage/stream did not give 2 events"


# -- long texts


@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("500 Oops", {"errorTitle": "x" * 300_000, "errorMessage": "y" * 300_000}),
        ("418 Teapot", {"message": "x" * 200_000}),
        ("500 Oops", {"errorMessage": "x" * 200_000}),
        ("500 Oops", {"errorMessage": "x\x1b[31m\r\n\x00" * 10_000}),
    ],
)
def test_a_long_text_of_a_device_is_cut(status: str, body: dict[str, str]) -> None:
    error = run(with_peer(speaking(said(msgspec.json.encode(body), status)), search))
    assert len(str(error)) < 1500
    assert str(error).isprintable()


# -- large answers


def test_a_large_answer_is_decoded_with_pauses_for_others() -> None:
    rows = [{"uuid": str(n), "content": "x" * 100, "more": {"a": [n, None, True]}} for n in range(10_000)]
    body = msgspec.json.encode({"rows": rows, "total": len(rows)})
    assert len(body) > 5 * DECODED_AT_ONCE_BYTES

    async def decoding() -> tuple[Any, int]:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(others())
        found = await decode_large_json(body, "application/json", "fw-01", "x")
        task.cancel()
        return found, turns

    found, turns = run(decoding())
    assert found == decode_json(body, "application/json", "fw-01", "x")
    assert turns >= 5


def test_large_answers_share_a_budget_in_the_order_in_which_they_come() -> None:
    async def sharing() -> None:
        budget = Budget(10)
        order: list[str] = []

        async def reading(name: str, limit: int, done: asyncio.Event) -> None:
            async with AnswerLease(budget, limit) as lease:
                await lease.cover(2 * MIB)
                order.append(name)
                assert budget.taken_bytes <= budget.total_bytes
                await done.wait()

        ends = {name: asyncio.Event() for name in "abcd"}
        limits = {"a": 6, "b": 6, "c": 3, "d": 99}
        tasks = {n: asyncio.create_task(reading(n, limits[n], ends[n])) for n in limits}
        await _settled(lambda: len(budget._waiting) == 3)
        assert order == ["a"]
        tasks["b"].cancel()  # who gave up is no hindrance
        await _settled(lambda: order == ["a", "c"])
        for name in "ac":
            ends[name].set()
        await _settled(lambda: order == ["a", "c", "d"])
        assert budget.taken_bytes == 10  # more than there is: all of it
        ends["d"].set()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        assert (budget.taken_bytes, len(budget._waiting)) == (0, 0)

    run(sharing())


async def _until(true: Callable[[], bool]) -> None:
    while not true():  # the test's own timeout ends it  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def _settled(true: Callable[[], bool]) -> None:
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not come to this")


def test_the_client_waits_for_the_budget_and_gives_it_back() -> None:
    budget = Budget(3 * MIB)
    body = b'{"rows":[],"total":0,"more":"' + b"x" * (2 * MIB) + b'"}'

    async def both(api: Api) -> list[Any]:
        taken = await budget.take(2 * MIB)  # somebody else's answer
        task = asyncio.create_task(_rows(api))
        await _until(lambda: bool(budget._waiting))
        assert not task.done()
        budget.give(taken)
        return await task

    assert run(with_peer(speaking(said(body)), both, budget=budget, max_answer_bytes=2 * MIB + 100)) == []
    assert budget.taken_bytes == 0
    error = run(with_peer(speaking(said(b"{" + body)), search, budget=budget, max_answer_bytes=3 * MIB))
    assert "bytes that are not whole JSON" in error.message
    assert budget.taken_bytes == 0
