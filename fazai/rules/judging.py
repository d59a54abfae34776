"""Says whether a plan does what event rules want, and nothing beside it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

from fazai.loop.effects import EffectChange
from fazai.rules.addresses import Address, parse_address

KIND = "opnsense.alias"
_CREATED = frozenset({"name", "type", "content", "description", "enabled"})


def explain_foreign_change(
    changes: Iterable[EffectChange],
    wanted: Mapping[str, Set[Address]],
    over: Mapping[str, Set[Address]],
) -> str | None:
    """Return the first thing in a plan that event rules did not ask for; None where there is none. `wanted`:
    the addresses that stand in each alias, `over`: those that stood in it once."""
    for change in changes:
        place = f"{change.target}/{change.kind}/{change.identity}"
        if change.kind != KIND or change.identity not in wanted:
            return f"{place} is no alias of an event rule"
        if change.verb not in ("create", "update"):
            return f"{place} would be changed by {change.verb}"
        known = _CREATED if change.verb == "create" else {"content"}
        if others := sorted({*change.before, *change.after} - known):
            return f"{place} would get another {others[0]}"
        if change.verb == "create" and change.after.get("type") not in ("host", None):
            return f"{place} would be of the type {change.after['type']}"
        before, after = _addresses(change.before), _addresses(change.after)
        if before is None or after is None:
            return f"{place} has other entries than addresses"
        if foreign := after - before - wanted[change.identity]:
            return f"{place} would get {min(foreign, key=str)}, which no event rule wants"
        if foreign := before - after - over.get(change.identity, set()):
            return f"{place} would lose {min(foreign, key=str)}, which no event rule put there"
    return None


def _addresses(fields: Mapping[str, Any]) -> set[Address] | None:
    """Return the entries of an alias; None where they are anything but addresses."""
    value = fields.get("content") or []
    rows = value.split("\n") if isinstance(value, str) else value
    if not isinstance(rows, list | tuple):
        return None
    found = [parse_address(str(row)) for row in rows]
    return {address for address in found if address is not None} if None not in found else None
