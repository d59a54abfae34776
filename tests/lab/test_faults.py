"""Faults: each does what it says, to the calls it names, as often as it says; and has the effect it says."""

from __future__ import annotations

import asyncio
import base64
import socket
import time
from typing import Any

import httpx
import pytest

from fazai.errors import UsageError
from fazai.lab import Fault, LabFirewall, LabSettings
from tests.lab.helpers import add_alias, connects, names_of, with_firewall

ADD = "firewall/alias/addItem"


@pytest.mark.parametrize(
    ("fault", "saved"),
    [
        (Fault(kind="cut", at="before", path=ADD), False),
        (Fault(kind="cut", at="middle", path=ADD), True),
        (Fault(kind="cut", at="after", path=ADD), True),
    ],
)
def test_a_cut_connection_leaves_the_effect_it_says(fault: Fault, saved: bool) -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        firewall.inject(fault)
        with pytest.raises(httpx.TransportError):
            await add_alias(client, "one")
        firewall.clear_faults()
        assert ("one" in await names_of(client)) is saved

    with_firewall(work)


@pytest.mark.parametrize(
    ("fault", "status", "headers", "text"),
    [
        (Fault(kind="status", path=ADD), 500, {}, "Unexpected error"),
        (Fault(kind="status", status=503, retry_after_s=7, path=ADD), 503, {"retry-after": "7"}, ""),
        (Fault(kind="status", status=429, body="{}", path=ADD), 429, {}, "{}"),
        (Fault(kind="html", path=ADD), 200, {"content-type": "text/html; charset=UTF-8"}, "<html"),
        (Fault(kind="login", path=ADD), 302, {"location": "/?url=/api/firewall/alias/addItem"}, ""),
        (Fault(kind="unauthorized", path=ADD), 401, {}, "Authentication Failed"),
        (Fault(kind="not_found", path=ADD), 404, {}, "Endpoint not found"),
    ],
)
def test_answers_in_place_of_the_firewalls_own(
    fault: Fault, status: int, headers: dict[str, str], text: str
) -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        firewall.inject(fault)
        answer = await add_alias(client, "one")
        assert answer.status_code == status
        assert text in answer.text
        assert headers.items() <= dict(answer.headers).items()
        assert firewall.requests[-1] == ("POST", "/api/firewall/alias/addItem", status)
        assert await names_of(client) == set()

    with_firewall(work)


def test_a_truncated_answer_is_no_json_but_the_write_was_done() -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        firewall.inject(Fault(kind="truncate", path=ADD, times=1))
        answer = await add_alias(client, "one")
        with pytest.raises(ValueError):
            answer.json()
        assert await names_of(client) == {"one"}

    with_firewall(work)


def test_after_and_times_count_the_calls_that_match() -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        firewall.inject(Fault(kind="unauthorized", path="firewall/*", after=2, times=2))
        seen = [(await add_alias(client, f"a{number}")).status_code for number in range(6)]
        other = await client.get("/api/core/firmware/running")
        assert seen == [200, 200, 401, 401, 200, 200]
        assert other.status_code == 200

    with_firewall(work)


def test_a_delay_holds_the_answer_back() -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        firewall.inject(Fault(kind="delay", delay_s=0.2, times=1))
        start = time.monotonic()
        await client.get("/api/core/firmware/running")
        assert time.monotonic() - start >= 0.2
        firewall.inject(Fault(kind="delay", delay_s=30.0))
        with pytest.raises(httpx.ReadTimeout):
            await client.get("/api/core/firmware/running", timeout=0.1)

    with_firewall(work)


def test_a_delay_ends_when_the_faults_are_cleared() -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        firewall.inject(Fault(kind="delay", delay_s=600.0))
        asked = asyncio.create_task(client.get("/api/core/firmware/running"))
        while not firewall._site.faults._armed[0].hits:  # noqa: ASYNC110
            await asyncio.sleep(0.005)  # between two looks
        firewall.clear_faults()
        assert (await asked).json() == {"status": "ready"}

    with_firewall(work)


def test_a_dripped_answer_arrives_whole_and_late() -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        firewall.inject(Fault(kind="drip", bytes_per_s=2000, times=1))
        start = time.monotonic()
        answer = await client.get("/api/core/firmware/running")
        assert answer.json() == {"status": "ready"}
        assert time.monotonic() - start >= 0.1
        assert (await client.get("/api/core/firmware/running")).json() == {"status": "ready"}

    with_firewall(work)


def test_a_connection_is_closed_after_16_requests() -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        answers = [await client.get("/api/core/firmware/running") for _ in range(33)]
        closed = [
            number for number, answer in enumerate(answers, 1) if answer.headers.get("connection") == "close"
        ]
        assert closed == [16, 32]
        assert firewall.counters["connections"] == 3

    with_firewall(work)


def test_an_idle_connection_is_closed() -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(firewall.base_url.rpartition(":")[2]))
        assert await asyncio.wait_for(reader.read(), 5.0) == b""
        writer.close()

    with_firewall(work, LabSettings(idle_s=0.1))


@pytest.mark.parametrize("faults", [[], [Fault(kind="drip", path="*/searchItem", bytes_per_s=1 << 30)]])
def test_a_client_that_does_not_read_its_answers_is_let_go(faults: list[Fault]) -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        await add_alias(client, "many", "\n".join(f"10.0.{n >> 8}.{n & 255}" for n in range(20_000)))
        for fault in faults:
            firewall.inject(fault)
        key = base64.b64encode(f"{firewall.api_key}:{firewall.api_secret}".encode()).decode()
        asked = f"GET /api/firewall/alias/searchItem HTTP/1.1\r\nAuthorization: Basic {key}\r\n\r\n".encode()
        await client.aclose()
        with socket.socket() as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.connect(("127.0.0.1", int(firewall.base_url.rpartition(":")[2])))
            peer.sendall(asked * 60)
            async with asyncio.timeout(60):
                while not firewall._site.connections:  # noqa: ASYNC110 - another's
                    await asyncio.sleep(0.01)
                while firewall._site.connections:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        assert firewall.counters["requests"] < 60  # no more of them are answered than it takes

    with_firewall(work, LabSettings(idle_s=0.3, auth_delay_s=0, keepalive_requests=0))


# lockout


def locked(firewall: LabFirewall) -> bool:
    return firewall.locked_out


async def _rule(client: httpx.AsyncClient, text: str) -> str:
    body = {"rule": {"interface": "lan", "action": "block", "description": text}}
    answer = (await client.post("/api/firewall/filter/addRule", json=body)).json()
    return str(answer["uuid"])


@pytest.mark.parametrize("refuse", [True, False])
def test_a_lockout_keeps_new_connections_away_until_other_rules_run(refuse: bool) -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        firewall.inject(Fault(kind="lockout", refuse=refuse, rule="block all"))
        await _rule(client, "harmless")
        await client.post("/api/firewall/filter/apply", json={})
        assert await connects(firewall)
        uuid = await _rule(client, "block all")
        assert (await client.post("/api/firewall/filter/apply", json={})).status_code == 200
        assert locked(firewall)
        assert not await connects(firewall)
        # the connection that is open goes on; the same rules again change nothing
        await client.post("/api/firewall/filter/apply", json={})
        assert locked(firewall)
        await client.post(f"/api/firewall/filter/delRule/{uuid}", json={})
        assert locked(firewall)
        await client.post("/api/firewall/filter/apply", json={})
        assert not locked(firewall)
        await _until_connects(firewall)

    with_firewall(work)


async def _until_connects(firewall: LabFirewall) -> None:
    end = time.monotonic() + 60
    while not await connects(firewall):
        assert time.monotonic() < end, "the firewall stays unreachable"


def test_a_lockout_for_ever_ends_only_when_the_faults_are_cleared() -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        firewall.inject(Fault(kind="lockout", forever=True))
        uuid = await _rule(client, "any rule")
        await client.post("/api/firewall/filter/apply", json={})
        firewall.call("POST", f"/api/firewall/filter/delRule/{uuid}")
        firewall.call("POST", "/api/firewall/filter/apply")
        assert not await connects(firewall)
        firewall.clear_faults()
        await _until_connects(firewall)

    with_firewall(work)


def test_the_console_reverts_and_lets_in_again() -> None:
    """What a dead-man timer on the box does: back to an earlier configuration, and apply."""

    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        firewall.inject(Fault(kind="lockout"))
        await client.post("/api/firewall/category/addItem", json={"category": {"name": "before"}})
        before = firewall.call("GET", "/api/core/backup/backups/this")["items"][0]["id"]
        await _rule(client, "bad")
        await client.post("/api/firewall/filter/apply", json={})
        assert not await connects(firewall)
        assert firewall.call("POST", f"/api/core/backup/revertBackup/{before}") == {"status": "reverted"}
        firewall.call("POST", "/api/firewall/filter/apply")
        await _until_connects(firewall)

    with_firewall(work)


# settings


def test_settings_from_plain_values() -> None:
    plain: dict[str, Any] = {
        "release": "26.1.11",
        "auth_delay_s": 0,
        "tls": {"variant": "expired"},
        "faults": [{"kind": "status", "status": 503, "times": 2}],
    }
    settings = LabSettings.parse(plain)
    assert settings.release == "26.1.11"
    assert settings.tls is not None
    assert settings.faults == (Fault(kind="status", status=503, times=2),)


@pytest.mark.parametrize(
    ("plain", "said"),
    [
        ({"release": "25.1"}, "25.1"),
        ({"releas": "26.7.2"}, "releas"),
        ({"faults": [{"kind": "cut", "at": "sometimes"}]}, "sometimes"),
        ({"faults": [{"kind": "delay", "delay_s": -1}]}, "negative"),
        ({"auth_delay_s": "2"}, "auth_delay_s"),
        ({"history": 0}, "history"),
    ],
)
def test_wrong_settings_are_named(plain: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        LabSettings.parse(plain, where="inventory.yml:3:5")
    assert said in str(caught.value.message)
    assert caught.value.where == "inventory.yml:3:5"
