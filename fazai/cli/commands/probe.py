"""fazai probe tcp, http, ping, dns, tls, dnsbl"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from fazai.cli.options import FILE, OUTPUT, OptionDecorator, add_options
from fazai.errors import Errors, ExitCode, FazaiError, UsageError, worst_exit

if TYPE_CHECKING:
    from fazai.probes.result import ProbeResult

_AT_ONCE = 32
_SHOWN_CHARACTERS = 400


def _timeout(seconds: float) -> OptionDecorator:
    return click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(0, 60, min_open=True),
        default=seconds,
        show_default=True,
        help="Seconds for each.",
    )


_FAMILY: Final = (
    click.option("-4", "family", flag_value=4, type=int, help="IPv4 alone."),
    click.option("-6", "family", flag_value=6, type=int, help="IPv6 alone."),
)
_CA: Final = click.option("--ca", type=FILE, help="Trust this authority (PEM) instead of the system's.")
_SERVER: Final = click.option("--server", metavar="ADDRESS", help="DNS server. [default: the system's]")


@click.group(
    "probe",
    epilog="\b\nExamples:\n  fazai probe tcp fw-01.example.net 443"
    "\n  fazai probe tls www.example.net mail.example.net:465 --warn-days 30"
    "\n  fazai probe dns example.net MX --server 192.0.2.53"
    "\n\nExit code 1: one of them is not as it should be.",
)
def probe_command() -> None:
    """Ask a network, several targets at once: each with a deadline, nothing is changed anywhere."""


@probe_command.command("tcp", short_help="Does a port accept connections?")
@click.argument("words", nargs=-1, required=True, metavar="HOST[:PORT]... [PORT]")
@click.option("--banner", is_flag=True, help="Show what the server says first.")
@_timeout(5)
@add_options(_FAMILY)
@OUTPUT
def tcp_command(words: Sequence[str], output: str, **options: Any) -> int:
    """Connect to TCP ports; a PORT at the end is that of each HOST without one."""
    from fazai.probes.tcp import probe_tcp

    default = int(words[-1]) if len(words) > 1 and _is_port(words[-1]) else None
    targets = [_split_port(word, default) for word in (words if default is None else words[:-1])]
    return _run(output, [probe_tcp(host, port, **options) for host, port in targets])


@probe_command.command("http", short_help="Does a web server answer as it should?")
@click.argument("urls", nargs=-1, required=True, metavar="URL...")
@click.option("--head", is_flag=True, help="Ask with HEAD.")
@click.option("--status", type=click.IntRange(100, 599), help="The only right one. [default: below 400]")
@click.option("--contains", metavar="TEXT", help="Has to be in the first 64 KiB of the body.")
@click.option("--redirects", type=click.IntRange(0, 5), default=0, show_default=True, help="Follow so many.")
@click.option("--insecure", is_flag=True, help="Trust any certificate.")
@_CA
@_timeout(10)
@add_options(_FAMILY)
@OUTPUT
def http_command(
    urls: Sequence[str], head: bool, insecure: bool, timeout_s: float, output: str, **options: Any
) -> int:
    """Ask web servers; certificates are verified."""
    from fazai.probes.http import HttpQuestion, probe_http

    question = HttpQuestion(method="HEAD" if head else "GET", verify=not insecure, **options)
    return _run(output, [probe_http(url, question, timeout_s=timeout_s) for url in urls])


@probe_command.command("ping", short_help="Does a host answer echo requests?")
@click.argument("hosts", nargs=-1, required=True, metavar="HOST...")
@click.option("--count", type=click.IntRange(1, 20), default=3, show_default=True)
@_timeout(5)
@add_options(_FAMILY)
@OUTPUT
def ping_command(hosts: Sequence[str], output: str, **options: Any) -> int:
    """Send ICMP echo requests; root is not needed where net.ipv4.ping_group_range lets this user."""
    from fazai.probes.ping import probe_ping

    return _run(output, [probe_ping(host, **options) for host in hosts])


@probe_command.command("dns", short_help="What does the DNS say of a name?")
@click.argument("words", nargs=-1, required=True, metavar="NAME... [TYPE]")
@_SERVER
@click.option("--expect", metavar="TEXT", help="A record that has to be among the answers.")
@_timeout(5)
@OUTPUT
def dns_command(words: Sequence[str], server: str | None, output: str, **options: Any) -> int:
    """Ask for records of names (of addresses, with PTR); the type is A without TYPE."""
    from fazai.probes.dns import DNS_TYPES, parse_dns_server, probe_dns

    typed = len(words) > 1 and words[-1].upper() in DNS_TYPES
    type_ = words[-1].upper() if typed else "A"
    asked = parse_dns_server(server) if server is not None else None
    names = words[:-1] if typed else words
    return _run(output, [probe_dns(name, type_, server=asked, **options) for name in names])


@probe_command.command("tls", short_help="Whose certificate is there, and until when?")
@click.argument("words", nargs=-1, required=True, metavar="HOST[:PORT]...")
@click.option("--server-name", metavar="NAME", help="For whom it has to be. [default: the host]")
@click.option("--warn-days", type=click.IntRange(0, 3650), default=14, show_default=True)
@_CA
@_timeout(10)
@add_options(_FAMILY)
@OUTPUT
def tls_command(words: Sequence[str], output: str, **options: Any) -> int:
    """Look at certificates; one that expires, or is not trusted, is a finding."""
    from fazai.probes.tls import probe_tls

    targets = [_split_port(word, 443) for word in words]
    return _run(output, [probe_tls(host, port, **options) for host, port in targets])


@probe_command.command("dnsbl", short_help="On which block lists is an address?")
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS...")
@click.option("--list", "lists", multiple=True, metavar="ZONE", help="A list. [default: three known ones]")
@_SERVER
@_timeout(5)
@OUTPUT
def dnsbl_command(
    addresses: Sequence[str], lists: Sequence[str], server: str | None, timeout_s: float, output: str
) -> int:
    """Ask DNS block lists for addresses."""
    from fazai.probes.dns import parse_dns_server
    from fazai.probes.dnsbl import DEFAULT_LISTS, probe_dnsbl

    asked = parse_dns_server(server) if server is not None else None
    found = lists or DEFAULT_LISTS
    return _run(output, [probe_dnsbl(one, found, server=asked, timeout_s=timeout_s) for one in addresses])


# -- all of them


def _is_port(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= 5


def _split_port(word: str, default: int | None) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`, `[ADDRESS]:PORT`, `HOST` or an address. Raises UsageError."""
    host, colon, port = word.rpartition(":")
    if colon and _is_port(port) and (":" not in host or host.startswith("[")):
        return host, int(port)
    if default is None:
        raise UsageError(f"{word[:64]!r} has no port", hint="HOST:PORT, or the port behind the hosts")
    return word, default


def _run(output: str, probes: Sequence[Awaitable[ProbeResult]]) -> int:
    """Carry out the probes, print what they found, and return the exit code. Raises FazaiError where a probe
    could not ask."""
    answers = asyncio.run(_gather(probes))
    found = [one for one in answers if not isinstance(one, FazaiError)]
    errors = [one for one in answers if isinstance(one, FazaiError)]
    if output == "json":
        rows = [dataclasses.asdict(one) for one in found]
        click.echo(json.dumps({"format": "fazai-probe/1", "probes": rows}, indent=1, ensure_ascii=False))
    else:
        for one in found:
            click.echo("\n".join(_lines(one, details=len(answers) == 1)))
    if errors:
        error = errors[0] if len(errors) == 1 else Errors(errors)
        error.exit_code = worst_exit([error.exit_code, _exit_code(found)])
        raise error
    return _exit_code(found)


def _exit_code(found: Sequence[ProbeResult]) -> int:
    return ExitCode.OK if all(one.ok for one in found) else ExitCode.FAILED


async def _gather(probes: Sequence[Awaitable[ProbeResult]]) -> list[ProbeResult | FazaiError]:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def carry_out(probe: Awaitable[ProbeResult]) -> ProbeResult | FazaiError:
        async with gate:
            try:
                return await probe
            except FazaiError as error:
                return error

    return await asyncio.gather(*map(carry_out, probes))


def _lines(one: ProbeResult, *, details: bool) -> list[str]:
    """Return a line for a result, and with `details` its facts below."""
    took = f"{one.latency_ms:.1f} ms" if one.latency_ms is not None else None
    more = ", ".join(text for text in (one.address, took) if text)
    lines = [f"{'ok' if one.ok else 'fail':<5} {one.probe:<5} {one.target}: {one.why}{more and f' ({more})'}"]
    for name, value in one.facts.items() if details else ():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        lines.append(f"      {name:<15} {text[:_SHOWN_CHARACTERS]}")
    return lines
