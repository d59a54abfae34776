"""/opn/*: the registered firewalls and those of the inventory, read-only (SPEC.md, 2.4)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from fazai.daemon.events.announcer import AUDIT
from fazai.daemon.firewalls.asking import ROUTE_S, ask_firewall, interface_item, read_metrics
from fazai.daemon.firewalls.poller import WatchedFirewall
from fazai.daemon.http.refusal import Refusal
from fazai.daemon.http.routing import Route, RouteCall
from fazai.errors import SecretError
from fazai.providers.opnsense.api.client import Api
from fazai.providers.opnsense.api.vitals import read_health, read_interfaces
from fazai.timestamps import timestamp
from fazai.wire import opn

T = TypeVar("T")


@Route(
    "POST",
    "/opn/add",
    "Register a firewall.",
    role="admin",
    codes=("conflict", "unavailable"),
    timeout_s=ROUTE_S,
)
async def add_firewall(call: RouteCall, body: opn.OpnAddBody) -> opn.OpnAddedAnswer:
    """Store a firewall and ask it. It is stored whether or not it answers: `tested` says which. Raises
    Refusal."""
    firewalls = call.services.firewalls
    try:
        seen = await firewalls.add(body)
    except SecretError as error:
        raise Refusal("unavailable", error.message, hint=error.hint) from None
    _audit(call, "registered, with its key,", seen)
    await firewalls.poll_now(seen)
    if seen.last is not None or seen.vitals is None:
        return opn.OpnAddedAnswer(id=seen.firewall.id, tested=False, info=None)
    info = {"version": seen.vitals.version, "hostname": seen.vitals.hostname}
    return opn.OpnAddedAnswer(id=seen.firewall.id, tested=True, info=info)


@Route("GET", "/opn/list", "The firewalls that are watched.", timeout_s=ROUTE_S)
async def list_firewalls(call: RouteCall) -> opn.OpnListAnswer:
    """Return all firewalls that are watched."""
    return opn.OpnListAnswer(items=tuple(_firewall_item(seen) for seen in call.services.firewalls.all()))


def _firewall_item(seen: WatchedFirewall) -> opn.OpnItem:
    record = seen.record
    error = None
    if seen.firewall.wrong is not None:
        error = opn.OpnLastError(when=timestamp(record.updated), message=seen.firewall.wrong)
    elif record.last_error is not None:
        when = timestamp(record.last_error_at or record.updated)
        error = opn.OpnLastError(when=when, message=record.last_error)
    return opn.OpnItem(
        id=record.id,
        name=record.name,
        base_url=record.base_url,
        verify_tls=record.verify_tls,
        tags=record.tags,
        created_at=timestamp(record.created),
        updated_at=timestamp(record.updated),
        last_seen=timestamp(record.last_seen),
        last_error=error,
        version=record.version,
    )


@Route(
    "POST",
    "/opn/{id}/remove",
    "Forget a registered firewall.",
    role="admin",
    codes=("conflict",),
    timeout_s=ROUTE_S,
)
async def remove_firewall(call: RouteCall) -> opn.OpnInfoAnswer:
    """Forget a registered firewall. Raises Refusal (not_found, conflict)."""
    seen = call.services.firewalls.get(call.path["id"])
    await call.services.firewalls.remove(call.path["id"])
    _audit(call, "removed, and its key,", seen)
    return opn.OpnInfoAnswer(info={"removed": call.path["id"]})


def _audit(call: RouteCall, what: str, seen: WatchedFirewall) -> None:
    name, id_ = seen.firewall.name, seen.firewall.id
    text = f"firewall {name} was {what} by {call.who.name}"
    call.services.log.say("info", text, logger=AUDIT, agent_id=id_, target=name)


@Route("GET", "/opn/{id}/health", "What it says of itself.", codes=("device_error",), timeout_s=ROUTE_S)
async def show_firewall_health(call: RouteCall) -> opn.OpnInfoAnswer:
    """Ask the firewall what it says of itself. Raises Refusal (not_found, device_error, timeout)."""
    return opn.OpnInfoAnswer(info=await ask_watched(call, read_health))


@Route("GET", "/opn/{id}/interfaces", "Its interfaces.", codes=("device_error",), timeout_s=ROUTE_S)
async def list_interfaces(call: RouteCall) -> opn.OpnInterfacesAnswer:
    """Ask the firewall for its interfaces. Raises Refusal (not_found, device_error, timeout)."""
    found = await ask_watched(call, read_interfaces)
    return opn.OpnInterfacesAnswer(data=tuple(map(interface_item, found)))


async def ask_watched(call: RouteCall, work: Callable[[Api], Awaitable[T]]) -> T:
    """Let `work` ask the firewall that the path names. Raises Refusal."""
    firewalls = call.services.firewalls
    return await ask_firewall(firewalls, firewalls.get(call.path["id"]), work)


@Route("GET", "/opn/{id}/metrics", "Its figures.", codes=("device_error",), timeout_s=ROUTE_S)
async def show_firewall_metrics(call: RouteCall) -> opn.OpnMetricsAnswer:
    """Return the figures of the last round, else of one made now. Raises Refusal (not_found,
    device_error)."""
    firewalls = call.services.firewalls
    return opn.OpnMetricsAnswer(data=await read_metrics(firewalls, firewalls.get(call.path["id"])))


ROUTES = (
    *(add_firewall, list_firewalls, remove_firewall),
    *(show_firewall_health, list_interfaces, show_firewall_metrics),
)
