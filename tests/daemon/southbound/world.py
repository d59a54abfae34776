"""A daemon with its port for agents, in a thread of the test."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fazai.daemon.runs.config import AgentsConfig, DaemonConfig
from fazai.daemon.southbound.actions import ActionQueue
from fazai.daemon.southbound.service import Southbound
from fazai.daemon.southbound.trust import PkiTrust
from fazai.store.certificates import CertificateStore
from fazai.store.factory import open_certificates
from tests.daemon.live import Live, live
from tests.daemon.southbound import client
from tests.daemon.southbound.authority import Authority


@dataclass
class World:
    """A daemon with its port for agents."""

    live: Live
    authority: Authority
    certificates: CertificateStore
    trust: PkiTrust
    socket: Path

    @property
    def south(self) -> Southbound:
        found = self.live.services.southbound
        assert found is not None
        return found

    @property
    def port(self) -> int:
        return self.live.daemon.agent_addresses[0][1]

    def agent(self, agent_id: str = "edge-7", **more: Any) -> Any:
        return client.agent(self.port, self.authority.file, self.authority.issue(agent_id), agent_id, **more)

    def queue(self, agent_id: str = "edge-7") -> ActionQueue:
        found = self.south.registry.find(agent_id)
        assert found is not None
        return found.queue

    def relay(self) -> Any:
        return client.local_relay(self.socket)

    def row(self, agent_id: str = "edge-7") -> dict[str, Any]:
        with self.live.client() as http:
            answer = http.get(f"/agents/{agent_id}")
            assert answer.status_code == 200, answer.text
            found: dict[str, Any] = answer.json()["agent"]
            return found

    def events(self, agent_id: str | None = None, kind: str | None = None) -> list[dict[str, Any]]:
        """What was published, through the store."""
        store = self.live.services.store
        rows = self.live.call(lambda: store.events_after(0, 100_000))
        return [
            json.loads(row.data) | {"level": row.level}
            for row in rows
            if (agent_id is None or row.agent == agent_id) and (kind is None or row.type == kind)
        ]


@contextmanager
def agents_world(folder: Path, *, local: Path | None = None, **config: Any) -> Iterator[World]:
    """A daemon in `folder` with a CA of its own. `local`: where it has a socket beside its port."""
    (folder / "secrets").mkdir(mode=0o700)
    authority = Authority(folder / "secrets/pki")
    store = open_certificates(folder / "state")
    trust = PkiTrust(authority.folder, store)
    config.setdefault("heartbeat_s", 15.0)
    agents = AgentsConfig(port=0, socket=folder / "agents.sock", configured=True, **config)
    with live(folder, trust=trust, config=DaemonConfig(agents=agents), socket=local) as running:
        yield World(running, authority, store, trust, folder / "agents.sock")
