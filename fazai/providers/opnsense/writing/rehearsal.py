"""A trial of the changes of one kind: one call in which the firewall judges all of them and saves none.

`set` of a whole model is all or nothing: with one item that is wrong, the firewall answers what it has
against every item and stores nothing, not even an entry in its history (recorded for the kinds below). So
every item of a trial is made wrong on purpose, in one field whose own check is local ("2" is no boolean).
Where `set` is that of one item, the item's own call takes it, as wrong. docs/adr/0018 says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fazai.errors import DeviceError, FazaiError, Unreachable
from fazai.model import Change, Value, Verb
from fazai.providers.opnsense.api.answers import validations_of
from fazai.providers.opnsense.api.calls import ApiCall
from fazai.providers.opnsense.api.client import Api
from fazai.providers.opnsense.catalogue.contradictions import kinds_named, names_in
from fazai.providers.opnsense.catalogue.kinds import CatalogueKind, names_of
from fazai.providers.opnsense.catalogue.ownership import add_mark
from fazai.providers.opnsense.catalogue.table import FieldRow
from fazai.providers.opnsense.planning.diffing import Unresolved, resolve_references
from fazai.providers.opnsense.planning.snapshot import Keys
from fazai.providers.opnsense.writing.bodies import nest_fields, nest_under, rejection_error

TRIAL_ITEMS = 100  # in one call
_NEVER = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True, slots=True)
class Trial:
    """A call that judges items of a kind below `tree`; `wrongs` are fields with texts that are never right.

    `each`: one item in one call, under its uuid, and wrong in two fields. `new`: only new items.
    """

    path: str
    tree: str
    wrongs: Mapping[str, str]
    each: bool = False
    new: bool = False


#: `set` of users and groups is that of one item, and the calls of one VLAN and one virtual address do more
#: than their model's. That of a virtual address that is there notes its removal before it judges: no trial.
TRIALS: Mapping[str, Trial] = {
    "alias": Trial("firewall/alias/set", "alias.aliases.alias", {"enabled": "2"}),
    "category": Trial("firewall/category/set", "category.categories.category", {"auto": "2"}),
    "interface_group": Trial("firewall/group/set", "group.ifgroupentry", {"nogroup": "2"}),
    "rule": Trial("firewall/filter/set", "filter.rules.rule", {"enabled": "2"}),
    "source_nat": Trial("firewall/filter/set", "filter.snatrules.rule", {"enabled": "2"}),
    "one_to_one": Trial("firewall/one_to_one/set", "filter.onetoone.rule", {"enabled": "2"}),
    "npt": Trial("firewall/npt/set", "filter.npt.rule", {"enabled": "2"}),
    "dnat": Trial("firewall/d_nat/set", "DNat.rule", {"disabled": "2"}),
    "gateway": Trial("routing/settings/set", "gateways.gateway_item", {"disabled": "2"}),
    "route": Trial("routes/routes/set", "route.route", {"enabled": "2"}),
    "unbound_host": Trial("unbound/settings/set", "unbound.hosts.host", {"enabled": "2"}),
    "unbound_alias": Trial("unbound/settings/set", "unbound.aliases.alias", {"enabled": "2"}),
    "unbound_forward": Trial("unbound/settings/set", "unbound.dots.dot", {"enabled": "2"}),
    "unbound_dot": Trial("unbound/settings/set", "unbound.dots.dot", {"enabled": "2"}),
    "unbound_acl": Trial("unbound/settings/set", "unbound.acls.acl", {"enabled": "2"}),
    "shaper_pipe": Trial("trafficshaper/settings/set", "ts.pipes.pipe", {"enabled": "2"}),
    "cron_job": Trial("cron/settings/set", "job.jobs.job", {"enabled": "2"}),
    "syslog_destination": Trial("syslog/settings/set", "syslog.destinations.destination", {"enabled": "2"}),
    "kea_subnet": Trial("kea/dhcpv4/set", "dhcpv4.subnets.subnet4", {"option_data_autocollect": "2"}),
    "dnsmasq_host": Trial("dnsmasq/settings/set", "dnsmasq.hosts", {"local": "2"}),
    "monit_service": Trial("monit/settings/set", "monit.service", {"enabled": "2"}),
    "monit_test": Trial("monit/settings/set", "monit.test", {"type": "zz_none"}),
    "kea_reservation": Trial(
        "kea/dhcpv4/set", "dhcpv4.reservations.reservation", {"next_server": "zz bad !"}
    ),
    "ids_user_rule": Trial("ids/settings/set", "ids.userDefinedRules.rule", {"enabled": "2"}),
    "ids_policy": Trial("ids/settings/set", "ids.policies.policy", {"enabled": "2"}),
    "captive_portal_zone": Trial("captiveportal/settings/set", "zone.zones.zone", {"enabled": "2"}),
    "vlan": Trial("interfaces/vlan_settings/setItem", "vlan", {"pcp": "9", "proto": "zz_none"}, each=True),
    "vip": Trial(
        "interfaces/vip_settings/setItem", "vip", {"noexpand": "2", "nobind": "2"}, each=True, new=True
    ),
    "user": Trial("auth/user/set", "user", {"disabled": "2", "language": "zz_none"}, each=True),
    "group": Trial(
        "auth/group/set", "group", {"source_networks": "zz bad !", "description": "two\nlines"}, each=True
    ),
}

#: Types of fields that are judged by themselves, whatever the item names beside them.
_BY_ITSELF = frozenset(
    ("Boolean", "Integer", "Numeric", "Option", "StrictText", "Description", "Hostname", "MacAddress", "Tos")
)


async def rehearse_changes(
    api: Api,
    kinds: Mapping[str, CatalogueKind],
    changes: Sequence[Change],
    *,
    keys: Callable[[FieldRow], Keys],
    along: Callable[[CatalogueKind, Change], Mapping[str, str]],
    owner: str,
) -> list[FazaiError]:
    """Ask the firewall for its objections to these changes, in one call for each kind (or item).

    A single change is not tried: its refusal leaves nothing to take back. `along` returns what a write sends
    besides. A firewall that does not take part in the trial (a privilege, a release) judges the writes
    themselves. Raises Unreachable.
    """
    found: list[FazaiError] = []
    if len(changes) < 2:
        return found
    coming = coming_names(kinds, changes)
    for name, kind in kinds.items():
        trial = TRIALS.get(kind.row.short)
        if trial is None:
            continue
        verbs = (Verb.CREATE,) if trial.new else (Verb.CREATE, Verb.UPDATE)
        tried = [c for c in changes if c.kind == name and c.verb in verbs]
        at_once = 1 if trial.each else TRIAL_ITEMS
        for start in range(0, len(tried), at_once):
            part = tried[start : start + at_once]
            items = {c.ref: _trial_item(kind, trial, c, coming, keys, owner) for c in part}
            if trial.each:
                items = {c.ref: {**nest_fields(along(kind, c)), **items[c.ref]} for c in part}
            else:
                items[_NEVER] = _never_right_item(kind)
            against = await _ask_for_objections(api, kind, trial, items)
            for change, wrong in find_objections(kind, trial, part, against, coming):
                prefixed = {f"{kind.row.root}.{field}": texts for field, texts in wrong.items()}
                found.append(rejection_error(api.settings.target, kind, change, prefixed))
    return found


async def _ask_for_objections(
    api: Api, kind: CatalogueKind, trial: Trial, items: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Any]:
    path, body = trial.path, items
    if trial.each:
        ((ref, body),) = items.items()
        path += f"/{ref}"
    call = ApiCall("POST", path, nest_under(trial.tree, body), privilege=kind.row.privilege)
    try:
        answer = await api.call(call)
    except Unreachable as error:
        if error.stage != "answer":
            raise
        return {}
    except DeviceError:
        return {}
    if isinstance(answer, dict) and answer.get("result") == "saved":
        raise DeviceError(
            "the firewall saved what it should have refused: "
            f"a trial of {max(1, len(items) - 1)} items of {kind.name}",
            where=api.settings.target,
            hint="look at its history (System > Configuration > History), and go back to the one before",
        )
    return validations_of(answer) or {}


def _trial_item(
    kind: CatalogueKind,
    trial: Trial,
    change: Change,
    coming: frozenset[tuple[str, str]],
    keys: Callable[[FieldRow], Keys],
    owner: str,
) -> Mapping[str, Any]:
    """Return the fields of a change as its write will send them, without unknown names, and one wrong."""
    texts: dict[str, str] = {}
    for name, value in change.after.items():
        row = kind.rows[name]
        if row.reference and _names_coming(row, value, coming):
            continue
        with suppress(Unresolved):
            texts[name] = resolve_references(row, value, keys(row))
    if kind.row.mark_field in texts and change.verb is Verb.CREATE:
        texts[kind.row.mark_field] = add_mark(texts[kind.row.mark_field], owner)
    return nest_fields({**texts, **trial.wrongs})


def _never_right_item(kind: CatalogueKind) -> Mapping[str, Any]:
    """Return an item with nothing right in it, so that a trial fails even without its wrong field.

    A release may not know the field in which the others are wrong.
    """
    return nest_fields({name: "zz bad !" for name, row in kind.rows.items() if not row.secret})


def coming_names(kinds: Mapping[str, CatalogueKind], changes: Sequence[Change]) -> frozenset[tuple[str, str]]:
    """Return kind and name of what these changes create, as other items may call it."""
    return frozenset(
        (change.kind, name)
        for change in changes
        if change.verb is Verb.CREATE
        for name in names_of(kinds[change.kind], change.identity, change.after)
    )


def _names_coming(row: FieldRow, value: Value, coming: frozenset[tuple[str, str]]) -> bool:
    return any(
        (named, name) in coming or (named, name.lower()) in coming
        for named in kinds_named(row)
        for name in names_in(value)
    )


def find_objections(
    kind: CatalogueKind,
    trial: Trial,
    changes: Sequence[Change],
    answer: Mapping[str, Any],
    coming: frozenset[tuple[str, str]],
) -> Iterator[tuple[Change, dict[str, Any]]]:
    """Yield the firewall's objections to each change, by field, without those about names to come."""
    found: dict[str, dict[str, Any]] = {}
    for key, texts in answer.items():
        if key.startswith(f"{trial.tree}."):
            ref, field = changes[0].ref, key.removeprefix(f"{trial.tree}.")
            if not trial.each:
                ref, _, field = field.partition(".")
            found.setdefault(ref, {})[field] = texts
    told = [(changes[0], found.get(changes[0].ref, {}))] if trial.each else _attribute_answers(changes, found)
    for change, against in told:
        tied = {name for name, value in change.after.items() if _names_coming(kind.rows[name], value, coming)}
        wrong = {
            name: texts
            for name, texts in against.items()
            if name not in trial.wrongs and _is_relevant(kind, change, name, tied)
        }
        if wrong:
            yield change, wrong


def _attribute_answers(
    changes: Sequence[Change], found: Mapping[str, dict[str, Any]]
) -> Iterable[tuple[Change, dict[str, Any]]]:
    """Pair changes with answers: new items get other uuids, and stand in the order of sending."""
    known = {change.ref for change in changes if change.verb is not Verb.CREATE}
    strange = [ref for ref in found if ref not in known]
    made = [change for change in changes if change.verb is Verb.CREATE]
    pairs = [(change, found[change.ref]) for change in changes if change.ref in found and change.ref in known]
    if len(strange) == len(made) + 1:  # the last one is that which is never right
        pairs += [(change, found[ref]) for change, ref in zip(made, strange, strict=False)]
    return pairs


def _is_relevant(kind: CatalogueKind, change: Change, name: str, tied: set[str]) -> bool:
    """Return whether a write would be refused for this, too; `tied` name items to come."""
    row: FieldRow | None = kind.rows.get(name)
    if row is None:
        return False  # what only the call for one item fills in (a pipe's number)
    if not tied:
        return True
    alone = row.api in _BY_ITSELF or bool(kinds_named(row))
    return alone and name in change.after and name not in tied
