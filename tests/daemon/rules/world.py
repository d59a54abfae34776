"""A daemon with event rules, and one lab firewall whose alias they fill by the job `edge`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fazai.lab import LabFirewall, LabSettings, LabThread
from tests.daemon.live import until
from tests.daemon.runs_world import World, beside, write_inventory

RULES = """
never: [198.51.100.0/24]
rules:
  - name: suricata
    source: telemetry
    each: suricata.alerts
    where: {severity: {at_most: 2}}
    group_by: src_ip
    threshold: 5
    within: 10m
    throttle: 1h
    then:
      entry: {job: edge, alias: attackers, for: 24h, most: 10}
"""
POLICY = """
rules:
  - name: attackers
    tool: rules.entries
    kinds: opnsense.alias
    targets: [fw-01]
    identities: [attackers]
    verbs: [create, update]
    fields: [name, type, content]
    per_hour: 3
    expires: 2999-01-01
"""
RESOURCES = [
    {"opnsense.alias": {"name": "attackers", "type": "host", "content": "{{ fazai_entries.attackers }}"}}
]
ATTACKER = "203.0.113.7"


@contextlib.contextmanager
def lab_firewall(folder: Path) -> Iterator[LabFirewall]:
    with LabThread() as lab:
        firewall = lab.start("fw-01", LabSettings(auth_delay_s=0.0))
        write_inventory(folder, firewall, RESOURCES)
        yield firewall


@contextlib.contextmanager
def daemon(
    folder: Path, firewall: LabFirewall, rules: str = RULES, policy: str | None = POLICY
) -> Iterator[World]:
    (folder / "rules.yml").write_text(rules)
    if policy is not None:
        (folder / "policy.yml").write_text(policy)
    job = {"modes": ["check", "approve"], "entries": True}
    with beside(folder, firewall, job=job, daemon={"ingest": "open"}) as found:
        yield found


def alert(address: str = ATTACKER, severity: int = 1) -> dict[str, Any]:
    return {"src_ip": address, "severity": severity, "signature": "ET SCAN"}


def report(world: World, seconds: int, *alerts: dict[str, Any], host: str = "sensor") -> None:
    """Send a record of now, so many seconds apart from others."""
    record = {"hostname": host, "timestamp": moment(world, seconds), "suricata": {"alerts": list(alerts)}}
    answer = world.client.post("/ingest", content=json.dumps(record))
    assert answer.status_code == 200, answer.text


def moment(world: World, seconds: int) -> str:
    now = world.daemon.services.rules._now()
    return datetime.fromtimestamp(now + seconds, UTC).isoformat()


def content(firewall: LabFirewall, alias: str = "attackers") -> list[str]:
    """What stands in an alias of the firewall."""
    rows = firewall.call("POST", "/api/firewall/alias/searchItem", {})["rows"]
    return next((sorted(row["content"].split()) for row in rows if row["name"] == alias), [])


def set_clock(world: World, now: Any) -> None:
    """Let rules and keeper have another clock."""
    rules = world.daemon.services.rules
    rules._now = rules.keeper._now = now
    world.daemon.call(rules.keeper.wake)


def applied(world: World) -> list[dict[str, Any]]:
    """The runs that applied a plan, the newest first."""
    rows: list[dict[str, Any]] = world.client.get("/runs").json()["runs"]
    return [row for row in rows if row["command"] == "apply"]


def checks(world: World) -> list[dict[str, Any]]:
    """The runs that planned, the newest first."""
    rows: list[dict[str, Any]] = world.client.get("/runs").json()["runs"]
    return [row for row in rows if row["command"] == "plan"]


def wait_content(world: World, wanted: list[str]) -> None:
    until(lambda: content(world.firewall) == wanted)
    until(lambda: not world.daemon.services.run_queue.busy_jobs())
