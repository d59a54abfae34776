"""A6: a timeout, a cancel and the program's own end leave nothing of what it started, whatever it did."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from fazai.agent.execution import tree
from tests.agent.execution.conftest import (
    PYTHON,
    WITHOUT_CGROUP,
    ExecAgent,
    needs_cgroup,
    needs_root,
    processes_with,
    program,
    wait_until,
)

RULE = program(PYTHON)
CGROUP = [
    pytest.param((), marks=needs_cgroup, id="cgroup"),
    pytest.param(WITHOUT_CGROUP, marks=needs_root, id="no cgroup"),
]

#: Forks twice, takes a session of its own, ignores every signal that can be, keeps the pipes open.
DAEMON = """
import os, signal, sys
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
    signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setpgid(0, 0)
        open(sys.argv[1] + f".{os.getpid()}", "w").close()
        while True:
            signal.pause()
    signal.pause()
print("started", flush=True)
while len([n for n in os.listdir(os.path.dirname(sys.argv[1])) if n.startswith("ready.")]) < 2:
    os.sched_yield()
open(sys.argv[1], "w").close()
"""
STAYS = f"{DAEMON}\nwhile True: signal.pause()\n"
#: Each process forks the next one and ends at once: whoever looks for it finds the one before.
COMETS = """
import os, signal, sys, time
own = sys.argv[2] == "sessions"
end = time.monotonic() + 20
for _ in range(3):
    if os.fork() == 0:
        while True:
            if os.fork() or time.monotonic() > end:
                os._exit(0)
            if own:
                os.setsid()
open(sys.argv[1], "w").close()
if sys.argv[3] == "ends":
    os._exit(0)
while True:  # not os.wait(): it would end with its own children, the comets are its reaper's
    signal.pause()
"""


def request(agent: ExecAgent, code: str, *args: object, timeout: int = 60_000) -> dict[str, Any]:
    """Have Python run a text; an argument may hold no line breaks, so it stands in a file."""
    file = agent.folder / "program.py"
    file.write_text(code)
    args = ("-I", "-S", file, *args, agent.marker)
    return {"command": PYTHON, "args": list(map(str, args)), "timeout": timeout}


@pytest.mark.parametrize("wrapper", CGROUP)
def test_a_timeout_ends_the_whole_tree(agent: ExecAgent, tmp_path: Path, wrapper: tuple[str, ...]) -> None:
    running = agent.start(RULE, wrapper=wrapper, **request(agent, STAYS, tmp_path / "ready", timeout=2000))
    wait_until((tmp_path / "ready").exists, "the program has made its daemons")
    assert len(processes_with(agent.marker)) >= 4
    found = running.answer()
    assert processes_with(agent.marker) == []
    assert (found["code"], found["stdout"]) == ("timeout", "started\n")
    assert found["error"] == f"{PYTHON} did not end within 2 s; all of it was ended"


@pytest.mark.parametrize("wrapper", CGROUP)
def test_a_cancel_ends_the_whole_tree(agent: ExecAgent, tmp_path: Path, wrapper: tuple[str, ...]) -> None:
    running = agent.start(RULE, wrapper=wrapper, **request(agent, STAYS, tmp_path / "ready"))
    wait_until((tmp_path / "ready").exists, "the program has made its daemons")
    os.kill(running.child, signal.SIGTERM)
    found = running.answer()
    assert processes_with(agent.marker) == []
    assert (found["code"], found["stdout"]) == ("cancelled", "started\n")
    assert found["error"] == f"{PYTHON} was cancelled; all of it was ended"


@pytest.mark.parametrize("wrapper", CGROUP)
def test_what_a_program_leaves_behind_ends_with_it(
    agent: ExecAgent, tmp_path: Path, wrapper: tuple[str, ...]
) -> None:
    found = agent.run(RULE, wrapper=wrapper, **request(agent, DAEMON, tmp_path / "ready"))
    assert processes_with(agent.marker) == []
    assert (found["ok"], found["exit_code"], found["stdout"]) == (True, 0, "started\n")


@pytest.mark.parametrize("wrapper", CGROUP)
@pytest.mark.parametrize("kind", ["group", "sessions"])
@pytest.mark.parametrize("end", ["stays", "ends"])
def test_processes_that_fork_while_they_are_killed(
    agent: ExecAgent, tmp_path: Path, wrapper: tuple[str, ...], kind: str, end: str
) -> None:
    running = agent.start(RULE, wrapper=wrapper, **request(agent, COMETS, tmp_path / "ready", kind, end))
    wait_until((tmp_path / "ready").exists, "the program runs")
    if end == "stays":
        os.kill(running.child, signal.SIGTERM)
    found = running.answer()
    assert processes_with(agent.marker) == []
    assert found["ok"] is (end == "ends")


@needs_root
@pytest.mark.parametrize("wrapper", CGROUP)
def test_a_program_makes_no_more_processes_than_its_limit(
    agent: ExecAgent, tmp_path: Path, wrapper: tuple[str, ...]
) -> None:
    """A fork bomb: of another user, in a namespace that ends with it, and it would stop at 200 by itself."""
    uid = 1_000_000 + os.getpid() * 2 + (len(wrapper) > 0)
    wrapper = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *wrapper)
    rule = program("/bin/sh", user=f'"{uid}:{uid}"', limits="{processes: 40}")
    code = 'trap "" TERM; n=0; while [ $n -lt 200 ]; do sleep 1000 & n=$((n+1)); echo $n; done; wait'
    found = agent.run(rule, wrapper=wrapper, command="sh", args=["-c", code], timeout=20_000)
    assert found.get("exit_code", 1) != 0
    assert "fork" in found["stderr"]
    assert 20 < len(found["stdout"].split()) < 41
    assert not any(path.stat().st_uid == uid for path in Path("/proc").glob("[0-9]*") if path.exists())


def test_a_pipe_that_somebody_else_holds_open_is_not_waited_for(agent: ExecAgent, tmp_path: Path) -> None:
    code = "import os, sys\nopen(sys.argv[1], 'w')\nwhile not os.path.exists(sys.argv[2]): os.sched_yield()"
    running = agent.start(RULE, **request(agent, code, tmp_path / "ready", tmp_path / "go"))
    wait_until((tmp_path / "ready").exists, "the program runs")
    (pid,) = (p for p in processes_with(agent.marker) if os.readlink(f"/proc/{p}/exe") == PYTHON)
    with open(f"/proc/{pid}/fd/1", "wb") as held:
        held.write(b"from elsewhere")
        held.flush()
        (tmp_path / "go").touch()
        found = running.answer()
    assert (found["exit_code"], found["stdout"]) == (0, "from elsewhere")


@pytest.mark.parametrize("wrapper", CGROUP)
def test_the_program_dies_with_a_child_that_is_killed(
    agent: ExecAgent, tmp_path: Path, wrapper: tuple[str, ...]
) -> None:
    code = "import sys, signal\nopen(sys.argv[1], 'w').close()\nwhile True: signal.pause()"
    running = agent.start(RULE, wrapper=wrapper, **request(agent, code, tmp_path / "ready"))
    wait_until((tmp_path / "ready").exists, "the program runs")
    os.kill(running.child, signal.SIGKILL)
    assert running.answer() == {}
    wait_until(lambda: processes_with(agent.marker) == [], "the program has died")


@needs_cgroup
def test_what_a_killed_child_left_is_ended_by_the_next_one(agent: ExecAgent, tmp_path: Path) -> None:
    running = agent.start(RULE, **request(agent, STAYS, tmp_path / "ready"))
    wait_until((tmp_path / "ready").exists, "the program has made its daemons")
    os.kill(running.child, signal.SIGKILL)
    assert running.answer() == {}
    assert processes_with(agent.marker) != []
    assert agent.run(program("/bin/true"), command="true")["exit_code"] == 0
    wait_until(lambda: processes_with(agent.marker) == [], "what was left has been ended")


def test_descendants_are_found_with_and_without_the_kernels_lists(agent: ExecAgent, tmp_path: Path) -> None:
    """A kernel may be built without lists of children: then every process is looked at."""
    running = agent.start(RULE, **request(agent, STAYS, tmp_path / "ready"))
    wait_until((tmp_path / "ready").exists, "the program has made its daemons")
    found = set(tree._follow_children(running.child))
    assert found == set(tree._scan_processes(running.child)) == set(tree.find_descendants(running.child))
    assert found >= set(processes_with(agent.marker))
    assert all(tree._descends_from(pid, running.child) for pid in found)
    assert not tree._descends_from(running.child, min(found))
    assert not tree._descends_from(os.getpid(), running.child)
    os.kill(running.child, signal.SIGTERM)
    assert running.answer()["code"] == "cancelled"
