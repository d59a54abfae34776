"""Tools `probe.*`: read-only questions to the network, to targets of the inventory and what is allowed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from fazai.daemon.tools.call import ToolCall
from fazai.loop.tools import Observation, Tool, ToolArgs
from fazai.probes.dns import DNS_TYPES, parse_dns_server, probe_dns
from fazai.probes.dnsbl import probe_dnsbl
from fazai.probes.http import HttpQuestion, probe_http
from fazai.probes.ping import probe_ping
from fazai.probes.reach import Reach
from fazai.probes.result import ProbeResult
from fazai.probes.tcp import probe_tcp
from fazai.probes.tls import probe_tls

Host = Annotated[str, Meta(min_length=1, max_length=253)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Seconds = Annotated[int, Meta(ge=1, le=20)]
Text = Annotated[str, Meta(min_length=1, max_length=256)]
DnsType = Annotated[str, Meta(max_length=5, extra_json_schema={"enum": list(DNS_TYPES)})]


class ProbeTcpArgs(ToolArgs, frozen=True, kw_only=True):
    """`banner`: read what the server says first."""

    host: Host
    port: Port
    banner: bool = False
    timeout_s: Seconds = 5


class ProbeHttpArgs(ToolArgs, frozen=True, kw_only=True):
    """`status`: the only right one; `contains`: a text that has to be in the body's first 64 KiB."""

    url: Annotated[str, Meta(min_length=1, max_length=512)]
    method: Literal["GET", "HEAD"] = "GET"
    status: Annotated[int, Meta(ge=100, le=599)] | None = None
    contains: Text | None = None
    timeout_s: Seconds = 10


class ProbePingArgs(ToolArgs, frozen=True, kw_only=True):
    host: Host
    count: Annotated[int, Meta(ge=1, le=10)] = 3
    timeout_s: Seconds = 5


class ProbeDnsArgs(ToolArgs, frozen=True, kw_only=True):
    """`server`: the address of a DNS server; `expect`: a record that has to be among the answers."""

    name: Host
    type: DnsType = "A"
    server: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    expect: Text | None = None
    timeout_s: Seconds = 5


class ProbeTlsArgs(ToolArgs, frozen=True, kw_only=True):
    """`warn_days`: a certificate that is good for fewer days is a finding."""

    host: Host
    port: Port = 443
    server_name: Host | None = None
    warn_days: Annotated[int, Meta(ge=0, le=3650)] = 14
    timeout_s: Seconds = 10


class ProbeDnsblArgs(ToolArgs, frozen=True, kw_only=True):
    address: Annotated[str, Meta(min_length=2, max_length=64)]
    timeout_s: Seconds = 5


@Tool("probe.tcp", "Tells whether a TCP port of a target accepts connections.")
async def ask_tcp(call: ToolCall, args: ProbeTcpArgs) -> Observation:
    """Connect to a port."""

    async def ask(reach: Reach) -> ProbeResult:
        return await probe_tcp(
            args.host, args.port, timeout_s=args.timeout_s, banner=args.banner, reach=reach
        )

    return await _observe(call, ask)


@Tool("probe.http", "Asks a web server of a target: status, headers, whether a text is there.")
async def ask_http(call: ToolCall, args: ProbeHttpArgs) -> Observation:
    """Ask a web server; certificates are verified, redirects are not followed."""

    async def ask(reach: Reach) -> ProbeResult:
        question = HttpQuestion(method=args.method, status=args.status, contains=args.contains)
        return await probe_http(args.url, question, timeout_s=args.timeout_s, reach=reach)

    return await _observe(call, ask)


@Tool("probe.ping", "Tells whether a target answers ICMP echo requests, and how fast.")
async def ask_ping(call: ToolCall, args: ProbePingArgs) -> Observation:
    """Send echo requests."""

    async def ask(reach: Reach) -> ProbeResult:
        return await probe_ping(args.host, count=args.count, timeout_s=args.timeout_s, reach=reach)

    return await _observe(call, ask)


@Tool("probe.dns", "Asks for the DNS records of a target's name.")
async def ask_dns_name(call: ToolCall, args: ProbeDnsArgs) -> Observation:
    """Ask a DNS server."""

    async def ask(reach: Reach) -> ProbeResult:
        named = parse_dns_server(args.server) if args.server is not None else None
        return await probe_dns(
            args.name,
            args.type,
            server=named or call.services.probe_targets.server,
            expect=args.expect,
            timeout_s=args.timeout_s,
            reach=reach,
        )

    return await _observe(call, ask)


@Tool("probe.tls", "Looks at a target's certificate: whose it is, until when, whether it is trusted.")
async def ask_tls(call: ToolCall, args: ProbeTlsArgs) -> Observation:
    """Make a TLS handshake."""

    async def ask(reach: Reach) -> ProbeResult:
        return await probe_tls(
            args.host,
            args.port,
            server_name=args.server_name,
            warn_days=args.warn_days,
            timeout_s=args.timeout_s,
            reach=reach,
        )

    return await _observe(call, ask)


@Tool("probe.dnsbl", "Tells on which block lists a public address stands.")
async def ask_dnsbl(call: ToolCall, args: ProbeDnsblArgs) -> Observation:
    """Ask the configured block lists."""
    targets = call.services.probe_targets

    async def ask(reach: Reach) -> ProbeResult:
        lists = targets.config.blocklists
        return await probe_dnsbl(args.address, lists, server=targets.server, timeout_s=args.timeout_s)

    return await _observe(call, ask)


async def _observe(call: ToolCall, ask: Callable[[Reach], Awaitable[ProbeResult]]) -> Observation:
    """Return what a probe found, when it is its turn. Raises FazaiError for one that may not ask, or is asked
    nonsense."""
    targets = call.services.probe_targets
    async with targets.gate:
        found = await ask(await targets.reach())
    return Observation(
        note=f"{found.target}: {found.why}", data={"format": "fazai-probe/1", **msgspec.to_builtins(found)}
    )


TOOLS = (ask_tcp, ask_http, ask_ping, ask_dns_name, ask_tls, ask_dnsbl)
