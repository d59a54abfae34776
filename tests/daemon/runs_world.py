"""A daemon that may run `edge`: one firewall of the lab, on which one alias is missing."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from fazai.daemon.runs.config import Polling
from fazai.daemon.runs.config_file import read_daemon_config
from fazai.lab import LabFirewall, LabSettings, LabThread
from fazai.store.daemon import RunRecord
from fazai.store.factory import open_daemon_store
from tests.daemon.live import Live, live, until

RESOURCES = [{"opnsense.alias": {"name": "blocklist", "type": "host", "content": ["192.0.2.7"]}}]


@dataclass
class World:
    daemon: Live
    firewall: LabFirewall
    folder: Path
    client: httpx.Client

    def run(self, **body: Any) -> httpx.Response:
        return self.client.post("/runs", json={"playbook": "edge", "mode": "check", **body})

    def started(self, answer: httpx.Response) -> str:
        assert answer.status_code == 202, answer.text
        return str(answer.json()["run_id"])

    def row(self, run_id: str) -> dict[str, Any]:
        found = self.client.get(f"/runs/{run_id}")
        assert found.status_code == 200, found.text
        row: dict[str, Any] = found.json()["run"]
        return row

    def ended(self, run_id: str) -> dict[str, Any]:
        """The run's row, once the daemon is done with it."""
        run_queue = self.daemon.services.run_queue
        until(lambda: (found := run_queue.records.get(run_id)) is not None and found.exit_code is not None)
        until(lambda: not run_queue.busy_jobs())
        return self.row(run_id)

    def plan(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/runs/{run_id}/plan").json()["plan"]
        return found

    def runs(self) -> list[str]:
        """The ids of all runs that there are, the newest first."""
        return [row["run_id"] for row in self.client.get("/runs").json()["runs"]]

    def aliases(self) -> list[str]:
        rows = self.firewall.call("POST", "/api/firewall/alias/searchItem", {})["rows"]
        return [row["name"] for row in rows]

    def inventory(self, resources: Any = None, **more: Any) -> None:
        write_inventory(self.folder, self.firewall, resources, **more)


def write_inventory(folder: Path, firewall: LabFirewall, resources: Any = None, **more: Any) -> None:
    host = {
        "provider": "opnsense",
        "mode": "write",
        "base_url": firewall.base_url,
        "secret": {"api_key": firewall.api_key, "api_secret": firewall.api_secret},
        "retries": 0,
        "resources": RESOURCES if resources is None else resources,
        **more,
    }
    (folder / "inventory.yml").write_text(json.dumps({"all": {"hosts": {"fw-01": host}}}))


def write_config(folder: Path, **more: Any) -> Path:
    path = folder / "daemon.yml"
    job = {"inventory": "inventory.yml", "modes": ["check", "approve", "apply"], **more.pop("job", {})}
    path.write_text(json.dumps({"runs": {"edge": job, **more.pop("runs", {})}, **more}))
    return path


@contextlib.contextmanager
def world(
    folder: Path, *, daemon: dict[str, Any] | None = None, polling: Polling | None = None, **config: Any
) -> Iterator[World]:
    with LabThread() as lab:
        firewall = lab.start("fw-01", LabSettings(auth_delay_s=0.0))
        write_inventory(folder, firewall)
        with beside(folder, firewall, daemon=daemon, polling=polling, **config) as found:
            yield found


@contextlib.contextmanager
def beside(
    folder: Path,
    firewall: LabFirewall,
    *,
    daemon: dict[str, Any] | None = None,
    polling: Polling | None = None,
    **config: Any,
) -> Iterator[World]:
    """A daemon that comes and goes while the firewall and its inventory stay."""
    read = read_daemon_config(write_config(folder, **config))
    read = replace(read, polling=polling or read.polling)
    more = daemon or {}
    with live(folder, socket=folder / "d.sock", config=read, **more) as running, running.client() as client:
        yield World(running, firewall, folder, client)


def keep_records(state: Path, *records: RunRecord) -> None:
    """Put records into a state folder that no daemon uses."""
    with contextlib.closing(open_daemon_store(state)) as store:
        asyncio.run(store.put_run_records(records))


def kept_record(state: Path, run_id: str) -> RunRecord | None:
    """Return a record of a state folder that no daemon uses."""
    with contextlib.closing(open_daemon_store(state)) as store:
        return next((one for one in asyncio.run(store.run_records()) if one.run_id == run_id), None)
