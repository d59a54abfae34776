"""`fazai exec` and `fazai cp` when something is wrong: hostile output, a cut, a host that is held, secrets,
and interrupts at a real terminal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fazai.store.factory import open_store
from tests.daemon.live import live, until
from tests.hosts.conftest import Result, World
from tests.hosts.sshd import Sshd

#: Bytes that terminals obey: colours, the title, moving and asking, C1 codes as UTF-8 and alone, directions.
STEERING = (
    b"\x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b[2J\x1b[6n \x9b31m \xc2\x9b31m \x08\x08 \x7f a\rb "
    b"\xe2\x80\xae \xe2\x80\xa8 \xe2\x81\xa6 \xff\xfe \0 ]]> <x>&\n"
)
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def results(found: Result) -> dict[str, Any]:
    return {each["name"]: each.get("result") for each in found.document["targets"]}


@pytest.mark.parametrize(
    "words", [(), ("--group",), *(("--output", name) for name in ("json", "junit", "markdown"))]
)
def test_nothing_that_a_host_prints_steers_the_terminal(
    world: World, server: Sshd, words: tuple[str, ...]
) -> None:
    for root in (world.local("one"), world.ssh(server)):
        (root / "bad").write_bytes(STEERING * 3)
    found = world.fazai("exec", "all", *words, "--", "sh", "-c", "cat bad; cat bad >&2; exit 1")
    assert found.code == 1
    assert "title" in found.out
    assert _OBEYED.findall(found.out + found.err) == []
    shown = world.fazai_bare("show")
    assert "title" in shown.out
    assert _OBEYED.findall(shown.out.replace("\t", " ")) == []


def test_output_is_bounded(world: World, server: Sshd) -> None:
    world.local("one")
    world.ssh(server)
    flood = "i=0; while [ $i -lt 40 ]; do head -c 100000 /dev/zero | tr '\\0' x; i=$((i + 1)); done; echo"
    found = world.fazai("exec", "all", "--output", "json", "--", "sh", "-c", flood)
    assert found.code == 0
    for result in results(found).values():
        assert result["truncated"]
        assert result["stdout"] == "x" * 256 * 1024
    text = world.fazai("exec", "all", "--", "sh", "-c", flood)
    assert "… (it printed more than is kept)" in text.out
    events = json.loads(world.fazai_bare("show", "--output", "json").out)["events"]
    said = "".join(
        event["chunk"] for event in events if event["type"] == "exec_log" and event["target"] == "one"
    )
    assert len(said) < 20_000


def test_output_without_end_is_ended(world: World) -> None:
    world.local("one")
    found = world.fazai("exec", "one", "--timeout", "1", "--output", "json", "--", "yes")
    assert found.document["targets"][0]["errors"][0]["error"] == "TimedOut"
    assert results(found)["one"]["stdout"].startswith("y\ny\n")


def test_a_program_that_leaves_others_behind_is_ended_with_them(world: World, server: Sshd) -> None:
    for root in (world.local("one"), world.ssh(server)):
        script = "(trap '' TERM; sleep 300) & echo $! >child; (setsid sleep 301 & echo $! >other); sleep 302"
        (root / "run").write_text(script)
    found = world.fazai("exec", "all", "--timeout", "1", "--output", "json", "--", "sh", "run")
    assert found.document["unanswered"] == ["one", "web"]
    for name in ("one", "web"):
        assert not _runs(int((world.folder / name / "child").read_text()))
        os.kill(int((world.folder / name / "other").read_text()), signal.SIGKILL)  # it had left its parents


def test_a_connection_that_is_cut_is_unknown(world: World, server: Sshd) -> None:
    root = world.ssh(server)
    world.local("one")
    cutting = f"exec 3>&-; touch {root}/begun; sleep 300"
    child = start(
        world,
        "exec",
        "all",
        "--wave",
        "1",
        "--max-failures",
        "0",
        "--output",
        "json",
        "--",
        "sh",
        "-c",
        cutting,
    )
    until((root / "begun").exists)
    server.cut()
    out, _ = child.communicate(timeout=60)
    document = json.loads(out)
    assert child.returncode == document["exit_code"] == 1
    assert (document["unanswered"], document["not_asked"]) == (["web"], ["one"])
    (error,) = document["targets"][0]["errors"]
    assert error["error"] == "Unsure"
    assert "it is not known whether it came to its end" in error["message"]


def test_a_login_that_starts_no_shell_fails(world: World, server: Sshd) -> None:
    world.ssh(server)
    server.configure("ForceCommand /bin/false")
    found = world.fazai("exec", "all", "--output", "json", "--", "id")
    assert found.code == 1
    assert "the shell ended with status 1" in found.document["targets"][0]["errors"][0]["message"]


def test_secrets_are_masked_wherever_they_come_back(world: World) -> None:
    secret = "correct-horse-battery"
    world.local("one", become_password=secret)
    for words in ((), ("--group",), ("--output", "json"), ("--output", "junit"), ("--output", "markdown")):
        found = world.fazai(
            "exec", "one", *words, "--", "sh", "-c", f"echo {secret}; echo no {secret} >&2; exit 1"
        )
        assert found.code == 1
        assert "no ***" in found.out
        assert secret not in found.out + found.err
    shown = world.fazai_bare("show", "--output", "json").out
    assert "no ***" in shown
    assert secret not in shown
    for path in (world.folder / "state").rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path


def test_a_host_that_another_run_holds_is_exit_5(world: World) -> None:
    root = world.local("one")
    world.local("two")
    with running(world, root) as child:
        found = world.fazai("exec", "all", "--output", "json", "--", "true")
        assert found.code == 5
        assert [each["exit_code"] for each in found.document["targets"]] == [5, 0]
        assert "one" in found.document["targets"][0]["errors"][0]["message"]
        (world.folder / "new").write_text("new")
        assert world.fazai("cp", "one:", world.folder / "new", "/new").code == 5
        assert not (root / "new").exists()
        assert world.fazai("cp", "one:/begun", world.folder / "got").code == 0  # reading holds nothing
        (root / "go").touch()
        assert child.wait(60) == 0


def test_a_run_that_was_killed_is_seen_by_the_next_apply(world: World) -> None:
    root = world.local("one")
    with running(world, root) as child:
        child.kill()
        child.wait(60)
        (root / "go").touch()
    assert world.fazai("exec", "one", "--", "true").code == 0
    found = world.fazai("apply", resources=[{"host.file": {"path": "/file", "content": "x"}}])
    assert found.code == 0
    assert "was cut off during run of host.command sh -c" in found.out


def test_what_earlier_runs_left_is_left_alone(world: World) -> None:
    """A program proves nothing of what is declared: what a run left pending, and how the host is known to
    be, stay as they are."""
    root = world.local("one")
    resources = [{"host.file": {"path": "/file", "content": "x"}}]
    assert world.fazai("drift", resources=resources).code == 2
    before = targets(world)
    assert before["one"][0] == "pending"
    assert world.fazai("exec", "one", "--", "true").code == 0
    (world.folder / "new").write_text("new")
    for _ in range(2):
        assert world.fazai("cp", "one:", world.folder / "new", "/new").code == 0
        assert targets(world) == before
    events = json.loads(world.fazai_bare("show", "--output", "json").out)["events"]
    assert [event.get("status") for event in events if event["type"] == "outcome"] == ["converged"]
    assert not (root / "file").exists()


def targets(world: World) -> dict[str, tuple[Any, ...]]:
    store = open_store(world.folder / "state")
    try:
        return {name: tuple(state) for name, state in asyncio.run(store.targets()).items()}
    finally:
        store.close()


def test_a_broken_playbook_keeps_nobody_from_running_a_program(world: World) -> None:
    world.local("one", resources=[{"host.file": {"path": "/x", "content": "{{ undefined_name }}"}}])
    (world.folder / "site.yml").write_text("- nonsense: 1\n")
    broken = world.fazai("validate")
    assert broken.code == 3
    assert "undefined_name" in broken.err
    assert world.fazai("exec", "one", "--", "true").code == 0


def test_the_daemon_hears_of_it_as_of_any_run(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.local("one")
    world.local("two")
    (tmp_path / "daemon").mkdir()
    with live(tmp_path / "daemon") as daemon, daemon.client() as client:
        monkeypatch.setenv("FAZAI_URL", daemon.url)
        monkeypatch.setenv("FAZAI_REPORT_S", "60")
        assert world.fazai("exec", "all", "--", "echo", "hello").code == 0
        (run,) = client.get("/runs").json()["runs"]
        assert (run["command"], run["exit_code"], run.get("check", False)) == ("exec", 0, False)
        whole = client.get(f"/runs/{run['run_id']}").json()
        assert sorted(row["target"] for row in whole["targets"]) == ["one", "two"]
        types = [
            event["type"] for event in json.loads(world.fazai_bare("show", "--output", "json").out)["events"]
        ]
        assert types.count("exec_log") == 2
        ledger = daemon.services.store.ledger
        assert asyncio.run(ledger.targets()) == {}  # how they are is not known from that


# -- a real terminal ------------------------------------------------------------------------------------


WAITS = "echo begun >begun; echo $$ >pid; while [ ! -e go ]; do sleep 0.05; done; echo went"


def start(world: World, command: str, *words: str) -> subprocess.Popen[str]:
    """The command line in a process of its own, on the inventory of these hosts."""
    path = world.folder / "inventory.yml"
    path.write_text(json.dumps({"all": {"hosts": world.hosts}}))
    return subprocess.Popen(
        [sys.executable, "-m", "fazai", command, str(path), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def running(world: World, root: Path) -> Iterator[subprocess.Popen[str]]:
    """A run of `fazai exec` on `one`, which goes on until there is a file `go`."""
    child = start(world, "exec", "one", "--", "sh", "-c", WAITS)
    try:
        until((root / "pid").exists)
        yield child
    finally:
        (root / "go").touch()
        child.communicate(timeout=60)


class Terminal:
    """The command line at a pseudo terminal of its own."""

    def __init__(self, world: World, command: str, *words: str) -> None:
        path = world.folder / "inventory.yml"
        path.write_text(json.dumps({"all": {"hosts": world.hosts}}))
        environ = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
        self.shown, self._ended = "", False
        self._pid, self._master = pty.fork()
        if self._pid == 0:  # pragma: no cover - the child
            os.execve(sys.executable, [sys.executable, "-m", "fazai", command, str(path), *words], environ)

    def read_until(self, holds: Callable[[], object]) -> None:
        end = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < end, self.shown
            if select.select([self._master], [], [], 0.05)[0]:
                try:
                    part = os.read(self._master, 65536)
                except OSError:  # nobody has the other end open
                    part = b""
                self._ended = not part
                self.shown += part.decode(errors="replace")

    def press(self, key: bytes) -> None:
        os.write(self._master, key)

    def finish(self) -> int:
        """Read to the end, and return the exit code."""
        self.read_until(lambda: self._ended)
        os.close(self._master)
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])


def test_at_a_terminal_progress_is_shown_and_when_piped_it_is_not(world: World) -> None:
    for name in ("one", "two"):
        world.local(name)
    slow = "echo begun; sleep 0.3; echo half; sleep 0.3"
    terminal = Terminal(world, "exec", "all", "--", "sh", "-c", slow)
    assert terminal.finish() == 0
    assert re.search(r"0/2  (one|two) (begun|half)", terminal.shown)
    assert "\r\x1b[K" in terminal.shown
    assert "\x1b[32mexit 0" in terminal.shown
    piped = world.fazai("exec", "all", "--", "sh", "-c", slow)
    assert piped.code == 0
    assert "\x1b" not in piped.out + piped.err
    assert "\r" not in piped.out


@pytest.mark.slow
def test_a_large_file_is_seen_on_its_way(world: World, server: Sshd) -> None:
    root = world.ssh(server)
    data = os.urandom(24 * 1024 * 1024)
    (world.folder / "large").write_bytes(data)
    terminal = Terminal(world, "cp", "web:", str(world.folder / "large"), "/large")
    assert terminal.finish() == 0
    assert re.search(r"0/1  web [0-9.]+ of 24\.0 MiB", terminal.shown)
    assert (root / "large").read_bytes() == data
    terminal = Terminal(world, "cp", "web:/large", str(world.folder / "back"))
    assert terminal.finish() == 0
    assert re.search(r"0/1  web [0-9.]+ of 24\.0 MiB", terminal.shown)
    assert (world.folder / "back").read_bytes() == data


def test_ctrl_c_once_finishes_what_is_in_flight(world: World) -> None:
    root = world.local("one")
    other = world.local("two")
    terminal = Terminal(world, "exec", "all", "--forks", "1", "--", "sh", "-c", WAITS)
    terminal.read_until((root / "pid").exists)
    terminal.press(b"\x03")
    terminal.read_until(lambda: "finishing what is in flight" in terminal.shown)
    (root / "go").touch()
    assert terminal.finish() == 130
    assert "went" in terminal.shown
    assert "not asked:" in terminal.shown
    assert not (other / "begun").exists()
    assert "Traceback" not in terminal.shown
    history = json.loads(world.fazai_bare("history", "--output", "json").out)
    assert history[0]["exit_code"] == 130


def test_ctrl_c_twice_ends_what_runs(world: World, server: Sshd) -> None:
    roots = [world.local("one"), world.ssh(server)]
    terminal = Terminal(world, "exec", "all", "--", "sh", "-c", WAITS)
    terminal.read_until(lambda: all((root / "pid").exists() for root in roots))
    terminal.press(b"\x03")
    terminal.read_until(lambda: "finishing what is in flight" in terminal.shown)
    terminal.press(b"\x03")
    assert terminal.finish() == 130
    for root in roots:
        pid = int((root / "pid").read_text())
        until(lambda pid=pid: not _runs(pid))  # type: ignore[misc]
        assert not (root / "go").exists()
    assert "interrupted" in terminal.shown
    assert "Traceback" not in terminal.shown


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# -- the same of a playbook's commands -------------------------------------------------------------------


def test_a_command_whose_answer_is_lost_is_not_said_to_be_done(world: World, server: Sshd) -> None:
    root = world.ssh(server)
    script = f"touch {root}/begun; sleep 300"
    command = {"host.command": {"argv": ["sh", "-c", script], "creates": "/never"}}
    world.hosts["web"]["resources"] = [command]
    child = start(world, "apply", "--output", "json")
    until((root / "begun").exists)
    server.cut()
    out, _ = child.communicate(timeout=60)
    (target,) = json.loads(out)["targets"]
    assert child.returncode == 1
    assert [error["error"] for error in target["errors"]] == ["Unsure"]
    assert target["notes"] == []  # "it stays done" would be more than anybody knows


def test_the_last_words_of_a_command_that_is_ended_are_told(world: World) -> None:
    world.local("one")
    command = {"argv": ["sh", "-c", "echo waits for the lock; sleep 300"], "creates": "/never", "timeout": 1}
    found = world.fazai("apply", resources=[{"host.command": command}])
    assert found.code == 1
    assert "no answer within 1 s" in found.out
    events = json.loads(world.fazai_bare("show", "--output", "json").out)["events"]
    assert "waits for the lock" in "".join(event.get("chunk", "") for event in events)
