"""Hosts to run programs on: folders of this machine, a real OpenSSH server, and agents behind a relay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.fanout.agent import Agent
from tests.hosts.conftest import World, keys, server, world
from tests.hosts.remote.relay import RelayServer

__all__ = ["keys", "server", "world"]


@dataclass
class Fleet:
    """Agents by their ids, behind one relay."""

    relay: RelayServer
    agents: dict[str, Agent] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Agent:
        return self.agents[name]


@pytest.fixture
def fleet(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """Three hosts that are reached through their agents."""
    agents = {name: Agent(world.folder / name) for name in ("e1", "e2", "e3")}
    for name, one in agents.items():
        one.root.mkdir()
        world.hosts[name] = {"provider": "agent"}
    with RelayServer({name: one.answer for name, one in agents.items()}) as relay:
        monkeypatch.setenv("FAZAI_AGENTS_URL", relay.url)
        yield Fleet(relay, agents)
