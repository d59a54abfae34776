"""Programs on a host over a real OpenSSH server, proposed by a model: what was approved is what runs, where
it was to run, once; and what is no host, or no program, goes nowhere."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fazai.daemon.http.auth import Principal
from fazai.daemon.tools.call import ToolCall
from fazai.daemon.tools.offered.program import PROGRAM
from fazai.loop.tools import Observation
from tests.daemon.live import until
from tests.daemon.loop.scripted import DONE, LoopWorld, loop_world, of_type, plain
from tests.hosts.sshd import SSHD, Sshd

pytestmark = pytest.mark.skipif(SSHD is None, reason="OpenSSH's server is not installed: tools/test-hosts")

POLICY = {"shell": [{"targets": ["web"], "program": "/bin/mkdir", "args": [{"pattern": ".+"}]}]}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopWorld]:
    folder = tmp_path_factory.mktemp("programs")
    with Sshd(folder / "sshd") as server, loop_world(folder) as found:
        (folder / "policy.yml").write_text(json.dumps(POLICY))
        _write_hosts(folder, server)
        yield found


def _write_hosts(folder: Path, server: Sshd, **more: Any) -> None:
    path = folder / "inventory.yml"
    inventory = json.loads(path.read_text())
    web = {
        "provider": "ssh",
        "ansible_host": "127.0.0.1",
        "ansible_port": server.port,
        "ansible_user": getpass.getuser(),
        "ansible_ssh_private_key_file": str(server.user_key),
        "known_hosts": str(server.known_hosts(folder / "known_hosts")),
        "agent": False,
    }
    inventory["all"]["hosts"] |= {"web": web | more, "me": {"provider": "local"}}
    path.write_text(json.dumps(inventory))


def _shell(*argv: str, target: str = "web") -> dict[str, Any]:
    return {"action": "shell", "target": target, "argv": list(argv)}


def _propose(world: LoopWorld, *argv: str) -> tuple[str, dict[str, Any]]:
    session = world.open()
    world.model.answers[:] = [_shell(*argv), DONE]
    events = plain(world.ask(session))
    assert events[-1]["result"]["stop_reason"] == "approval", world.model.said()
    return session, of_type(events, "action")[0]


def _approve(world: LoopWorld, session: str, shown: dict[str, Any]) -> str:
    """Approve, wait for the end, and return what the model was told."""
    assert world.post("approve", session, shown).json() == {"ok": True}
    until(lambda: world.session(session)["status"] == "ended")
    return world.model.said()


def test_an_approved_program_runs_once(world: LoopWorld, tmp_path: Path) -> None:
    session, shown = _propose(world, "/bin/mkdir", str(tmp_path / "made"))
    assert not (tmp_path / "made").exists()
    assert "it ended with the exit status 0" in _approve(world, session, shown)
    assert (tmp_path / "made").is_dir()
    assert world.post("approve", session, shown).status_code == 409


@pytest.mark.parametrize("change", ["host", "provider", "variables"])
def test_an_inventory_that_was_edited_ends_an_approval(world: LoopWorld, tmp_path: Path, change: str) -> None:
    folder = world.world.folder
    inventory = folder / "inventory.yml"
    before = inventory.read_text()
    session, shown = _propose(world, "/bin/mkdir", str(tmp_path / "made"))
    edited = json.loads(before)
    if change == "host":
        edited["all"]["hosts"]["web"]["ansible_host"] = "127.0.0.2"
    elif change == "provider":
        edited["all"]["hosts"]["web"] = {"provider": "local"}
    else:
        (folder / "host_vars").mkdir()
        (folder / "host_vars" / "web.yml").write_text("ansible_user: nobody\n")
    inventory.write_text(json.dumps(edited))
    try:
        told = _approve(world, session, shown)
    finally:
        inventory.write_text(before)
        if (folder / "host_vars").exists():
            (folder / "host_vars" / "web.yml").unlink()
            (folder / "host_vars").rmdir()
    assert "nothing was run: the inventory of web was edited since this was proposed" in told
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (_shell("/bin/id", target="me"), "programs run on hosts over SSH or an agent"),
        (_shell("/bin/id", target="fw-01"), "no inventory of the daemon has the host 'fw-01'"),
        (_shell("/bin/id", target="all"), "no inventory of the daemon has the host 'all'"),
        (_shell("/bin/id", target="we*"), "no inventory of the daemon has the host 'we*'"),
        (_shell("/bin/id", target="--allow-scripts"), "'--allow-scripts' is no host"),
        (_shell("/bin/id", target="-i/etc/passwd"), "'-i/etc/passwd' is no host"),
        (_shell("/bin/id", target="web\0"), "is no host"),
        (_shell("/bin/id"), '"/bin/id" is not among the programs for web'),
        (_shell("mkdir", "/tmp/x"), '"mkdir" is not among the programs for web'),
        (_shell("/bin/mkdir", "-p"), "a value that begins with - may be taken for an option"),
        (_shell("/bin/mkdir", "/tmp/a\nb"), "it holds a control character"),
        (_shell("/bin/mkdir", *["x"] * 4095), "at most 256 arguments of 4096 characters"),
        (_shell("--version"), "is no program"),
    ],
    ids=lambda one: json.dumps(one)[:60] if isinstance(one, dict) else "",
)
def test_what_may_not_be_proposed_is_not(world: LoopWorld, action: dict[str, Any], message: str) -> None:
    session = world.open()
    world.model.answers[:] = [action, DONE]
    events = plain(world.ask(session))
    assert events[-1]["result"]["stop_reason"] == "done", events
    assert message in world.model.said()
    assert {one["entry"] for one in world.journal(session)}.isdisjoint({"approved", "began"})


def test_what_is_said_not_to_have_begun_never_begins(world: LoopWorld, tmp_path: Path) -> None:
    """The daemon was killed between `began` and its process, which comes late."""
    session, shown = _propose(world, "/bin/mkdir", str(tmp_path / "late"))
    effect = world.daemon.services.loop.find(session).state.effects[shown["action_id"]]
    call = ToolCall(world.daemon.services, Principal("boss", "admin"), session, shown["action_id"])

    async def settle_then_run() -> list[Observation]:
        assert PROGRAM.settle is not None
        assert PROGRAM.run is not None
        return [await PROGRAM.settle(call, effect), await PROGRAM.run(call, effect)]

    settled, late = world.daemon.call(settle_then_run)
    assert settled.note == "it was interrupted before it began"
    assert late.failed
    assert "could not be run" in late.note
    assert not (tmp_path / "late").exists()
    world.client.post("/agent/abort", json={"session_id": session})
