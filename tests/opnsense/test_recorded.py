"""Rows as the firewall recorded them, read with our catalogue; skipped where the recordings are not
present.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from fazai.model import Secret
from fazai.providers.opnsense.catalogue.rows import SERVICES
from fazai.providers.opnsense.catalogue.table import service_order
from fazai.providers.opnsense.planning.snapshot import Collection, Snapshot, row_of_answer
from fazai.providers.opnsense.provider import PROVIDER
from tests.opnsense.helpers import recorded, recordings

KINDS = PROVIDER.kinds
pytestmark = pytest.mark.recorded
FILES = {
    "alias": "firewall_alias.json",
    "category": "firewall_category.json",
    "rule": "firewall_filter.json",
    "interface_group": "firewall_group.json",
    "source_nat": "firewall_source_nat.json",
    "one_to_one": "firewall_one_to_one.json",
    "npt": "firewall_npt.json",
    "dnat": "firewall_d_nat.json",
    "unbound_host": "unbound_settings.json",
    "unbound_alias": "unbound_settings.json",
    "unbound_forward": "unbound_settings.json",
    "unbound_acl": "unbound_settings.json",
    "route": "routes_routes.json",
    "gateway": "routing_settings.json",
    "vlan": "interfaces_vlan_settings.json",
    "vip": "interfaces_vip_settings.json",
    "cron_job": "cron_settings.json",
    "syslog_destination": "syslog_settings.json",
    "kea_subnet": "kea_dhcpv4.json",
    "kea_reservation": "kea_dhcpv4.json",
    "dnsmasq_host": "dnsmasq_settings.json",
    "monit_service": "monit_settings.json",
    "monit_test": "monit_settings.json",
    "user": "auth.json",
    "group": "auth.json",
    "shaper_pipe": "trafficshaper_settings.json",
}


def searches(short: str) -> Iterator[Collection]:
    kind = KINDS[f"opnsense.{short}"]
    path = f"/api/{kind.row.path}/{kind.row.verbs.search}"
    for record in recorded(FILES[short]):
        if record["path"] == path and isinstance(record["response"], dict) and record["response"].get("rows"):
            yield Collection.of(kind, record["response"]["rows"], "fazai")


@pytest.mark.parametrize("short", FILES)
def test_every_managed_field_is_in_the_recorded_rows(short: str) -> None:
    found = [collection for collection in searches(short) if collection.rows]
    assert found
    for collection in found:
        for ref, row in collection.rows.items():
            lacking = [
                field.name
                for field in collection.kind.rows.values()
                if (field.source or field.name) not in row
            ]
            assert lacking == []
            assert collection.label(row)
            assert ref


@pytest.mark.parametrize("short", FILES)
def test_recorded_values_are_already_canonical(short: str) -> None:
    """What a firewall holds, read and declared as it is, is accepted and is no change."""
    for collection in searches(short):
        snapshot = Snapshot({collection.kind.name: collection})
        for row in collection.rows.values():
            values = {
                name: snapshot.value(collection, row, field) for name, field in collection.kind.rows.items()
            }
            given = {name: value for name, value in values.items() if value not in ("", ())}
            found, problems = collection.kind.normalise(given, "absent")
            assert [problem for problem in problems if problem.field != "content"] == []
            assert found == given
            identity = collection.kind.identify(given)
            if not collection.kind.row.mark_field and collection.label(row):
                assert identity == collection.label(row)


def test_automatic_rows_are_left_out() -> None:
    for short in ("rule", "source_nat", "dnat"):
        for collection in searches(short):
            assert not any(row.get("is_automatic") for row in collection.rows.values())


def test_items_read_one_by_one_equal_their_rows() -> None:
    kind = KINDS["opnsense.source_nat"]
    rows = {ref: row for collection in searches("source_nat") for ref, row in collection.rows.items()}
    compared = 0
    for record in recorded(FILES["source_nat"]):
        ref = record["path"].rpartition("/")[2]
        if "/getRule/" in record["path"] and ref in rows and record["name"] == "getRule after update":
            item = row_of_answer(record["response"], "rule", ref)
            assert item is not None
            assert {name: item[name] for name in kind.rows} == {name: rows[ref][name] for name in kind.rows}
            compared += 1
    assert compared


def test_unknown_items_are_none() -> None:
    assert row_of_answer([], "rule", "x") is None
    assert row_of_answer({"alias": {}}, "alias", "x") is None


def test_secrets_of_recorded_rows_are_secrets() -> None:
    for collection in searches("user"):
        snapshot = Snapshot({collection.kind.name: collection})
        for row in collection.rows.values():
            assert isinstance(snapshot.value(collection, row, collection.kind.rows["password"]), Secret)


def test_controllers_and_actions_exist() -> None:
    endpoints: dict[str, dict[str, Any]] = json.loads((recordings() / "endpoints.json").read_text())
    for kind in KINDS.values():
        if kind.row.short == "unbound_dot":
            continue  # the first recording did not list its verbs; the lab replays the second one's
        if kind.row.any_path:
            continue  # the resource names the controller
        actions = {action.partition("/")[0] for action in _actions(endpoints[kind.row.path])}
        assert set(kind.row.verbs) <= actions, kind.name
    for service in SERVICES:
        controller, _, action = service.path.rpartition("/")
        assert action in {name.partition("/")[0] for name in _actions(endpoints[controller])}
    for kind in KINDS.values():
        assert not kind.row.service or service_order(kind.row.service) < len(SERVICES)


def _actions(entry: Any) -> list[str]:
    found = entry.get("actions", entry) if isinstance(entry, dict) else entry
    return [action if isinstance(action, str) else action["name"] for action in found]
