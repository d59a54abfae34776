"""What several tests of the lab use."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import httpx

from fazai.lab import Lab, LabFirewall, LabSettings

T = TypeVar("T")


def client_of(firewall: LabFirewall, **more: Any) -> httpx.AsyncClient:
    """A client with the firewall's key."""
    if firewall.base_url.startswith("http:"):
        more.setdefault("verify", False)  # else the authorities are loaded: 0.03 s of CPU for each client
    return httpx.AsyncClient(
        base_url=firewall.base_url, auth=(firewall.api_key, firewall.api_secret), timeout=60.0, **more
    )


def with_firewall(
    work: Callable[[LabFirewall, httpx.AsyncClient], Awaitable[T]], settings: LabSettings | None = None
) -> T:
    """Run work against a fresh firewall, in one loop."""

    async def run() -> T:
        async with Lab() as lab:
            firewall = await lab.start("fw", settings or LabSettings(auth_delay_s=0))
            async with client_of(firewall) as client:
                return await work(firewall, client)

    return asyncio.run(run())


async def add_alias(client: httpx.AsyncClient, name: str, content: str = "192.0.2.7") -> httpx.Response:
    body = {"alias": {"name": name, "type": "host", "content": content}}
    return await client.post("/api/firewall/alias/addItem", json=body)


async def names_of(client: httpx.AsyncClient) -> set[str]:
    """The aliases that were made by hand."""
    answer = (await client.post("/api/firewall/alias/searchItem", json={})).json()
    return {row["name"] for row in answer["rows"] if row["type"] not in ("external", "internal")}


async def connects(firewall: LabFirewall) -> bool:
    """Does a fresh connection get an answer?"""
    with contextlib.suppress(httpx.TransportError):
        async with client_of(firewall) as client:
            return (await client.get("/api/core/firmware/running", timeout=0.5)).status_code == 200
    return False
