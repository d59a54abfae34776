"""Programs and files through agents: the same commands, the agent's own allow-list."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.fanout.agent import Agent
from tests.fanout.conftest import Fleet
from tests.hosts.conftest import Result, World


def test_the_second_wave_never_starts_once_the_budget_is_spent(world: World, fleet: Fleet) -> None:
    """20 agents: of the first 10, 3 are away and 2 fail (requirement A15)."""
    world.hosts.clear()
    names = [f"a{number:02}" for number in range(20)]
    dead, failing = ["a01", "a04", "a08"], ["a02", "a07"]
    for name in names:
        (world.folder / name).mkdir()
        one = Agent(world.folder / name, away=name in dead)
        if name in failing:
            one.says = {"ok": True, "exit_code": 3, "stdout": "no\n", "stderr": ""}
        fleet.agents[name] = one
        fleet.relay.agents[name] = one.answer
        world.hosts[name] = {"provider": "agent"}
    words = ("all", "--wave", "10", "--max-failures", "4")
    argv = ("--", "/bin/echo", "hello")
    document = world.fazai("exec", *words, "--output", "json", *argv)
    text = world.fazai("exec", *words, *argv)
    junit = world.fazai("exec", *words, "--output", "junit", *argv)
    assert (document.code, text.code, junit.code) == (1, 1, 1)
    assert (document.document["unanswered"], document.document["not_asked"]) == (dead, names[10:])
    assert f"not answered: {', '.join(f'{name} (unreachable)' for name in dead)}" in text.out
    assert f"not asked: {', '.join(names[10:])}: " in text.out
    cases = {case.get("name"): case for case in ElementTree.fromstring(junit.out).iter("testcase")}
    assert [name for name in names if cases[name].find("skipped") is not None] == names[10:]
    assert [name for name in names if cases[name].find("failure") is not None] == sorted(dead + failing)
    assert [name for name in names[10:] if fleet[name].seen] == []


def run(world: World, *words: str, argv: tuple[str, ...]) -> Result:
    return world.fazai("exec", "all", "--output", "json", *words, "--", *argv)


def results(found: Result) -> dict[str, Any]:
    return {each["name"]: each.get("result") for each in found.document["targets"]}


def test_a_program_runs_on_agents_and_hosts_alike(world: World, fleet: Fleet, tmp_path: Path) -> None:
    world.local("one")
    (tmp_path / "in").write_text("é\n")
    argv = ("/bin/sh", "-c", "cat; echo no >&2; exit 3")
    found = run(world, "--stdin", str(tmp_path / "in"), argv=argv)
    assert found.code == 1
    said = {"exit_status": 3, "stdout": "é\n", "stderr": "no\n", "truncated": False}
    assert results(found) == dict.fromkeys(("e1", "e2", "e3", "one"), said)
    assert fleet.relay.connections == 1  # one for all, also where one begins when the other has ended
    run(world, "--forks", "1", argv=("/bin/echo", "hello"))
    assert fleet.relay.connections == 2
    del world.hosts["one"]
    found = run(world, "--chdir", "/tmp", argv=("/bin/sh", "-c", "pwd"))
    assert results(found)["e1"]["stdout"] == "/tmp\n"


def test_the_agents_own_list_decides(world: World, fleet: Fleet) -> None:
    fleet["e2"].allowed = ()
    found = run(world, argv=("/bin/echo", "hello"))
    assert found.code == 7
    assert [each["exit_code"] for each in found.document["targets"]] == [0, 7, 0]
    refused = found.document["targets"][1]
    assert [refused["status"], refused["ending"], refused["changes"][0]["status"]] == ["refused"] * 3
    totals = found.document["totals"]
    assert (totals["refused"], totals["failed"], totals["changed"]) == (1, 0, 2)
    shown = world.fazai_bare("show", "--output", "json")
    assert [each["status"] for each in shown.document["actions"]] == ["done", "refused", "done"]
    text = world.fazai("exec", "all", "--", "/bin/echo", "hello")
    assert (text.code, "RESULT 2 ran, 1 refused" in text.out) == (7, True)
    (error,) = found.document["targets"][1]["errors"]
    assert error["error"] == "Refused"
    assert "the agent refuses /bin/echo: /bin/echo is not on the allow-list" in error["message"]


@pytest.mark.parametrize(
    ("says", "code", "error", "answered"),
    [
        ({"ok": False, "error": "no outcome", "code": "interrupted"}, 1, "Unsure", False),
        ({"ok": False, "error": "somebody did", "code": "cancelled"}, 1, "Cancelled", True),
        ({"error": "no answer", "code": "timeout"}, 1, "Unsure", False),
        ({"error": "slow", "code": "timeout", "stdout": "a", "stderr": ""}, 1, "TimedOut", False),
        ({"ok": False, "error": "busy", "code": "conflict"}, 1, "Moved", True),
        ({"ok": False, "error": "???", "code": "odd"}, 1, "DeviceError", True),
        ({"ok": True}, 1, "Unsure", False),
        ({"ok": True, "exit_code": "0"}, 1, "Unsure", False),
        ({"ok": True, "exit_code": 300}, 1, "Unsure", False),
        ({}, 1, "DeviceError", True),
    ],
)
def test_an_answer_that_is_none_is_counted(
    world: World, fleet: Fleet, says: Mapping[str, Any], code: int, error: str, answered: bool
) -> None:
    fleet["e1"].says = says
    found = run(world, "--wave", "1", "--max-failures", "0", argv=("/bin/echo", "hello"))
    assert found.code == code
    assert found.document["targets"][0]["errors"][0]["error"] == error
    assert found.document["unanswered"] == ([] if answered else ["e1"])
    words = {"Unsure": "unknown", "TimedOut": "timed out", "Cancelled": "cancelled"}
    assert found.document["targets"][0]["ending"] == words.get(error, "failed")
    assert found.document["targets"][1]["ending"] == "not asked"
    assert found.document["not_asked"] == ["e2", "e3"]
    assert fleet["e2"].seen == []
    assert found.document["targets"][0]["notes"] == []  # nothing is said to stay done that is not known


def test_an_agent_that_is_away_is_not_answered(world: World, fleet: Fleet) -> None:
    fleet["e1"].away = True
    del fleet.relay.agents["e2"]
    found = run(world, argv=("/bin/echo", "hello"))
    assert (found.code, found.document["unanswered"]) == (4, ["e1", "e2"])
    assert "it is not connected" in found.document["targets"][0]["errors"][0]["message"]
    assert "there is no agent 'e2'" in found.document["targets"][1]["errors"][0]["message"]


@pytest.mark.parametrize("how", ["cut", "lost"])
def test_an_answer_that_is_lost_on_the_way_is_unknown(world: World, fleet: Fleet, how: str) -> None:
    getattr(fleet.relay, how).add("command.exec")
    found = run(world, "--wave", "1", "--max-failures", "0", argv=("/bin/echo", "hello"))
    assert found.code == 1
    assert (found.document["unanswered"], found.document["not_asked"]) == (["e1"], ["e2", "e3"])
    (error,) = found.document["targets"][0]["errors"]
    assert error["error"] == "Unsure"
    assert "it is not known what became of /bin/echo" in error["message"]
    assert fleet["e1"].seen == ["command.exec"]  # it is never sent again


def test_without_a_daemon_nobody_is_reached(
    world: World, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAZAI_AGENTS_URL", f"unix:{world.folder}/none.sock")
    found = run(world, argv=("/bin/echo", "hello"))
    assert found.code == 4
    assert "no daemon to ask agents through" in found.document["targets"][0]["errors"][0]["message"]


def test_a_program_that_takes_too_long_is_told_as_such(world: World, fleet: Fleet) -> None:
    found = run(world, "--timeout", "0.3", argv=("/bin/sh", "-c", "exec sleep 60"))
    assert (found.code, found.document["unanswered"]) == (1, ["e1", "e2", "e3"])
    assert found.document["targets"][0]["errors"][0]["error"] == "TimedOut"


def test_a_file_goes_to_agents_once(world: World, fleet: Fleet) -> None:
    world.local("one")
    source = world.folder / "new"
    source.write_bytes(b"new\0\xff")
    (world.folder / "e2/file").write_text("old")
    words = ("all:", str(source), "/file", "--mode", "0640", "--output", "json")
    found = world.fazai("cp", *words)
    assert found.code == 0
    assert [each["status"] for each in found.document["targets"]] == ["changed"] * 4
    verbs = [each["changes"][0]["verb"] for each in found.document["targets"]]
    assert verbs == ["create", "update", "create", "create"]
    for name in world.hosts:
        assert (world.folder / name / "file").read_bytes() == source.read_bytes()
        assert (world.folder / name / "file").stat().st_mode & 0o777 == 0o640
    assert fleet["e1"].seen == ["file.diff", "file.apply", "file.diff"]
    again = world.fazai("cp", *words)
    assert [each["status"] for each in again.document["targets"]] == ["converged"] * 4
    assert fleet["e1"].seen[3:] == ["file.diff"]


def test_the_content_of_a_file_goes_once_and_not_again(world: World, fleet: Fleet) -> None:
    """Whether the file there is the wanted one is told by its hash."""
    source = world.folder / "big"
    source.write_bytes(os.urandom(3 << 20))
    words = ("cp", "e1:", str(source), "/file", "--output", "json")
    assert world.fazai(*words).document["targets"][0]["status"] == "changed"
    assert fleet["e1"].seen == ["file.diff", "file.apply", "file.diff"]
    assert 4 << 20 < fleet["e1"].taken < (4 << 20) + 4096  # base64 has four bytes for three
    assert world.fazai(*words).document["targets"][0]["status"] == "converged"
    assert fleet["e1"].taken < (4 << 20) + 4096


def test_an_agent_that_compares_contents_alone_is_sent_them(world: World, fleet: Fleet) -> None:
    one = fleet["e1"]
    compare = one.compare

    def older(request: Any) -> dict[str, Any]:
        if request.want_sha256 is not None:
            return {"error": "unknown field 'want_sha256' in file.diff", "code": "bad_request"}
        return compare(request)

    one.compare = older  # type: ignore[method-assign]
    (world.folder / "new").write_text("new")
    words = ("cp", "e1:", world.folder / "new", "/file", "--mode", "0640", "--output", "json")
    assert world.fazai(*words).document["targets"][0]["status"] == "changed"
    assert world.fazai(*words).document["targets"][0]["status"] == "converged"
    assert (one.root / "file").read_text() == "new"


def test_an_older_agent_that_compares_bytes_alone_is_no_reason_to_call_a_mode_right(
    world: World, fleet: Fleet
) -> None:
    one = fleet["e1"]
    compare = one.compare

    def older(request: Any) -> dict[str, Any]:
        if request.mode is not None:
            return {"error": "unknown field 'mode' in file.diff", "code": "bad_request"}
        return compare(request)

    one.compare = older  # type: ignore[method-assign]
    (world.folder / "new").write_text("new")
    words = ("cp", "e1:", world.folder / "new", "/file", "--output", "json", "--mode")
    assert world.fazai(*words, "0640").document["targets"][0]["status"] == "changed"
    assert (one.root / "file").stat().st_mode & 0o777 == 0o640
    found = world.fazai(*words, "0600")
    assert found.code == 1
    said = found.document["targets"][0]["errors"][0]
    assert "its mode and owner an agent of this version does not compare" in said["message"]
    assert said["hint"] == "update it: fazai agents update"


def test_a_file_that_did_not_stick_is_told(world: World, fleet: Fleet) -> None:
    (world.folder / "new").write_text("new")
    fleet["e1"].replace = lambda request: {"applied": True}  # type: ignore[method-assign]
    found = world.fazai("cp", "e1:", world.folder / "new", "/file", "--output", "json")
    assert found.code == 1
    assert found.document["targets"][0]["errors"][0]["error"] == "VerifyError"


def test_a_file_that_moved_on_is_not_replaced(world: World, fleet: Fleet) -> None:
    (world.folder / "new").write_text("new")
    one = fleet["e1"]
    compare = one.compare

    def moved(request: Any) -> dict[str, Any]:
        found = compare(request)
        (one.root / "file").write_text("theirs")
        return found

    one.compare = moved  # type: ignore[method-assign]
    found = world.fazai("cp", "e1:", world.folder / "new", "/file", "--output", "json")
    assert found.code == 1
    assert found.document["targets"][0]["errors"][0]["error"] == "Moved"
    assert (one.root / "file").read_text() == "theirs"


def test_what_agents_have_no_message_for_is_said(world: World, fleet: Fleet) -> None:
    def said(found: Result) -> str:
        return str(found.document["targets"][0]["errors"][0]["message"])

    (world.folder / "in").write_bytes(b"\xff")
    found = run(world, "--stdin", str(world.folder / "in"), argv=("/bin/cat",))
    assert "UTF-8 text" in said(found)
    assert fleet["e1"].seen == []


def test_a_file_is_fetched_from_agents_once(world: World, fleet: Fleet, tmp_path: Path) -> None:
    world.local("one")
    for name in world.hosts:
        (world.folder / name / "file").write_bytes(b"of \0\xff" + name.encode())
        (world.folder / name / "file").chmod(0o640)
    words = ("cp", "all:/file", f"{tmp_path}/got/", "--output", "json")
    found = world.fazai(*words)
    assert found.code == 0, found.out
    for name in world.hosts:
        got = tmp_path / "got" / name / "file"
        assert (got.read_bytes(), got.stat().st_mode & 0o777) == (b"of \0\xff" + name.encode(), 0o640)
    again = world.fazai(*words)
    assert [each["status"] for each in again.document["targets"]] == ["converged"] * 4
    assert fleet["e1"].seen == ["file.read"] * 4  # looked at, fetched, and looked at again; then once more


def test_what_agents_do_not_hand_out_is_said(world: World, fleet: Fleet, tmp_path: Path) -> None:
    fleet["e1"].reads = False
    (world.folder / "e3/file").write_text("x")
    there = fleet["e3"].read

    def changing(request: Any) -> dict[str, Any]:
        found = there(request)
        (world.folder / "e3/file").write_text("another")
        return found

    fleet["e3"].read = changing  # type: ignore[method-assign]
    found = world.fazai("cp", "all:/file", f"{tmp_path}/got/", "--output", "json")
    assert found.code == 7
    rows = found.document["targets"]
    assert [row["status"] for row in rows] == ["refused", "failed", "failed"]
    assert "the agent refuses /file: files below / are not handed out" in rows[0]["errors"][0]["message"]
    assert "/file is not there" in rows[1]["errors"][0]["message"]
    assert "is another one than when it was looked at" in rows[2]["errors"][0]["message"]
    assert not list((tmp_path / "got").rglob("file*"))


@pytest.mark.parametrize(
    "says",
    [
        {"ok": True},
        {"ok": True, "sha256": 7, "size": 1, "mode": "0644"},
        {"ok": True, "sha256": "0" * 64, "size": -1, "mode": "0644"},
        {"ok": True, "sha256": "0" * 64, "size": 1, "mode": "9999"},
    ],
)
def test_an_agent_that_lies_of_a_file(
    world: World, fleet: Fleet, tmp_path: Path, says: Mapping[str, Any]
) -> None:
    fleet["e1"].says = says
    found = world.fazai("cp", "e1:/file", f"{tmp_path}/got", "--output", "json")
    assert found.code == 1
    assert "does not say what stands at /file" in found.document["targets"][0]["errors"][0]["message"]
    assert not (tmp_path / "got").exists()


def test_a_program_through_an_agent_loads_no_kinds_and_no_library_of_websockets(tmp_path: Path) -> None:
    inventory = tmp_path / "inventory.yml"
    inventory.write_text("all: {hosts: {edge-7: {provider: agent}}}\n")
    words = ["exec", str(inventory), "all", "--", "/bin/true"]
    code = (
        f"import sys; from fazai.cli import main; code = main({words!r}); "
        "names = {'websockets', 'asyncssh', 'zipfile', 'fazai.providers.hosts.kinds'}; "
        "print(code, sorted(names & set(sys.modules)))"
    )
    environ = {
        **os.environ,
        "FAZAI_STATE_DIR": str(tmp_path / "state"),
        "FAZAI_URL": f"unix:{tmp_path}/d.sock",
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ)
    assert "no daemon to ask agents through" in done.stdout
    assert done.stdout.splitlines()[-1] == "4 []", done.stderr
