"""The real thing: a daemon, a host, its agent installed by fazai, its records signed, its key changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.live import Live, live
from tests.hosts.conftest import Result, World
from tests.supervisor.conftest import Init, until

KEY = "k" * 40
FAST = {
    "backoff_min_s": "0.05",
    "backoff_max_s": "0.1",
    "units_every_s": "86400",
    "jitter_percent": "0",
}


def declare(world: World, url: str, **more: Any) -> Path:
    """The inventory; the key by reference, as it is the daemon's file."""
    root = world.local("web-01")
    agent = {
        "server": url,
        "hostname": "web-01",
        "interval": 0.1,
        "init": "none",
        "grace": 0,
        "settings": FAST,
    }
    agent |= {"sample": ["os", "uptime"], **more}
    text = json.dumps({"all": {"hosts": world.hosts, "resources": [{"host.telemetry_agent": agent}]}})
    (world.folder / "inventory.yml").write_text(text.replace('"KEYFILE"', "!file keys/web-01.key"))
    return root


def key_file(world: World, key: str = KEY) -> Path:
    path = world.folder / "keys/web-01.key"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(key + "\n")
    return path


def fazai(world: World, *words: str) -> Result:
    from fazai.cli import main

    path = str(world.folder / "inventory.yml")
    world.capsys.readouterr()
    command = [*words[:2], path, *words[2:]] if words[0] == "agents" else [words[0], path, *words[1:]]
    code = main(command)
    said = world.capsys.readouterr()
    return Result(code, said.out, said.err)


def accepted(daemon: Live) -> int:
    return daemon.services.ingest.records["accepted"]


@pytest.fixture
def daemon_keys(tmp_path: Path) -> Path:
    """The daemon's file of the host's key."""
    path = tmp_path / "daemon/secrets/hosts/web-01.key"
    path.parent.mkdir(parents=True, mode=0o700)
    path.parent.parent.chmod(0o700)
    path.touch(mode=0o600)
    path.write_text(KEY + "\n")
    return path


@pytest.mark.slow
def test_from_install_to_removal(
    world: World, daemon_keys: Path, init: Callable[[Path], Init], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = key_file(world)
    folder = daemon_keys.parents[2]
    with live(folder, ingest="signed") as daemon:
        port, url = daemon.port, daemon.url
        monkeypatch.setenv("FAZAI_URL", url)
        root = declare(world, url, key="KEYFILE")
        done = fazai(world, "apply")
        assert (done.code, "RESULT 1 changed" in done.out) == (0, True), done.out
        assert KEY not in done.out + done.err
        assert (root / "etc/fazai/telemetry.env").stat().st_mode & 0o777 == 0o600
        agent = init(root)
        until(lambda: accepted(daemon) >= 3)
        record = daemon.services.store.host("web-01")
        assert record is not None
        assert record.interval_s == pytest.approx(0.1)
        assert fazai(world, "apply").out.count("RESULT 0 changed") == 1
        shown = fazai(world, "agents", "status", "--output", "json")
        assert shown.code == 0, shown.out
        row = json.loads(shown.out)["web-01"]
        assert (row["well"], row["running"], row["key"], row["trouble"]) == (True, True, "KEY", None)
        text = fazai(world, "agents", "status").out
        assert "web-01" in text
        assert "s ago" in text

        before = agent.status()["pid"]
        assert fazai(world, "agents", "restart").code == 0
        assert agent.status()["pid"] != before
        rotated(world, agent, daemon, own, daemon_keys)
    stopped_and_back(world, agent, folder, port)
    with_removal(world, root, agent)


def rotated(world: World, agent: Init, daemon: Live, own: Path, daemon_keys: Path) -> None:
    done = fazai(world, "agents", "rotate-key")
    assert done.code == 0, done.out + done.err
    (new,) = own.read_text().split()
    assert new != KEY
    assert daemon_keys.read_text().split() == [new]
    settings = (agent.root / "etc/fazai/telemetry.env").read_text()
    assert f'FAZAI_AGENT_KEY="{new}"' in settings
    assert "PREVIOUS" not in settings
    assert new not in done.out + done.err + daemon.log()
    count = accepted(daemon)
    until(lambda: accepted(daemon) >= count + 2)
    assert agent.status()["key"] == "KEY"
    assert fazai(world, "drift").code == 0


def stopped_and_back(world: World, agent: Init, folder: Path, port: int) -> None:
    until(lambda: int(agent.status().get("failures", "0")) >= 3 and fazai(world, "drift").code == 2)
    drift = fazai(world, "drift")
    assert drift.code == 2
    assert "not delivering for" in drift.out
    assert "Failed to connect" in drift.out or "refused" in drift.out or "connect to" in drift.out
    status = fazai(world, "agents", "status")
    assert (status.code, "not delivering" in status.out) == (2, True)
    again = fazai(world, "apply")
    assert again.code == 1, again.out  # what was written stays, and it is said
    assert "host.telemetry_agent telemetry:" in again.out
    with live(folder, ingest="signed", listen_port=port) as daemon:
        until(lambda: accepted(daemon) >= 2)
        until(lambda: fazai(world, "drift").code == 0)
        assert daemon.services.store.counts() is not None
        log = fazai(world, "agents", "logs", "-n", "5")
        assert (log.code, log.out.count("web-01  ") <= 5) == (0, True)


def with_removal(world: World, root: Path, agent: Init) -> None:
    path = world.folder / "inventory.yml"
    path.write_text(
        json.dumps(
            {"all": {"hosts": world.hosts, "resources": [{"host.telemetry_agent": {"state": "absent"}}]}}
        )
    )
    assert fazai(world, "apply", "--yes").code == 0
    assert agent.process.wait(10) == 0
    left = [str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()]
    assert left == []
    assert "RESULT 0 changed" in fazai(world, "apply", "--yes").out
