"""What a firewall holds, declared: nothing would change, no secret is among it, the bytes are the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings

from fazai.findings import Findings
from fazai.lab import LabFirewall, LabThread
from fazai.model import Resource
from fazai.providers.opnsense.catalogue.table import FieldRow
from fazai.providers.opnsense.planning.declaring import NO_ITEMS, Declared, declare_collection
from fazai.providers.opnsense.planning.snapshot import Collection, ItemRow, Snapshot
from fazai.providers.opnsense.provider import PROVIDER
from fazai.report.playbook import write_play, write_resource
from fazai.yamltext import loads_yaml
from tests.opnsense.catalogue.strategies import ALL_KINDS, Fields, several
from tests.opnsense.catalogue.test_properties import BASE, QUICK, many
from tests.opnsense.helpers import FakeClock, Start, apply, apply_in, plan, resource, run, session, target
from tests.opnsense.test_recorded import FILES, searches


def call_rows(firewall: LabFirewall, path: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = firewall.call("POST", f"/api/{path}", {})["rows"]
    return rows


def find(firewall: LabFirewall, *kinds: str) -> Findings:
    async def ask() -> Findings:
        async with session(target(firewall), FakeClock()) as work:
            return await work.find_items(kinds)

    return run(ask())


def text_of(found: Findings) -> str:
    return write_play("found", "fw-01", [write_resource(one.kind, one.fields) for one in found.items])


def read(found: Findings) -> list[Resource]:
    """The resources that the written playbook stands for; texts that hide templates are not rendered here."""
    plays: Any = loads_yaml(text_of(found), "found.yml")
    resources = [next(iter(entry.items())) for entry in plays[0]["resources"] or ()]
    assert [kind for kind, _ in resources] == [one.kind for one in found.items]
    return [resource(kind, fields) for kind, fields in resources]


def check_import(firewall: LabFirewall, *kinds: str, silent: bool = True) -> Findings:
    """Import, hold that applying it changes nothing, and that it is the same again."""
    found = find(firewall, *kinds)
    if silent:
        assert [one for one in found.left if one[1]] == []
    again = run(plan(target(firewall), read(found)))
    assert (again.steps, again.errors, again.refused) == ((), (), ())
    assert text_of(find(firewall, *kinds)) == text_of(found)
    return found


def test_a_fresh_firewall_is_imported_whole(start: Start) -> None:
    for release in ("26.7.2", "26.1.11"):
        firewall = start(release=release)
        found = check_import(firewall)
        assert {"opnsense.gateway", "opnsense.user"} <= {one.kind for one in found.items}
        rules = [one.kind for one in found.items].count("opnsense.rule")
        (others,) = (one[2] for one in found.left if one[0] == "opnsense.rule")
        assert rules == (2 if release == "26.7.2" else 0)
        listed = call_rows(firewall, "firewall/filter/searchRule")
        assert others == f"{len(listed) - rules} rules that {NO_ITEMS}"  # none is lost silently


def check_life(lab: LabThread, kind: str, made: Sequence[Fields]) -> None:
    firewall = lab.start(f"import-{kind.partition('.')[2].replace('_', '-')}")

    async def make() -> None:
        async with session(target(firewall, max_prune="100%", adopt=True), FakeClock()) as work:
            await apply_in(work, BASE)
            await apply_in(work, [*BASE, *many(kind, made)])

    run(make())
    found = check_import(firewall, kind)
    if kind != "opnsense.source_nat":  # hidden in its automatic mode
        assert len(found.items) >= len(made)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_whatever_was_declared_comes_back(lab: LabThread, kind: str) -> None:
    @QUICK
    @given(made=several(kind, PROVIDER.kinds[kind].identify))
    def holds(made: list[Fields]) -> None:
        check_life(lab, kind, made)

    holds()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_whatever_was_declared_comes_back_thoroughly(lab: LabThread, kind: str) -> None:
    @settings(QUICK, max_examples=8)
    @given(made=several(kind, PROVIDER.kinds[kind].identify))
    def holds(made: list[Fields]) -> None:
        check_life(lab, kind, made)

    holds()


@pytest.mark.recorded
@pytest.mark.parametrize("short", FILES)
def test_recorded_rows_can_be_declared(short: str) -> None:
    declared = 0
    for collection in searches(short):
        for one in declare_collection(Snapshot({collection.kind.name: collection}), collection):
            declared += isinstance(one, Declared)
            assert isinstance(one, Declared) or not one.name, one
    assert declared


class Counted(Collection):
    """Counts how often a field is read."""

    reads = 0

    def text(self, row: ItemRow, field_row: FieldRow) -> str:
        type(self).reads += 1
        return super().text(row, field_row)


HOSTILE = [
    "{{ 7 * 7 }}",
    "{% raw %}",
    "{# x",
    "}} {{",
    "yes",
    "null",
    "1",
    "007",
    "1e5",
    "~",
    "# no comment",
    "a: b",
    "- x",
    "!env HOME",
    "&a *b",
    'it\'s "quoted" \\ here',
    "ünïcode – ☃",
    "\u202etext",
    " blanks  within ",
]


def test_texts_of_a_device_stay_texts(start: Start) -> None:
    firewall = start()
    for number, text in enumerate(HOSTILE):
        body = {"alias": {"name": f"a{number}", "type": "host", "content": "192.0.2.1", "description": text}}
        assert firewall.call("POST", "/api/firewall/alias/addItem", body)["result"] == "saved"
    found = find(firewall, "opnsense.alias")
    assert [one for one in found.left if one[1]] == []
    aliases = {one.identity: one.fields.get("description") for one in found.items}
    stored = {
        row["name"]: row["description"]
        for row in firewall.call("POST", "/api/firewall/alias/searchItem", {})["rows"]
        if row["name"].startswith("a")
    }
    assert {name: aliases[name] for name in stored} == stored
    plays: Any = loads_yaml(text_of(found), "found.yml")
    shown = [entry["opnsense.alias"]["description"] for entry in plays[0]["resources"]]
    assert "\u202e" not in text_of(found)
    assert all("{{ 7" not in text and "{%" not in text and "{#" not in text for text in shown)


RANDOM = "Canary1xQ9vLr7TzWb3KdYp5Nh8Mc2Fg4Js6RuVa0E"
CANARIES = {
    "password of a user": ("auth/user/add", "user", {"name": "u1", "password": "Canary-User-1"}),
    "password of a list": (
        "firewall/alias/addItem",
        "alias",
        {"name": "l1", "type": "urltable", "content": "https://x.example", "password": "Canary-List-1"},
    ),
    "a URL with a password": (
        "firewall/alias/addItem",
        "alias",
        {"name": "l2", "type": "urltable", "content": "https://me:Canary-Url-1@x.example/list"},
    ),
    "a password in a description": (
        "firewall/alias/addItem",
        "alias",
        {"name": "l4", "type": "host", "content": "192.0.2.1", "description": "password: Canary-Said-1"},
    ),
    "a URL in capitals": (
        "firewall/alias/addItem",
        "alias",
        {"name": "l5", "type": "urltable", "content": "HTTPS://me:Canary-Url-2@x.example/list"},
    ),
    "a key in a description": (
        "firewall/alias/addItem",
        "alias",
        {
            "name": "l3",
            "type": "host",
            "content": "192.0.2.1",
            "description": RANDOM,
        },
    ),
}


def test_no_secret_is_written(start: Start) -> None:
    firewall = start()
    for path, root, fields in CANARIES.values():
        assert firewall.call("POST", f"/api/{path}", {root: fields})["result"] == "saved", path
    found = find(firewall, "opnsense.alias", "opnsense.user")
    assert "anary" not in text_of(found)
    left = {(one.identity, name): why for one in found.items for name, why in one.left}
    assert left["u1", "password"] == "a secret"
    assert left["l1", "password"] == "a secret"
    assert left["l2", "content"] == left["l3", "description"] == "it looks like a secret"


def test_items_of_one_name_are_told_apart(start: Start) -> None:
    firewall = start()
    for server in ("192.0.2.1", "192.0.2.2"):
        body = {"host": {"hostname": "www", "domain": "example.org", "rr": "A", "server": server}}
        assert firewall.call("POST", "/api/unbound/settings/addHostOverride", body)["result"] == "saved"
    for _ in range(2):
        body = {"rule": {"interface": "lan", "description": "twice"}}
        assert firewall.call("POST", "/api/firewall/filter/addRule", body)["result"] == "saved"
    found = check_import(firewall)
    hosts = [one.fields for one in found.items if one.kind == "opnsense.unbound_host"]
    assert [one["server"] for one in hosts] == ["192.0.2.1", "192.0.2.2"]
    assert all("uuid" not in one for one in hosts)
    twice = [one.fields for one in found.items if one.fields.get("description") == "twice"]
    assert len({one["uuid"] for one in twice}) == 2


def test_rules_without_a_description_are_named_by_uuid(start: Start) -> None:
    firewall = start()
    for action in ("pass", "block"):
        body = {"rule": {"interface": "lan", "description": "", "action": action}}
        assert firewall.call("POST", "/api/firewall/filter/addRule", body)["result"] == "saved"
    found = check_import(firewall, "opnsense.rule")
    unnamed = [one.fields for one in found.items if not one.identity]
    assert [one.get("action", "pass") for one in unnamed] == ["pass", "block"]
    assert all("uuid" in one for one in unnamed)


def test_what_is_left_out_keeps_its_value_and_its_item(start: Start) -> None:
    """Applied with pruning, too: an item of ours is declared without the field that looks like a secret."""
    firewall = start()
    fields = {"name": "mine", "type": "host", "content": ["192.0.2.1"], "description": RANDOM}
    run(apply(target(firewall), [resource("opnsense.alias", fields)]))
    found = find(firewall, "opnsense.alias")
    (mine,) = (one for one in found.items if one.identity == "mine")
    assert mine.fields["unmanaged"] == ["description"]
    again = run(plan(target(firewall, prune=True), read(found), prune=True))
    assert (again.steps, again.errors, again.refused) == ((), (), ())


def test_items_of_one_name_take_no_time_together(start: Start) -> None:
    """The texts that tell items apart are read once an item, not once a pair."""
    firewall = start()
    firewall.seed("rule", [{"description": "same", "interface": "lan"} for _ in range(400)])
    kind = PROVIDER.kinds["opnsense.rule"]
    rows = firewall.call("POST", "/api/firewall/filter/searchRule", {"current": 1, "rowCount": -1})["rows"]
    collection = Collection.of(kind, rows, "fazai")
    counted = Counted(kind, collection.rows, "fazai")
    declare_collection(Snapshot({kind.name: counted}), counted)
    assert counted.reads < 400 * len(kind.rows) * 5


def test_references_are_names(start: Start) -> None:
    firewall = start()
    wanted = [
        resource("opnsense.category", {"name": "ops"}),
        resource(
            "opnsense.alias",
            {"name": "web", "type": "host", "content": ["192.0.2.1"], "categories": ["ops"]},
        ),
    ]
    run(apply(target(firewall), wanted))
    (alias,) = (one for one in check_import(firewall, "opnsense.alias").items if one.identity == "web")
    assert alias.fields["categories"] == ["ops"]


def test_what_a_firewall_lacks_is_said(start: Start) -> None:
    firewall = start(absent=["kea"])
    found = find(firewall, "opnsense.kea_subnet", "opnsense.alias")
    ((kind, name, why),) = [one for one in found.left if one[0] == "opnsense.kea_subnet"]
    assert (kind, name) == ("opnsense.kea_subnet", "")
    assert "kea" in why


def test_what_cannot_be_declared_is_said(start: Start) -> None:
    """An alias of a type that a playbook refuses as it stands."""
    firewall = start()
    body = {"alias": {"name": "ok", "type": "host", "content": "192.0.2.1"}}
    assert firewall.call("POST", "/api/firewall/alias/addItem", body)["result"] == "saved"
    path = next(name for name in firewall.box.catalogue.items if name.endswith("aliases.alias"))
    ref, item = next((ref, item) for ref, item in firewall.box.items(path).items() if item["name"] == "ok")
    edit = firewall.box.config.edit()
    edit.put(path, ref, {**item, "type": "mac", "content": "not a mac"})
    edit.commit("a test", "nobody", 0.0)
    found = find(firewall, "opnsense.alias")
    assert ("opnsense.alias", "ok") in [one[:2] for one in found.left]
    assert "is not a MAC address" in next(one[2] for one in found.left if one[1] == "ok")
