"""Keys: the daemon's route, and a change that is cut off at every step."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fazai.cli.agents import keys as agentkeys
from fazai.errors import ExitCode, StateError
from fazai.secrets.files import read_private
from tests.daemon.live import live, token
from tests.hosts.conftest import World
from tests.supervisor.conftest import Init, until
from tests.supervisor.test_end_to_end import KEY, accepted, daemon_keys, declare, fazai, key_file

__all__ = ["daemon_keys"]

GOOD = "0123456789abcdef"


@pytest.mark.parametrize(
    ("name", "body", "status"),
    [
        ("web-01", {"keys": [GOOD]}, 200),
        ("web-01", {"keys": [GOOD, GOOD[::-1]]}, 200),
        ("web-01", {"keys": []}, 422),
        ("web-01", {"keys": [GOOD] * 3}, 422),
        ("web-01", {"keys": ["short"]}, 422),
        ("web-01", {"keys": [GOOD + "\nanother"]}, 422),
        ("..%2f..%2fx", {"keys": [GOOD]}, 404),
        (".hidden", {"keys": [GOOD]}, 422),
    ],
)
def test_the_route(tmp_path: Path, name: str, body: dict[str, Any], status: int) -> None:
    with live(tmp_path) as daemon, daemon.client() as client:
        answer = client.post(f"/agents/{name}/key", json=body)
        assert answer.status_code == status, answer.text
        path = tmp_path / "secrets/hosts/web-01.key"
        assert path.exists() == (status == 200)
        assert not (tmp_path / "x.key").exists()
        if status == 200:
            assert path.read_text().split() == body["keys"]
            assert read_private(path, uid=path.stat().st_uid)
        assert GOOD not in daemon.log() + answer.text


def test_the_route_is_for_admins(tmp_path: Path) -> None:
    bearers = {None: 401, token(tmp_path, "op", "operator"): 403, token(tmp_path, "root", "admin"): 200}
    with live(tmp_path) as daemon:
        for bearer, status in bearers.items():
            with daemon.client(bearer) as client:
                answer = client.post("/agents/web-01/key", json={"keys": [GOOD]})
                assert answer.status_code == status


CUTS = ("after the file", "after the daemon", "after the host", "after it was taken", "before the file")


@pytest.mark.in_turn("cut")
@pytest.mark.parametrize("cut", CUTS)
def test_cut_off_and_run_again(
    cut: str,
    world: World,
    daemon_keys: Path,
    init: Callable[[Path], Init],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = key_file(world)
    with live(daemon_keys.parents[2], ingest="signed") as daemon:
        monkeypatch.setenv("FAZAI_URL", daemon.url)
        root = declare(world, daemon.url, key="KEYFILE")
        assert fazai(world, "apply").code == 0
        agent = init(root)
        until(lambda: agent.status().get("last_delivery_at"))
        with monkeypatch.context() as patch:
            _cut(patch, cut)
            fazai(world, "agents", "rotate-key")
        lines = own.read_text().split()
        assert lines[-1] == KEY  # the change is remembered, the old key was not given up
        count = accepted(daemon)
        until(lambda: accepted(daemon) > count)  # nothing is broken meanwhile
        assert fazai(world, "agents", "rotate-key").code == 0
        assert own.read_text().split() == lines[:1] == daemon_keys.read_text().split()
        count = accepted(daemon)
        until(lambda: accepted(daemon) > count)
        assert fazai(world, "drift").code == 0


@pytest.mark.slow
def test_cut_off_applied_and_run_again(
    world: World, daemon_keys: Path, init: Callable[[Path], Init], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon did not know the new key yet, so the agent stays with the old one: it is started anew."""
    own = key_file(world)
    with live(daemon_keys.parents[2], ingest="signed") as daemon:
        monkeypatch.setenv("FAZAI_URL", daemon.url)
        root = declare(world, daemon.url, key="KEYFILE")
        assert fazai(world, "apply").code == 0
        agent = init(root)
        until(lambda: agent.status().get("last_delivery_at"))
        with monkeypatch.context() as patch:
            _cut(patch, "after the file")
            fazai(world, "agents", "rotate-key")
        assert fazai(world, "apply").code == 0
        until(lambda: agent.status().get("key") == "KEY_PREVIOUS" and agent.status().get("last_delivery_at"))
        found = fazai(world, "agents", "rotate-key", "--timeout", "15")
        assert found.code == 0, found.err
        assert "the new key holds, the old one is gone" in found.out
        assert len(own.read_text().split()) == 1
        until(lambda: agent.status().get("key") == "KEY")


def test_where_the_keys_go_without_a_daemon(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, init: Callable[[Path], Init]
) -> None:
    key_file(world)
    root = declare(world, "http://127.0.0.1:9", key="KEYFILE")
    assert fazai(world, "apply").code == 0
    agent = init(root)
    until(lambda: agent.status().get("failures", "0") != "0")
    monkeypatch.setenv("FAZAI_SOCKET", str(tmp_path / "nobody.sock"))
    refused = fazai(world, "agents", "rotate-key", "--timeout", "1")
    assert refused.code == ExitCode.UNREACHABLE
    assert f"no daemon listens at {tmp_path / 'nobody.sock'}, which FAZAI_SOCKET names" in refused.err
    monkeypatch.delenv("FAZAI_SOCKET")
    said = fazai(world, "agents", "rotate-key", "--timeout", "1")
    assert "no daemon is asked: the keys go into " in said.err


def _cut(patch: pytest.MonkeyPatch, cut: str) -> None:
    """The step after this one fails."""
    put, wanted = agentkeys.AgentKeyStore.put, {"after the file": 2, "after it was taken": 1}.get(cut)

    def failing(self: agentkeys.AgentKeyStore, name: str, keys: tuple[str, ...]) -> None:
        if len(keys) == wanted:
            raise StateError("cut off")
        put(self, name, keys)

    def nothing(*_: Any) -> list[Any]:
        return []

    patch.setattr(agentkeys.AgentKeyStore, "put", failing)
    if cut == "after the daemon":
        patch.setattr("fazai.cli.agents.fleet.AgentFleet.write", lambda *_: 1)
    if cut in ("after the daemon", "after the host"):
        patch.setattr(agentkeys, "_await_new_keys", nothing)
    if cut == "before the file":
        patch.setattr("fazai.secrets.files.write_private", _only_two_lines)


def _only_two_lines(path: Path, data: bytes) -> None:
    from fazai.secrets import files

    if data.count(b"\n") < 2 and path.parent.name == "keys":
        raise StateError("cut off")
    handle = path.with_suffix(".new")
    handle.touch(mode=0o600)
    handle.write_bytes(data)
    handle.replace(path)
    assert files.SIZE_MAX_BYTES


def test_hosts_that_cannot_change_their_key_are_named(world: World, tmp_path: Path) -> None:
    agent = {"server": "https://x", "key": "k" * 32}
    for name in ("one", "two"):
        world.local(name)
    key_file(world)
    text = json.dumps({"all": {"hosts": world.hosts, "resources": [{"host.telemetry_agent": agent}]}})
    (world.folder / "inventory.yml").write_text(text)
    done = fazai(world, "agents", "rotate-key")
    assert (done.code, done.err.count("in no file of its own")) == (3, 2)
    (world.folder / "inventory.yml").write_text(text.replace(f'"{"k" * 32}"', "!file keys/web-01.key"))
    done = fazai(world, "agents", "rotate-key")
    assert (done.code, done.err.count("no agent runs there")) == (1, 2)
    assert done.err.startswith("no daemon is asked: the keys go into ")
    assert all(line.count("one: ") + line.count("two: ") == 1 for line in done.err.splitlines()[1:])
