from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hosts.remote.agent import ALL, AgentProcess, Config, Rules
from tests.hosts.remote.relay import RelayServer

__all__ = ["agents", "relay"]


@pytest.fixture
def python() -> tuple[Path, Path] | None:
    """Another Python that agents run under, and where their code is. None: this one."""
    return None


@pytest.fixture
def agents(tmp_path: Path, python: tuple[Path, Path] | None) -> Iterator[Callable[..., AgentProcess]]:
    """Starts agents, each for a folder; they end with the test."""
    started: list[AgentProcess] = []

    def start(root: Path | None = None, rules: Rules | None = None, **more: object) -> AgentProcess:
        folder = tmp_path / "root" if root is None else root
        folder.mkdir(exist_ok=True)
        environ = more.get("environ")
        assert environ is None or isinstance(environ, dict)
        started.append(AgentProcess(Config(str(folder), rules or Rules()), environ, python))
        return started[-1]

    yield start
    for each in started:
        each.end()


@pytest.fixture
def relay(agents: Callable[..., AgentProcess], monkeypatch: pytest.MonkeyPatch) -> Iterator[RelayServer]:
    """The relay of a daemon to which one agent dialled in, `web`, whose / is the folder `root`."""
    agent = agents(rules=ALL)
    with RelayServer({"web": lambda message: agent.request("web", message, 60)}) as server:
        monkeypatch.setenv("FAZAI_AGENTS_URL", server.url)
        yield server
