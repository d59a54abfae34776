"""Keys, privileges, and what a client sees when it has the wrong ones."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from fazai.lab import LabFirewall, LabSettings
from tests.lab.helpers import client_of, with_firewall


def _user(firewall: LabFirewall, privileges: str) -> tuple[str, str]:
    body = {"user": {"name": "ops", "password": "Secret-123-x", "priv": privileges}}
    assert firewall.call("POST", "/api/auth/user/add", body)["result"] == "saved"
    made = firewall.call("POST", "/api/auth/user/addApiKey/ops")
    return made["key"], made["secret"]


@pytest.mark.parametrize(
    ("privileges", "path", "status"),
    [
        ("page-firewall-aliases", "firewall/alias/searchItem", 200),
        ("page-firewall-aliases", "firewall/filter/searchRule", 403),
        (
            "page-diagnostics-arptable",
            "diagnostics/interface/getArp",
            403,
        ),  # as recorded: the spelling counts
        ("page-diagnostics-arptable", "diagnostics/interface/get_arp", 200),
        ("page-diagnostics-arptable", "diagnostics/interface/getRoutes", 403),
        ("page-all", "core/system/status", 200),
        ("", "core/system/status", 403),
        ("", "core/system/nosuch", 404),
    ],
)
def test_privileges_are_per_page(privileges: str, path: str, status: int) -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        key = _user(firewall, privileges)
        assert (await client.get(f"/api/{path}", auth=key)).status_code == status

    with_firewall(work)


def test_a_wrong_key_is_refused_late_and_a_malformed_one_at_once() -> None:
    """The one that is kept waiting has no answer yet when the other, which came later, has its own."""

    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        address = "/api/core/system/status"
        wrong = asyncio.create_task(client.get(address, auth=(firewall.api_key, "wrong"), timeout=None))
        async with httpx.AsyncClient(base_url=firewall.base_url, verify=False) as nobody:
            while not firewall.requests:  # noqa: ASYNC110 - until it has arrived; the lab has no event for it
                await asyncio.sleep(0)
            answer = await nobody.get(address, headers={"authorization": "Basic nocolon"})
        assert answer.status_code == 401
        assert not wrong.done()
        wrong.cancel()
        await asyncio.gather(wrong, return_exceptions=True)

    with_firewall(work, LabSettings(auth_delay_s=3600))


def test_a_wrong_key_is_told_so() -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        answer = await client.get("/api/core/system/status", auth=(firewall.api_key, "wrong"))
        assert answer.json() == {"status": 401, "message": "Authentication Failed"}

    with_firewall(work, LabSettings(auth_delay_s=0))


def test_without_a_key_there_is_a_redirect_and_never_a_401() -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        async with httpx.AsyncClient(base_url=firewall.base_url, verify=False) as nobody:
            answer = await nobody.get("/api/core/system/status")
        assert answer.status_code == 302
        assert answer.headers["location"] == "/?url=/api/core/system/status"
        assert answer.content == b""

    with_firewall(work)


def test_a_deleted_key_stops_working() -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        key = _user(firewall, "page-all")
        assert (await client.get("/api/core/system/status", auth=key)).status_code == 200
        firewall.call("POST", f"/api/auth/user/delApiKey/{key[0].replace('/', '%2F')}")
        assert (await client.get("/api/core/system/status", auth=key)).status_code == 401

    with_firewall(work)


def test_an_absent_plugin_is_404_also_without_a_key() -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        for path in ("kea/dhcpv4/get", "firewall/npt/searchRule"):
            assert (await client.get(f"/api/{path}", auth=("x", "y"))).status_code == 404
        assert (await client.get("/api/firewall/alias/searchItem")).status_code == 200

    with_firewall(work, LabSettings(auth_delay_s=0, absent=("kea", "firewall/npt")))


def test_what_the_lab_does_not_model_says_so() -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        answer = await client.get("/api/openvpn/export/providers")
        assert answer.status_code == 501
        assert "openvpn/export/providers" in answer.text

    with_firewall(work)


def test_a_fresh_client_has_the_firewalls_key() -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        async with client_of(firewall) as other:
            assert (await other.get("/api/core/system/status")).status_code == 200

    with_firewall(work)
