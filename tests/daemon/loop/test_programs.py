"""The action `shell`, tools of one's own: a real OpenSSH server, a policy that lists programs, approvals."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.live import until
from tests.daemon.loop.scripted import DONE, LoopWorld, loop_world, of_type, plain
from tests.hosts.conftest import keys, server
from tests.hosts.conftest import world as hosts_world
from tests.hosts.sshd import Sshd

__all__ = ["hosts_world", "keys", "server"]

POLICY = """\
shell:
  - targets: [web]
    program: /bin/echo
    args: [{pattern: "[a-z]+"}]
  - targets: [web]
    program: /bin/sleep
    args: ["1437"]
"""


@pytest.fixture
def fleet(tmp_path: Path, server: Sshd, hosts_world: Any) -> Iterator[LoopWorld]:
    """A firewall, a host over SSH, and one that is the daemon's own machine."""
    folder = tmp_path / "daemon"
    folder.mkdir()
    (folder / "policy.yml").write_text(POLICY)
    hosts_world.ssh(server, "web", root=None)
    hosts_world.local("box")
    path = folder / "inventory.yml"
    with loop_world(folder, inventory=(str(path),)) as found:
        inventory = json.loads(path.read_text())
        inventory["all"]["hosts"] |= hosts_world.hosts
        path.write_text(json.dumps(inventory))
        found.daemon.call(found.daemon.services.firewalls.read_inventory)
        yield found


def _shell(*argv: str, target: str | None = "web") -> dict[str, Any]:
    return {"action": "shell", "argv": list(argv), **({"target": target} if target else {})}


def test_a_program_runs_once_after_its_approval(fleet: LoopWorld) -> None:
    session = fleet.open()
    fleet.model.answers[:] = [_shell("/bin/echo", "hello"), DONE]
    events = plain(fleet.ask(session, "say hello"))
    shown = of_type(events, "action")[0]
    assert shown["changes"][0]["after"] == {"argv": ["/bin/echo", "hello"], "provider": "ssh"}
    assert not of_type(events, "exec_log")
    assert fleet.post("approve", session, shown).json() == {"ok": True}
    until(lambda: fleet.session(session)["status"] == "ended")
    assert '"stdout":"hello\\n"' in fleet.model.said()
    query = {"session": session, "types": "exec_log", "since": "0", "follow": "false"}
    assert '"chunk":"hello\\n"' in fleet.client.get("/events", params=query).text
    again = fleet.post("approve", session, shown)
    assert (again.status_code, again.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("action", "why"),
    [
        (_shell("/bin/echo", "a b; id"), "does not match"),
        (_shell("/bin/sh", "-c", "id"), "is not among the programs"),
        (_shell("/bin/echo", "hello", target=None), "never on the daemon"),
        (_shell("/bin/echo", "hello", target="box"), "is of the provider local"),
        (_shell("/bin/echo", "hello", target="fw-01"), "fw-01"),
        (_shell("/bin/echo", "hello", target="nobody"), "no inventory of the daemon has the host"),
        (_shell("-x", "hello"), "is no program"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_what_may_not_run_is_not_even_asked(fleet: LoopWorld, action: dict[str, Any], why: str) -> None:
    session = fleet.open()
    fleet.model.answers[:] = [action, DONE]
    events = plain(fleet.ask(session, "run it"))
    assert events[-1]["result"]["stop_reason"] == "done"
    assert why in fleet.model.said()
    assert not [one for one in fleet.journal(session) if one["entry"] in ("began", "approved")]


def test_a_tool_of_ones_own_is_approved_and_each_use_of_it_too(fleet: LoopWorld) -> None:
    session = fleet.open()
    spec = {
        "action": "tool_spec",
        "name": "say_word",
        "argv": ["/bin/echo", "{word}"],
        "description": "Says it.",
    }
    use = {"action": "use_tool", "name": "say_word", "args": {"target": "web", "word": "hello"}}
    fleet.model.answers[:] = [use, spec, use, DONE]
    shown = of_type(plain(fleet.ask(session, "make a tool")), "action")
    assert "there is no tool 'say_word'" in fleet.model.said(1)
    assert shown[-1]["changes"][0]["after"]["argv"] == ["/bin/echo", "{word}"]
    assert fleet.post("approve", session, shown[-1]).json() == {"ok": True}
    until(lambda: (fleet.session(session).get("waiting") or {}).get("action_id") != shown[-1]["action_id"])
    until(lambda: fleet.session(session)["status"] in ("waiting", "ended", "paused"))
    assert fleet.session(session)["status"] == "waiting", str(
        [
            {k: v for k, v in one.items() if k in ("entry", "action", "problem", "note", "verdict", "reason")}
            for one in fleet.journal(session)[-9:]
        ]
    )
    waiting = fleet.session(session)["waiting"]
    assert waiting["changes"][0]["after"]["argv"] == ["/bin/echo", "hello"]
    assert fleet.post("approve", session, waiting).json() == {"ok": True}
    until(lambda: fleet.session(session)["status"] == "ended")
    assert '"stdout":"hello\\n"' in fleet.model.said()


def test_an_abort_ends_the_program_on_its_host(fleet: LoopWorld) -> None:
    session = fleet.open()
    fleet.model.answers[:] = [_shell("/bin/sleep", "1437"), DONE]
    shown = of_type(plain(fleet.ask(session, "wait long")), "action")[0]
    fleet.post("approve", session, shown)
    until(_sleeps)
    assert fleet.client.post("/agent/abort", json={"session_id": session}).json() == {"ok": True}
    until(lambda: not _sleeps())
    assert fleet.session(session)["status"] == "ended"


def _sleeps() -> bool:
    """Whether the program runs: it came by SSH, so it is none of ours by descent."""
    wanted = b"\0".join((b"/bin/sleep", b"1437", b""))
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes() == wanted:
                return True
    return False
