"""The server itself: pieces, pipelines, large and wrong requests; and how fast it is."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable

import httpx
import msgspec

from fazai.lab import Lab, LabFirewall, LabSettings
from fazai.lab.server.http import MAX_BODY
from fazai.lab.server.wire import LabRequest, parse_form
from tests.lab.helpers import with_firewall


def head(firewall: LabFirewall, method: str, path: str, *more: str) -> str:
    token = base64.b64encode(f"{firewall.api_key}:{firewall.api_secret}".encode()).decode()
    lines = [f"{method} /api/{path} HTTP/1.1", "host: fw", f"authorization: Basic {token}", *more]
    return "\r\n".join(lines) + "\r\n\r\n"


async def talk(firewall: LabFirewall, *pieces: str, until: Callable[[bytes], bool]) -> bytes:
    """Send pieces one by one and read until enough came back or the other side closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(firewall.base_url.rpartition(":")[2]))
    try:
        for piece in pieces:
            writer.write(piece.encode())
            await writer.drain()
            await asyncio.sleep(0)
        found = b""
        while not until(found):
            data = await asyncio.wait_for(reader.read(65536), 5.0)
            if not data:
                break
            found += data
        return found
    finally:
        writer.close()


def test_a_request_in_pieces_and_chunks() -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        text = head(
            firewall,
            "POST",
            "firewall/category/addItem",
            "content-type: application/json",
            "transfer-encoding: chunked",
        )
        body = '{"category": {"name": "x"}}'
        chunks = [f"{len(part):x}\r\n{part}\r\n" for part in (body[:9], body[9:])]
        answer = await talk(
            firewall, text[:20], text[20:], *chunks, "0\r\n\r\n", until=lambda found: b'"uuid"' in found
        )
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")

    with_firewall(work)


def test_pipelined_requests_are_answered_in_order() -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        names = ("bogons", "nosuch", "sshlockout")
        text = "".join(head(firewall, "GET", f"firewall/alias/getAliasUUID/{name}") for name in names)
        answer = await talk(
            firewall, text, until=lambda found: found.count(b"HTTP/1.1") == 3 and b"lockout" in found
        )
        assert answer.index(b"bogons") < answer.index(b"\r\n\r\n[]") < answer.index(b"sshlockout")

    with_firewall(work)


def test_what_is_no_http_is_400_and_closed() -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        answer = await talk(firewall, "nonsense\r\n\r\n", until=lambda found: False)
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")

    with_firewall(work)


def test_a_body_beyond_the_limit_is_not_kept() -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        body = b" " * (MAX_BODY + 1)
        answer = await client.post("/api/firewall/category/addItem", content=body)
        assert answer.status_code == 413

    with_firewall(work)


def test_forms_as_php_reads_them() -> None:
    assert parse_form("alias[name]=a%20b&alias[content][]=1&alias[content][]=2&x=") == {
        "alias": {"name": "a b", "content": {"0": "1", "1": "2"}},
        "x": "",
    }


# how fast: in CPU seconds of this thread, several times what is measured on a slow machine


def _cost(firewall: LabFirewall, path: str, body: object, times: int = 1) -> float:
    """CPU seconds of a call inside the firewall."""
    token = base64.b64encode(f"{firewall.api_key}:{firewall.api_secret}".encode()).decode()
    headers = {"authorization": f"Basic {token}", "content-type": "application/json"}
    request = LabRequest("POST", f"/api/{path}", headers, msgspec.json.encode(body))
    start = time.thread_time()
    for _ in range(times):
        assert firewall.handle(request).status == 200
    return (time.thread_time() - start) / times


def test_a_thousand_rules_and_five_hundred_aliases_are_searched_fast() -> None:
    async def run() -> None:
        async with Lab() as lab:
            firewall = await lab.start("fw", LabSettings())
            firewall.seed(
                "alias",
                [
                    {"name": f"a{n}", "type": "host", "content": f"10.0.{n // 250}.{n % 250}"}
                    for n in range(500)
                ],
            )
            firewall.seed(
                "rule",
                [
                    {"sequence": str(n + 1), "interface": "lan", "source_net": f"a{n % 500}"}
                    for n in range(1000)
                ],
            )
            everything = {"current": 1, "rowCount": -1}
            first = _cost(firewall, "firewall/filter/searchRule", everything)
            again = _cost(firewall, "firewall/filter/searchRule", everything, 5)
            assert first < 0.5
            assert again < 0.03
            assert _cost(firewall, "firewall/alias/searchItem", everything, 5) < 0.03

    asyncio.run(run())


def test_three_thousand_writes_one_after_the_other() -> None:
    async def run() -> None:
        async with Lab() as lab:
            firewall = await lab.start("fw", LabSettings())
            start = time.thread_time()
            for number in range(3000):
                body = {"alias": {"name": f"host{number}", "type": "host", "content": "192.0.2.1"}}
                assert firewall.call("POST", "/api/firewall/alias/addItem", body)["result"] == "saved"
            assert time.thread_time() - start < 6
            found = firewall.call("POST", "/api/firewall/alias/searchItem", {"searchPhrase": "host2999"})
            assert found["total"] == 1
            assert json.dumps(found)

    asyncio.run(run())


def test_a_body_where_none_belongs_is_a_bad_request() -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        answer = await client.request("GET", "/api/core/firmware/running", content=b"{}")
        assert (answer.status_code, answer.headers["content-type"]) == (400, "text/html")
        assert (await client.get("/api/core/firmware/running")).json() == {"status": "ready"}

    with_firewall(work)
