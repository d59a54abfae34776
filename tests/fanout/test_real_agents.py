"""`fazai exec` and `fazai cp` through a real daemon and real agents: processes, TLS, allow-lists."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.live import until
from tests.daemon.southbound.conftest import make_world
from tests.daemon.southbound.world import World as Daemon
from tests.fanout.test_faults import Terminal
from tests.hosts.conftest import Result, World

__all__ = ["make_world"]

NAMES = ("e1", "e2", "e3")
POLICY = """\
agent_id: {name}
daemon: wss://127.0.0.1:{port}
ca: {ca}
certificate: {pair.cert}
key: {pair.key}
state: {folder}/state
root: {folder}/root
programs:
  - path: /bin/echo
    args: [{{pattern: "[a-z -]*", rest: true, optional: true}}]
  - path: /bin/cat
    stdin: true
  - path: /bin/sleep
    args: [{{pattern: "[0-9]+"}}]
files:
  - root: /
    write: true
  - root: /out
    read: true
reconcile:
  mode: yes
  kinds: [host.file, host.directory, host.link]
  paths: [/srv, /file]
"""


@pytest.fixture
def daemon(make_world: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    with make_world() as made:
        monkeypatch.setenv("FAZAI_AGENTS_URL", f"unix:{made.socket}")
        yield made


@pytest.fixture
def fleet(world: World, daemon: Daemon, tmp_path: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Three agents, each a process with a folder of its own, connected."""
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name in NAMES:
            started[name] = start_agent(daemon, tmp_path, name)
            world.hosts[name] = {"provider": "agent"}
        for name in NAMES:
            until(lambda name=name: is_ready(daemon, name))  # type: ignore[misc]
        yield started
    finally:
        for process in started.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in started.values():
            process.wait(30)


def start_agent(daemon: Daemon, tmp_path: Path, name: str) -> subprocess.Popen[bytes]:
    folder = tmp_path / f"agent-{name}"
    (folder / "root").mkdir(parents=True)
    (folder / "state").mkdir(mode=0o700)
    pair = daemon.authority.issue(name)
    text = POLICY.format(name=name, port=daemon.port, ca=daemon.authority.file, pair=pair, folder=folder)
    (folder / "agent.yml").write_text(text)
    code = "import sys; from fazai.agent.main import main; sys.exit(main())"
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", code, "run", "--config", str(folder / "agent.yml")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def is_ready(daemon: Daemon, name: str) -> bool:
    with daemon.live.client() as http:
        answer = http.get(f"/agents/{name}")
        return answer.status_code == 200 and answer.json()["agent"]["state"] == "observation"


def run(world: World, *words: str, argv: tuple[str, ...]) -> Result:
    return world.fazai("exec", "all", "--output", "json", *words, "--", *argv)


def results(found: Result) -> dict[str, Any]:
    return {each["name"]: each.get("result") for each in found.document["targets"]}


def test_a_program_runs_on_every_agent(world: World, fleet: Any, tmp_path: Path) -> None:
    found = run(world, argv=("/bin/echo", "hello", "there"))
    assert found.code == 0, found.out
    said = {"exit_status": 0, "stdout": "hello there\n", "stderr": "", "truncated": False}
    assert results(found) == dict.fromkeys(NAMES, said)
    (tmp_path / "in").write_text("é\n" * 100_000)
    found = run(world, "--stdin", str(tmp_path / "in"), argv=("/bin/cat",))
    assert results(found)["e1"]["stdout"].startswith("é\né\n")


def test_what_no_allow_list_names_is_refused_by_each(world: World, fleet: Any) -> None:
    for argv in (("/bin/sh", "-c", "id"), ("/bin/echo", "UPPER"), ("/bin/sleep", "1", "2")):
        found = run(world, argv=argv)
        assert found.code == 7
        assert [each["errors"][0]["error"] for each in found.document["targets"]] == ["Refused"] * 3
        assert "the agent refuses" in found.document["targets"][0]["errors"][0]["message"]


@pytest.mark.slow
def test_a_timeout_ends_it_there(world: World, fleet: Any) -> None:
    found = run(world, "--timeout", "0.5", argv=("/bin/sleep", "4321"))
    assert found.code == 1
    assert found.document["unanswered"] == list(NAMES)
    assert [each["errors"][0]["error"] for each in found.document["targets"]] == ["TimedOut"] * 3
    assert not sleepers("4321")


@pytest.mark.slow
def test_an_agent_that_is_gone_is_not_reached(world: World, daemon: Daemon, fleet: Any) -> None:
    fleet["e2"].terminate()
    until(lambda: not is_ready(daemon, "e2"))
    found = run(world, argv=("/bin/echo", "hello"))
    assert (found.code, found.document["unanswered"]) == (4, ["e2"])
    assert [each["exit_code"] for each in found.document["targets"]] == [0, 4, 0]


@pytest.mark.slow
def test_an_agent_that_is_killed_while_it_runs_is_unknown(world: World, fleet: Any, tmp_path: Path) -> None:
    path = world.folder / "inventory.yml"
    path.write_text(json.dumps({"all": {"hosts": world.hosts}}))
    words = ("e1,e2", "--wave", "1", "--max-failures", "0", "--output", "json", "--", "/bin/sleep", "4322")
    child = subprocess.Popen(
        [sys.executable, "-m", "fazai", "exec", str(path), *words], stdout=subprocess.PIPE, text=True
    )
    until(lambda: sleepers("4322"))
    fleet["e1"].kill()
    out, _ = child.communicate(timeout=90)
    document = json.loads(out)
    assert child.returncode == document["exit_code"] == 1
    assert (document["unanswered"], document["not_asked"]) == (["e1"], ["e2"])
    assert document["targets"][0]["errors"][0]["error"] == "Unsure"
    until(lambda: not sleepers("4322"))


@pytest.mark.slow
def test_ctrl_c_twice_ends_it_on_the_agents(world: World, fleet: Any) -> None:
    terminal = Terminal(world, "exec", "all", "--", "/bin/sleep", "4323")
    terminal.read_until(lambda: len(sleepers("4323")) == 3)
    terminal.press(b"\x03")
    terminal.read_until(lambda: "finishing what is in flight" in terminal.shown)
    terminal.press(b"\x03")
    assert terminal.finish() == 130
    until(lambda: not sleepers("4323"))
    assert "was ended: look at the host before it is run again" in terminal.shown
    assert "looked at first" not in terminal.shown


def sleepers(argument: str) -> list[int]:
    """The processes of `sleep` with this argument."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"/bin/sleep", argument.encode()]:
            found.append(int(name))
    return found


@pytest.mark.slow
def test_files_go_to_every_agent_once(world: World, fleet: Any, tmp_path: Path) -> None:
    data = os.urandom(3 * 1024 * 1024)  # longer than one message may be
    (world.folder / "new").write_bytes(data)
    for words in (("all:", world.folder / "new", "/file"), ("all:", world.folder / "inventory.yml", "/text")):
        found = world.fazai("cp", *words, "--mode", "0640", "--output", "json")
        assert found.code == 0, found.out
        assert [each["status"] for each in found.document["targets"]] == ["changed"] * 3
        again = world.fazai("cp", *words, "--mode", "0640", "--output", "json")
        assert [each["status"] for each in again.document["targets"]] == ["converged"] * 3
    for name in NAMES:
        path = tmp_path / f"agent-{name}/root/file"
        assert path.read_bytes() == data
        assert path.stat().st_mode & 0o777 == 0o640


def test_a_mode_alone_is_brought_to_agents(world: World, fleet: Any, tmp_path: Path) -> None:
    (world.folder / "new").write_text("a secret")
    for mode in ("0644", "0600"):
        words = ("e1:", world.folder / "new", "/file", "--mode", mode, "--output", "json")
        assert [each["status"] for each in world.fazai("cp", *words).document["targets"]] == ["changed"]
        assert (tmp_path / "agent-e1/root/file").stat().st_mode & 0o777 == int(mode, 8)


@pytest.mark.slow
def test_files_are_fetched_from_every_agent(world: World, fleet: Any, tmp_path: Path) -> None:
    data = {name: os.urandom(3 * 1024 * 1024) for name in NAMES}
    for name in NAMES:
        (tmp_path / f"agent-{name}/root/out").mkdir()
        (tmp_path / f"agent-{name}/root/out/log").write_bytes(data[name])
    words = ("cp", "all:/out/log", f"{tmp_path}/got/", "--output", "json")
    found = world.fazai(*words)
    assert found.code == 0, found.out
    assert {name: (tmp_path / "got" / name / "log").read_bytes() for name in NAMES} == data
    assert {each["status"] for each in world.fazai(*words).document["targets"]} == {"converged"}
    refused = world.fazai("cp", "e1:/file", f"{tmp_path}/got/", "--output", "json")
    assert (refused.code, refused.document["targets"][0]["status"]) == (7, "refused")
    assert "files below / are not handed out" in refused.document["targets"][0]["errors"][0]["message"]


@pytest.mark.slow
def test_a_folder_is_fetched_from_every_agent(world: World, fleet: Any, tmp_path: Path) -> None:
    data = os.urandom(3 * 1024 * 1024)
    for name in NAMES:
        out = tmp_path / f"agent-{name}/root/out"
        (out / "a/b").mkdir(parents=True)
        (out / "a/big").write_bytes(data)
        (out / "a/b/text").write_text(name)
        (out / "a/link").symlink_to("big")
        (out / "a/next\x85line").write_text("x")
        (out / "a/larger").touch()
        os.truncate(out / "a/larger", (47 << 20) + 1)
    words = ("cp", "-r", "all:/out", f"{tmp_path}/got/", "--output", "json")
    found = world.fazai(*words)
    assert found.code == 0, found.out
    for name in NAMES:
        got = tmp_path / "got" / name / "out"
        assert (got / "a/big").read_bytes() == data
        assert (got / "a/b/text").read_text() == name
        assert sorted(path.name for path in (got / "a").iterdir()) == ["b", "big"]
        assert f"{name}: 3 of /out left out" in found.err
    assert {each["status"] for each in world.fazai(*words).document["targets"]} == {"converged"}
    refused = world.fazai("cp", "-r", "e1:/srv", f"{tmp_path}/got/", "--output", "json")
    assert (refused.code, refused.document["targets"][0]["status"]) == (7, "refused")
    assert "are not handed out" in refused.document["targets"][0]["errors"][0]["message"]


@pytest.mark.slow
def test_a_folder_goes_to_agents_that_may_be_reconciled(world: World, fleet: Any, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/one").write_text("one")
    (tree / "a/b/two").write_bytes(os.urandom(2_000_000))
    (tree / "a/link").symlink_to("one")
    words = ("cp", "-r", "all:", str(tree), "/srv/tree", "--output", "json")
    for name in NAMES:
        (tmp_path / f"agent-{name}/root/srv").mkdir()
    found = world.fazai(*words)
    assert found.code == 0, found.out
    for name in NAMES:
        there = tmp_path / f"agent-{name}/root/srv/tree"
        assert (there / "a/b/two").read_bytes() == (tree / "a/b/two").read_bytes()
        assert os.readlink(there / "a/link") == "one"
    assert {each["status"] for each in world.fazai(*words).document["targets"]} == {"converged"}
    refused = world.fazai("cp", "-r", "e1:", str(tree), "/opt/tree")
    assert refused.code == 7
    assert "/opt/tree is not a path that is allowed here" in refused.out
    one = tmp_path / "agent-e1/root/file"
    one.write_text("before")
    assert world.fazai("cp", "--backup", "e1:", str(tree / "a/one"), "/file").code == 0
    assert sorted(path.read_text() for path in one.parent.glob("file*")) == ["before", "one"]


def test_a_file_that_no_message_holds_is_refused(world: World, fleet: Any, tmp_path: Path) -> None:
    """It ended the connection of all who asked through it."""
    (tmp_path / "big").mkdir()
    with (tmp_path / "big/file").open("wb") as file:
        file.truncate(50 << 20)
    found = world.fazai("cp", "-r", "e1:", str(tmp_path / "big"), "/srv", "--output", "json")
    assert found.code == 1
    assert (
        "MiB is longer than an agent takes (64 MiB)" in found.document["targets"][0]["errors"][0]["message"]
    )
