"""Probes of the DNS against a server of ours: good answers, none, wrong ones, huge ones; block lists."""

from __future__ import annotations

import asyncio

import dns.rcode
import pytest
import uvloop

from fazai.errors import InputError
from fazai.probes.dns import DnsServer, parse_dns_server, probe_dns
from fazai.probes.dnsbl import probe_dnsbl
from fazai.probes.reach import parse_address
from fazai.probes.result import ProbeResult
from tests.probes.servers import Answers, serve_dns

LOOPBACK = parse_address("127.0.0.1")
assert LOOPBACK is not None


def ask(answers: Answers, name: str, type_: str = "A", **more: object) -> tuple[ProbeResult, list[str]]:
    async def run() -> tuple[ProbeResult, list[str]]:
        async with serve_dns(answers) as (port, asked):
            server = DnsServer(LOOPBACK, port)  # type: ignore[arg-type]
            return await probe_dns(name, type_, server=server, **more), asked  # type: ignore[arg-type]

    return asyncio.run(run())


def test_records_are_answered_by_the_named_server() -> None:
    found, asked = ask(lambda name, type_: ["192.0.2.7", "192.0.2.1"], "WWW.example.net")
    assert (found.ok, found.why) == (True, "192.0.2.1, 192.0.2.7")
    assert found.facts["answers"] == ["192.0.2.1", "192.0.2.7"]
    assert (found.facts["rcode"], found.facts["ttl_s"], found.address) == ("NOERROR", 300, "127.0.0.1")
    assert asked == ["www.example.net A"]


def test_what_is_expected_has_to_be_among_them() -> None:
    found, _ = ask(
        lambda name, type_: ["10 mail.example.net."], "example.net", "MX", expect="10 mail.example.net"
    )
    assert found.ok
    found, _ = ask(lambda name, type_: ["192.0.2.7"], "example.net", expect="192.0.2.8")
    assert (found.ok, found.why) == (False, "'192.0.2.8' is not among: 192.0.2.7")


def test_an_address_is_asked_for_by_its_reverse_name() -> None:
    found, asked = ask(lambda name, type_: ["host.example.net."], "192.0.2.9", "PTR")
    assert (found.ok, asked) == (True, ["9.2.0.192.in-addr.arpa PTR"])


@pytest.mark.parametrize(
    ("answer", "why", "rcode"),
    [
        (dns.rcode.NXDOMAIN, "there is no such name", "NXDOMAIN"),
        ([], "the name has no A record", "NOERROR"),
        (dns.rcode.SERVFAIL, "no server answers it: ", "SERVFAIL"),
        (dns.rcode.REFUSED, "no server answers it: ", "REFUSED"),
        (None, "no answer in time", None),
        (b"\x81\x80" + b"\xff" * 600, "no ", None),
        (b"", "no ", None),
    ],
)
def test_no_records_are_a_finding(answer: object, why: str, rcode: str | None) -> None:
    found, _ = ask(lambda name, type_: answer, "example.net", timeout_s=0.4)  # type: ignore[arg-type,return-value]
    assert not found.ok
    assert found.why.startswith(why)
    assert found.facts["rcode"] == rcode


def test_many_and_odd_records_are_bounded_and_shown_plainly() -> None:
    found, asked = ask(
        lambda name, type_: [f'"{n} \\027[2J\\000 {"x" * 200}"' for n in range(200)], "example.net", "TXT"
    )
    assert found.ok
    assert asked == ["example.net TXT", "example.net TXT by TCP"]
    assert (len(found.facts["answers"]), found.facts["answers_count"]) == (50, 200)
    assert all(text.isprintable() and len(text) <= 301 for text in found.facts["answers"])
    assert found.why.isprintable()


def test_a_named_server_is_an_address() -> None:
    assert str(parse_dns_server("192.0.2.53")) == "192.0.2.53"
    assert str(parse_dns_server("[2001:db8::1]:5353")) == "[2001:db8::1]:5353"
    assert str(parse_dns_server("2001:db8::1")) == "[2001:db8::1]"
    for text in ("dns.example.net", "192.0.2.53:x", "192.0.2.53:0", ""):
        with pytest.raises(InputError, match="is no"):
            parse_dns_server(text)
    with pytest.raises(InputError, match="'AXFR' is not asked for"):
        asyncio.run(probe_dns("example.net", "AXFR"))
    with pytest.raises(InputError, match="is no name in the DNS"):
        asyncio.run(probe_dns("x" * 64 + ".example.net"))


def test_the_daemons_loop_asks_as_well() -> None:
    async def run() -> ProbeResult:
        async with serve_dns(lambda name, type_: ["192.0.2.7"]) as (port, _):
            return await probe_dns("example.net", server=DnsServer(LOOPBACK, port))  # type: ignore[arg-type]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(run()).ok


# -- block lists

LISTS = ("listed.example", "clean.example", "refuses.example", "hijacked.example", "silent.example")


def answer_lists(name: str, type_: str) -> list[str] | dns.rcode.Rcode | None:
    zone = name.split(".", 4)[-1]
    if zone == "silent.example":
        return None
    if zone == "clean.example":
        return dns.rcode.NXDOMAIN
    if type_ == "TXT":
        return ['"listed\\010 for spam"']
    return [{"listed.example": "127.0.0.4", "refuses.example": "127.255.255.254"}.get(zone, "203.0.113.80")]


def ask_lists(address: str, *lists: str) -> tuple[ProbeResult, list[str]]:
    async def run() -> tuple[ProbeResult, list[str]]:
        async with serve_dns(answer_lists) as (port, asked):
            server = DnsServer(LOOPBACK, port)  # type: ignore[arg-type]
            return await probe_dnsbl(address, lists, server=server, timeout_s=0.4), asked

    return asyncio.run(run())


def test_a_listed_address_is_a_finding_with_its_reasons() -> None:
    found, asked = ask_lists("8.8.4.1", *LISTS)
    assert (found.ok, found.facts["hits"]) == (False, ["listed.example"])
    assert found.why.startswith("it is on listed.example; no usable answer of refuses.example, ")
    rows = found.facts["lists"]
    assert rows["listed.example"]["codes"] == ["127.0.0.4"]
    assert rows["listed.example"]["reasons"][0].isprintable()
    assert rows["clean.example"] == {"listed": False}
    assert rows["refuses.example"] == {"listed": None, "why": "it refuses this resolver (127.255.255.254)"}
    assert rows["hijacked.example"]["listed"] is None
    assert "1.4.8.8.listed.example A" in asked


def test_an_address_on_no_list_is_well_unless_nobody_said_so() -> None:
    assert ask_lists("8.8.4.1", "clean.example")[0].why == "it is on none of 1 lists"
    found, _ = ask_lists("8.8.4.1", "refuses.example", "hijacked.example")
    assert (found.ok, found.why) == (False, "none of the lists gave a usable answer")


def test_an_address_of_ipv6_is_asked_by_nibbles() -> None:
    _, asked = ask_lists("2606:4700::1", "clean.example")
    assert asked[0].startswith("1.0.0.0.0.0.0.0.")
    assert asked[0].endswith(".6.0.6.2.clean.example A")


@pytest.mark.parametrize("address", ["10.0.0.1", "127.0.0.1", "example.net", "fe80::1"])
def test_only_public_addresses_are_asked_about(address: str) -> None:
    with pytest.raises(InputError, match="is no public address"):
        asyncio.run(probe_dnsbl(address))
