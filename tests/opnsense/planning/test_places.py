"""Where a list of rules stands among those of others, what the plan says of it, and rules without effect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from fazai.lab import LabFirewall
from fazai.lab.actions.rules import applied_rules
from fazai.model import Diff, Resource, Target, Verb
from fazai.providers.opnsense.provider import PROVIDER
from tests.opnsense.helpers import Start, apply, apply_in, plan, resource, run, session, target, undo

TELNET = {
    "description": "block telnet",
    "interface": ["lan"],
    "protocol": "TCP",
    "destination_port": "23",
    "action": "block",
}
FACTORY, FACTORY6 = "Default allow LAN to any rule", "Default allow LAN IPv6 to any rule"
NEVER = (
    f'opnsense.rule "block telnet" never matches on fw-01: "{FACTORY}", made by others, stands in front of it'
    " and passes all that it is for; say where the list belongs: "
    f'place: {{opnsense.rule: {{before: "{FACTORY}"}}}}'
)


def rule(description: str = "block telnet", **fields: Any) -> Resource:
    return resource("opnsense.rule", {**TELNET, "description": description, **fields})


def running(firewall: LabFirewall) -> list[str]:
    return [item["description"] for item in applied_rules(firewall.box)]


def sequences(firewall: LabFirewall) -> dict[str, int]:
    rules = firewall.call("POST", "/api/firewall/filter/searchRule", {})["rows"]
    return {row["description"]: int(row["sequence"]) for row in rules if not row.get("is_automatic")}


def noted(diff: Diff) -> list[tuple[str, str]]:
    return [(change.identity, change.note) for change in diff.changes]


def test_a_factory_rule_in_front_is_named_and_what_never_matches_is_said(firewall: LabFirewall) -> None:
    diff = run(plan(target(firewall), [rule()]))
    assert noted(diff) == [("block telnet", f'after "{FACTORY6}", made by others')]
    assert diff.notes == (NEVER,)
    done = run(apply(target(firewall), [rule()]))
    assert done.diff.notes == done.after.notes == (NEVER,)
    assert running(firewall) == [FACTORY, FACTORY6, "block telnet"]


def test_26_1_has_its_factory_rules_behind_all_others(start: Start) -> None:
    firewall = start(release="26.1.11")
    done = run(apply(target(firewall), [rule()]))
    assert noted(done.diff) == [("block telnet", "first")]
    assert done.diff.notes == done.after.notes == ()
    orders = {
        row["description"]: row["sort_order"]
        for row in firewall.call("POST", "/api/firewall/filter/searchRule", {})["rows"]
    }
    assert orders["block telnet"] < orders[FACTORY] < orders[FACTORY6]


FIRST = {"opnsense.rule": "first"}


@pytest.mark.parametrize(
    ("place", "order"),
    [
        (FIRST, ["one", "two", FACTORY, FACTORY6]),
        ({"opnsense.rule": {"before": FACTORY}}, ["one", "two", FACTORY, FACTORY6]),
        ({"opnsense.rule": {"after": FACTORY}}, [FACTORY, "one", "two", FACTORY6]),
        ({"opnsense.rule": {"before": FACTORY6}}, [FACTORY, "one", "two", FACTORY6]),
        ({"opnsense.rule": {"after": FACTORY6}}, [FACTORY, FACTORY6, "one", "two"]),
        ({"opnsense.rule": "last"}, [FACTORY, FACTORY6, "one", "two"]),
    ],
)
def test_a_place_is_kept(firewall: LabFirewall, place: dict[str, Any], order: Sequence[str]) -> None:
    to = target(firewall, place=place)
    assert not PROVIDER.check(to)
    done = run(apply(to, [rule("one"), rule("two", destination_port="24")]))
    assert (done.after.steps, running(firewall)) == ((), order)
    again = run(apply(to, [rule("one"), rule("more"), rule("two", destination_port="24")]))
    assert [change.identity for change in again.diff.changes] == ["more"]
    assert running(firewall)[order.index("one") + 1] == "more"
    numbers = sequences(firewall)
    assert len(set(numbers.values())) == len(numbers)


def test_rules_of_others_make_room_and_keep_their_order(firewall: LabFirewall) -> None:
    done = run(apply(target(firewall, place=FIRST), [rule()]))
    moved = [change for change in done.diff.changes if change.verb is Verb.MOVE]
    assert [(c.identity, c.before, c.after, c.note) for c in moved] == [
        (FACTORY, {"sequence": "1"}, {"sequence": "20"}, "made by others, makes room for this list (place)"),
        (
            FACTORY6,
            {"sequence": "11"},
            {"sequence": "21"},
            "made by others, makes room for this list (place)",
        ),
    ]
    assert ("block telnet", "first") in noted(done.diff)
    assert done.diff.notes == ()
    sent = [path for method, path, _ in firewall.requests if "/setRule/" in path]
    assert len(sent) == 3


def test_a_list_that_stands_elsewhere_is_moved_to_its_place(firewall: LabFirewall) -> None:
    run(apply(target(firewall), [rule("one"), rule("two")]))
    done = run(
        apply(target(firewall, place={"opnsense.rule": {"before": FACTORY6}}), [rule("one"), rule("two")])
    )
    assert {change.verb for change in done.diff.changes} == {Verb.MOVE}
    assert running(firewall) == [FACTORY, "one", "two", FACTORY6]


def test_rules_of_other_interfaces_need_no_room(firewall: LabFirewall) -> None:
    firewall.seed("rule", [{"description": "theirs", "interface": "opt1", "sequence": "2"}])
    run(apply(target(firewall, place=FIRST), [rule()]))
    assert sequences(firewall)["theirs"] == 2


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"before": "Default allow LAN"}, 'there is no "Default allow LAN" of others to stand before'),
        ({"after": "block telnet"}, 'there is no "block telnet" of others to stand after'),
        ({"after": "sshlockout"}, 'no rule of the API can stand after "sshlockout"'),
        ({"before": "floats"}, 'no single rule can stand before "floats"'),
    ],
)
def test_a_place_that_cannot_be(firewall: LabFirewall, place: dict[str, str], message: str) -> None:
    firewall.seed("rule", [{"description": "floats", "interface": "lan,wan"}])
    diff = run(plan(target(firewall, place={"opnsense.rule": place}), [rule()]))
    (error,) = diff.errors
    assert error.message == f"place of opnsense.rule on fw-01: {message}"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"opnsense.rul": "first"}, 'names no ordered kind: "opnsense.rul"'),
        ({"opnsense.alias": "first"}, 'names no ordered kind: "opnsense.alias"'),
        (
            {"opnsense.rule": "top"},
            "of opnsense.rule: first, last, {before: NAME} or {after: NAME} is expected",
        ),
        ({"opnsense.rule": {"above": "x"}}, "of opnsense.rule: first, last"),
        ("first", "must be a map of kinds to places"),
    ],
)
def test_a_place_that_is_none_is_said_before_any_contact(
    firewall: LabFirewall, place: Any, message: str
) -> None:
    (problem,) = PROVIDER.check(target(firewall, place=place))
    assert f"fw-01: place {message}" in problem.message


#: What stands in front, and whether the rule that blocks telnet on lan still does something.
FRONTS: list[tuple[str, dict[str, str], bool]] = [
    ("anything", {}, False),
    ("on any interface", {"interface": ""}, False),
    ("floating", {"interface": "lan,wan"}, False),
    ("all of TCP", {"protocol": "TCP"}, False),
    ("a range with the port", {"protocol": "TCP/UDP", "destination_port": "20-30"}, False),
    ("both families", {"ipprotocol": "inet46"}, False),
    ("the interface's own network", {"source_net": "lan"}, False),
    ("another family", {"ipprotocol": "inet6"}, True),
    ("switched off", {"enabled": "0"}, True),
    ("not quick", {"quick": "0"}, True),
    ("another interface", {"interface": "wan"}, True),
    ("all but this interface", {"interface": "lan", "interfacenot": "1"}, True),
    ("the way out", {"direction": "out"}, True),
    ("one source", {"source_net": "192.168.1.0/24"}, True),
    ("all but a source", {"source_net": "10.0.0.1", "source_not": "1"}, True),
    ("another port", {"protocol": "TCP", "destination_port": "24"}, True),
    ("another protocol", {"protocol": "UDP"}, True),
    ("at some hours", {"sched": "office"}, True),
    ("blocks as well", {"action": "reject"}, True),
]


@pytest.mark.parametrize(
    ("front", "matches"), [case[1:] for case in FRONTS], ids=[case[0] for case in FRONTS]
)
def test_what_keeps_a_rule_from_matching(start: Start, front: dict[str, str], matches: bool) -> None:
    firewall = start(release="26.1.11")  # whose factory rules do not stand in front
    firewall.seed("rule", [{"description": "front", "interface": "lan", "sequence": "5", **front}])
    diff = run(plan(target(firewall), [rule()]))
    assert [note for note in diff.notes if '"front", made by others' in note] == list(diff.notes)
    assert (diff.notes == ()) == matches


@pytest.mark.parametrize(
    ("fields", "what", "front"),
    [
        ({"ipprotocol": "inet46"}, "", FACTORY),  # each family behind a rule of its own
        ({"ipprotocol": "inet46", "destination_net": ["10.0.0.0/8"]}, "", FACTORY),
        ({"direction": "any"}, " incoming", FACTORY),
        ({"direction": "any", "ipprotocol": "inet6"}, " incoming", FACTORY6),
        ({"direction": "any", "ipprotocol": "inet46"}, " incoming IPv4, incoming IPv6", FACTORY),
    ],
)
def test_a_half_of_a_block_that_others_pass_is_said(
    firewall: LabFirewall, fields: dict[str, Any], what: str, front: str
) -> None:
    (note,) = run(plan(target(firewall), [rule(**fields)])).notes
    assert note.startswith(
        f'opnsense.rule "block telnet" never matches{what} on fw-01: "{front}", made by others, stands'
    )
    assert run(plan(target(firewall, place=FIRST), [rule(**fields)])).notes == ()


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"protocol": "TCP/UDP"}, " UDP"),
        ({"protocol": "TCP/UDP", "interface": ["lan", "opt1"]}, " UDP lan"),
        ({"protocol": "UDP", "interface": ["lan", "opt1"]}, " lan"),
    ],
)
def test_a_protocol_or_an_interface_of_a_block_that_others_pass_is_said(
    start: Start, fields: dict[str, Any], what: str
) -> None:
    firewall = start(release="26.1.11")
    front = {"description": "front", "interface": "lan,wan", "protocol": "UDP", "sequence": "5"}
    firewall.seed("rule", [front])
    wanted = rule(**{"destination_port": "53", **fields})
    (note,) = run(plan(target(firewall), [wanted])).notes
    assert note.startswith(f'opnsense.rule "block telnet" never matches{what} on fw-01: "front", made by')
    assert run(plan(target(firewall), [rule(**{**fields, "action": "pass"})])).notes == ()


PASS: dict[str, Any] = {"action": "pass", "protocol": "any", "destination_port": ""}


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ({}, {"interface": ["lan", "opt1"]}, True),
        ({}, {"interface": []}, True),
        ({}, {"interface": ["inside"]}, True),
        ({"interface": ["inside"]}, {"interface": ["lan", "opt1", "wan"]}, True),
        ({}, {}, False),  # the list keeps its order
        ({}, {"interface": ["opt1", "wan"]}, False),
        ({}, {"interface": ["lan", "opt1"], "quick": False}, False),
        ({}, {"interface": ["lan", "opt1"], "enabled": False}, False),
        ({"interface": ["lan", "opt1"]}, {}, False),
    ],
)
def test_a_rule_of_the_list_that_the_firewall_puts_before_those_listed_ahead_of_it(
    start: Start, first: dict[str, Any], second: dict[str, Any], said: bool
) -> None:
    """A list that ends with what passes the rest: when that one is floating, nothing is blocked any more."""
    firewall = start(release="26.1.11")
    group = {"group": {"ifname": "inside", "members": "lan,opt1", "sequence": "5"}}
    firewall.call("POST", "/api/firewall/group/addItem", group)
    firewall.call("POST", "/api/firewall/group/reconfigure", {})
    wanted = [rule(**first), rule("the rest", **{**PASS, **second})]
    done = run(apply(target(firewall), wanted))
    notes = [note for note in done.diff.notes if "never matches" in note]
    assert tuple(notes) == done.after.notes
    assert [
        note.startswith(
            'opnsense.rule "block telnet" never matches on fw-01: "the rest", which is listed behind it,'
            " stands in front of it there and passes all that it is for: rules of several or no interfaces"
        )
        for note in notes
    ] == [True] * said


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ({"sequence": "500"}, True),  # quick, behind it
        ({"sequence": "500", "quick": "0"}, True),  # the last one of those that are not quick
        ({"sequence": "2", "quick": "0"}, False),
        ({"sequence": "500", "interface": "wan"}, False),
    ],
)
def test_a_block_that_is_not_quick_has_no_say_before_others(
    start: Start, theirs: dict[str, str], said: bool
) -> None:
    firewall = start(release="26.1.11")
    firewall.seed("rule", [{"description": "theirs", "interface": "opt1", **theirs}])
    wanted = rule(interface=["opt1"], quick=False, sequence=5)
    notes = run(plan(target(firewall), [wanted])).notes
    assert [
        '"theirs", made by others, goes before a rule that is not quick and passes all that it is for' in note
        for note in notes
    ] == [True] * said


def test_a_rule_of_others_that_took_the_same_sequence_is_said(start: Start) -> None:
    firewall = start(release="26.1.11")
    run(apply(target(firewall), [rule()]))
    number = sequences(firewall)["block telnet"]
    firewall.seed("rule", [{"description": "tie", "interface": "lan", "sequence": str(number)}])
    assert run(plan(target(firewall), [rule()])).notes == (
        'opnsense.rule "block telnet" never matches on fw-01: "tie", made by others, stands in front of it'
        f" and passes all that it is for: both have the sequence {number}; say where the list belongs: place:"
        ' {opnsense.rule: {before: "tie"}}',
    )
    first = target(firewall, place={"opnsense.rule": {"before": "tie"}})
    assert run(apply(first, [rule()])).after.notes == ()
    assert running(firewall)[:2] == ["block telnet", "tie"]


def test_a_rule_of_ours_that_is_no_longer_listed_is_not_said_to_be_of_others(start: Start) -> None:
    firewall = start(release="26.1.11")
    run(apply(target(firewall), [rule("old", **PASS)]))
    diff = run(plan(target(firewall), [rule()]))
    assert noted(diff) == [("block telnet", 'after "old", no longer listed')]
    (note,) = diff.notes
    assert '"old", no longer listed, stands in front of it and passes all that it is for' in note


def test_a_pass_rule_behind_a_block_of_others_and_one_within_a_network(firewall: LabFirewall) -> None:
    firewall.seed(
        "rule",
        [
            {
                "description": "no",
                "interface": "opt1",
                "action": "block",
                "source_net": "10.0.0.0/8",
                "sequence": "3",
            }
        ],
    )
    wanted = rule("let in", interface=["opt1"], source_net="10.20.0.7", action="pass")
    (note,) = run(plan(target(firewall), [wanted])).notes
    assert '"let in" never matches on fw-01: "no", made by others, stands in front of it and blocks' in note
    assert run(plan(target(firewall), [rule("let in", interface=["opt1"], action="pass")])).notes == ()


def test_rules_of_a_group_stand_in_front_of_those_of_its_members(firewall: LabFirewall) -> None:
    group = {"group": {"ifname": "inside", "members": "lan,opt1", "sequence": "5"}}
    firewall.call("POST", "/api/firewall/group/addItem", group)
    firewall.call("POST", "/api/firewall/group/reconfigure", {})
    firewall.seed("rule", [{"description": "inside", "interface": "inside", "sequence": "900"}])
    notes = run(plan(target(firewall), [rule(interface=["opt1"])])).notes
    assert ['"inside", made by others, stands in front' in note for note in notes] == [True]
    assert run(plan(target(firewall), [rule(interface=["wan"])])).notes == ()


def test_a_rule_of_the_product_itself_has_the_last_word(firewall: LabFirewall) -> None:
    wanted = rule("no web", destination_net="(self)", destination_port="443")
    to: Target = target(firewall, place=FIRST)
    (note,) = run(plan(to, [wanted])).notes
    assert note.startswith(
        'opnsense.rule "no web" never matches on fw-01: the rule "anti-lockout rule", which'
    )


def test_a_rule_that_becomes_a_floating_one_is_placed_among_these(firewall: LabFirewall) -> None:
    run(apply(target(firewall), [rule("one"), rule("two")]))
    bare = {key: value for key, value in TELNET.items() if key != "interface"}
    floating = resource("opnsense.rule", {**bare, "description": "two"})  # its interface goes back to none
    done = run(apply(target(firewall), [floating, rule("one")]))
    assert [(change.identity, change.after) for change in done.diff.changes] == [("two", {"interface": ()})]
    assert done.after.steps == ()
    assert running(firewall)[0] == "two"


def test_many_that_never_match_are_counted(firewall: LabFirewall) -> None:
    wanted = [rule(f"rule {number}") for number in range(30)]
    notes = run(plan(target(firewall), wanted)).notes
    assert len(notes) == 21
    assert notes[-1] == "10 more of opnsense.rule never match on fw-01"


def test_undone_the_rules_of_others_stand_where_they_stood(firewall: LabFirewall) -> None:
    before = sequences(firewall)

    async def there_and_back() -> None:
        async with session(target(firewall, place=FIRST)) as work:
            await undo(work, await apply_in(work, [rule()]))

    run(there_and_back())
    assert sequences(firewall) == before


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"interface": []}, "on every interface: interface"),
        ({"interface": ""}, "on every interface: interface"),
        ({"destination_port": ""}, "to every port: destination_port"),
        ({"source_port": ""}, "from every port: source_port"),
        ({"interface": [], "action": "block"}, ""),
        ({}, ""),
    ],
)
def test_a_pass_rule_with_a_field_that_came_out_empty_is_said(
    start: Start, fields: dict[str, Any], said: str
) -> None:
    """As `interface: "{{ nets }}"` of an empty list: it passes on all of them."""
    firewall = start(release="26.1.11")
    done = run(apply(target(firewall), [rule("let in", **{"action": "pass", **fields})]))
    expected = (f'opnsense.rule "let in" passes {said} is declared, and empty',) if said else ()
    assert done.diff.notes == expected
    assert done.after.notes == ()  # once it is so, it is meant
