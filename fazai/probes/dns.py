"""Probe of a name in the DNS: what is answered, by which server, and whether it is what was expected."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fazai.compat.timeouts import deadline
from fazai.errors import InputError, spelling_hint
from fazai.probes.reach import Address, Anywhere, Reach, parse_address
from fazai.probes.result import (
    ProbeResult,
    Stopwatch,
    check_port,
    check_timeout,
    clean_text,
    describe_failure,
)

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver

DNS_TYPES = ("A", "AAAA", "CAA", "CNAME", "DS", "MX", "NS", "PTR", "SOA", "SRV", "TLSA", "TXT")
_MOST_ANSWERS = 50
_PAYLOAD_BYTES = 1232  # of an answer by UDP: no fragments; longer ones come by TCP


@dataclass(frozen=True, slots=True)
class DnsServer:
    """A server that is asked instead of the system's."""

    address: Address
    port: int = 53

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return host if self.port == 53 else f"{host}:{self.port}"


def parse_dns_server(text: str) -> DnsServer:
    """Return the server that `ADDRESS`, `ADDRESS:PORT` or `[ADDRESS]:PORT` names. Raises InputError."""
    address = parse_address(text)
    if address is not None:
        return DnsServer(address)
    host, _, port = text.rpartition(":")
    address = parse_address(host)
    if address is None or not (port.isascii() and port.isdigit() and len(port) <= 5):
        raise InputError(
            f"{clean_text(text, 64)!r} is no address of a DNS server", hint="192.0.2.53, or [2001:db8::53]:53"
        )
    return DnsServer(address, check_port(int(port)))


async def probe_dns(
    name: str,
    type_: str = "A",
    *,
    server: DnsServer | None = None,
    expect: str | None = None,
    timeout_s: float = 5.0,
    reach: Reach | None = None,
) -> ProbeResult:
    """Ask for the records of a name (for PTR also of an address). `expect`: a text that one of them has to
    be. Raises InputError, Refused."""
    if type_ not in DNS_TYPES:
        raise InputError(
            f"{clean_text(type_, 16)!r} is not asked for",
            hint=spelling_hint(type_.upper(), DNS_TYPES) or f"one of: {', '.join(DNS_TYPES)}",
        )
    reach, address = reach or Anywhere(), parse_address(name) if type_ == "PTR" else None
    asked = parse_dns_name(address.reverse_pointer if address is not None else name)
    if address is not None:
        reach.locate(str(address))
    else:
        reach.check_name(asked)
    if server is not None:
        reach.check_server(server.address, server.port)
    resolver, watch = make_resolver(server), Stopwatch()
    found = await ask_dns(resolver, asked, type_, check_timeout(timeout_s))
    wanted = expect is None or expect.rstrip(".").lower() in [one.rstrip(".").lower() for one in found.texts]
    shown = clean_text(", ".join(found.texts[:3])) + (", …" if len(found.texts) > 3 else "")
    why = found.failure or (shown if wanted else f"{clean_text(expect or '', 64)!r} is not among: {shown}")
    return ProbeResult(
        probe="dns",
        target=f"{clean_text(name, 253)} {type_}",
        ok=found.failure is None and wanted,
        why=why,
        latency_ms=watch.read_ms() if found.rcode else None,
        address=found.server,
        facts={
            "rcode": found.rcode,
            "answers": list(found.texts[:_MOST_ANSWERS]),
            "answers_count": len(found.texts),
            **found.more,
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsFound:
    """Answer of a server. `failure`: why there are no records; `rcode` None: nothing usable came."""

    rcode: str | None = None
    texts: tuple[str, ...] = ()
    failure: str | None = None
    server: str | None = None
    more: dict[str, Any]


def parse_dns_name(text: str) -> str:
    """Return a name as it is asked for, in lower case, without the last dot. Raises InputError."""
    import dns.exception
    import dns.name

    try:
        if not text.isprintable():
            raise InputError(f"{clean_text(text, 64)!r} is no name")
        return dns.name.from_text(text).to_text(omit_final_dot=True).lower()
    except (dns.exception.DNSException, UnicodeError, ValueError):
        raise InputError(f"{clean_text(text, 64)!r} is no name in the DNS") from None


def make_resolver(server: DnsServer | None) -> Resolver:
    """Return a resolver that asks one server, or the system's. Raises InputError where that names none."""
    import dns.asyncresolver
    import dns.resolver

    try:
        resolver = dns.asyncresolver.Resolver(configure=server is None)
    except dns.resolver.NoResolverConfiguration:
        raise InputError("this system names no DNS server", hint="--server ADDRESS") from None
    if server is not None:
        resolver.nameservers = [str(server.address)]
        resolver.port = server.port
    resolver.use_edns(0, 0, _PAYLOAD_BYTES)
    return resolver


async def ask_dns(resolver: Resolver, name: str, type_: str, timeout_s: float) -> DnsFound:
    """Ask for the records of a name; never raises for what comes."""
    import dns.exception
    import dns.rcode
    import dns.resolver

    rcode = None
    try:
        async with deadline(timeout_s + 0.5):  # the library's own is looked at between its steps
            answer = await resolver.resolve(
                f"{name}.", type_, search=False, lifetime=timeout_s, raise_on_no_answer=False
            )
    except dns.resolver.NXDOMAIN:
        return DnsFound(rcode="NXDOMAIN", failure="there is no such name", more={})
    except (dns.exception.Timeout, TimeoutError):
        failure = "no answer in time"
    except dns.resolver.NoNameservers as error:
        failure, rcode = _describe_refusals(error)
    except (dns.exception.DNSException, OSError, ValueError) as error:
        failure = f"no usable answer: {describe_failure(error)}"
    else:
        texts = tuple(sorted(clean_text(one.to_text()) for one in answer.rrset or ()))
        return DnsFound(
            rcode=dns.rcode.to_text(answer.response.rcode()),
            texts=texts,
            failure=None if texts else f"the name has no {type_} record",
            server=str(answer.nameserver),
            more={
                "canonical_name": clean_text(answer.canonical_name.to_text(), 255),
                **({"ttl_s": answer.rrset.ttl} if answer.rrset else {}),
            },
        )
    return DnsFound(rcode=rcode, failure=failure, more={})


def _describe_refusals(error: Any) -> tuple[str, str | None]:
    """Return what the servers said that answered with an error, and the code of the last one."""
    import dns.rcode

    for _, _, _, said, response in reversed(error.kwargs.get("errors") or []):
        rcode = dns.rcode.to_text(response.rcode()) if response is not None else None
        return f"no server answers it: {clean_text(str(said))}", rcode
    return "no server answers it", None


def reverse_labels(address: Address) -> str:
    """Return an address as the labels of a name, the last part first."""
    if isinstance(address, ipaddress.IPv4Address):
        return address.reverse_pointer.removesuffix(".in-addr.arpa")
    return address.reverse_pointer.removesuffix(".ip6.arpa")
