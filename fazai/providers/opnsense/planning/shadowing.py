"""Finds rules that can never match: one in front of them decides about all that they are for. Pure.

The firewall takes the first quick rule that matches. A rule of the list that stands behind a rule of others
which matches all of its traffic, and decides otherwise, has no effect, though it is stored and running.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from fazai.model import Secret, Value
from fazai.providers.opnsense.catalogue.kinds import CatalogueKind
from fazai.providers.opnsense.catalogue.values import to_api
from fazai.providers.opnsense.planning.diffing import KindDiff, PlannedItem
from fazai.providers.opnsense.planning.placing import SEQUENCE, number_of
from fazai.providers.opnsense.planning.snapshot import ItemRow, Snapshot, cell_text

_TCP_AND_ICMP = ("icmptype", "icmp6type", "tcpflags1", "tcpflags2")
#: Fields that narrow a rule beside its addresses: one that has any of them matches less than it seems to.
_CONDITIONS = (*_TCP_AND_ICMP, "sched", "tagged", "tos", "prio", "max-pkt-rate-number")
#: With more rules than this for a port, only those to any destination count: the others take little.
_MOST = 300
_SAID = 20  # sentences of one run
_INTERFACES = 8  # of a rule for more of them the parts are not looked at
#: Values of a field that stand for several: what these are called, and what they are.
_PARTS: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "direction": {"any": {"incoming": "in", "outgoing": "out"}},
    "ipprotocol": {"inet46": {"IPv4": "inet", "IPv6": "inet6"}},
    "protocol": {"tcp/udp": {"TCP": "TCP", "UDP": "UDP"}},
    "interface": {},
}
_SOURCE = ("source_net", "source_not", "source_port")
_DESTINATION = ("destination_net", "destination_not", "destination_port")
_EVALUATION = ("enabled", "action", "quick", SEQUENCE)
_TRAFFIC = ("interfacenot", "interface", "direction", "ipprotocol", "protocol")
_FIELDS = (*_EVALUATION, *_TRAFFIC, *_SOURCE, *_DESTINATION, *_CONDITIONS)


@dataclass(frozen=True, slots=True)
class _Rule:
    """A rule as it will stand on the firewall, in the API's texts."""

    name: str
    order: str  # as the firewall sorts them
    texts: Mapping[str, str]
    built_in: bool = False
    place: int = -1  # in the list
    maker: str = ""  # of one that is not in the list

    def has(self, name: str) -> bool:
        return self.texts.get(name, "") not in ("", "0")

    @property
    def interfaces(self) -> frozenset[str]:
        return frozenset(part for part in self.texts.get("interface", "").split(",") if part)

    @property
    def passes(self) -> bool:
        return self.texts.get("action", "") in ("pass", "")


_Groups = Mapping[str, tuple[int, frozenset[str]]]  # interface groups: sequence and members


def find_shadowed(kind: CatalogueKind, snapshot: Snapshot, result: KindDiff, target: str) -> list[str]:
    """Return a sentence for each rule of the list that another one keeps from matching, at least in part."""
    collection = snapshot.collections[kind.name]
    groups = _interface_groups(snapshot)
    moved = {c.ref: str(c.after[SEQUENCE]) for c in result.changes if SEQUENCE in c.after}
    gone = {item.ref for item in result.items} | result.leaving
    labels = _interface_labels(collection.rows.values())
    fronts = [
        *(
            replace(
                _rule_of_row(row, collection.label(row), groups, moved.get(ref)), maker=collection.maker(ref)
            )
            for ref, row in collection.rows.items()
            if ref not in gone
        ),
        *(_rule_of_built_in(row, labels) for row in collection.automatic),
    ]
    rules = [
        replace(_rule_of_item(kind, item, groups, moved.get(item.ref)), place=place)
        for place, item in enumerate(result.items)
    ]
    fronts += _find_overtaking(rules)
    by_port: dict[tuple[bool, str], list[_Rule]] = {}
    for front in fronts:
        if front.has("enabled"):
            port = front.texts["destination_port"].lower()
            by_port.setdefault((front.passes, "" if "-" in port else port), []).append(front)
    found: list[str] = []
    for rule in rules if by_port else ():
        if rule.has("enabled"):
            port = rule.texts["destination_port"].lower()
            others = [*by_port.get((not rule.passes, ""), ())]
            others += by_port.get((not rule.passes, port), ()) if port else ()
            ahead, what = _find_in_front(others, rule, groups)
            if ahead is not None:
                found.append(_shadow_sentence(kind, target, rule, ahead, what))
    if len(found) > _SAID:
        found[_SAID:] = [f"{len(found) - _SAID} more of {kind.name} never match on {target}"]
    return found


def _find_overtaking(rules: Sequence[_Rule]) -> list[_Rule]:
    """Return the rules of the list that the firewall puts before one that is listed ahead of them."""
    found = []
    last = ""
    for rule in rules:
        if rule.order < last:
            found.append(rule)
        last = max(last, rule.order)
    return found


def _find_in_front(fronts: Sequence[_Rule], rule: _Rule, groups: _Groups) -> tuple[_Rule | None, str]:
    """Return the first rule that takes what this one is for, and what part of it where that is not all.

    Of a rule that blocks, each half is looked at: that of two families is as open as either of them.
    """
    ahead = _first_in_front(fronts, rule, groups)
    halves = _split_rule(rule) if ahead is None and not rule.passes and fronts else []
    taken = [(name, front) for name, half in halves if (front := _first_in_front(fronts, half, groups))]
    if not taken:
        return ahead, ""
    said = "" if len(taken) == len(halves) else ", ".join(name for name, _ in taken)
    return min((front for _, front in taken), key=lambda front: front.order), said


def _split_rule(rule: _Rule) -> list[tuple[str, _Rule]]:
    """Return the parts of a rule that is for several directions, families, protocols or interfaces."""
    parts = [("", rule)]
    for field, split in _PARTS.items():
        values = split.get(rule.texts[field].lower(), {})
        if field == "interface" and not rule.has("interfacenot") and 1 < len(rule.interfaces) <= _INTERFACES:
            values = {name: name for name in sorted(rule.interfaces)}
        if values:
            parts = [
                (f"{said} {name}".strip(), replace(part, texts={**part.texts, field: value}))
                for said, part in parts
                for name, value in values.items()
            ]
    return parts if len(parts) > 1 else []


def _first_in_front(fronts: Sequence[_Rule], rule: _Rule, groups: _Groups) -> _Rule | None:
    """Return the first rule that takes all that this one is for."""
    if len(fronts) > _MOST:
        fronts = [front for front in fronts if front.texts["destination_net"] in ("any", "")]
    return next((f for f in fronts if _decides_before(f, rule) and _covers_rule(f, rule, groups)), None)


def _decides_before(front: _Rule, rule: _Rule) -> bool:
    """Return whether the firewall goes by `front` where both match.

    The first quick rule decides, else the last one. Of two with one sequence it is not known which stands
    first; the worse is taken.
    """
    if front.place >= 0:  # of the list: as it is written where the firewall keeps that order
        return (
            front.has("quick") and rule.has("quick") and rule.place < front.place and front.order < rule.order
        )
    if rule.has("quick"):
        return front.has("quick") and front.order <= rule.order
    return front.has("quick") or front.order >= rule.order


def _shadow_sentence(kind: CatalogueKind, target: str, rule: _Rule, front: _Rule, what: str) -> str:
    does = "passes" if front.passes else "blocks"
    does += " that" if what else " all that it is for"
    said = f'{kind.name} "{rule.name}" never matches{what and f" {what}"} on {target}'
    stands = "stands in front of it" if rule.has("quick") else "goes before a rule that is not quick"
    if front.built_in:
        return f'{said}: the rule "{front.name}", which is not one of the API\'s, {stands} and {does}'
    if front.place >= 0:
        return (
            f'{said}: "{front.name}", which is listed behind it, stands in front of it there and {does}:'
            " rules of several or no interfaces come first, then those of groups, then those of one interface"
        )
    said += f': "{front.name}", {front.maker}, {stands} and {does}'
    if not rule.has("quick"):
        return said
    if front.order == rule.order:
        said += f": both have the sequence {rule.texts[SEQUENCE]}"
    return f'{said}; say where the list belongs: place: {{{kind.name}: {{before: "{front.name}"}}}}'


def _interface_groups(snapshot: Snapshot) -> _Groups:
    """Return sequence and members of each interface group."""
    collection = snapshot.collections.get("opnsense.interface_group")
    rows: Iterable[ItemRow] = collection.rows.values() if collection is not None else ()
    return {
        cell_text(row, "ifname"): (
            number_of(row) or 0,
            frozenset(part for part in cell_text(row, "members").split(",") if part),
        )
        for row in rows
    }


def _sort_order(texts: Mapping[str, str], groups: _Groups) -> str:
    """Return the sort key: floating rules first, then those of groups, then those of one interface."""
    names = [part for part in texts.get("interface", "").split(",") if part]
    number = number_of(texts) or 0
    if len(names) != 1 or texts.get("interfacenot") == "1":
        group = 200_000
    else:
        group = 300_000 + groups[names[0]][0] if names[0] in groups else 400_000
    return f"{group:06d}.{number:07d}"


def _rule_of_row(row: ItemRow, name: str, groups: _Groups, sequence: str | None) -> _Rule:
    texts = {field: cell_text(row, field) for field in _FIELDS}
    if sequence is None:
        return _Rule(name, cell_text(row, "sort_order") or _sort_order(texts, groups), texts)
    texts[SEQUENCE] = sequence
    head = cell_text(row, "prio_group")
    return _Rule(name, f"{head}.{int(sequence):07d}" if head else _sort_order(texts, groups), texts)


def _rule_of_item(kind: CatalogueKind, item: PlannedItem, groups: _Groups, sequence: str | None) -> _Rule:
    """Return the rule that a wanted item will be: what is declared, what it has, its defaults."""
    row = item.row or {}
    texts = {}
    for name in _FIELDS:
        field = kind.rows[name]
        value: Value = item.declared(name)
        if value is None or isinstance(value, Secret):
            texts[name] = cell_text(row, name) if item.row is not None else field.default or ""
        else:
            texts[name] = to_api(field, value)
    if sequence is not None:
        texts[SEQUENCE] = sequence
    return _Rule(item.resource.identity, _sort_order(texts, groups), texts)


def _interface_labels(rows: Iterable[ItemRow]) -> dict[str, str]:
    """Return the names of interfaces by their label in rules that are not of the API."""
    found: dict[str, str] = {}
    for row in rows:
        name, shown = cell_text(row, "interface"), cell_text(row, "%interface")
        if name and shown and "," not in name:
            found[shown] = name
    return found


def _rule_of_built_in(row: ItemRow, labels: Mapping[str, str]) -> _Rule:
    """Return a rule that is no item of the API; such rules are quick unless they say otherwise."""
    texts = {field: cell_text(row, field) for field in _FIELDS}
    texts["quick"] = "0" if row.get("quick") is False else "1"
    names = [part for part in texts["interface"].split(",") if part]
    texts["interface"] = ",".join(labels.get(name, name.lower()) for name in names)
    for side in ("source_net", "destination_net"):
        texts[side] = texts[side] or "any"
    texts["protocol"] = texts["protocol"] or "any"
    texts["ipprotocol"] = texts["ipprotocol"] or "inet46"
    return _Rule(cell_text(row, "description"), cell_text(row, "sort_order"), texts, built_in=True)


def _covers_rule(front: _Rule, rule: _Rule, groups: _Groups) -> bool:
    """Return whether everything that `rule` is for matches `front`; False when in doubt. Cheapest first."""
    one, two = front.texts, rule.texts
    return (
        _covers_port(one["destination_port"], two["destination_port"])
        and _covers_port(one["source_port"], two["source_port"])
        and one["direction"] in ("any", two["direction"])
        and one["ipprotocol"] in ("inet46", two["ipprotocol"])
        and _covers_protocol(one["protocol"].lower(), two["protocol"].lower())
        and _covers_interfaces(front, rule, groups)
        and all(not one[name] or one[name] == two[name] for name in _CONDITIONS)
        and _covers_side(front, rule, "destination", frozenset())
        and _covers_side(front, rule, "source", _arriving_networks(rule))
    )


def _covers_interfaces(front: _Rule, rule: _Rule, groups: _Groups) -> bool:
    if front.has("interfacenot") or rule.has("interfacenot"):
        return front.interfaces == rule.interfaces and front.has("interfacenot") == rule.has("interfacenot")
    if not front.interfaces:
        return True
    reached = set(front.interfaces)
    for name in front.interfaces:
        if name in groups:
            reached |= groups[name][1]
    for name in rule.interfaces:
        members = groups[name][1] if name in groups else frozenset()
        if name not in reached and not (members and members <= reached):
            return False
    return bool(rule.interfaces)


def _covers_protocol(front: str, rule: str) -> bool:
    return front in ("any", rule) or (front == "tcp/udp" and rule in ("tcp", "udp"))


def _covers_port(front: str, rule: str) -> bool:
    if not front or front.lower() == rule.lower():
        return True
    if not rule or "-" not in front:
        return False
    (low, high), (first, last) = _port_range(front), _port_range(rule)
    return 0 < low <= first <= last <= high


def _port_range(port: str) -> tuple[int, int]:
    """Return a port or a range of ports as two numbers; (0, 0) for a name."""
    low, _, high = port.partition("-")
    high = high or low
    digits = low.isascii() and low.isdigit() and high.isascii() and high.isdigit()
    return (int(low), int(high)) if digits and len(port) < 20 else (0, 0)


def _arriving_networks(rule: _Rule) -> frozenset[str]:
    """Return the source that stands for all that comes in on a rule's one interface: its own network."""
    names = rule.interfaces
    return names if len(names) == 1 and rule.texts["direction"] == "in" else frozenset()


def _covers_side(front: _Rule, rule: _Rule, side: str, everything: frozenset[str]) -> bool:
    one, two = front.texts[f"{side}_net"], rule.texts[f"{side}_net"]
    if front.has(f"{side}_not"):
        return rule.has(f"{side}_not") and one == two
    if one in ("any", "") or one in everything:
        return True
    if rule.has(f"{side}_not"):
        return False
    return all(any(_is_within(part, whole) for whole in one.split(",")) for part in two.split(","))


def _is_within(part: str, whole: str) -> bool:
    if part == whole:
        return True
    try:
        inner, outer = ipaddress.ip_network(part, strict=False), ipaddress.ip_network(whole, strict=False)
    except ValueError:
        return False
    if isinstance(inner, ipaddress.IPv4Network) and isinstance(outer, ipaddress.IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, ipaddress.IPv6Network) and isinstance(outer, ipaddress.IPv6Network):
        return inner.subnet_of(outer)
    return False
