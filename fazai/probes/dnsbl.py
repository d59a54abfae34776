"""Probe of block lists in the DNS (RFC 5782): on which of them an address stands, and why."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fazai.errors import InputError
from fazai.probes.dns import (
    DnsServer,
    ask_dns,
    make_resolver,
    parse_dns_name,
    reverse_labels,
)
from fazai.probes.reach import parse_address
from fazai.probes.result import ProbeResult, Stopwatch, check_timeout, clean_text

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver

#: Lists that answer without a contract, for low volume. Which fit is the reader's choice.
DEFAULT_LISTS = ("zen.spamhaus.org", "bl.spamcop.net", "b.barracudacentral.org")
MOST_LISTS = 32
_CODES = ipaddress.IPv4Network("127.0.0.0/8")
_REFUSALS = ipaddress.IPv4Network("127.255.255.0/24")  # a list's word that it does not answer this asker


async def probe_dnsbl(
    address: str,
    lists: Sequence[str] = DEFAULT_LISTS,
    *,
    server: DnsServer | None = None,
    timeout_s: float = 5.0,
) -> ProbeResult:
    """Ask all lists at once about an address; ok: none has it, and one at least answered. Raises
    InputError."""
    found = parse_address(address)
    if found is None or not found.is_global:
        raise InputError(f"{clean_text(address, 64)!r} is no public address", hint="lists know no others")
    zones = [parse_dns_name(each) for each in dict.fromkeys(lists)]
    if not 1 <= len(zones) <= MOST_LISTS:
        raise InputError(f"1 to {MOST_LISTS} lists are asked, not {len(zones)}")
    resolver, labels, watch = make_resolver(server), reverse_labels(found), Stopwatch()
    check_timeout(timeout_s)
    answers = await asyncio.gather(*(_ask_list(resolver, labels, zone, timeout_s) for zone in zones))
    rows = dict(zip(zones, answers, strict=True))
    hits = {zone: row for zone, row in rows.items() if row["listed"]}
    silent = [zone for zone, row in rows.items() if row["listed"] is None]
    if hits:
        why = f"it is on {', '.join(hits)}"
    elif len(silent) == len(zones):
        why = "none of the lists gave a usable answer"
    else:
        why = f"it is on none of {len(zones) - len(silent)} lists"
    if silent and len(silent) < len(zones):
        why += f"; no usable answer of {', '.join(silent)}"
    return ProbeResult(
        probe="dnsbl",
        target=str(found),
        ok=not hits and len(silent) < len(zones),
        why=why,
        latency_ms=watch.read_ms() if len(silent) < len(zones) else None,
        facts={"hits": sorted(hits), "lists": rows},
    )


async def _ask_list(resolver: Resolver, labels: str, zone: str, timeout_s: float) -> dict[str, Any]:
    """Ask one list. `listed` None: it gave no usable answer, and `why` says what came instead."""
    found = await ask_dns(resolver, f"{labels}.{zone}", "A", timeout_s)
    if found.rcode == "NXDOMAIN" or (found.rcode == "NOERROR" and not found.texts):
        return {"listed": False}
    codes = [one for one in map(parse_address, found.texts) if isinstance(one, ipaddress.IPv4Address)]
    if not codes:
        return {"listed": None, "why": found.failure or "no address is in its answer"}
    if any(code not in _CODES for code in codes):
        return {"listed": None, "why": f"it answers {found.texts[0]}: a resolver or a new owner of the name"}
    if all(code in _REFUSALS for code in codes):
        return {"listed": None, "why": f"it refuses this resolver ({found.texts[0]})"}
    reasons = await ask_dns(resolver, f"{labels}.{zone}", "TXT", timeout_s)
    return {"listed": True, "codes": list(found.texts[:8]), "reasons": list(reasons.texts[:4])}
