"""Interfaces that are made, routing, the shaper, the system: each kind's life on both releases."""

from __future__ import annotations

import pytest

from fazai.errors import DeviceError, Mark, NotAvailable, Rejected
from fazai.lab import Fault
from fazai.model import Activate, Change, Verb
from fazai.providers.opnsense.provider import PROVIDER
from tests.opnsense.helpers import Start, apply, plan, resource, run, target
from tests.opnsense.kinds.lifecycle import Case, check_lifecycle, lives

PIPE = ("opnsense.shaper_pipe", {"description": "guests", "bandwidth": 20, "bandwidthMetric": "Mbit"})
QUEUE = ("opnsense.shaper_queue", {"description": "calls", "pipe": "guests"})

LTE = (
    "opnsense.gateway",
    {"name": "LTE_GW", "interface": "lan", "ipprotocol": "inet", "gateway": "192.168.1.254"},
)

TUNNEL = {"local-addr": "wan", "tunnel-local-addr": "10.99.0.1", "tunnel-remote-addr": "10.99.0.2"}

CASES = [
    Case(
        "opnsense.lagg",
        {"laggif": "lagg0", "members": ["vtnet3"], "lagghash": ["l2", "l3"], "descr": "to the switch"},
        {"proto": "failover", "primary_member": "vtnet3", "lagghash": [], "mtu": 9000},
    ),
    Case(
        "opnsense.bridge",
        {"bridgeif": "bridge0", "members": ["lan", "opt1"], "descr": "house"},
        {"enablestp": True, "stp": ["lan"], "proto": "stp"},
    ),
    Case(
        "opnsense.gif",
        {"gifif": "gif0", **TUNNEL, "remote-addr": "203.0.113.1"},
        {"remote-addr": "203.0.113.2", "link1": True, "descr": "to the south"},
    ),
    Case(
        "opnsense.gre",
        {"greif": "gre0", **TUNNEL, "remote-addr": "203.0.113.1"},
        {"local-addr": "192.0.2.2", "tunnel-remote-net": 30},
    ),
    Case(
        "opnsense.vxlan",
        {"vxlanid": 100, "vxlanlocal": "192.0.2.2", "vxlanremote": "203.0.113.1"},
        {"vxlanlocalport": 4789, "vxlanremoteport": 4789, "deviceId": 7},
    ),
    Case(
        "opnsense.interface",
        {"if": "vtnet3", "descr": "GUEST", "lock": False},
        {"descr": "IOT"},
        releases=["26.7.2"],
    ),
    Case(
        "opnsense.tunable",
        {"tunable": "net.inet.ip.ttl", "value": "64", "descr": "hops"},
        {"value": 128},
    ),
    Case(
        "opnsense.neighbor",
        {"ipaddress": "192.168.1.40", "etheraddr": "52:54:00:11:22:33", "descr": "nas"},
        {"etheraddr": "52:54:00:11:22:44"},
    ),
    Case(
        "opnsense.gateway_group",
        {"name": "UPLINKS", "item": ["WAN_GW"], "trigger": "downloss"},
        {"item2": ["LTE_GW"], "trigger": "down", "descr": "both"},
        needs=[LTE],
        releases=["26.7.2"],
    ),
    Case(
        "opnsense.shaper_queue",
        {"description": "calls", "pipe": "guests", "weight": 80, "mask": "src-ip"},
        {"weight": 60, "mask": "none", "enabled": False},
        needs=[PIPE],
    ),
    Case(
        "opnsense.shaper_rule",
        {"description": "calls first", "sequence": 10, "proto": "udp", "dst_port": "sip", "target": "calls"},
        {"sequence": 20, "target": "guests", "source": ["192.0.2.0/24", "198.51.100.0/24"]},
        needs=[PIPE, QUEUE],
    ),
    Case("opnsense.loopback", {"description": "router id"}, {"deviceId": 7}),
    Case(
        "opnsense.monit_alert",
        {"recipient": "ops@example.org", "enabled": True, "events": ["timeout", "nonexist"]},
        {"events": ["timeout"], "reminder": 10},
    ),
]


@pytest.mark.parametrize(("case", "release"), lives(CASES))
def test_life(start: Start, case: Case, release: str) -> None:
    check_lifecycle(start, case, release)


# shaper: what a rule's target may be


def test_a_target_that_two_kinds_share_is_not_clear(start: Start) -> None:
    to = target(start())
    both = [resource(*PIPE), resource("opnsense.shaper_queue", {"description": "guests", "pipe": "guests"})]
    run(apply(to, both))
    rule = resource("opnsense.shaper_rule", {"description": "r", "target": "guests"})
    (error,) = run(plan(to, [*both, rule])).errors
    assert 'shaper pipe or shaper queue are called "guests"' in str(error)


def test_a_target_that_is_not_there_is_said(start: Start) -> None:
    rule = resource("opnsense.shaper_rule", {"description": "r", "target": "guest"})
    (error,) = run(plan(target(start()), [resource(*PIPE), rule])).errors
    assert 'there is no shaper pipe or shaper queue "guest"' in str(error)
    assert "guests" in str(error.hint)


def test_an_alias_is_no_source_of_a_shaper_rule(start: Start) -> None:
    fields = {"description": "r", "target": "guests", "source": ["bogons"]}
    with pytest.raises(Rejected, match="source: Please specify a valid network segment") as caught:
        run(apply(target(start()), [resource(*PIPE), resource("opnsense.shaper_rule", fields)]))
    assert list(caught.value.fields) == ["source"]


# groups of gateways

GROUP = ("opnsense.gateway_group", {"name": "UPLINKS", "item": ["WAN_GW"]})


def test_a_release_without_the_kind_says_so_when_it_is_planned(start: Start) -> None:
    wanted = [resource(*GROUP, line=4)]
    with pytest.raises(NotAvailable, match=r"it lacks opnsense\.gateway_group") as caught:
        run(plan(target(start(release="26.1.11")), wanted))
    assert caught.value.where == Mark("play.yml", 4, 3)
    assert "its release does not have it" in str(caught.value.hint)


def test_a_rule_and_the_group_that_it_names_are_made_and_deleted_together(start: Start) -> None:
    to = target(start())
    fields = {"description": "out", "interface": ["lan"], "gateway": "UPLINKS"}
    both = [resource(*GROUP), resource("opnsense.rule", fields)]
    assert not run(apply(to, both)).after.steps
    with pytest.raises(DeviceError, match="Gateway group UPLINKS in use by rule out"):
        run(apply(to, [resource(*GROUP, state="absent")]))
    gone = [
        resource(*GROUP, state="absent"),
        resource("opnsense.rule", {"description": "out"}, state="absent"),
    ]
    done = run(apply(to, gone))
    assert [change.kind for change, _ in done.written] == ["opnsense.rule", "opnsense.gateway_group"]


def test_a_group_without_a_gateway_is_refused_at_its_tiers(start: Start) -> None:
    with pytest.raises(Rejected, match=r"At least one tier must be set\.") as caught:
        run(apply(target(start()), [resource("opnsense.gateway_group", {"name": "NONE"})]))
    assert "item" in caught.value.fields


# devices that are made

LAGG = ("opnsense.lagg", {"laggif": "lagg0", "members": ["vtnet3"]})
BRIDGE = ("opnsense.bridge", {"bridgeif": "bridge0", "members": ["opt1"]})


def test_a_vlan_on_an_aggregate_waits_until_the_device_exists(start: Start) -> None:
    to = target(start())
    both = [resource("opnsense.vlan", {"if": "lagg0", "tag": 12}), resource(*LAGG)]
    done = run(apply(to, both))
    said = [
        step.service if isinstance(step, Activate) else step.kind
        for step in done.diff.steps
        if isinstance(step, (Activate, Change))
    ]
    assert said == ["opnsense.lagg", "lagg", "opnsense.vlan", "vlan"]
    assert not done.after.steps
    gone = [resource(one.kind, one.fields, state="absent") for one in both]
    done = run(apply(to, gone))
    assert [step.kind for step in done.diff.steps if isinstance(step, Change)] == [
        "opnsense.vlan",
        "opnsense.lagg",
    ]


def test_a_member_that_is_assigned_is_refused(start: Start) -> None:
    lagg = resource("opnsense.lagg", {"laggif": "lagg0", "members": ["vtnet1"]})
    with pytest.raises(Rejected, match=r"members: At least one valid member is required\."):
        run(apply(target(start()), [lagg]))


@pytest.mark.parametrize(("kind", "field"), [("lagg", "laggif"), ("bridge", "bridgeif"), ("gif", "gifif")])
def test_a_device_has_a_name_of_its_sort(kind: str, field: str) -> None:
    row = PROVIDER.kinds[f"opnsense.{kind}"]
    for wrong in ("vtnet9", f"x{kind}0", f"{kind}0x"):
        _, problems = row.normalise({field: wrong}, "absent")
        assert [problem.field for problem in problems] == [field]


def test_a_bridge_that_is_assigned_is_not_deleted(start: Start) -> None:
    firewall = start()
    to = target(firewall)
    run(apply(to, [resource(*BRIDGE)]))
    assigned = {"interface": {"if": "bridge0", "descr": "HOUSE"}}
    assert firewall.call("POST", "/api/interfaces/assignment/addItem", assigned)["result"] == "saved"
    with pytest.raises(DeviceError, match=r"Cannot delete bridge\. Currently in use by \[opt2\]"):
        run(apply(to, [resource(*BRIDGE, state="absent")]))


def test_a_tunnel_of_two_families_is_refused_at_the_far_end(start: Start) -> None:
    fields = {"gifif": "gif0", **TUNNEL, "local-addr": "192.0.2.2", "remote-addr": "2001:db8::1"}
    with pytest.raises(Rejected, match="remote-addr: The remote address family has to match") as caught:
        run(apply(target(start()), [resource("opnsense.gif", fields)]))
    assert list(caught.value.fields) == ["remote-addr"]


def test_a_field_that_the_release_lacks_is_said_when_it_is_planned(start: Start) -> None:
    to = target(start(release="26.1.11"))
    fields = {"gifif": "gif0", **TUNNEL, "remote-addr": "203.0.113.1"}
    run(apply(to, [resource("opnsense.gif", fields)]))
    (error,) = run(plan(to, [resource("opnsense.gif", {**fields, "noclamp": True})])).errors
    assert "opnsense.gif has no field noclamp in the release" in str(error)


def test_a_vxlan_goes_to_one_address_or_to_a_group(start: Start) -> None:
    ends = {"vxlanlocal": "192.0.2.2", "vxlanremote": "203.0.113.1", "vxlangroup": "239.1.1.1"}
    with pytest.raises(Rejected, match="Multicast group -or- Remote address") as caught:
        run(apply(target(start()), [resource("opnsense.vxlan", {"vxlanid": 1, **ends})]))
    assert set(caught.value.fields) == {"vxlanremote", "vxlangroup", "vxlandev"}


def test_two_vxlans_of_one_number_are_told_apart_by_their_ends(start: Start) -> None:
    firewall = start()
    first = {"vxlanid": 5, "vxlanlocal": "192.0.2.2", "vxlanremote": "203.0.113.1"}
    second = {**first, "vxlanremote": "203.0.113.2"}
    for body in (first, second):
        firewall.call("POST", "/api/interfaces/vxlan_settings/addItem", {"vxlan": body})
    diff = run(plan(target(firewall), [resource("opnsense.vxlan", second)]))
    assert (diff.errors, diff.steps, diff.unchanged) == ((), (), 1)


# tunables


def test_a_default_of_the_product_is_no_item_and_may_be_declared(start: Start) -> None:
    firewall = start()
    to = target(firewall)
    fields = {"tunable": "net.inet.tcp.recvspace", "value": "131072"}
    done = run(apply(to, [resource("opnsense.tunable", fields)]))
    ((change, ref),) = done.written
    assert change.verb is Verb.CREATE
    assert ref.startswith("fa2a1000-")
    assert not done.after.steps
    done = run(apply(to, [resource("opnsense.tunable", fields, state="absent")]))
    assert [change.verb for change, _ in done.written] == [Verb.DELETE]
    listed = firewall.call("POST", "/api/core/tunables/searchItem", {"rowCount": -1})["rows"]
    (left,) = (row for row in listed if row["tunable"] == "net.inet.tcp.recvspace")
    assert (left["value"], left["default_value"]) == ("", "65228")
    assert not run(plan(to, [resource("opnsense.tunable", fields, state="absent")])).steps


def test_a_tunable_without_a_value_is_refused_before_anything_is_asked() -> None:
    kind = PROVIDER.kinds["opnsense.tunable"]
    _, (problem,) = kind.normalise({"tunable": "net.inet.ip.ttl"}, "present")
    assert (problem.field, problem.message) == ("value", "is missing")


# interfaces

GUEST = {"if": "vtnet3", "descr": "GUEST", "lock": False}


def test_an_interface_that_was_made_is_remembered_by_the_name_that_the_firewall_chose(start: Start) -> None:
    to = target(start())
    done = run(apply(to, [resource("opnsense.interface", GUEST)]))
    ((change, ref),) = done.written
    assert (change.adopts, ref) == (True, "opt2")
    other = resource("opnsense.interface", {**GUEST, "descr": "IOT"})
    ((_, refused),) = run(plan(to, [other])).refused
    assert "was not made by fazai" in str(refused)
    assert run(plan(to, [other], adopted=frozenset({"opt2"}))).changes


def test_a_locked_interface_stays_until_it_is_unlocked(start: Start) -> None:
    to = target(start())
    fields = {"if": "vtnet3", "descr": "GUEST"}
    run(apply(to, [resource("opnsense.interface", fields)]))
    ours = frozenset({"opt2"})
    gone = resource("opnsense.interface", {"if": "vtnet3"}, state="absent")
    with pytest.raises(DeviceError, match="Interface locked, unset lock first before removal"):
        run(apply(to, [gone], adopted=ours))
    run(apply(to, [resource("opnsense.interface", GUEST)], adopted=ours))
    assert not run(apply(to, [gone], adopted=ours)).after.steps


def test_lan_is_not_deleted_even_when_it_is_adopted(start: Start) -> None:
    gone = resource("opnsense.interface", {"if": "vtnet1"}, state="absent", adopt=True)
    ((_, refused),) = run(plan(target(start()), [gone])).refused
    assert "is protected and is not deleted" in str(refused)


def test_a_device_is_made_and_assigned_in_one_run(start: Start) -> None:
    to = target(start())
    both = [
        resource("opnsense.interface", {"if": "vlan01", "descr": "GUEST"}),
        resource("opnsense.vlan", {"if": "vtnet3", "tag": 30, "vlanif": "vlan01"}),
    ]
    done = run(apply(to, both))
    assert [change.kind for change, _ in done.written] == ["opnsense.vlan", "opnsense.interface"]
    assert not done.after.steps


def test_a_lost_answer_does_not_assign_twice(start: Start) -> None:
    firewall = start()
    firewall.inject(Fault(kind="cut", at="after", path="interfaces/assignment/addItem", times=1))
    done = run(apply(target(firewall), [resource("opnsense.interface", GUEST)]))
    assert [ref for _, ref in done.written] == ["opt2"]
    assert not done.after.steps


def test_the_name_of_an_interface_has_no_blanks() -> None:
    kind = PROVIDER.kinds["opnsense.interface"]
    _, (problem,) = kind.normalise({**GUEST, "descr": "a b"}, "present")
    assert problem.field == "descr"
