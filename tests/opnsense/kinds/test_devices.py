"""Interfaces that are made, routing, the shaper, the system: each kind's life on both releases."""

from __future__ import annotations

import pytest

from fazai.errors import DeviceError, Mark, NotAvailable, Rejected
from tests.opnsense.helpers import Start, apply, plan, resource, run, target
from tests.opnsense.kinds.lifecycle import Case, check_lifecycle

PIPE = ("opnsense.shaper_pipe", {"description": "guests", "bandwidth": 20, "bandwidthMetric": "Mbit"})
QUEUE = ("opnsense.shaper_queue", {"description": "calls", "pipe": "guests"})

LTE = (
    "opnsense.gateway",
    {"name": "LTE_GW", "interface": "lan", "ipprotocol": "inet", "gateway": "192.168.1.254"},
)

CASES = [
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


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("release", ["26.7.2", "26.1.11"])
def test_life(start: Start, case: Case, release: str) -> None:
    if release in case.releases:
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
