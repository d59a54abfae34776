"""Whose memory it is, over the command line: firewalls of the lab, and a plan beside a living apply."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fazai.lab import Fault
from tests.cli.conftest import World

ALIAS = {"opnsense.alias": {"name": "a", "type": "host", "content": ["192.0.2.1"]}}
LAN_RULE = "Default allow LAN to any rule"


def until(condition: Callable[[], bool]) -> None:
    """Wait until it is so; what limits it is the runner."""
    while not condition():
        time.sleep(0.01)


def test_a_firewall_of_the_lab_is_the_same_whatever_its_port(world: World) -> None:
    def inventory(**fields: Any) -> Any:
        rule = {
            "opnsense.rule": {"description": LAN_RULE, **fields},
            "adopt": bool(fields["log"]),
        }
        host = {"provider": "opnsense", "mode": "write", "base_url": "lab://edge", "resources": [rule]}
        return world.inventory({"fw": host})

    assert world.fazai("apply", inventory(log=True)).code == 0
    result = world.fazai("apply", inventory(log=False))  # adopted it is, by the run before
    assert result.code == 0, result.out


def test_a_plan_beside_an_apply(world: World) -> None:
    firewall = world.firewall()
    firewall.inject(Fault(kind="delay", path="firewall/alias/reconfigure", delay_s=600))
    inventory = world.inventory(resources=[ALIAS])
    child = world.start("apply", inventory)
    until(lambda: any("/alias/setItem/" in path for path in world.writes()) or child.poll() is not None)
    planned = world.fazai("plan", inventory)
    assert planned.code == 0
    assert "is under way on fw-01: this is how it is meanwhile" in planned.out
    assert "cut off" not in planned.out
    assert "never activated" not in planned.out
    locked = world.fazai(
        "apply", world.inventory(resources=[ALIAS, {"opnsense.alias": {"name": "b", "type": "host"}}])
    )
    assert locked.code == 5
    child.kill()
    child.wait()
    cut = world.fazai("plan", inventory)
    assert cut.code == 2
    assert "saved changes of alias and never activated them; apply activates them" in cut.out
    assert "under way" not in cut.out
