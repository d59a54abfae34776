"""What a program is held to: its user, its limits, where it may write."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fazai.agent.config.settings import ProgramLimits
from fazai.agent.execution import landlock, limits
from fazai.agent.execution.landlock import read_abi
from fazai.agent.execution.limits import CgroupLeaf
from tests.agent.execution.conftest import (
    PYTHON,
    WITHOUT_CGROUP,
    ExecAgent,
    needs_cgroup,
    needs_landlock,
    needs_root,
    program,
    wait_until,
)


def shell(text: str) -> dict[str, Any]:
    return {"command": "sh", "args": ["-c", text]}


@needs_root
def test_the_user_is_dropped_to_for_good(agent: ExecAgent) -> None:
    rule = program("/bin/sh", user="nobody")
    found = agent.run(
        rule, **shell("id -u; id -G; echo $HOME $USER $LOGNAME; grep -E '^(NoNew|CapEff)' /proc/self/status")
    )
    uid, groups, names, *status = str(found["stdout"]).splitlines()
    assert (uid, groups) == ("65534", "65534")
    assert names == "/nonexistent nobody nobody"
    assert status == ["CapEff:\t0000000000000000", "NoNewPrivs:\t1"]


@needs_root
def test_a_user_by_numbers_has_no_other_groups(agent: ExecAgent) -> None:
    found = agent.run(program("/bin/sh", user='"54321:54322"'), **shell("id -u; id -G; echo $HOME $USER"))
    assert found["stdout"] == "54321\n54322\n/ 54321\n"


@needs_root
def test_set_user_id_bits_do_nothing(agent: ExecAgent, tmp_path: Path) -> None:
    """`id` with the bit, owned by root, in a folder that anybody can enter."""
    folder = Path("/var/tmp") / f"fazai-{os.getpid()}"
    folder.mkdir(0o755)
    try:
        shutil.copy("/usr/bin/id", folder / "id")
        (folder / "id").chmod(0o4755)
        found = agent.run(program(f"{folder}/id", user="nobody"), command="id", args=["-u"])
        assert found["stdout"] == "65534\n"
    finally:
        shutil.rmtree(folder)


@needs_root
def test_an_agent_without_root_cannot_become_another_user(agent: ExecAgent) -> None:
    rule = program("/bin/sh", user="nobody")
    wrapper = (
        "setpriv",
        "--reuid=0",
        "--regid=1",
        "--clear-groups",
        "--inh-caps=-all",
        "--bounding-set=-all",
    )
    found = agent.run(rule, wrapper=wrapper, **shell("id -u"))
    assert found["code"] == "internal"
    assert "/bin/sh cannot be started: user: Operation not permitted" in found["error"]
    found = agent.run(program("/bin/sh", user="no-such-user"), **shell("id -u"))
    assert found["code"] == "not_allowed"
    assert 'there is no user "no-such-user" here' in found["error"]


@pytest.mark.parametrize("wrapper", [(), pytest.param(WITHOUT_CGROUP, marks=needs_root)])
def test_memory_is_bounded(agent: ExecAgent, wrapper: tuple[str, ...]) -> None:
    rule = program(PYTHON, limits="{memory: 268435456}")
    args = ["-I", "-S", "-c", "print(len(bytearray(int(input()))))"]
    rule += "    stdin: true\n"
    assert (
        agent.run(rule, wrapper=wrapper, command=PYTHON, args=args, stdin="1000000")["stdout"] == "1000000\n"
    )
    found = agent.run(rule, wrapper=wrapper, command=PYTHON, args=args, stdin="1000000000")
    assert found["exit_code"] in (1, 137)
    assert "MemoryError" in found["stderr"] or found["exit_code"] == 137


def test_cpu_time_and_open_files_are_bounded(agent: ExecAgent) -> None:
    rule = program("/bin/sh", limits="{cpu_seconds: 1, files: 16}")
    assert agent.run(rule, **shell("ulimit -n; ulimit -t; ulimit -c"))["stdout"] == "16\n1\n0\n"
    found = agent.run(rule, **shell("while :; do :; done"))
    assert found["exit_code"] in (128 + 9, 128 + 24)


@needs_landlock
@pytest.mark.parametrize(
    "text",
    [
        "echo x > OUT/file",
        "echo x >> OUT/there",
        "mkdir OUT/folder",
        "rm OUT/there",
        "rmdir OUT/empty",
        "ln -s /etc OUT/link",
        "ln OUT/there IN/hard",
        "mv OUT/there IN/moved",
        "mv IN/mine OUT/mine",
        "mkfifo OUT/pipe",
        "cp IN/mine OUT/there",
        "ln -s OUT IN/way && echo x > IN/way/file",
        "setsid sh -c 'echo x > OUT/file' || exit 1",
        pytest.param(
            ": | dd of=OUT/there bs=1 count=0 2>&1",
            marks=pytest.mark.skipif(read_abi() < 3, reason="this Landlock cannot forbid truncating"),
        ),
    ],
)
def test_nothing_is_written_outside_of_the_paths_that_may_be(
    agent: ExecAgent, tmp_path: Path, text: str
) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside, outside / "empty"):
        folder.mkdir()
    (outside / "there").write_text("as it was")
    (inside / "mine").write_text("mine")
    rule = program("/bin/sh", write=f"[{inside}]")
    found = agent.run(rule, **shell(text.replace("OUT", str(outside)).replace("IN", str(inside))))
    assert found["exit_code"] != 0
    assert "ermission denied" in found["stderr"] + found["stdout"] or "cross-device" in found["stderr"]
    assert {path.name for path in outside.iterdir()} == {"there", "empty"}
    assert (outside / "there").read_text() == "as it was"


@needs_landlock
def test_what_may_be_written_can_be(agent: ExecAgent, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    rule = program("/bin/sh", write=f"[{tmp_path}/folder, {tmp_path}/file]")
    text = (
        f"cd {tmp_path}; echo new > file; echo x > folder/a; mkdir folder/b; mv folder/a folder/b;"
        " echo x > /dev/null; cat /etc/passwd >&2"
    )
    found = agent.run(rule, **shell(text))
    assert (found["exit_code"], (tmp_path / "file").read_text()) == (0, "new\n")
    assert (tmp_path / "folder/b/a").exists()
    assert found["stderr"].startswith("root:")
    found = agent.run(program("/bin/sh", write=f"[{tmp_path}/gone]"), **shell("true"))
    assert (
        f"/bin/sh cannot be started: Landlock: {tmp_path}/gone: No such file or directory" in found["error"]
    )
    assert agent.run(program("/bin/sh", write="[]"), **shell(f"echo x > {tmp_path}/file"))["exit_code"] == 2


@needs_cgroup
def test_a_cgroup_whose_maker_is_gone_is_removed(agent: ExecAgent) -> None:
    parent = limits.find_own_cgroup()
    assert parent is not None
    gone = subprocess.Popen(["/bin/true"])
    gone.wait()
    own = limits._own_prefix()
    left = Path(parent, f"{own}{gone.pid}-1")
    younger = Path(parent, f"{own}{os.getpid()}-1")  # its maker had our number long before us
    living = Path(parent, f"{own}{os.getpid()}-{limits._ticks_since_boot()}")
    others = Path(parent, f"{limits._PREFIX}-{os.getpid()}-{gone.pid}-1")  # of another namespace
    nothing = Path(parent, f"{own}else-{os.getpid()}")
    folders = (left, younger, living, others, nothing)
    for folder in folders:
        folder.mkdir()
    try:
        limits.end_orphaned_leaves()
        assert [folder.exists() for folder in folders] == [False, False, True, True, True]
    finally:
        for folder in (living, others, nothing):
            folder.rmdir()
    mine = agent.start(program("/bin/cat", stdin="true"), command="cat", stdin="x")
    assert mine.answer()["stdout"] == "x"
    assert not list(Path(parent).glob(f"{own}{mine.child}-*"))


@needs_cgroup
@needs_root
def test_agents_of_other_namespaces_do_not_end_each_others_programs(agent: ExecAgent, tmp_path: Path) -> None:
    """Two agents that see the same cgroups and number processes each in its own way."""
    code = f": > {tmp_path}/ready; while [ ! -e {tmp_path}/go ]; do :; done; echo whole"
    rule = program("/bin/sh")
    running = agent.start(rule, **shell(code))
    wait_until((tmp_path / "ready").exists, "the program runs")
    apart = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    assert agent.run(program("/bin/true"), wrapper=apart, command="true")["exit_code"] == 0
    (tmp_path / "go").touch()
    assert running.answer()["stdout"] == "whole\n"


@needs_root
def test_a_limit_of_processes_that_cannot_be_kept_is_no_limit(agent: ExecAgent) -> None:
    """The kernel does not count root's processes without a cgroup that does."""
    rule = program("/bin/true", limits="{processes: 50}")
    found = agent.run(rule, wrapper=WITHOUT_CGROUP, command="true")
    assert found["code"] == "unavailable"
    assert (
        "/bin/true: the number of root's processes cannot be limited here (give it a `user`" in found["error"]
    )
    rule = program("/bin/true", limits="{processes: 500}", user="nobody")
    assert agent.run(rule, wrapper=WITHOUT_CGROUP, command="true")["ok"]


def test_a_cgroup_keeps_the_limits_whose_controllers_it_has(tmp_path: Path) -> None:
    """The files of a cgroup, as the kernel shows them, in a folder."""
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    assert CgroupLeaf(str(tmp_path)).limit(ProgramLimits(memory=1 << 20, processes=7)) == (True, True)
    assert (tmp_path / "memory.max").read_text() == "1048576"
    assert (tmp_path / "memory.swap.max").read_text() == "0"
    assert (tmp_path / "pids.max").read_text() == "7"
    assert CgroupLeaf(str(tmp_path)).limit(ProgramLimits()) == (False, False)
    (tmp_path / "cgroup.controllers").write_text("cpu\n")
    assert CgroupLeaf(str(tmp_path)).limit(ProgramLimits(memory=1 << 20, processes=7)) == (False, False)


def test_what_an_older_landlock_cannot_do_is_not_asked_of_it() -> None:
    """Bits of <linux/landlock.h>: REFER came with ABI 2, TRUNCATE with ABI 3."""
    refer, truncate = 1 << 13, 1 << 14
    assert [bool(landlock._handled_rights(abi) & refer) for abi in (1, 2, 3, 7)] == [False, True, True, True]
    assert [bool(landlock._handled_rights(abi) & truncate) for abi in (1, 2, 3, 7)] == [
        False,
        False,
        True,
        True,
    ]
    assert landlock._handled_rights(7) & 0b1101 == 0  # running and reading stay free
    assert landlock.missing_rights(0) == "this kernel has no Landlock"
    assert "cannot forbid truncating files" in str(landlock.missing_rights(2))
    assert landlock.missing_rights(3) is None


ENTER = ("sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"')


@needs_cgroup
@needs_root
def test_an_agent_leaves_the_cgroup_that_was_given_to_it_to_its_programs(agent: ExecAgent) -> None:
    """As a service manager does with Delegate=yes."""
    parent = limits.find_own_cgroup()
    assert parent is not None
    given = Path(parent, f"given-{os.getpid()}-{os.urandom(3).hex()}")
    given.mkdir()
    try:
        rule = program("/bin/sh", stdin="true")
        tell = shell("cat /proc/$PPID/cgroup /proc/self/cgroup | grep ^0::")
        where = agent.run(rule, wrapper=(*ENTER, str(given)), **tell)["stdout"].splitlines()
        assert [line.split(given.name)[1].partition("-command-")[0] for line in where] == ["", "/fazai"]
        os.setxattr(given, "user.delegate", b"1")
        where = agent.run(rule, wrapper=(*ENTER, str(given)), **tell)["stdout"].splitlines()
        assert [line.split(given.name)[1].partition("-command-")[0] for line in where] == [
            "/fazai-agent",
            "/fazai",
        ]
        again = agent.run(rule, wrapper=(*ENTER, f"{given}/fazai-agent"), **tell)["stdout"].splitlines()
        assert again[0].endswith(f"{given.name}/fazai-agent")
        assert f"{given.name}/fazai-command-" in again[1]
    finally:
        (given / "fazai-agent").rmdir()
        given.rmdir()
