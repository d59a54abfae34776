"""Tools `opn.…`: what a firewall says of itself when it is asked. They share their readers with
`/opn/{id}/…`.

There is none for `/opn/{id}/backup`: a configuration holds the firewall's secrets, and no model gets it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated, Literal, TypeVar

from msgspec import Meta

from fazai.daemon.firewalls.asking import (
    ROUTE_S,
    ask_firewall,
    find_firewall,
    interface_item,
    read_metrics,
)
from fazai.daemon.http.refusal import Refusal
from fazai.daemon.tools.call import ToolCall
from fazai.daemon.tools.fitting import as_compact, cut_note, failed_observation, list_observation
from fazai.loop.tools import FirewallName, Observation, Tool, ToolArgs
from fazai.providers.opnsense.api.client import Api
from fazai.providers.opnsense.api.vitals import read_health, read_interfaces
from fazai.providers.opnsense.reading.activity import read_activity
from fazai.providers.opnsense.reading.filterlog import read_log
from fazai.providers.opnsense.reading.firmware import read_firmware
from fazai.providers.opnsense.reading.rules import read_rules
from fazai.providers.opnsense.reading.services import read_services
from fazai.providers.opnsense.reading.states import read_states
from fazai.providers.opnsense.reading.vpn import read_vpn
from fazai.timestamps import utc_now
from fazai.wire import opn

T = TypeVar("T")

#: A text to search by; empty: everything.
Words = Annotated[str, Meta(max_length=100)]
Limit = Annotated[int, Meta(ge=1, le=200)]


class FirewallArgs(ToolArgs, frozen=True, kw_only=True):
    """`firewall`: its name, or its id."""

    firewall: FirewallName


class RulesArgs(FirewallArgs, frozen=True, kw_only=True):
    """`interface` such as lan; `automatic`: also the rules that the firewall makes itself."""

    interface: Words = ""
    search: Words = ""
    automatic: bool = False
    limit: Limit = 50


class StatesArgs(FirewallArgs, frozen=True, kw_only=True):
    """`search`: words, an address or a network."""

    search: Words = ""
    limit: Limit = 30


class ActivityArgs(FirewallArgs, frozen=True, kw_only=True):
    """The busiest so many threads."""

    limit: Limit = 15


class LogArgs(FirewallArgs, frozen=True, kw_only=True):
    """`src` and `dst`: an address, a network, or how an address begins. `port` of either side, -1: any.
    `minutes`: entries of the last so many, 0: as far as the log is looked at."""

    interface: Words = ""
    action: Literal["", "pass", "block", "nat", "rdr", "binat"] = ""
    src: Words = ""
    dst: Words = ""
    port: Annotated[int, Meta(ge=-1, le=65535)] = -1
    minutes: Annotated[int, Meta(ge=0, le=10_080)] = 0
    limit: Limit = 40


async def _observe(
    call: ToolCall,
    args: FirewallArgs,
    work: Callable[[Api], Awaitable[T]],
    tell: Callable[[str, T], Observation],
) -> Observation:
    """Ask the firewall that is meant, and tell what it said under its name. Notes are our words alone: what
    the firewall says, also of why it refuses, stands in the data, which taint."""
    firewalls = call.services.firewalls
    try:
        seen = find_firewall(firewalls, args.firewall)
        found = await ask_firewall(firewalls, seen, work)
    except Refusal as refusal:
        return _failed(refusal)
    return tell(seen.firewall.name, found)


def _failed(refusal: Refusal) -> Observation:
    if refusal.code != "device_error":
        return failed_observation(refusal)
    said = {"error": cut_note(refusal.message), "hint": cut_note(refusal.hint or "")}
    note = "the firewall refused, or something between here and it: `error` says what (people: fazai doctor)"
    return Observation(note=note, data=as_compact(said), failed=True)


@Tool("opn.health", "Status of a firewall: version, and the notices it shows.", timeout_s=ROUTE_S)
async def show_health(call: ToolCall, args: FirewallArgs) -> Observation:
    """Return version, status and notices of a firewall."""

    def tell(name: str, found: dict[str, object]) -> Observation:
        notices = found.pop("notices")
        assert isinstance(notices, list)
        return list_observation(f"notices on {name}", notices, len(notices), beside=found)

    return await _observe(call, args, read_health, tell)


@Tool("opn.interfaces", "Interfaces of a firewall: state, addresses, counters.", timeout_s=ROUTE_S)
async def list_interfaces(call: ToolCall, args: FirewallArgs) -> Observation:
    """Return the interfaces of a firewall."""
    return await _observe(
        call,
        args,
        read_interfaces,
        lambda name, found: list_observation(
            f"interfaces of {name}", [interface_item(one) for one in found], len(found)
        ),
    )


@Tool("opn.metrics", "CPU, memory, uptime and number of states of a firewall.", timeout_s=ROUTE_S)
async def show_metrics(call: ToolCall, args: FirewallArgs) -> Observation:
    """Return the figures of the last round of reads."""
    firewalls = call.services.firewalls
    try:
        figures = await read_metrics(firewalls, find_firewall(firewalls, args.firewall))
    except Refusal as refusal:
        return _failed(refusal)
    data = as_compact(figures)
    data.pop("ifaces", None)  # opn.interfaces has them, and there may be many
    seen = f", last seen {data['last_seen']}" if "last_seen" in data else ""
    return Observation(note=f"figures of {figures.name}{seen}", data=data)


@Tool("opn.rules", "Filter rules of a firewall, in their order, with hits.", timeout_s=ROUTE_S)
async def list_rules(call: ToolCall, args: RulesArgs) -> Observation:
    """Return rules of a firewall."""
    query = opn.OpnRulesQuery(
        interface=args.interface or None,
        search=args.search or None,
        automatic=args.automatic,
        limit=args.limit,
    )
    return await _observe(
        call,
        args,
        lambda api: read_rules(api, query),
        lambda name, found: list_observation(f"rules of {name}", found.data, found.total),
    )


@Tool("opn.states", "Connections through a firewall (pf states) that match.", timeout_s=ROUTE_S)
async def list_states(call: ToolCall, args: StatesArgs) -> Observation:
    """Return states of a firewall."""
    query = opn.OpnStatesQuery(search=args.search or None, limit=args.limit)
    return await _observe(
        call,
        args,
        lambda api: read_states(api, query),
        lambda name, found: list_observation(f"states of {name}", found.data, found.total),
    )


@Tool("opn.activity", "Busiest processes of a firewall, with CPU and memory.", timeout_s=ROUTE_S)
async def list_processes(call: ToolCall, args: ActivityArgs) -> Observation:
    """Return what runs on a firewall."""
    query = opn.OpnActivityQuery(limit=args.limit)
    return await _observe(
        call,
        args,
        lambda api: read_activity(api, query),
        lambda name, found: list_observation(
            f"threads on {name}", found.data, found.total, beside={"headers": found.headers}
        ),
    )


@Tool("opn.log", "Newest lines of a firewall's filter log that match.", timeout_s=ROUTE_S)
async def search_log(call: ToolCall, args: LogArgs) -> Observation:
    """Return entries of the filter log, the newest first."""
    query = opn.OpnLogQuery(
        interface=args.interface or None,
        action=args.action or None,
        src=args.src or None,
        dst=args.dst or None,
        port=args.port if args.port >= 0 else None,
        since=utc_now() - timedelta(minutes=args.minutes) if args.minutes else None,
        limit=args.limit,
    )

    def tell(name: str, found: opn.OpnLogAnswer) -> Observation:
        what = f"of the newest {found.scanned} lines of {name}'s filter log match"
        return list_observation(what, found.data, found.total)

    return await _observe(call, args, lambda api: read_log(api, query), tell)


@Tool("opn.vpn", "Tunnels of a firewall: WireGuard, OpenVPN, IPsec, and who is up.", timeout_s=ROUTE_S)
async def list_tunnels(call: ToolCall, args: FirewallArgs) -> Observation:
    """Return the tunnels of a firewall."""
    return await _observe(
        call,
        args,
        read_vpn,
        lambda name, found: list_observation(
            f"tunnels and peers on {name}", found.data, found.total, beside={"missing": found.missing}
        ),
    )


@Tool("opn.firmware", "Version of a firewall, and the updates that wait.", timeout_s=ROUTE_S)
async def show_firmware(call: ToolCall, args: FirewallArgs) -> Observation:
    """Return what the firewall's own last check found; none is started."""

    def tell(name: str, found: opn.OpnFirmwareAnswer) -> Observation:
        about = as_compact(found.data)
        for key in ("updates", "total"):
            about.pop(key, None)
        return list_observation(f"updates wait on {name}", found.data.updates, found.data.total, beside=about)

    return await _observe(call, args, read_firmware, tell)


@Tool("opn.services", "Services of a firewall, and whether they run.", timeout_s=ROUTE_S)
async def list_services(call: ToolCall, args: FirewallArgs) -> Observation:
    """Return the services of a firewall, those that do not run first."""

    def tell(name: str, found: opn.OpnServicesAnswer) -> Observation:
        rows = sorted(found.data, key=lambda one: one.running is not False)
        stopped = sum(one.running is False for one in rows)
        return list_observation(f"services on {name}, {stopped} of them stopped", rows, found.total)

    return await _observe(call, args, read_services, tell)


TOOLS = (
    *(show_health, list_interfaces, show_metrics, list_rules, list_states),
    *(list_processes, search_log, list_tunnels, show_firmware, list_services),
)
