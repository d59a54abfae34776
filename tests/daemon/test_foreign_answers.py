"""What the daemon reads of others, cut, forged and mutated: a value, or one clean refusal, and no growth.

The mutations are drawn from a seed: the same each time. The slow test has 100,000 of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import json
import random
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fazai.daemon.events import reports
from fazai.daemon.ingest.records import inflate, read_records
from fazai.daemon.runs import webhooks
from fazai.daemon.runs.config import Hook
from fazai.errors import FazaiError
from fazai.providers.gemma import client, endpoint
from fazai.providers.gemma.client import GemmaClient
from fazai.wire.base import OkAnswer, SessionAnswer, WireError, decode_answer, decode_body
from fazai.wire.daemon import AgentKeyBody, ReportBody, RunBody, decode_events_query
from fazai.wire.signature import decode_signed_headers
from fazai.wire.worker import StatusAnswer
from tests.campaign import campaign_size

from .live import PATIENCE_S

RUN = "01KANHC0E8M5T3W9Q7Z2R4V6XB"
Reader = Callable[[bytes], object]


def _read_report(raw: bytes) -> object:
    body = decode_body(raw, ReportBody)
    return [reports._read_event(body, number, one, "token:x") for number, one in enumerate(body.events)]


def _read_delivery(raw: bytes) -> object:
    """Headers and body of a git host: whatever stands before the first empty line are headers."""
    head, _, body = raw.partition(b"\n\n")
    headers = {}
    for line in head.decode("latin-1").splitlines():
        name, _, value = line.partition(":")
        headers[name.encode("latin-1")] = value.strip()
    if not webhooks.is_delivery(headers.get):
        return None
    delivery = webhooks.delivery_of(headers.get)
    hook = Hook(name="h", host=delivery.host, secret_file=Path("/x"), job="edge", mode="check", branch="main")
    webhooks._is_signed_with(delivery, b"0123456789abcdef", body)
    return webhooks.delivery_nonces(delivery, body), webhooks.reason_not_to(hook, delivery, body)


def _read_query(raw: bytes) -> object:
    pairs = (part.partition("=") for part in raw.decode("utf-8", "replace").split("&"))
    return decode_events_query({name: value for name, _, value in pairs})


def _read_headers(raw: bytes) -> object:
    pairs = (line.partition(":") for line in raw.decode("latin-1").splitlines())
    return decode_signed_headers({name: value for name, _, value in pairs})


def _read_completion(raw: bytes) -> object:
    async def lines() -> list[str]:
        async def chunks() -> AsyncIterator[bytes]:
            for begin in range(0, len(raw), 7):
                yield raw[begin : begin + 7]

        return [line async for line in endpoint._read_lines(chunks())]

    try:
        lines().send(None)  # waits for nothing: it needs no loop
    except StopIteration as done:
        return [endpoint._parse_stream_line(line) for line in done.value]
    raise AssertionError("it waits for something")


def _dump(value: object) -> bytes:
    return json.dumps(value).encode()


_EVENT = {"type": "outcome", "timestamp": "2026-11-22T03:04:00Z", "target": "fw-01", "status": "changed"}
_REPORT = {
    "run_id": RUN,
    "command": "apply",
    "host": "ci-7",
    "user": "deploy",
    "started": "2026-11-22T03:04:00Z",
    "events": [
        {"sequence": 1, "event": {"type": "run", "state": "started", "command": "apply"}},
        {"sequence": 2, "event": _EVENT},
    ],
}
_RECORD = {
    "hostname": "web-1",
    "timestamp": "2026-11-22T03:04:00Z",
    "os": {"load": [0.1, 0.2], "mem": {"total": 8e9, "free": 1}},
    "disk": [{"mount": "/", "total": 10, "free": 1}],
    "net": [{"name": "eth0", "rx_bytes": 1, "tx_bytes": 2}],
    "agent": {"version": "0.1.0", "interval": 30},
}
_DELIVERY = (
    b"x-gitea-signature: 00\nx-gitea-delivery: d-1\nx-gitea-event: push\n\n"
    b'{"ref":"refs/heads/main","after":"1234","deleted":false}'
)
_STATUS = {"ok": True, "status": "running", "version": "0.1.0", "model": "gemma", "sessions": 1, "slots": 4}
_USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "cached_tokens": 0}
_CHOICE = {"choices": [{"delta": {"content": "x"}, "finish_reason": None}], "usage": _USAGE}

#: Each reader of foreign bytes, and good ones to begin with.
READERS: dict[str, tuple[Reader, tuple[bytes, ...]]] = {
    "ingest": (
        read_records,
        (_dump(_RECORD), _dump([_RECORD, _RECORD]), _dump(_RECORD) + b"\n" + _dump(_RECORD)),
    ),
    "gzip": (lambda raw: read_records(inflate(raw)), (gzip.compress(_dump(_RECORD), mtime=0),)),
    "reports": (_read_report, (_dump(_REPORT),)),
    "webhook": (_read_delivery, (_DELIVERY, _DELIVERY.replace(b"gitea", b"github"))),
    "runs": (lambda raw: decode_body(raw, RunBody), (b'{"playbook":"edge","mode":"check","limit":["a"]}',)),
    "keys": (lambda raw: decode_body(raw, AgentKeyBody), (b'{"keys":["0123456789abcdef0123"]}',)),
    "query": (_read_query, (b"types=change,outcome&since=48120&follow=false&level=info",)),
    "signature": (
        _read_headers,
        (
            b"x-fazai-agent:web-1\nx-fazai-timestamp:1795320000\nx-fazai-nonce:0123456789abcdef\n"
            b"x-fazai-signature:sha256=" + b"0" * 64,
        ),
    ),
    "worker stream": (
        client._decode_worker_line,
        (
            b'{"type":"token","text":"hello"}\n',
            _dump({"type": "stop", "reason": "eos", "usage": _USAGE}) + b"\n",
        ),
    ),
    "worker status": (lambda raw: decode_answer(raw, StatusAnswer), (_dump(_STATUS),)),
    "worker refusal": (
        lambda raw: decode_answer(raw, OkAnswer),
        (b'{"ok":false,"error":"no","code":"overloaded"}\n',),
    ),
    "worker session": (lambda raw: decode_answer(raw, SessionAnswer), (b'{"ok":true,"session_id":"s-1"}',)),
    "worker ok": (lambda raw: decode_answer(raw, OkAnswer), (b'{"ok":true}',)),
    "completions": (_read_completion, (b"data: " + _dump(_CHOICE) + b"\n\ndata: [DONE]\n",)),
}

#: What breaks readers: numbers that nothing holds, text that is none, depth, names twice, other types.
PIECES = (
    *(b"1e999", b"-1", b"9" * 400, b"0.1", b"1e308", b"null", b"true", b"{}", b"[]", b'""', b"NaN", b"\x00"),
    *(b'"\\ud800"', b'"\\u0000"', b"\xff\xfe", b"\xed\xa0\x80", b"\\", b'"', b",", b":", b"}", b"]", b"\n"),
    *(b"[" * 3000, b'{"a":' * 3000, b"x" * 70_000, b'"timestamp":"0001-01-01T00:00:00+23:59",'),
    *(b'"type":"log","type":"run",', b"9999-12-31T23:59:59-23:59", "хост".encode(), b"../../evil", b"\r\n"),
)


def mutate(raw: bytes, chance: random.Random) -> bytes:
    """One to four changes: bytes flipped, dropped, doubled, cut off, moved, or a piece put in."""
    data = bytearray(raw)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(data) + 1)
        end = min(len(data), place + chance.randint(1, 12))
        kind = chance.randrange(6)
        if kind == 0 and place < len(data):
            data[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del data[place:end]
        elif kind == 2:
            data[place:place] = data[place:end]
        elif kind == 3:
            del data[place:]
        elif kind == 4:
            data[place:end] = chance.choice(PIECES)
        else:
            piece = bytes(data[place:end])
            del data[place:end]
            other = chance.randrange(len(data) + 1)
            data[other:other] = piece
    return bytes(data)


def read_all(reader: Reader, seeds: tuple[bytes, ...], count: int, chance: random.Random) -> tuple[int, int]:
    """How many were read, how many refused."""
    good = refused = 0
    for number in range(count):
        raw = mutate(seeds[number % len(seeds)], chance)
        try:
            reader(raw)
        except WireError as error:
            refused += 1
            said = (error.code, error.message, raw[:200])
        except Exception as error:
            raise AssertionError(f"{error!r} for {raw[:300]!r}") from error
        else:
            good += 1
            continue
        code, message, _ = said
        assert code, said
        assert 0 < len(message) <= 600, said
        assert "Traceback" not in message
    return good, refused


def _check(name: str, count: int) -> None:
    reader, seeds = READERS[name]
    for seed in seeds:
        reader(seed)  # good ones are read
    chance = random.Random(f"fazai {name}")
    read_all(reader, seeds, 100, chance)  # whatever is made once is there now
    gc.collect()
    tracemalloc.start()
    try:
        read_all(reader, seeds, 50, chance)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        read_all(reader, seeds, 100, chance)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 256 * 1024, f"{name} keeps {after - before} bytes"
    good, refused = read_all(reader, seeds, count, chance)
    assert refused > count // 10, (good, refused)


@pytest.mark.parametrize("name", READERS)
def test_what_others_send_is_read_or_refused(name: str) -> None:
    _check(name, 200)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_what_others_send_is_read_or_refused_at_length(name: str) -> None:
    _check(name, campaign_size(100_000))


# -- a worker that is no worker, on a real socket


@contextlib.asynccontextmanager
async def _peer(path: Path, answers: Callable[[asyncio.StreamWriter], Any]) -> AsyncIterator[None]:
    """Answers create_session well, and everything else as the test says."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            line = await reader.readline()
            if b"create_session" in line:
                writer.write(b'{"ok":true,"session_id":"s-1"}\n')
            elif b"close_session" in line:
                writer.write(b'{"ok":true}\n')
            else:
                await answers(writer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, str(path))
    try:
        yield
    finally:
        server.close()


async def _generate(path: Path, answers: Callable[[asyncio.StreamWriter], Any]) -> str:
    """What became of a generation."""
    async with asyncio.timeout(PATIENCE_S), _peer(path, answers), GemmaClient(path).session() as session:
        try:
            return await session.generate("x")
        except FazaiError as error:
            return error.message


def test_a_worker_that_talks_nonsense_is_refused(tmp_path: Path) -> None:
    chance = random.Random("fazai socket")
    _, seeds = READERS["worker stream"]

    def lines() -> Iterator[bytes]:
        for number in range(150):
            yield mutate(seeds[number % len(seeds)], chance).replace(b"\n", b"") + b"\n"

    async def run() -> None:
        for number, line in enumerate(lines()):

            async def answers(writer: asyncio.StreamWriter, line: bytes = line) -> None:
                writer.write(line)

            said = await _generate(tmp_path / f"{number}.sock", answers)
            assert len(said) < 100_000

    asyncio.run(run())


def test_a_worker_whose_answer_never_ends_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_ANSWER_BYTES", 1 << 20)

    async def tokens(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b'{"type":"token","text":"' + b"x" * 1000 + b'"}\n')
            await writer.drain()

    async def skipped(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b'{"type":"of a later version","text":"' + b"x" * 1000 + b'"}\n')
            await writer.drain()

    async def one_line(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    for number, flood in enumerate((tokens, skipped)):
        said = asyncio.run(_generate(tmp_path / f"{number}.sock", flood))
        assert said == "the Gemma worker's answer does not end"
    said = asyncio.run(_generate(tmp_path / "line.sock", one_line))
    assert "the Gemma worker does not answer" in said


def test_an_endpoint_whose_answer_never_ends_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "MAX_ANSWER_BYTES", 8 << 20)

    async def flood(block: bytes) -> AsyncIterator[bytes]:
        while True:
            yield block

    async def read(block: bytes) -> None:
        async for _ in endpoint._read_lines(flood(block)):
            pass

    for block in (b"x" * 65536, b"data: {}\n" * 10_000):
        with pytest.raises(WireError, match="does not end"):
            asyncio.run(read(block))


def test_the_error_text_of_a_worker_is_short(tmp_path: Path) -> None:
    async def answers(writer: asyncio.StreamWriter) -> None:
        writer.write(_dump({"type": "error", "message": "x" * 2_000_000}) + b"\n")

    assert len(asyncio.run(_generate(tmp_path / "w.sock", answers))) == 500
