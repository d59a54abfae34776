"""What a plan ends with and says: activations, refusals with their place, notes.

Each case stands for a change of the code that no other test noticed (docs/testing.md, "Mutation checks").
"""

from __future__ import annotations

from typing import Any

import pytest

from fazai.lab import LabFirewall
from fazai.model import Activate, Change, Resource, Verb
from tests.opnsense.helpers import Start, apply, plan, resource, run, target


def alias(name: str, *content: str, **more: Any) -> Resource:
    return resource("opnsense.alias", {"name": name, "type": "network", "content": list(content)}, **more)


def host(name: str, **more: Any) -> Resource:
    fields = {"hostname": name, "domain": "example.org", "rr": "A", "server": "192.0.2.9"}
    return resource("opnsense.unbound_host", fields, **more)


@pytest.mark.parametrize("prune", [False, True])
def test_what_is_deleted_is_activated_as_well(firewall: LabFirewall, prune: bool) -> None:
    to = target(firewall, prune=prune, max_prune="100%")
    run(apply(to, [alias("one"), alias("two")]))
    wanted = [alias("two")] if prune else [alias("one", state="absent")]
    first, *rest = run(plan(to, wanted, prune=prune)).steps
    assert isinstance(first, Change)
    assert (first.verb, first.identity, first.note) == (
        Verb.DELETE,
        "one",
        "no longer listed" if prune else "",
    )
    assert rest == [Activate("fw-01", "alias")]


@pytest.mark.parametrize("named", ["one", "!one"])
def test_an_alias_is_made_before_those_that_name_it(firewall: LabFirewall, named: str) -> None:
    wanted = [alias("three", "two"), alias("two", named, "192.0.2.0/24"), alias("one", "192.0.2.7")]
    steps = run(plan(target(firewall), wanted)).steps
    assert [step.identity for step in steps if isinstance(step, Change)] == ["one", "two", "three"]


def test_services_are_activated_from_the_ground_up_and_not_by_the_alphabet(firewall: LabFirewall) -> None:
    rule = resource("opnsense.rule", {"description": "let in", "interface": ["lan"]})
    vlan = resource("opnsense.vlan", {"if": "vtnet3", "tag": 100})
    steps = run(plan(target(firewall), [host("nas"), rule, vlan])).steps
    assert [step.service for step in steps if isinstance(step, Activate)] == ["vlan", "filter", "unbound"]


def test_too_many_to_prune_are_refused_each_in_its_place(firewall: LabFirewall) -> None:
    to = target(firewall, prune=True, max_prune=1)
    run(apply(to, [alias("one"), alias("two"), alias("three")]))
    refused = run(plan(to, [alias("three")], prune=True)).refused
    assert [(str(error.where), error.hint) for _, error in refused] == [
        (f"fw-01/opnsense.alias/{name}", 'if this is meant, raise max_prune: (now "1")')
        for name in ("one", "two")
    ]


@pytest.mark.parametrize(("count", "more"), [(5, ""), (6, " and 1 more")])
def test_five_items_that_would_go_along_are_named_and_the_others_counted(
    firewall: LabFirewall, count: int, more: str
) -> None:
    run(apply(target(firewall), [host("nas")]))
    (ref,) = [
        row["uuid"] for row in firewall.call("POST", "/api/unbound/settings/searchHostOverride")["rows"]
    ]
    for number in range(count):
        theirs = {"host": ref, "hostname": f"a{number}", "domain": "example.org"}
        firewall.call("POST", "/api/unbound/settings/addHostAlias", {"alias": theirs})
    ((_, error),) = run(plan(target(firewall), [host("nas", state="absent", line=7)])).refused
    names = ", ".join(f"a{number}.example.org" for number in range(5))
    assert error.message.endswith(f" of it that this run does not: {names}{more}")
    assert str(error.where).startswith("play.yml:7")
    assert error.hint == "declare them absent (adopt: true where others made them), or give them another host"


def test_a_rule_without_an_action_passes(start: Start) -> None:
    fields = {"description": "let in", "interface": [], "protocol": "TCP", "destination_port": "23"}
    diff = run(plan(target(start(release="26.1.11")), [resource("opnsense.rule", fields)]))
    assert diff.notes == (
        'opnsense.rule "let in" passes on every interface: interface is declared, and empty',
    )
