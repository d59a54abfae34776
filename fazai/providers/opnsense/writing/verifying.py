"""Asks the running state about changes; where it cannot tell, nothing is said.

A stopped service, a missing privilege, an empty table or an answer of another shape prove nothing. Of rules
and NAT the API tells nothing but counters, which say nothing of a rule that no packet has met yet.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from string import Formatter
from typing import Any

from fazai.errors import DeviceError, FazaiError, Unreachable, VerifyError
from fazai.model import Change, Verb
from fazai.providers.opnsense.api.client import Api
from fazai.providers.opnsense.catalogue.kinds import CatalogueKind
from fazai.providers.opnsense.planning.snapshot import ItemRow, Snapshot, cell_text, row_of_answer

_Check = Callable[[Api, Snapshot, Sequence[Change]], Awaitable[Iterable[FazaiError]]]


@dataclass(frozen=True, slots=True)
class _RunningState:
    """The answer that tells what runs of a kind, and how items are found in it.

    `read` returns keys from the answer; `key` returns that of an item, None where nothing can be told.
    `message` names fields of the item in braces. `switch`: a field, and its value where an item is on.
    """

    path: str
    read: Callable[[Any], Iterable[Hashable]]
    key: Callable[[Change, ItemRow], Hashable]
    message: str
    hint: str | None = None
    switch: tuple[str, str] | None = ("enabled", "1")


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
    seen: Snapshot, changes: Sequence[Change], switch: tuple[str, str] | None
) -> Iterable[tuple[Change, ItemRow]]:
    """Yield the changes whose item is switched on, with the row that was read back."""
    for change in changes:
        row = seen.collections[change.kind].rows.get(change.ref)
        if row is not None and (switch is None or cell_text(row, switch[0]) == switch[1]):
            yield change, row


def _verify_error(change: Change, message: str, hint: str | None = None) -> VerifyError:
    return VerifyError(message, where=change.mark or change.where, hint=hint)


def _fill_message(message: str, change: Change, row: ItemRow) -> str:
    """Return the message with the fields of the item; one that the firewall left out is empty."""
    cells = {name: cell_text(row, name) for _, name, _, _ in Formatter().parse(message) if name}
    return message.format_map({**cells, "identity": change.identity})


async def _check_running(
    state: _RunningState, api: Api, seen: Snapshot, changes: Sequence[Change]
) -> Iterable[FazaiError]:
    """Check that what is switched on is among what runs."""
    running = set(state.read(await api.get(state.path)))
    if not running:
        return []
    return [
        _verify_error(change, _fill_message(state.message, change, row), state.hint)
        for change, row in _enabled_rows(seen, changes, state.switch)
        if (key := state.key(change, row)) is not None and key not in running
    ]


async def _check_aliases(api: Api, seen: Snapshot, changes: Sequence[Change]) -> Iterable[FazaiError]:
    """Check that the tables of host and network aliases with plain addresses are not empty."""
    kind = seen.collections["opnsense.alias"].kind.row
    told = [
        change
        for change, row in _enabled_rows(seen, changes, ("enabled", "1"))
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


def _listed_rows(answer: Any, name: str = "") -> Iterable[Mapping[str, Any]]:
    """Yield the rows of an answer, or of the list under a name in it; none where there is no such list."""
    if name:
        answer = answer.get(name) if isinstance(answer, Mapping) else None
    return (row for row in answer if isinstance(row, Mapping)) if isinstance(answer, list) else ()


def _record_key(name: Any, kind: str, value: Any) -> tuple[str, str, str]:
    """Return what a record of the resolver is known by: the value only where it is an address."""
    address = _normal_address(str(value)) if kind in ("A", "AAAA") else ""
    return str(name).strip(".").lower(), kind, address


def _host_key(change: Change, row: ItemRow) -> tuple[str, str, str] | None:
    name = f"{cell_text(row, 'hostname')}.{cell_text(row, 'domain')}".strip(".")
    return None if name.startswith("*") else _record_key(name, cell_text(row, "rr"), cell_text(row, "server"))


def _normal_address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text


def _normal_network(text: Any) -> str:
    try:
        return str(ipaddress.ip_network(str(text).partition("%")[0], strict=False))
    except ValueError:
        return str(text)


_CHECKS: Mapping[str, _Check] = {
    "opnsense.vlan": partial(
        _check_running,
        _RunningState(
            "diagnostics/interface/getInterfaceConfig",
            lambda answer: answer if isinstance(answer, Mapping) else (),
            lambda change, row: cell_text(row, "vlanif"),
            "the device {vlanif} does not exist",
            switch=None,
        ),
    ),
    "opnsense.gateway": partial(
        _check_running,
        _RunningState(
            "routes/gateway/status",
            lambda answer: (row.get("name") for row in _listed_rows(answer, "items")),
            lambda change, row: change.identity,
            'gateway "{identity}" is not among the running gateways',
            switch=("disabled", "0"),
        ),
    ),
    "opnsense.route": partial(
        _check_running,
        _RunningState(
            "diagnostics/interface/getRoutes",
            lambda answer: (_normal_network(row.get("destination", "")) for row in _listed_rows(answer)),
            lambda change, row: _normal_network(cell_text(row, "network")),
            "the route to {network} is not in the routing table",
            "is its gateway up, and on an interface that is up?",
        ),
    ),
    "opnsense.alias": _check_aliases,
    "opnsense.unbound_host": partial(
        _check_running,
        _RunningState(
            "unbound/diagnostics/listlocaldata",
            lambda answer: (
                _record_key(row.get("name"), str(row.get("rrtype", "")).upper(), row.get("value", ""))
                for row in _listed_rows(answer, "data")
            ),
            _host_key,
            'the running Unbound does not answer "{identity}"',
        ),
    ),
}


async def check_there(api: Api, kind: CatalogueKind, change: Change, ref: str) -> None:
    """Check that an item is still there before it is changed: the firewall would make another one of its
    defaults. Raises DeviceError."""
    path = f"{kind.row.path}/{kind.row.verbs.get}/{ref}"
    if row_of_answer(await api.get(path, privilege=kind.row.privilege), kind.row.root, ref) is None:
        target = api.settings.target
        text = f'"{change.identity}" was deleted on {target} since it was looked at'
        raise DeviceError(text, where=change.mark or change.where, hint="run it again: it looks first")


def calls_to_undo(kind: CatalogueKind, change: Change) -> int:
    """Return how many calls undo a change: two where what is there is looked at first."""
    if change.verb is Verb.DELETE:
        return 2 if kind.row.create == "add" else 1
    return 2 if kind.row.out_of_nothing and change.verb is not Verb.CREATE else 1
