"""Names of one firewall: one lock, one order, no pruning; and whose memory is whose. Through the engine."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fazai.apply import Engine
from fazai.errors import ExitCode
from fazai.ids import ulid
from fazai.lab import LabFirewall
from fazai.lab.actions.rules import applied_rules
from fazai.model import Resource, Target, TargetWork, Work
from fazai.outcome import RunOutcome, Status
from fazai.providers.opnsense.catalogue.ownership import mark_of
from fazai.providers.opnsense.provider import PROVIDER
from fazai.store.base import Run
from fazai.store.sqlite.ledger import SqliteStore
from tests.opnsense.helpers import Start, resource, target


def rule(description: str, **fields: Any) -> Resource:
    return resource("opnsense.rule", {"description": description, "interface": ["lan"], **fields})


def alias(name: str) -> Resource:
    return resource("opnsense.alias", {"name": name, "type": "host", "content": ["192.0.2.1"]})


class Runs:
    """Runs with one state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0

    def __call__(self, *items: TargetWork, check: bool = False) -> RunOutcome:
        self.count += 1
        run = Run(ulid(self.count, bytes(10)), "apply", ("x.yml",), "ana", "ops", 1, 0.0)
        store = SqliteStore(self.folder)
        try:
            engine = Engine(
                store=store,
                provider=lambda name: PROVIDER,
                run=run,
                emit=lambda event: None,
                finished=lambda outcome: None,
                forks=8,
                check=check,
            )
            return asyncio.run(engine.carry_out([Work("play", items)]))
        finally:
            store.close()


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "state")


def named(name: str, firewall: LabFirewall, *resources: Resource, **options: Any) -> TargetWork:
    return TargetWork(replace(target(firewall, **options), name=name), resources)


def stored(firewall: LabFirewall) -> dict[str, int]:
    rows = firewall.call("POST", "/api/firewall/filter/searchRule", {})["rows"]
    return {row["description"]: int(row["sequence"]) for row in rows if not row.get("is_automatic")}


def test_three_names_of_one_firewall_share_one_order(firewall: LabFirewall, runs: Runs) -> None:
    works = [named(f"fw-{n}", firewall, rule(f"rule {n}")) for n in (1, 2, 3)]
    outcome = runs(*works)
    assert outcome.exit_code == ExitCode.OK
    numbers = stored(firewall)
    assert len(set(numbers.values())) == len(numbers) == 5
    assert [item["description"] for item in applied_rules(firewall.box)][2:] == ["rule 1", "rule 2", "rule 3"]
    box = PROVIDER.box_of(works[0].target)
    assert outcome.targets[0].notes[0] == (
        f"fw-1 and fw-2, fw-3 are names of one firewall ({box}): they share one lock and one state,"
        " and nothing is pruned"
    )
    again = runs(*works)
    assert [each.status for each in again.targets] == [Status.CONVERGED] * 3


def test_what_one_name_lists_another_does_not_prune(firewall: LabFirewall, runs: Runs) -> None:
    one = named("one", firewall, alias("a"), prune=True)
    two = named("two", firewall, alias("b"), prune=True)
    first = runs(one)
    assert first.exit_code == ExitCode.OK
    refused = runs(two)
    assert refused.exit_code == ExitCode.REFUSED
    (target_outcome,) = refused.targets
    (error,) = target_outcome.errors
    assert error.message == (
        "opnsense.alias a would be pruned, and two is also called one: it may be on that list"
    )
    assert error.hint == "give it one name; if one is a former name of it: formerly: [one]"
    assert [(a.status, a.change.identity) for a in target_outcome.actions] == [
        ("refused", "a"),
        ("left", "b"),
    ]
    assert runs(two, one).exit_code == ExitCode.REFUSED
    renamed = named("two", firewall, alias("b"), prune=True, formerly=["one"], max_prune="100%")
    assert runs(renamed).exit_code == ExitCode.OK
    rows = firewall.call("POST", "/api/firewall/alias/searchItem", {})["rows"]
    assert [row["name"] for row in rows if row["type"] == "host"] == ["b"]


def test_two_owners_prune_their_own(firewall: LabFirewall, runs: Runs) -> None:
    runs(named("fw-of-blue", firewall, alias("a"), owner="blue", prune=True))
    both = runs(named("fw-of-red", firewall, alias("b"), alias("c"), owner="red"))
    assert (both.exit_code, both.targets[0].notes) == (ExitCode.OK, ())
    assert runs(named("fw-of-red", firewall, alias("c"), owner="red", prune=True)).exit_code == ExitCode.OK


def test_a_name_that_was_only_planned_stops_no_pruning(firewall: LabFirewall, runs: Runs) -> None:
    runs(named("one", firewall, alias("a"), alias("b")))
    runs(named("other", firewall, alias("c")), check=True)
    assert runs(named("one", firewall, alias("a"), prune=True)).exit_code == ExitCode.OK


def test_one_name_for_two_firewalls_in_two_inventories(start: Start, runs: Runs) -> None:
    first, second = start(), start()
    runs(named("fw", first, rule("x"), adopt=True))
    # what a run that was killed before its activation leaves
    store = SqliteStore(runs.folder)
    box = PROVIDER.box_of(named("fw", first).target)
    store._reader.execute("INSERT INTO pending VALUES (?, 'filter', 'KILLED', 1.0)", (box,))
    store.close()
    before = first.counters["reconfigures"]
    outcome = runs(named("fw", second, alias("a")))
    assert outcome.targets[0].activated == ("alias",)
    outcome = runs(named("fw", first, rule("x")))
    assert outcome.targets[0].notes[0] == (
        "run KILLED saved changes of filter and never activated them; this run activates them"
    )
    assert (outcome.targets[0].activated, first.counters["reconfigures"]) == (("filter",), before + 1)


def test_a_deletion_that_is_refused_leaves_no_note(firewall: LabFirewall, runs: Runs) -> None:
    runs(named("fw", firewall, alias("used")))
    firewall.seed("rule", [{"description": "theirs", "interface": "lan", "source_net": "used"}])
    gone = resource("opnsense.alias", {"name": "used"}, state="absent")
    refused = runs(named("fw", firewall, gone))
    assert "used" in str(refused.targets[0].errors[0])
    assert refused.exit_code == ExitCode.FAILED
    kept = runs(named("fw", firewall, alias("used")))
    assert (kept.targets[0].notes, kept.targets[0].status) == ((), Status.CONVERGED)


def test_a_first_write_that_the_firewall_refuses_leaves_no_note(firewall: LabFirewall, runs: Runs) -> None:
    wrong = resource("opnsense.alias", {"name": "lan", "type": "host", "content": ["192.0.2.1"]})
    assert runs(named("fw", firewall, wrong)).exit_code == ExitCode.FAILED
    outcome = runs(named("fw", firewall, alias("a")), check=True)
    assert [note for note in outcome.targets[0].notes if "never activated" in note] == []


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("https://FW.example.net", "https://fw.example.net:443/", True),
        ("https://fw.example.net.", "https://fw.example.net", True),
        ("https://[2001:DB8:0::1]:8443", "https://[2001:db8::1]:8443", True),
        ("https://fw.example.net/a", "https://fw.example.net/b/", False),
        ("https://fw.example.net:8443", "https://fw.example.net", False),
        ("http://127.0.0.1", "https://127.0.0.1", False),
        ("https://[::ffff:192.0.2.1]", "https://192.0.2.1", True),
        ("https://127.1", "https://127.0.0.1", True),
        ("https://0x7f000001:443", "https://127.0.0.1", True),
        ("https://b\u00fccher.example", "https://xn--bcher-kva.example", True),
        ("https://[::ffff:192.0.2.1]", "https://192.0.2.2", False),
    ],
)
def test_one_address_in_several_notations(one: str, two: str, same: bool) -> None:
    first, second = (Target(name, "opnsense", "read", {"base_url": name}) for name in (one, two))
    assert (PROVIDER.box_of(first) == PROVIDER.box_of(second)) == same


def test_what_another_owner_manages_is_said_to_be_so(firewall: LabFirewall, runs: Runs) -> None:
    """Two inventories with owners of their own list one rule: which of them has it, and under which name."""
    first = replace(target(firewall, owner="net"), name="fw-net")
    assert runs(TargetWork(first, (rule("web"),))).exit_code == ExitCode.OK
    second = replace(target(firewall, owner="apps"), name="fw-apps")
    (outcome,) = runs(TargetWork(second, (rule("web", log=True),))).targets
    assert outcome.status is Status.REFUSED
    mark = mark_of("net")
    assert [error.message for error in outcome.errors] == [
        f'"web" on fw-apps is managed by fazai for another owner, whose uuids begin with {mark}, and'
        " is not changed"
    ]
    assert "fw-apps is also managed for the owner net (as fw-net)" in outcome.notes
    taking = rule("web", log=True)
    (outcome,) = runs(TargetWork(second, (replace(taking, adopt=True),)), check=True).targets
    assert [action.change.note for action in outcome.actions] == [
        f"taken over: it is managed by fazai for another owner, whose uuids begin with {mark}"
    ]


def test_what_is_managed_without_an_owner_is_told_by_name(firewall: LabFirewall, runs: Runs) -> None:
    assert (
        runs(TargetWork(replace(target(firewall), name="fw-main"), (alias("web"),))).exit_code == ExitCode.OK
    )
    gone = replace(alias("web"), state="absent")
    (outcome,) = runs(TargetWork(target(firewall, owner="apps"), (gone,))).targets
    assert [error.message for error in outcome.errors] == [
        '"web" on fw-01 is managed by fazai for the owner "fazai", and is not deleted'
    ]
    assert "fw-01 is also managed for the default owner (as fw-main)" in outcome.notes


def test_what_somebody_else_made_is_still_said_to_be_of_others(firewall: LabFirewall, runs: Runs) -> None:
    firewall.seed("alias", [{"name": "web", "type": "host", "content": "192.0.2.9"}])
    (outcome,) = runs(TargetWork(target(firewall), (alias("web"),))).targets
    assert [error.message for error in outcome.errors] == [
        '"web" on fw-01 was not made by fazai and is not changed'
    ]
