"""Answers that are cut, forged or nonsense: whatever a firewall says, it is one sentence and never a defect.

A whole conversation (observe, diff, trial, write, activate, probe, verify; vitals, health and what the
readers ask) is recorded against the lab; then its answers are changed at random and played back below the
client, at its transport.
"""

from __future__ import annotations

import asyncio
import copy
import json
import random
import resource as resources
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from fazai.errors import DeviceError, ExitCode, FazaiError, Unreachable
from fazai.lab import Fault, LabFirewall
from fazai.model import Activate, Change, Resource
from fazai.providers.opnsense.api.client import Api, _ApiConnection
from fazai.providers.opnsense.api.vitals import read_health, read_vitals
from fazai.providers.opnsense.session import OpnsenseSession
from tests.campaign import campaign_size
from tests.opnsense.helpers import FakeClock, Start, resource, run, session, target
from tests.opnsense.reading.readers import READERS

WANTED = [
    resource("opnsense.category", {"name": "managed"}),
    resource(
        "opnsense.alias", {"name": "web", "type": "host", "content": ["192.0.2.1"], "categories": "managed"}
    ),
    resource("opnsense.alias", {"name": "both", "type": "networkgroup", "content": ["web"]}),
    resource("opnsense.rule", {"description": "r1", "interface": ["lan"], "destination_net": "web"}),
    resource("opnsense.rule", {"description": "r2", "interface": ["lan", "opt1"], "categories": "managed"}),
    resource("opnsense.source_nat_mode", {"mode": "hybrid"}),
    resource("opnsense.source_nat", {"description": "s", "interface": "wan", "target": "wanip"}),
    resource(
        "opnsense.dnat",
        {"descr": "d", "interface": ["wan"], "target": "192.0.2.9", "destination": {"network": "wanip"}},
    ),
    resource("opnsense.vlan", {"if": "vtnet3", "tag": 100}),
    resource("opnsense.vip", {"interface": "lan", "mode": "ipalias", "network": "192.168.1.5/32"}),
    resource("opnsense.gateway", {"name": "GW", "interface": "lan", "gateway": "192.168.1.254"}),
    resource("opnsense.route", {"network": "10.0.0.0/8", "gateway": "WAN_GW"}),
    resource("opnsense.unbound_host", {"hostname": "nas", "domain": "example.org", "server": "192.0.2.1"}),
    resource("opnsense.unbound_alias", {"host": "nas.example.org", "hostname": "f", "domain": "example.org"}),
    resource("opnsense.cron_job", {"description": "check", "command": "firmware poll"}),
    resource("opnsense.shaper_pipe", {"description": "p", "bandwidth": 20, "bandwidthMetric": "Mbit"}),
    resource("opnsense.kea_subnet", {"subnet": "192.168.1.0/24", "pools": ["192.168.1.9-192.168.1.19"]}),
    resource("opnsense.kea_reservation", {"subnet": "192.168.1.0/24", "hw_address": "52:54:00:00:00:01"}),
    resource("opnsense.group", {"name": "ops", "member": ["root"]}),
    resource("opnsense.monit_test", {"name": "old"}, state="absent"),
]
NOTHING: list[Any] = [
    *(None, True, False, 0, -1, 1.5, 2**53, 10**300, -(10**18), "", "0", "1", "²", "x" * 3000, [], {}),
    *([[]], [None], {"": None}, {"a": {"b": {"c": []}}}, "\x1b[2J\x00", "1" * 5000, "-", "٣", "9" * 30, "😀"),
    *({"value": [], "selected": {}}, {"x": {"selected": 1}}, ["lan", "wan"], "not found", "failed", "ok"),
]
TOKENS = (
    b"NaN",
    b"Infinity",
    b"1e999",
    b'"\\ud800"',
    b"[" * 3000,
    b'{"a":1,"a":[]}',
    b"-",
    b"9" * 400,
    b"\xff",
)


def changed(body: bytes, chance: random.Random) -> bytes:
    """An answer with something in it that does not belong there."""
    how = chance.random()
    if how < 0.15 or not body:
        return body[: chance.randrange(len(body) + 1)]
    if how < 0.25:
        place = chance.randrange(len(body))
        return body[:place] + bytes([chance.randrange(256)]) + body[place + chance.randrange(3) :]
    try:
        value = json.loads(body)
    except ValueError:
        return b""
    holder = {"": value}
    for _ in range(chance.randrange(1, 4)):
        _change(holder, chance)
    text = json.dumps(holder[""], ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")
    if how < 0.35:
        text = text.replace(b'"@"', chance.choice(TOKENS))
        marks = [place for place, letter in enumerate(text) if letter in b":,["]
        if marks:
            place = chance.choice(marks) + 1
            text = text[:place] + chance.choice(TOKENS) + b"," + text[place:]
    return text


def _change(value: Any, chance: random.Random) -> None:
    """One node somewhere below is dropped, doubled or replaced."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = chance.choice(keys)
        inner = value[key]
        if isinstance(inner, (dict, list)) and inner and chance.random() < 0.8:
            value = inner
            continue
        if chance.random() < 0.2 and isinstance(value, dict) and "" not in value:
            del value[key]
        else:
            value[key] = copy.deepcopy(chance.choice(NOTHING))
        return


class Played(httpx.AsyncBaseTransport):
    """Answers from memory, by method and path without uuids; some of them changed."""

    def __init__(self, kept: dict[str, tuple[int, bytes]], chance: random.Random, share: float) -> None:
        self.kept, self.chance, self.share = kept, chance, share
        self.inputs = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        status, body = self.kept.get(_name(request), (200, b"[]"))
        if self.chance.random() < self.share:
            self.inputs += 1
            body = changed(body, self.chance)
            if self.chance.random() < 0.1:
                status = self.chance.choice((200, 201, 204, 302, 400, 401, 403, 404, 418, 429, 500, 503))
        headers = [(b"content-type", b"application/json")]
        if self.chance.random() < 0.05:
            headers.append((b"retry-after", self.chance.choice((b"1", b"\xc2\xb2", b"-1", b"x", b"9" * 400))))
        return httpx.Response(status, headers=headers, stream=_Bytes(body))


class _Bytes(httpx.AsyncByteStream):
    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body


class Kept(httpx.AsyncBaseTransport):
    """The real transport; keeps the first answer of each call."""

    def __init__(self, real: httpx.AsyncBaseTransport, kept: dict[str, tuple[int, bytes]]) -> None:
        self.real, self.kept = real, kept

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self.real.handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        body = b"".join([part async for part in response.stream])
        await response.stream.aclose()
        known = self.kept.get(_name(request))
        if known is None or len(body) > len(known[1]):
            self.kept[_name(request)] = (response.status_code, body)
        return httpx.Response(response.status_code, headers=response.headers, stream=_Bytes(body))

    async def aclose(self) -> None:
        await self.real.aclose()


def _name(request: httpx.Request) -> str:
    path = request.url.path
    parts = [part for part in path.split("/") if part.count("-") != 4]
    return f"{request.method} {'/'.join(parts)}"


async def play(api: Api, transport: httpx.AsyncBaseTransport) -> None:
    """Put a transport below a client, for all the connections that it will open."""
    await api._main.transport.aclose()
    api._new_connection = lambda: _ApiConnection(transport)  # type: ignore[method-assign, arg-type]
    api._main = api._new_connection()


async def converse(work: OpnsenseSession, wanted: list[Resource]) -> None:
    """All that an apply asks of a firewall, whatever single steps come to; and what the daemon asks."""
    steps = []
    seen = None
    asked: dict[str, Any] = {"vitals": read_vitals, "health": read_health}
    asked |= {name: reader.read for name, reader in READERS.items()}
    for turn in ("look", *asked):
        try:
            if turn == "look":
                seen = await work.observe(wanted)
                assert len(seen.digest) == 71
                steps = list(work.diff(wanted, seen, prune=True).steps)
            else:
                told = await asked[turn](work.api)
                assert len(msgspec.json.encode(told)) < 100_000  # as the daemon answers it
        except FazaiError as error:
            check(error)
    changes = [step for step in steps if isinstance(step, Change)]
    try:
        for objection in await work.rehearse(changes):
            check(objection)
    except FazaiError as error:
        check(error)
    done = []
    for step in steps:
        try:
            if isinstance(step, Activate):
                await work.activate(step.service)
            elif isinstance(step, Change):
                done.append((step, await work.write(step)))
        except FazaiError as error:
            check(error)
    try:
        await work.hold()
        await work.probe()
        again = await work.observe(wanted)
        for found in work.diff(wanted, again).errors:
            check(found)
        for found in await work.verify([change for change, _ in done]):
            check(found)
    except FazaiError as error:
        check(error)
    for change, ref in reversed(done):
        try:
            await work.write(work.inverse(change, ref))
        except FazaiError as error:
            check(error)


def check(error: FazaiError) -> None:
    """One printable sentence of a bearable length."""
    for text in (error.message, error.hint or ""):
        assert text.isprintable(), text
        assert len(text) < 6000, len(text)


def conversation(firewall: LabFirewall) -> dict[str, tuple[int, bytes]]:
    kept: dict[str, tuple[int, bytes]] = {}

    async def record() -> None:
        for _ in range(2):  # a first run that makes everything, a second that finds it
            async with session(target(firewall), FakeClock()) as work:
                await play(work.api, Kept(work.api._new_connection().transport, kept))
                await converse(work, WANTED)

    run(record())
    return kept


def fuzz(firewall: LabFirewall, inputs: int, seed: int) -> None:
    kept = conversation(firewall)
    assert len(kept) > 60

    async def all_of_it() -> None:
        count, round_ = 0, 0
        peaks: list[int] = []
        while count < inputs:
            chance = random.Random(f"{seed}.{round_}")  # a failure says its round, which can be run alone
            played = Played(kept, chance, chance.choice((0.1, 0.4, 0.8)))
            work = session(target(firewall, retries=0), FakeClock())
            async with work:
                await play(work.api, played)
                try:
                    async with asyncio.timeout(60):
                        await converse(work, WANTED)
                except Exception as error:
                    error.add_note(f"round {round_} of seed {seed}")
                    raise
            count, round_ = count + played.inputs, round_ + 1
            if round_ % 100 == 50:
                peaks.append(resources.getrusage(resources.RUSAGE_SELF).ru_maxrss)  # in KiB
        assert peaks[-1] - peaks[0] < 64 * 1024 if peaks else True, peaks

    run(all_of_it())


ROW = '"uuid":"fa2a1000-0000-4000-8000-000000000001","name":"web","type":"host"'
ALIAS = "firewall/alias/searchItem"
BROKEN: list[tuple[str, str, str]] = [
    (ALIAS, '{"rows":{"a":1}}', f"answered {ALIAS} with an answer without rows"),
    (ALIAS, '[{"rows":[]}]', f"answered {ALIAS} with an answer without rows"),
    (ALIAS, "17", f"answered {ALIAS} with an answer without rows"),
    (ALIAS, "[" * 5000, f"answered {ALIAS} with 5000 bytes that are not whole JSON"),
    (ALIAS, '{"rows":[],"total":NaN}', "bytes that are not whole JSON"),
    (ALIAS, '{"rows":[{"name":"\\ud800"}]}', "bytes that are not whole JSON"),
    (ALIAS, '{"rows":[],"rows":[{}]}', f"answered {ALIAS} with items that have no uuid"),
    (ALIAS, '{"rows":[{"uuid":7}]}', f"answered {ALIAS} with items that have no uuid"),
    (ALIAS, '{"rows":[],"total":99}', f"answered {ALIAS} with 0 of 99 rows"),
    (ALIAS, f'{{"rows":[{{{ROW},"content":["a"]}}]}}', "a list where the text of content belongs"),
    (ALIAS, f'{{"rows":[{{{ROW},"content":{{"a":1}}}}]}}', "a map where the text of content belongs"),
    ("firewall/source_nat/get", "[]", "answered firewall/source_nat/get with an answer without settings"),
    (
        "firewall/source_nat/getRule/*",
        '"x"',
        "answered firewall/source_nat/getRule with neither an item nor that there is none",
    ),
    ("firewall/alias/set", '{"result":"failed","validations":[[]]}', ""),
    ("firewall/alias/set", '{"result":[],"validations":{"a":{"b":[1e9]}}}', ""),
    ("firewall/alias/setItem/*", '{"result":{"saved":1}}', 'did not save "web" and gave no reason'),
    ("firewall/alias/reconfigure", '{"status":{"ok":1}}', "could not activate firewall aliases"),
]


@pytest.mark.parametrize(("path", "body", "text"), BROKEN)
def test_an_answer_that_is_none_is_one_sentence(start: Start, path: str, body: str, text: str) -> None:
    firewall = start(faults=(Fault(kind="status", path=path, status=200, body=body),))
    wanted = [one for one in WANTED if one.kind in ("opnsense.category", "opnsense.alias")]
    wanted += [one for one in WANTED if one.kind == "opnsense.source_nat"]

    async def go() -> None:
        async with session(target(firewall, retries=0), FakeClock()) as work:
            seen = await work.observe(wanted)
            diff = work.diff(wanted, seen)
            assert await work.rehearse(diff.changes) == []
            for step in diff.steps:
                if isinstance(step, Activate):
                    await work.activate(step.service)
                elif isinstance(step, Change):
                    await work.write(step)

    if not text:
        run(go())
        return
    with pytest.raises((Unreachable, DeviceError)) as caught:
        run(go())
    assert text in caught.value.message
    read = "set" not in path and "reconfigure" not in path
    assert caught.value.exit_code == (ExitCode.UNREACHABLE if read else ExitCode.FAILED)
    assert caught.value.where is not None


def test_nonsense_is_said_in_sentences(start: Start) -> None:
    fuzz(start(traffic=7), 750, seed=1)


@pytest.mark.slow
def test_much_nonsense(start: Start) -> None:
    fuzz(start(traffic=7), campaign_size(100_000), seed=2)
