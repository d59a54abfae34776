"""/opn/{id}/rules, states, activity, log, vpn, firmware, services, backup: what a firewall says when it is
asked (SPEC.md, 2.4). Nothing here writes to it."""

from __future__ import annotations

import re

from fazai.daemon.events.announcer import AUDIT
from fazai.daemon.firewalls.asking import ROUTE_S
from fazai.daemon.firewalls.routes import ask_watched
from fazai.daemon.http.routing import HttpReply, Route, RouteCall, reply
from fazai.providers.opnsense.reading.activity import read_activity
from fazai.providers.opnsense.reading.backup import read_backup
from fazai.providers.opnsense.reading.filterlog import read_log
from fazai.providers.opnsense.reading.firmware import read_firmware
from fazai.providers.opnsense.reading.rules import read_rules
from fazai.providers.opnsense.reading.services import read_services
from fazai.providers.opnsense.reading.states import read_states
from fazai.providers.opnsense.reading.vpn import read_vpn
from fazai.timestamps import utc_now
from fazai.wire import opn

_XML = "application/xml"


@Route("GET", "/opn/{id}/rules", "Its filter rules.", codes=("device_error",), timeout_s=ROUTE_S)
async def list_rules(call: RouteCall, query: opn.OpnRulesQuery) -> opn.OpnRulesAnswer:
    """Ask the firewall for its rules. Raises Refusal (not_found, device_error, timeout)."""
    return await ask_watched(call, lambda api: read_rules(api, query))


@Route("GET", "/opn/{id}/states", "Its state table.", codes=("device_error",), timeout_s=ROUTE_S)
async def list_states(call: RouteCall, query: opn.OpnStatesQuery) -> opn.OpnStatesAnswer:
    """Ask the firewall for states of pf. Raises Refusal (not_found, device_error, timeout)."""
    return await ask_watched(call, lambda api: read_states(api, query))


@Route("GET", "/opn/{id}/activity", "Its busiest processes.", codes=("device_error",), timeout_s=ROUTE_S)
async def list_processes(call: RouteCall, query: opn.OpnActivityQuery) -> opn.OpnActivityAnswer:
    """Ask the firewall what runs on it. Raises Refusal (not_found, device_error, timeout)."""
    return await ask_watched(call, lambda api: read_activity(api, query))


@Route("GET", "/opn/{id}/log", "The log of its filter.", codes=("device_error",), timeout_s=ROUTE_S)
async def list_log(call: RouteCall, query: opn.OpnLogQuery) -> opn.OpnLogAnswer:
    """Ask the firewall for its filter log. Raises Refusal (not_found, device_error, timeout)."""
    return await ask_watched(call, lambda api: read_log(api, query))


@Route("GET", "/opn/{id}/vpn", "Its tunnels.", codes=("device_error",), timeout_s=ROUTE_S)
async def list_tunnels(call: RouteCall) -> opn.OpnVpnAnswer:
    """Ask the firewall for its tunnels. Raises Refusal (not_found, device_error, timeout)."""
    return await ask_watched(call, read_vpn)


@Route("GET", "/opn/{id}/firmware", "Its versions and updates.", codes=("device_error",), timeout_s=ROUTE_S)
async def show_firmware(call: RouteCall) -> opn.OpnFirmwareAnswer:
    """Ask the firewall for its firmware; no check for updates is started. Raises Refusal (not_found,
    device_error, timeout)."""
    return await ask_watched(call, read_firmware)


@Route("GET", "/opn/{id}/services", "Its services.", codes=("device_error",), timeout_s=ROUTE_S)
async def list_services(call: RouteCall) -> opn.OpnServicesAnswer:
    """Ask the firewall for its services. Raises Refusal (not_found, device_error, timeout)."""
    return await ask_watched(call, read_services)


@Route(
    "GET",
    "/opn/{id}/backup",
    "Its configuration, with all of its secrets.",
    role="admin",
    media=_XML,
    codes=("device_error", "overloaded"),
    timeout_s=ROUTE_S,
)
async def download_backup(call: RouteCall) -> None:
    """Send the configuration as a file, and note who took it. Raises Refusal (not_found, device_error,
    timeout, overloaded)."""
    seen = call.services.firewalls.get(call.path["id"])
    body = await ask_watched(call, read_backup)
    name, id_ = seen.firewall.name, seen.firewall.id
    call.services.bodies.hold("", len(body))  # it is in memory until the client has taken it
    try:
        text = f"the configuration of firewall {name}, with its secrets, was downloaded by {call.who.name}"
        call.services.log.say("info", text, logger=AUDIT, agent_id=id_, target=name)
        named = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:100]
        file = f"config-{named}-{utc_now():%Y%m%dT%H%M%SZ}.xml"
        disposition = (b"content-disposition", f'attachment; filename="{file}"'.encode())
        await reply(call.send, HttpReply(body, media=_XML, headers=(disposition,)))
    finally:
        call.services.bodies.release("", len(body))


ROUTES = (
    *(list_rules, list_states, list_processes, list_log),
    *(list_tunnels, show_firmware, list_services, download_backup),
)
