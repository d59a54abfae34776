"""Interfaces that are made, routing, the shaper, the system: each kind's life on both releases."""

from __future__ import annotations

import pytest

from fazai.errors import Rejected
from tests.opnsense.helpers import Start, apply, plan, resource, run, target
from tests.opnsense.kinds.lifecycle import Case, check_lifecycle

PIPE = ("opnsense.shaper_pipe", {"description": "guests", "bandwidth": 20, "bandwidthMetric": "Mbit"})
QUEUE = ("opnsense.shaper_queue", {"description": "calls", "pipe": "guests"})

CASES = [
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
