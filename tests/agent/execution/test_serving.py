"""One process runs one program after another, and nothing passes from one to the next."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

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

#: Starts a command where the kernel has no clone3 (435): a filter of system calls says so (ENOSYS).
WITHOUT_CLONE3 = (
    *(PYTHON, "-I", "-S", "-c"),
    """
import ctypes, os, struct, sys
code = [(0x20, 0, 0, 0), (0x15, 0, 1, 435), (0x06, 0, 0, 0x50000 | 38), (0x06, 0, 0, 0x7FFF0000)]
filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in code))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(filters)))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
""",
)
SHOW = (
    "echo $PPID $(ulimit -n) $(ulimit -t) $(umask) $(pwd);"
    "ls /proc/self/fd; grep -c fazai-command /proc/self/cgroup"
)
#: Descriptors that `ls` sees, the last of which is the folder that it lists; and the program is in a cgroup.
CLEAN = ["0", "1", "2", "3", "1"]


def shell(text: str, name: str = "plain", **more: Any) -> dict[str, Any]:
    return {"command": name, "args": ["-c", text], **more}


@pytest.mark.parametrize(
    "wrapper", [pytest.param((), marks=needs_cgroup), pytest.param(WITHOUT_CLONE3, marks=needs_cgroup)]
)
def test_nothing_passes_from_one_program_to_the_next(
    agent: ExecAgent, tmp_path: Path, wrapper: tuple[str, ...]
) -> None:
    rules = program("/bin/sh", name="bound", limits="{files: 17, cpu_seconds: 7}", cwd=f"[{tmp_path}]")
    rules += program("/bin/sh", name="plain")
    bound = shell(f"umask 077; {SHOW}", "bound", cwd=str(tmp_path))
    running = agent.start(rules, wrapper=wrapper, **bound, later=[shell(SHOW), bound, shell(SHOW)])
    found = [running.answer(wait=False)["stdout"].split() for _ in range(4)]
    assert (
        found[0]
        == found[2]
        == [str(running.child), "17", "7", "0077", str(tmp_path), "0", "1", "2", "3", "1"]
    )
    assert found[1] == found[3]
    assert found[1][0] == str(running.child)
    assert found[1][1] != "17"
    assert found[1][2:] == [
        "unlimited",
        "0022",
        "/",
        "0",
        "1",
        "2",
        "3",
        "1",
    ]  # 3 is the folder that ls lists


@pytest.mark.parametrize(
    "wrapper",
    [pytest.param((), marks=needs_cgroup), pytest.param(WITHOUT_CGROUP, marks=needs_root)],
    ids=["cgroup", "no cgroup"],
)
def test_the_next_program_begins_when_nothing_of_the_last_is_left(
    agent: ExecAgent, wrapper: tuple[str, ...]
) -> None:
    leave = shell(f"trap '' TERM HUP; (exec -a {agent.marker} sleep 1000) & echo left", "bash")
    running = agent.start(program("/bin/bash", name="bash"), wrapper=wrapper, **leave, later=[leave, leave])
    for _ in range(3):
        assert running.answer(wait=False)["stdout"] == "left\n"
    running.process.wait()
    assert processes_with(agent.marker) == []


@needs_root
@needs_cgroup
def test_cgroups_that_a_program_makes_go_with_its_own(agent: ExecAgent) -> None:
    nest = (
        "cd $(sed -n 's/^[^ ]* [^ ]* [^ ]* [^ ]* \\([^ ]*\\) .* - cgroup2 .*/\\1/p' /proc/self/mountinfo);"
        "cd ./$(sed -n 's/^0:://p' /proc/self/cgroup); mkdir -p one/two;"
        "sleep 1000 & echo $! > one/cgroup.procs; pwd"
    )
    answer = agent.run(program("/bin/sh", name="plain"), **shell(nest))
    assert "fazai-command" in answer["stdout"], answer
    assert not Path(answer["stdout"].strip()).exists()


def test_after_a_timeout_the_same_process_runs_the_next_program(agent: ExecAgent) -> None:
    running = agent.start(
        program("/bin/sh", name="plain"), **shell("sleep 1000", timeout=300), later=[shell("echo $PPID")]
    )
    assert running.answer(wait=False)["code"] == "timeout"
    assert running.answer()["stdout"] == f"{running.child}\n"


def test_a_cancel_ends_the_process_behind_its_answer(agent: ExecAgent, tmp_path: Path) -> None:
    running = agent.start(
        program("/bin/sh", name="plain"),
        **shell(f": > {tmp_path}/ready; exec sleep 1000"),
        later=[shell("echo next")],
    )
    wait_until((tmp_path / "ready").exists, "the program runs")
    os.kill(running.child, 15)
    assert running.answer(wait=False)["code"] == "cancelled"
    assert running.answer() == {}
