"""Asks the running state about changes; where it cannot tell, nothing is said.

A stopped service, a missing privilege, an empty table or an answer of another shape prove nothing. Of rules
and NAT the API tells nothing but counters, which say nothing of a rule that no packet has met yet.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from fazai.errors import DeviceError, FazaiError, Unreachable, VerifyError
from fazai.model import Change, Verb
from fazai.providers.opnsense.api.calls import ApiCall
from fazai.providers.opnsense.api.client import Api
from fazai.providers.opnsense.planning.snapshot import ItemRow, Snapshot, cell_text

_Check = Callable[[Api, Snapshot, Sequence[Change]], Awaitable[Iterable[FazaiError]]]


async def verify_changes(api: Api, seen: Snapshot, changes: Sequence[Change]) -> list[FazaiError]:
    """Return one error for each change that the running state contradicts, with one request per kind.

    `seen` is what was read back. Raises Unreachable when the firewall does not answer.
    """
    found: list[FazaiError] = []
    for kind, check in _CHECKS.items():
        made = [
            change for change in changes if change.kind == kind and change.verb in (Verb.CREATE, Verb.UPDATE)
        ]
        if made and kind in seen.collections:
            try:
                found.extend(await check(api, seen, made))
            except DeviceError:
                continue  # not allowed to look, or not there to be asked
            except Unreachable as error:
                if error.stage != "answer":
                    raise
    return found


def _enabled_rows(
    seen: Snapshot, changes: Sequence[Change], switch: str, on: str
) -> Iterable[tuple[Change, ItemRow]]:
    """Yield the changes whose item is switched on, with the row that was read back."""
    for change in changes:
        rows = seen.collections[change.kind].rows
        row = rows.get(change.ref)
        if row is not None and cell_text(row, switch) == on:
            yield change, row


def _verify_error(change: Change, message: str, hint: str | None = None) -> VerifyError:
    return VerifyError(message, where=change.mark or change.where, hint=hint)


async def _check_aliases(api: Api, seen: Snapshot, changes: Sequence[Change]) -> Iterable[FazaiError]:
    """Check that the tables of host and network aliases with plain addresses are not empty."""
    kind = seen.collections["opnsense.alias"].kind.row
    told = [
        change
        for change, row in _enabled_rows(seen, changes, "enabled", "1")
        if cell_text(row, "type") in ("host", "network")
        and any(_is_plain_network(entry) for entry in cell_text(row, "content").split("\n"))
    ]
    if not told:
        return []
    sizes = {
        row.get("uuid"): cell_text(row, "current_items")
        for row in await api.search(f"{kind.path}/{kind.verbs.search}")
    }
    return [
        _verify_error(
            change,
            f'the running packet filter holds nothing for alias "{change.identity}"',
            "its log (Firewall > Log Files) may say why it was not loaded",
        )
        for change in told
        if sizes.get(change.ref) == "0"
    ]


def _is_plain_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


async def _check_hosts(api: Api, seen: Snapshot, changes: Sequence[Change]) -> Iterable[FazaiError]:
    """Check that the running resolver has the record."""
    answer = await api.get("unbound/diagnostics/listlocaldata")
    data = answer.get("data") if isinstance(answer, Mapping) else None
    if not isinstance(data, list) or not data:
        return []
    records = {
        (_normal_name(record.get("name")), str(record.get("rrtype", "")).upper(), _record_value(record))
        for record in data
        if isinstance(record, Mapping)
    }
    found = []
    for change, row in _enabled_rows(seen, changes, "enabled", "1"):
        name, kind = (
            _normal_name(f"{cell_text(row, 'hostname')}.{cell_text(row, 'domain')}"),
            cell_text(row, "rr"),
        )
        value = _normal_address(cell_text(row, "server")) if kind in ("A", "AAAA") else ""
        if not name.startswith("*") and (name, kind, value) not in records:
            found.append(_verify_error(change, f'the running Unbound does not answer "{change.identity}"'))
    return found


def _normal_name(text: Any) -> str:
    return str(text).strip(".").lower()


def _record_value(record: Mapping[str, Any]) -> str:
    return _normal_address(str(record.get("value", ""))) if record.get("rrtype") in ("A", "AAAA") else ""


def _normal_address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text


async def _check_routes(api: Api, seen: Snapshot, changes: Sequence[Change]) -> Iterable[FazaiError]:
    """Check that the kernel has the route."""
    answer = await api.get("diagnostics/interface/getRoutes")
    table = answer if isinstance(answer, list) else []
    known = {_normal_network(str(row.get("destination", ""))) for row in table if isinstance(row, Mapping)}
    if not known:
        return []
    return [
        _verify_error(
            change,
            f"the route to {cell_text(row, 'network')} is not in the routing table",
            "is its gateway up, and on an interface that is up?",
        )
        for change, row in _enabled_rows(seen, changes, "enabled", "1")
        if _normal_network(cell_text(row, "network")) not in known
    ]


def _normal_network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text.partition("%")[0], strict=False))
    except ValueError:
        return text


async def _check_gateways(api: Api, seen: Snapshot, changes: Sequence[Change]) -> Iterable[FazaiError]:
    """Check that the gateway is among those that run."""
    answer = await api.get("routes/gateway/status")
    items = answer.get("items") if isinstance(answer, Mapping) else None
    names = (
        {item.get("name") for item in items if isinstance(item, Mapping)}
        if isinstance(items, list)
        else set()
    )
    if not names:
        return []
    return [
        _verify_error(change, f'gateway "{change.identity}" is not among the running gateways')
        for change, _ in _enabled_rows(seen, changes, "disabled", "0")
        if change.identity not in names
    ]


async def _check_vlans(api: Api, seen: Snapshot, changes: Sequence[Change]) -> Iterable[FazaiError]:
    """Check that the device is there."""
    answer = await api.call(ApiCall("GET", "diagnostics/interface/getInterfaceConfig"))
    devices = set(answer) if isinstance(answer, Mapping) else set()
    if not devices:
        return []
    rows = seen.collections["opnsense.vlan"].rows
    return [
        _verify_error(change, f"the device {cell_text(rows[change.ref], 'vlanif')} does not exist")
        for change in changes
        if change.ref in rows and cell_text(rows[change.ref], "vlanif") not in devices
    ]


_CHECKS: Mapping[str, _Check] = {
    "opnsense.vlan": _check_vlans,
    "opnsense.gateway": _check_gateways,
    "opnsense.route": _check_routes,
    "opnsense.alias": _check_aliases,
    "opnsense.unbound_host": _check_hosts,
}
