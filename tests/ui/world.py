"""What the page is shown: a daemon with hosts, firewalls, runs and events of every kind."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from typing import Any

import httpx

from fazai.store.daemon import FirewallRecord
from tests.daemon.live import Live

__all__ = ["HOSTILE", "RUN", "drifting_run", "hosts", "register", "report", "series"]

RUN = "01KANHC0E8M5T3W9Q7Z2R4V6XB"
HOSTILE = "<img/src=x/onerror=document.body.dataset.hacked=1>"
GIB = 1 << 30


def record(name: str, moment: float, **more: Any) -> dict[str, Any]:
    """One that has everything."""
    phase = moment / 1800
    busy = 30 + 25 * math.sin(phase)
    return {
        "hostname": name,
        "timestamp": datetime.fromtimestamp(moment, UTC).isoformat(),
        "os": {"load": [busy / 20, busy / 25, busy / 30]},
        "cpu": {"percent": busy},
        "mem": {"total": 16 * GIB, "free": GIB, "available": int((9 + 3 * math.sin(phase / 2)) * GIB)},
        "disk": [{"mount": "/", "total": 200 * GIB, "free": int(90 * GIB - (moment % 86400) * 2e5)}],
        "net": [{"name": "eth0", "rx_bytes": int(moment * 2e6), "tx_bytes": int(moment * 3e5)}],
        "uptime": 86_400,
        "agent": {"version": "1.4.2", "interval": 60},
        **more,
    }


def post(client: httpx.Client, path: str, body: Any) -> dict[str, Any]:
    answer = client.post(path, json=body)
    assert answer.status_code in (200, 202), answer.text
    found: dict[str, Any] = answer.json()
    return found


def hosts(client: httpx.Client, names: list[str]) -> None:
    now = time.time()
    assert post(client, "/ingest", [record(name, now - 2) for name in names])["accepted"] == len(names)


def series(client: httpx.Client, name: str, *, minutes: int = 58) -> None:
    """A record a minute until now."""
    now = time.time()
    records = [record(name, now - 60 * ago) for ago in range(minutes, -1, -1)]
    assert post(client, "/ingest", records)["accepted"] == len(records)


def register(daemon: Live, name: str, *, up: bool, version: str = "25.7.4") -> None:
    now = time.time()
    firewall = FirewallRecord(
        id=f"o-{name}",
        name=name,
        base_url=f"https://{name}.example.net",
        verify_tls=True,
        created=now,
        updated=now,
        last_seen=now - (5 if up else 600),
        last_error=None if up else "no answer within 10 s",
        last_error_at=None if up else now - 3,
        version=version,
    )
    store = daemon.services.store
    daemon.call(lambda: store.put_firewall(firewall))


def report(client: httpx.Client, run_id: str, *events: dict[str, Any], command: str = "plan") -> None:
    """As `fazai apply` on another machine does; the run ends, so that all of it is on disk."""
    if not any(one.get("state") == "finished" for one in events):
        events = (*events, {"type": "run", "state": "finished", "run_id": run_id, "exit_code": 0})
    now = datetime.now(UTC).isoformat()
    body = {"run_id": run_id, "command": command, "host": "ci-7", "user": "deploy", "started": now}
    rows = [{"sequence": at, "event": {"timestamp": now, **one}} for at, one in enumerate(events, 1)]
    assert post(client, "/events", {**body, "events": rows})["accepted"] == len(rows)


def change(target: str, identity: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "change",
        "target": target,
        "kind": "opnsense.alias",
        "identity": identity,
        "verb": "update",
        "before": {"content": ["192.0.2.53", "203.0.113.9"], "description": "old"},
        "after": {"content": ["192.0.2.53", "198.51.100.7"], "description": "new"},
        "status": "planned",
        **more,
    }


def drifting_run(client: httpx.Client, *more: dict[str, Any], run_id: str = RUN) -> None:
    """One that found two changes on fw-01, and could not reach fw-02."""
    secret = {"before": {}, "after": {"password": "***"}, "verb": "create"}
    outcome = {"type": "outcome", "target": "fw-01", "status": "pending", "pending": 2, "unchanged": 31}
    failed = {"type": "outcome", "target": "fw-02", "status": "unreachable", "errors": ["fw-02: no answer"]}
    totals = {"targets": 2, "pending": 2, "unchanged": 31, "unreachable": 1}
    report(
        client,
        run_id,
        {"type": "run", "state": "started", "run_id": run_id, "command": "plan"},
        change("fw-01", "blocklist"),
        change("fw-01", "vpn user", **secret),
        *more,
        outcome,
        failed,
        {"type": "run", "state": "finished", "run_id": run_id, "exit_code": 4, "totals": totals},
    )
