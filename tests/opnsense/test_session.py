"""The session against the lab: apply, find nothing the second time, adopt, refuse, prune, undo."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fazai.errors import DeviceError, Mark, Refused, Rejected
from fazai.lab import Fault, LabFirewall
from fazai.model import Activate, Change, Secret, Verb
from fazai.providers.opnsense.catalogue.ownership import is_uuid, own_ref
from fazai.providers.opnsense.planning.snapshot import Collection, Snapshot
from fazai.providers.opnsense.provider import PROVIDER
from tests.opnsense.helpers import (
    FakeClock,
    Start,
    apply,
    apply_in,
    plan,
    resource,
    run,
    session,
    target,
    undo,
)

CATEGORY = resource("opnsense.category", {"name": "managed", "color": "ff0000"})
ALIAS = resource(
    "opnsense.alias",
    {
        "name": "dns_servers",
        "type": "host",
        "content": ["192.0.2.53", "192.0.2.54"],
        "categories": ["managed"],
    },
)
RULE = resource(
    "opnsense.rule",
    {
        "description": "allow dns",
        "interface": ["lan"],
        "protocol": "udp",
        "destination_net": "dns_servers",
        "destination_port": 53,
        "categories": "managed",
    },
)
LAN_RULE = "Default allow LAN to any rule"


def test_first_apply_creates_and_second_finds_nothing(firewall: LabFirewall) -> None:
    done = run(apply(target(firewall), [RULE, ALIAS, CATEGORY]))
    assert [(s.kind, s.verb) if isinstance(s, Change) else s for s in done.diff.steps] == [
        ("opnsense.category", Verb.CREATE),
        ("opnsense.alias", Verb.CREATE),
        ("opnsense.rule", Verb.CREATE),
        Activate("fw-01", "alias"),
        Activate("fw-01", "filter"),
    ]
    assert done.after.steps == ()
    assert done.after.unchanged == 3
    assert all(ref.startswith("fa2a1000-") and is_uuid(ref) for _, ref in done.written)


def test_a_converged_firewall_is_only_read_on_one_connection(firewall: LabFirewall) -> None:
    run(apply(target(firewall), [CATEGORY, ALIAS, RULE]))
    before = dict(firewall.counters)
    assert run(plan(target(firewall), [CATEGORY, ALIAS, RULE])).steps == ()
    used = {name: firewall.counters[name] - before.get(name, 0) for name in firewall.counters}
    assert used["requests"] == 3
    assert used["connections"] == 1
    assert used["writes"] == used["reconfigures"] == 0


def test_update_sends_only_what_differs(firewall: LabFirewall) -> None:
    run(apply(target(firewall), [CATEGORY, ALIAS]))
    changed = resource(
        "opnsense.alias",
        {
            "name": "dns_servers",
            "type": "host",
            "content": ["192.0.2.54", "192.0.2.53"],
            "categories": ["managed"],
            "description": "resolvers",
        },
    )
    done = run(apply(target(firewall), [changed]))
    (change,) = done.diff.changes
    assert (change.verb, change.before, change.after) == (
        Verb.UPDATE,
        {"description": ""},
        {"description": "resolvers"},
    )
    assert done.after.steps == ()


def test_reference_that_does_not_exist_is_an_error_with_its_place(firewall: LabFirewall) -> None:
    alias = resource(
        "opnsense.alias",
        {"name": "x", "type": "host", "content": ["192.0.2.1"], "categories": ["manged"]},
        line=4,
    )
    diff = run(plan(target(firewall), [CATEGORY, alias]))
    (error,) = diff.errors
    assert error.where == Mark("play.yml", 8, 7)
    assert error.message == 'there is no category "manged" on this firewall'
    assert error.hint == 'did you mean "managed"?'


def test_foreign_item_that_differs_is_refused_and_then_adopted(firewall: LabFirewall) -> None:
    wanted = {"description": LAN_RULE, "log": True}
    diff = run(plan(target(firewall), [resource("opnsense.rule", wanted)]))
    ((change, reason),) = diff.refused
    assert diff.steps == ()
    assert isinstance(reason, Refused)
    assert "was not made by fazai" in reason.message
    done = run(apply(target(firewall), [resource("opnsense.rule", wanted, adopt=True)]))
    (change,) = done.diff.changes
    assert change.adopts
    assert change.after == {"log": "1"}
    assert done.after.steps == ()
    again = run(
        plan(target(firewall), [resource("opnsense.rule", {**wanted, "log": False})], adopted={change.ref})
    )
    assert [c.adopts for c in again.changes] == [False]


def test_foreign_item_that_equals_is_left_alone(firewall: LabFirewall) -> None:
    diff = run(
        plan(target(firewall), [resource("opnsense.rule", {"description": LAN_RULE, "action": "pass"})])
    )
    assert (diff.steps, diff.unchanged, diff.refused) == ((), 1, ())


def test_absent(firewall: LabFirewall) -> None:
    run(apply(target(firewall), [CATEGORY, ALIAS, RULE]))
    gone = [
        resource("opnsense.category", {"name": "managed"}, state="absent"),
        resource("opnsense.alias", {"name": "dns_servers"}, state="absent"),
        resource("opnsense.rule", {"description": "allow dns"}, state="absent"),
        resource("opnsense.rule", {"description": LAN_RULE}, state="absent"),
        resource("opnsense.alias", {"name": "bogons"}, state="absent", adopt=True),
        resource("opnsense.alias", {"name": "never_was"}, state="absent"),
    ]
    done = run(apply(target(firewall), gone))
    assert [(c.kind, c.verb) for c in done.diff.changes] == [
        ("opnsense.rule", Verb.DELETE),
        ("opnsense.alias", Verb.DELETE),
        ("opnsense.category", Verb.DELETE),
    ]
    assert {change.identity for change, _ in done.diff.refused} == {LAN_RULE, "bogons"}
    assert done.after.steps == ()


def test_identity_that_several_items_have_is_an_error(firewall: LabFirewall) -> None:
    firewall.seed(
        "rule", [{"description": "twin", "interface": "lan"}, {"description": "twin", "interface": "wan"}]
    )
    diff = run(plan(target(firewall), [resource("opnsense.rule", {"description": "twin"}, adopt=True)]))
    assert diff.steps == ()
    assert "which one is meant is not clear" in diff.errors[0].message


def test_prune_deletes_our_own_and_only_them(firewall: LabFirewall) -> None:
    aliases = [
        resource("opnsense.alias", {"name": f"a{n}", "type": "host", "content": [f"192.0.2.{n}"]})
        for n in range(1, 6)
    ]
    firewall.seed("alias", [{"name": "theirs", "type": "host", "content": "192.0.2.99"}])
    run(apply(target(firewall), aliases))
    run(apply(target(firewall, owner="other"), [resource("opnsense.alias", {"name": "b", "type": "host"})]))
    asked = target(firewall, prune=["opnsense.alias"])
    assert run(plan(asked, aliases[:-1])).steps == ()
    done = run(apply(asked, aliases[:-1], prune=True))
    assert [(c.identity, c.verb, c.note) for c in done.diff.changes] == [
        ("a5", Verb.DELETE, "no longer listed")
    ]
    capped = run(plan(asked, aliases[:1], prune=True))
    assert capped.steps == ()
    assert {change.identity for change, _ in capped.refused} == {"a2", "a3", "a4"}
    assert "at most 1 may be" in capped.refused[0][1].message
    every = run(
        apply(
            target(firewall, prune={"opnsense.alias": True}, max_prune="100%", protected=["a2"]),
            [],
            prune=True,
        )
    )
    assert {change.identity for change in every.diff.changes} == {"a1", "a3", "a4"}


@pytest.mark.parametrize("release", ["26.7.2", "26.1.11"])
def test_undo_brings_back_what_was(start: Start, release: str) -> None:
    firewall = start(release=release, factory_rules="api")
    run(apply(target(firewall), [CATEGORY, ALIAS, RULE]))

    async def change_and_undo() -> tuple[str, str, str]:
        async with session(target(firewall, adopt=True)) as work:
            done = await apply_in(
                work,
                [
                    resource("opnsense.category", {"name": "managed", "color": "00ff00"}),
                    resource(
                        "opnsense.alias",
                        {"name": "dns_servers", "type": "network", "content": ["10.0.0.0/8"]},
                    ),
                    resource(
                        "opnsense.alias", {"name": "more", "type": "port", "content": ["80", "8000:8100"]}
                    ),
                    resource("opnsense.rule", {"description": "allow dns"}, state="absent"),
                    resource("opnsense.rule", {"description": LAN_RULE}, state="absent"),
                ],
            )
            await undo(work, done)
            after = await work.observe([CATEGORY, ALIAS, RULE])
            return done.digest_before, done.digest_after, after.digest

    before, between, after = run(change_and_undo())
    assert before == after != between


def test_pending_services_are_activated_without_changes(firewall: LabFirewall) -> None:
    run(apply(target(firewall), [CATEGORY, ALIAS]))
    diff = run(plan(target(firewall), [CATEGORY, ALIAS], pending=frozenset({"filter", "alias"})))
    assert diff.steps == (Activate("fw-01", "alias"), Activate("fw-01", "filter"))


def test_nested_aliases_come_before_those_that_name_them(firewall: LabFirewall) -> None:
    wanted = [
        resource("opnsense.alias", {"name": "all_of_it", "type": "networkgroup", "content": ["inner"]}),
        resource("opnsense.alias", {"name": "inner", "type": "network", "content": ["10.0.0.0/8"]}),
    ]
    done = run(apply(target(firewall), wanted))
    assert [change.identity for change in done.diff.changes] == ["inner", "all_of_it"]
    gone = [resource("opnsense.alias", {"name": name}, state="absent") for name in ("inner", "all_of_it")]
    done = run(apply(target(firewall), gone))
    assert [change.identity for change in done.diff.changes] == ["all_of_it", "inner"]
    assert done.after.steps == ()


def test_new_interface_group_is_active_before_a_rule_names_it(firewall: LabFirewall) -> None:
    wanted = [
        resource("opnsense.interface_group", {"ifname": "servers", "members": ["lan", "opt1"]}),
        resource("opnsense.rule", {"description": "on the group", "interface": "servers"}),
    ]
    done = run(apply(target(firewall), wanted))
    assert isinstance(done.diff.steps[1], Activate)
    assert done.diff.steps[1].service == "interface_group"
    assert [change.activates for change in done.diff.changes] == [("interface_group",), ("filter",)]
    assert done.after.steps == ()


def test_validations_name_our_fields_and_their_places(firewall: LabFirewall) -> None:
    rule = resource(
        "opnsense.rule",
        {"description": "bad", "interface": ["lan"], "source_net": "no_such_alias", "destination_port": 53},
        line=10,
    )
    with pytest.raises(Rejected) as caught:
        run(apply(target(firewall), [rule]))
    assert caught.value.where == Mark("play.yml", 13, 7)
    assert set(caught.value.fields) == {"source_net", "destination_port"}
    assert 'fw-01 refused "bad"' in caught.value.message


def test_an_item_in_use_is_an_answer_and_not_retried(firewall: LabFirewall) -> None:
    run(apply(target(firewall), [CATEGORY, ALIAS]))
    firewall.seed("rule", [{"description": "user", "interface": "lan", "source_net": "dns_servers"}])
    before = firewall.counters["requests"]
    with pytest.raises(DeviceError, match="the firewall refused: Alias in use"):
        run(apply(target(firewall), [resource("opnsense.alias", {"name": "dns_servers"}, state="absent")]))
    assert firewall.counters["requests"] - before == 2


def test_secrets_are_never_shown(firewall: LabFirewall) -> None:
    fields = {"name": "feed", "type": "urltable", "content": ["https://x.example/"], "authtype": "Basic"}
    made = resource("opnsense.alias", {**fields, "username": "u", "password": Secret("hunter-1")})
    changed = resource("opnsense.alias", {**fields, "username": "u", "password": Secret("hunter-2")})
    first = run(apply(target(firewall), [made]))
    second = run(apply(target(firewall), [changed]))
    assert set(second.diff.changes[0].after) == {"password"}
    for shown in (repr(first.diff), repr(second.diff), str(second.diff)):
        assert "hunter" not in shown
    assert first.after.steps == second.after.steps == ()


def test_source_nat_rules_in_a_hidden_mode(firewall: LabFirewall) -> None:
    rule = resource(
        "opnsense.source_nat",
        {"description": "masquerade", "interface": "wan", "source_net": "10.0.0.0/8", "target": "wanip"},
    )
    done = run(apply(target(firewall), [rule]))
    assert len(done.diff.changes) == 1
    assert done.after.steps == ()
    assert "automatic mode" in done.after.notes[0]
    mode = resource("opnsense.source_nat_mode", {"mode": "hybrid"})
    done = run(apply(target(firewall), [mode, rule]))
    assert [change.kind for change in done.diff.changes] == ["opnsense.source_nat_mode"]
    assert done.diff.notes == done.after.notes == ()
    assert done.after.steps == ()


def test_own_uuids_are_version_4_and_tell_owners_apart() -> None:
    ref = own_ref("fa2a1000", "opnsense.alias", "x")
    assert is_uuid(ref)
    assert ref[14] == "4"
    assert ref[19] in "89ab"
    assert own_ref("fa2a1000", "opnsense.alias", "y") != ref != own_ref("fa2a1001", "opnsense.alias", "x")


def test_a_gateway_that_the_firewall_does_not_offer_yet_is_waited_for(start: Start) -> None:
    stale = '{"result": "failed", "validations": {"route.gateway": "Specify a valid gateway from the list."}}'
    firewall = start(
        faults=(Fault(kind="status", status=200, body=stale, path="routes/routes/set*", times=3),)
    )
    wanted = [
        resource("opnsense.gateway", {"name": "LAB_GW", "interface": "lan", "gateway": "192.168.1.254"}),
        resource("opnsense.route", {"network": "172.16.0.0/12", "gateway": "LAB_GW"}),
    ]
    clock = FakeClock()

    async def converge() -> int:
        async with session(target(firewall), clock) as work:
            return len((await apply_in(work, wanted)).after.steps)

    assert run(converge()) == 0
    assert clock.slept == [2.5] * 3
    old = resource("opnsense.route", {"network": "10.9.0.0/16", "gateway": "WAN_GW"})
    firewall.inject(Fault(kind="status", status=200, body=stale, path="routes/routes/set*"))
    with pytest.raises(Rejected, match="gateway: Specify a valid gateway"):
        run(apply(target(firewall), [old]))
    assert clock.slept == [2.5] * 3  # that gateway is not one of the run's own


def test_identity_goes_along_with_every_set(start: Start) -> None:
    """A controller takes its absence for a rename: of interface groups it would rewrite all users."""
    group = {"ifname": "servers", "members": ["lan"]}
    rule = resource("opnsense.rule", {"description": "on the group", "interface": "servers"})
    firewall = start()
    run(apply(target(firewall), [resource("opnsense.interface_group", group), rule]))
    changed = resource("opnsense.interface_group", {**group, "descr": "changed"})
    done = run(apply(target(firewall), [changed, rule]))
    assert [set(change.after) for change in done.diff.changes] == [{"descr"}]
    assert done.after.steps == ()


def test_an_assigned_vlan_reads_without_its_label(start: Start) -> None:
    vlan = {"if": "vtnet3", "tag": 100, "vlanif": "vlan0100"}
    row = {"uuid": own_ref("fa2a1000", "opnsense.vlan", "vtnet3 tag 100"), **vlan, "tag": "100"}
    kind = PROVIDER.kinds["opnsense.vlan"]
    listed = Collection.of(kind, [{**row, "vlanif": "vlan0100 [GUEST]"}], "fazai")
    work = session(target(start()))
    assert work.diff([resource("opnsense.vlan", vlan)], Snapshot({"opnsense.vlan": listed})).steps == ()


def test_a_gateway_is_compared_by_what_is_configured_not_by_what_is_in_use(start: Start) -> None:
    kind = PROVIDER.kinds["opnsense.gateway"]
    row = {
        "uuid": own_ref("fa2a1000", "opnsense.gateway", "B"),
        "name": "B",
        "defaultgw": False,
        "upstream": True,
    }
    listed = Collection.of(kind, [row], "fazai")
    wanted = resource(
        "opnsense.gateway", {"name": "B", "defaultgw": True, "interface": "wan"}, state="absent"
    )
    present = replace(wanted, state="present", fields={"name": "B", "defaultgw": "1"})
    assert session(target(start())).diff([present], Snapshot({"opnsense.gateway": listed})).steps == ()


def test_fields_of_a_later_release_are_an_error_before_anything_is_written(start: Start) -> None:
    rule = {"description": LAN_RULE, "max-pkt-rate-number": 10, "max-pkt-rate-seconds": 1}
    diff = run(
        plan(
            target(start(release="26.1.11", factory_rules="api"), adopt=True),
            [resource("opnsense.rule", rule)],
        )
    )
    assert diff.steps == ()
    assert diff.errors[0].message == (
        "opnsense.rule has no field max-pkt-rate-number in the release of fw-01"
    )
    assert (
        run(plan(target(start(release="26.7.2"), adopt=True), [resource("opnsense.rule", rule)])).errors == ()
    )


def test_a_deletion_that_frees_what_a_new_item_needs_comes_first(firewall: LabFirewall) -> None:
    subnet = resource("opnsense.kea_subnet", {"subnet": "10.9.0.0/24"})
    card = {"subnet": "10.9.0.0/24", "ip_address": "10.9.0.7"}
    old = {**card, "hw_address": "52:54:00:00:00:01"}
    new = {**card, "hw_address": "52:54:00:00:00:02"}
    run(apply(target(firewall), [subnet, resource("opnsense.kea_reservation", old)]))
    wanted = [
        resource("opnsense.kea_reservation", new),
        resource("opnsense.kea_reservation", old, state="absent"),
        resource("opnsense.category", {"name": "later"}),
    ]
    done = run(apply(target(firewall), wanted))
    assert [(change.kind, change.verb) for change in done.diff.changes] == [
        ("opnsense.category", Verb.CREATE),
        ("opnsense.kea_reservation", Verb.DELETE),
        ("opnsense.kea_reservation", Verb.CREATE),
    ]
    assert done.after.steps == ()
