"""The agent itself: its single file, installed over SSH, enrolled with the daemon, connected to it."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fazai import __version__
from fazai.daemon.runs.config import AgentsConfig, DaemonConfig
from fazai.daemon.southbound.trust import PkiTrust
from fazai.pki.administration import Maker
from fazai.providers.hosts.agent.remote.bundling import build_program
from fazai.store.factory import open_certificates
from tests.daemon.live import Live, live
from tests.hosts.conftest import World
from tests.hosts.sshd import Sshd
from tests.supervisor.conftest import until
from tests.supervisor.remote.conftest import Fleet, Keeper

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def program() -> bytes:
    return build_program()


def altered(program: bytes, file: str, old: str, new: str, version: str) -> bytes:
    """Another version of the single file, in which one file is not the same."""
    made = io.BytesIO()
    changes = {file: (old, new), "fazai/__init__.py": (f'"{__version__}"', f'"{version}"')}
    with zipfile.ZipFile(io.BytesIO(program)) as source, zipfile.ZipFile(made, "w") as target:
        for name in source.namelist():
            text = source.read(name)
            if name in changes:
                before, after = (each.encode() for each in changes[name])
                assert before in text
                text = text.replace(before, after)
            target.writestr(name, text)
    return b"#!/usr/bin/env python3\n" + made.getvalue()


@contextlib.contextmanager
def serving(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    """A daemon with a port for agents and a CA of ours."""
    secrets = folder / "secrets"
    secrets.mkdir(mode=0o700)
    monkeypatch.setenv("FAZAI_SECRETS", str(secrets))
    authority, _ = Maker(secrets / "pki").make_ca()
    authority.issue_listener(("127.0.0.1", "localhost"))
    with contextlib.closing(open_certificates(folder / "state")) as store:
        agents = AgentsConfig(port=0, socket=folder / "agents.sock", configured=True, heartbeat_s=5.0)
        trust = PkiTrust(secrets / "pki", store)
        with live(folder, trust=trust, config=DaemonConfig(agents=agents)) as daemon:
            monkeypatch.setenv("FAZAI_URL", daemon.url)
            yield daemon


def row_of(daemon: Live, name: str) -> dict[str, Any]:
    with daemon.client() as http:
        found: dict[str, Any] = http.get(f"/agents/{name}").json().get("agent", {})
        return found


def test_from_install_over_updates_to_removal(
    world: World,
    server: Sshd,
    keeper: Callable[[Path], Keeper],
    program: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(tmp_path, monkeypatch) as daemon:
        fleet = Fleet(world, f"wss://127.0.0.1:{daemon.daemon.agent_addresses[0][1]}", server)
        fleet.fields |= {
            "programs": [{"path": "/bin/echo", "args": ["hello"]}],
            "reconcile": "look",
            "trial": 15,
        }
        pyz = world.folder / "agent.pyz"
        pyz.write_bytes(program)
        root = fleet.host()
        done = fleet.fazai("apply")
        assert done.code == 0, done.out + done.err
        agent = keeper(root)
        until(lambda: agent.status().get("state") == "connected")
        until(lambda: row_of(daemon, "edge-1").get("version") == __version__)
        again = fleet.fazai("apply")
        assert "RESULT 0 changed" in again.out, again.out
        shown = fleet.fazai("agents", "status", "--output", "json")
        row = json.loads(shown.out)["edge-1"]["remote"]
        assert (shown.code, row["well"], row["version"]) == (0, True, __version__), shown.out

        pyz.write_bytes(
            altered(program, "fazai/agent/messages.py", 'CONTRACT = "1.1"', 'CONTRACT = "9.0"', "9.0.0")
        )
        refused = fleet.fazai("apply")
        assert refused.code == 1, refused.out
        assert "was not accepted in time" in refused.out
        until(lambda: agent.status().get("state") == "connected")
        until(lambda: row_of(daemon, "edge-1")["version"] == __version__)

        pyz.write_bytes(altered(program, "fazai/agent/__init__.py", '"""', '"""', "9.1.0"))
        updated = fleet.fazai("apply")
        assert updated.code == 0, updated.out + updated.err
        assert row_of(daemon, "edge-1")["version"] == "9.1.0"

        gone = fleet.fazai("apply", "--yes", state="absent")
        assert gone.code == 0, gone.out + gone.err
        assert [str(path) for path in root.rglob("*") if path.is_file()] == []
        until(lambda: row_of(daemon, "edge-1").get("state") == "closing")
