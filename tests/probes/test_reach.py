"""Where probes of models and clients may go: names judged before a lookup, addresses after it."""

from __future__ import annotations

import asyncio
import ipaddress
from pathlib import Path

import pytest

from fazai.errors import InputError, Refused
from fazai.lab.server.tls import LabAuthority
from fazai.probes.dns import DnsServer, probe_dns
from fazai.probes.http import HttpQuestion, probe_http
from fazai.probes.reach import LimitedReach, is_own, is_special, parse_address
from fazai.probes.tcp import probe_tcp
from fazai.probes.tls import probe_tls
from tests.probes.servers import answer_http, serve_dns, serve_tcp, server_context

REACH = LimitedReach(
    {"fw-01": "10.0.0.1", "web-01": "web.example.net", "me": "localhost"},
    names=("status.example.org", "*.allowed.example"),
    networks=(ipaddress.ip_network("198.51.100.0/24"), ipaddress.ip_network("2001:db8::/32")),
    own_ports=frozenset({3120}),
)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("fw-01", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.1"),
        ("web-01", "web.example.net"),
        ("web.example.net", "web.example.net"),
        ("status.example.org", "status.example.org"),
        ("a.b.allowed.example", "a.b.allowed.example"),
        ("198.51.100.7", "198.51.100.7"),
        ("2001:db8::7", "2001:db8::7"),
    ],
)
def test_targets_and_what_is_allowed_may_be_asked(asked: str, found: str) -> None:
    assert REACH.locate(asked) == found


@pytest.mark.parametrize(
    "asked",
    [
        *("evil.example", "allowed.example", "xallowed.example", "status.example.org.evil.example"),
        *("10.0.0.2", "127.0.0.1", "::1", "169.254.169.254", "198.51.101.1", "0.0.0.0", "localhost"),
    ],
)
def test_anything_else_is_refused_before_it_is_looked_up(asked: str) -> None:
    reach = LimitedReach({"fw-01": "10.0.0.1"}, REACH.names, REACH.networks)
    with pytest.raises(Refused, match="is no target of the inventory, and is not allowed") as raised:
        asyncio.run(probe_tcp(asked, 80, reach=reach))
    assert "probes: allow:" in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        *("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "0.1.2.3", "169.254.169.254"),
        *("fe80::1", "224.0.0.1", "ff02::1", "255.255.255.255", "240.0.0.1", "::127.0.0.1"),
        *("64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::", "fec0::1"),
    ],
)
def test_special_addresses_are_known_in_every_form(text: str) -> None:
    address = ipaddress.ip_address(text)
    assert is_special(address)
    reach = LimitedReach({"x": text})
    with pytest.raises(Refused, match="is this machine's, its link's or nobody's"):
        reach.check_address("x", parse_address(text) or address, 80)


@pytest.mark.parametrize("text", ["10.0.0.1", "192.168.1.1", "8.8.8.8", "2001:4860::1", "fd00::1"])
def test_other_addresses_are_not_special(text: str) -> None:
    assert not is_special(ipaddress.ip_address(text))


def test_a_name_of_the_inventory_that_leads_to_loopback_is_refused() -> None:
    """As a name whose owner changes its address after it was allowed (DNS rebinding)."""

    async def ask() -> None:
        async with serve_tcp(answer_http(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")) as port:
            for probe in (
                probe_tcp("me", port, reach=REACH),
                probe_tls("me", port, reach=REACH),
                probe_http(f"http://me:{port}/", reach=REACH),
            ):
                with pytest.raises(Refused, match="an address of localhost, is this machine's"):
                    await probe

    asyncio.run(ask())


def test_loopback_may_be_asked_where_it_is_allowed_but_never_the_daemons_port() -> None:
    async def ask() -> None:
        async with serve_tcp(answer_http(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")) as port:
            loopback = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
            reach = LimitedReach({"me": "localhost"}, networks=loopback)
            assert (await probe_http(f"http://me:{port}/", HttpQuestion(family=4), reach=reach)).ok
            own = LimitedReach({"me": "localhost"}, networks=loopback, own_ports=frozenset({port}))
            with pytest.raises(Refused, match=f"port {port} of this machine is the daemon's own"):
                await probe_tcp("me", port, reach=own)
            assert is_own(ipaddress.ip_address("127.0.0.1"))
            assert not is_own(ipaddress.ip_address("192.0.2.1"))

    asyncio.run(ask())


def test_a_server_is_called_by_the_name_that_it_knows(tmp_path: Path) -> None:
    """The name of a target with a bare address; else the name that the target is known under."""
    heads: list[str] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async def ask() -> None:
        authority = LabAuthority.create()
        (tmp_path / "ca.pem").write_text(authority.pem)
        networks = (ipaddress.ip_network("127.0.0.0/8"),)
        reach = LimitedReach({"localhost": "127.0.0.1", "fw-01": "localhost"}, networks=networks)
        question = HttpQuestion(ca=tmp_path / "ca.pem", family=4)
        async with serve_tcp(note, server_context(authority)) as port:
            for host in ("localhost", "fw-01"):
                assert (await probe_http(f"https://{host}:{port}/x", question, reach=reach)).ok
                assert (await probe_tls(host, port, ca=question.ca, family=4, reach=reach)).ok
        assert [f"\r\nHost: localhost:{port}\r\n" in head for head in heads if head] == [True, True]

    asyncio.run(ask())


def test_a_redirect_leads_nowhere_that_is_not_allowed() -> None:
    async def ask() -> None:
        moved = b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest/\r\nContent-Length: 0\r\n\r\n"
        async with serve_tcp(answer_http(moved)) as port:
            reach = LimitedReach({"me": "127.0.0.1"}, networks=(ipaddress.ip_network("127.0.0.0/8"),))
            with pytest.raises(Refused, match=r"169\.254\.169\.254 is no target of the inventory"):
                await probe_http(f"http://me:{port}/", HttpQuestion(redirects=2), reach=reach)

    asyncio.run(ask())


def test_the_dns_is_asked_for_no_other_names_and_through_no_other_server() -> None:
    """A name that a model makes up would carry what it read to whoever answers for it."""

    async def ask() -> None:
        loopback = ipaddress.ip_address("127.0.0.1")
        async with serve_dns(lambda name, type_: ["192.0.2.1"]) as (port, asked):
            server = DnsServer(loopback, port)
            reach = LimitedReach({"web-01": "web.example.net"}, servers=((loopback, port),))
            assert (await probe_dns("web.example.net", server=server, reach=reach)).ok
            with pytest.raises(Refused, match=r"c2vjcmv0\.evil\.example is no name of a target"):
                await probe_dns("c2VjcmV0.evil.example", server=server, reach=reach)
            with pytest.raises(Refused, match=r"192\.0\.2\.9 is no target"):
                await probe_dns("192.0.2.9", "PTR", server=server, reach=reach)
            with pytest.raises(Refused, match=r"127\.0\.0\.1 is no target"):
                await probe_dns("web.example.net", server=server, reach=LimitedReach(reach.hosts))
            assert asked == ["web.example.net A"]

    asyncio.run(ask())


def test_tls_and_http_refuse_a_file_that_is_none_before_they_ask(tmp_path: Path) -> None:
    question = HttpQuestion(ca=tmp_path / "none.pem")
    with pytest.raises(InputError, match="there is no CA file"):
        asyncio.run(probe_http("https://192.0.2.1/", question))
