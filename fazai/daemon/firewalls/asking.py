"""Asks one watched firewall, within the time that SPEC.md gives `/opn/*`, and finds the one that is meant."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from fazai.compat.timeouts import deadline
from fazai.daemon.firewalls.poller import Firewalls, WatchedFirewall
from fazai.daemon.http.refusal import Refusal
from fazai.errors import DeviceError, FazaiError, Unreachable, spelling_hint
from fazai.providers.opnsense.api.client import Api
from fazai.providers.opnsense.api.vitals import Interface
from fazai.timestamps import timestamp
from fazai.wire import opn

T = TypeVar("T")

IN_ALL_S = 30.0
ROUTE_S = IN_ALL_S + 5
_AT_ONCE = 8  # of one firewall: it has few workers for its API, and some calls start programs


async def ask_firewall(firewalls: Firewalls, seen: WatchedFirewall, work: Callable[[Api], Awaitable[T]]) -> T:
    """Let `work` ask the firewall, and return its result. Raises Refusal (device_error, timeout,
    overloaded)."""
    if seen.asked >= _AT_ONCE:
        text = f"{seen.firewall.name} is asked {_AT_ONCE} things already"
        raise Refusal("overloaded", text, hint="ask again in 2 s", headers=((b"retry-after", b"2"),))
    seen.asked += 1
    try:
        async with deadline(IN_ALL_S):
            return await firewalls.ask(seen, work)
    except TimeoutError:
        raise Refusal("timeout", f"{seen.firewall.name} did not answer within {IN_ALL_S:g} s") from None
    except FazaiError as error:
        raise device_refusal(error) from None
    finally:
        seen.asked -= 1


def device_refusal(error: FazaiError) -> Refusal:
    """Return the refusal for an error of a firewall or of the way to it."""
    slow = isinstance(error, Unreachable) and "within" in error.message
    code = "timeout" if slow else "device_error"
    known = isinstance(error, (DeviceError, Unreachable))
    return Refusal(code, error.message, hint=error.hint if known else None)


async def read_metrics(firewalls: Firewalls, seen: WatchedFirewall) -> opn.OpnMetrics:
    """Return the figures of the last round, else of one made now. Raises Refusal (not_found, device_error,
    timeout)."""
    if seen.vitals is None or seen.last is not None:
        await firewalls.poll_now(seen)
    if seen.last is not None:
        raise device_refusal(seen.last)
    vitals, record = seen.vitals, seen.record
    if vitals is None:  # it was taken off the registry meanwhile
        raise Refusal("not_found", "the firewall is no longer watched")
    memory = vitals.memory_ratio
    return opn.OpnMetrics(
        id=record.id,
        name=record.name,
        version=vitals.version,
        uptime=vitals.uptime_s,
        cpu_percent=round(vitals.cpu_ratio * 100, 1) if vitals.cpu_ratio is not None else None,
        mem_percent=round(min(memory, 1.0) * 100, 1) if memory is not None else None,
        sessions=vitals.states,
        ifaces=tuple(map(interface_item, vitals.interfaces)),
        last_seen=timestamp(record.last_seen),
    )


def interface_item(one: Interface) -> opn.OpnIface:
    """Return an interface as the contract has it."""
    return opn.OpnIface(
        name=one.name,
        status=one.status,
        device=one.device or None,
        description=one.description or None,
        addresses=one.addresses,
        rx_bytes=one.received_bytes,
        tx_bytes=one.sent_bytes,
    )


def find_firewall(firewalls: Firewalls, name: str) -> WatchedFirewall:
    """Return the firewall with this id or name. Raises Refusal (not_found, conflict) with those that may be
    meant."""
    watched = firewalls.all()
    found = [one for one in watched if name == one.firewall.id] or [
        one for one in watched if name == one.firewall.name
    ]
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(f"{one.firewall.id} ({one.firewall.source})" for one in found)
        raise Refusal("conflict", f"{len(found)} firewalls are named {name[:64]!r}", hint=f"say an id: {ids}")
    names = [one.firewall.name for one in watched]
    hint = spelling_hint(name, names) or (
        f"there are: {', '.join(names[:20])}" if names else "none is watched: POST /opn/add, or --inventory"
    )
    raise Refusal("not_found", f"there is no firewall {name[:64]!r}", hint=hint)
