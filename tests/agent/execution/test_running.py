"""command.exec: what a program is given, what it answers, and what it is refused."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from fazai.agent.execution.landlock import read_abi
from tests.agent.execution.conftest import PYTHON, ROOT, ExecAgent, program, wait_until

SHELL = program("/bin/sh", args='["-c", {pattern: "(?s).*"}]')


def shell(text: str) -> dict[str, Any]:
    return {"command": "sh", "args": ["-c", text]}


def test_a_program_answers_with_its_output_and_exit_code(agent: ExecAgent) -> None:
    found = agent.run(SHELL, **shell("echo out; echo err >&2; exit 7"))
    assert found == {"ok": True, "exit_code": 7, "stdout": "out\n", "stderr": "err\n", "truncated": False}


def test_a_signal_is_128_and_its_number(agent: ExecAgent) -> None:
    assert agent.run(SHELL, **shell("kill -SEGV $$"))["exit_code"] == 128 + signal.SIGSEGV


def test_bytes_that_are_no_utf8_become_replacement_characters(agent: ExecAgent) -> None:
    found = agent.run(SHELL, **shell(r"printf 'a\377b\303\251\n'"))
    assert found["stdout"] == "a\ufffdb\u00e9\n"


def test_arguments_are_not_expanded(agent: ExecAgent) -> None:
    args = ["%s|", "$(id)", "`id`", "*", "~", "a b", "$HOME", ";id", "&& id", "'", '"', "é", ""]
    found = agent.run(program("/usr/bin/printf"), command="printf", args=args)
    assert found["stdout"] == "".join(f"{arg}|" for arg in args[1:])


def test_the_environment_is_clean(agent: ExecAgent) -> None:
    rule = program("/usr/bin/env", args="[]", env='{LC_ALL: "C(\\\\.UTF-8)?", TZ: "[A-Za-z/]+"}')
    found = agent.run(rule, command="env", env={"LC_ALL": "C", "TZ": "Europe/Lisbon"})
    names = {line.partition("=")[0] for line in str(found["stdout"]).splitlines()}
    assert names == {"PATH", "LANG", "HOME", "USER", "LOGNAME", "LC_ALL", "TZ"}
    assert "TZ=Europe/Lisbon\n" in str(found["stdout"])


def test_no_descriptor_of_the_agent_is_open_in_it(agent: ExecAgent) -> None:
    found = agent.run(program("/bin/ls"), command="ls", args=["-l", "/proc/self/fd"])
    lines = str(found["stdout"]).splitlines()[1:]
    assert [line.split()[-3] for line in lines] == ["0", "1", "2", "3"]  # 3 is the folder that ls reads
    assert lines[0].endswith("/dev/null")


def test_it_has_a_session_of_its_own_and_default_signals(agent: ExecAgent) -> None:
    code = (
        "import os; print(os.getsid(0) == os.getpid(), open('/proc/self/oom_score_adj').read(),"
        " open('/proc/self/status').read())"
    )
    lines = str(agent.run(program(PYTHON), command=PYTHON, args=["-I", "-c", code])["stdout"]).split("\n")
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert lines[0] == "True 500"
    assert (int(status["SigBlk"], 16), status["NoNewPrivs"]) == (0, "1")
    ours = 1 << 12 | 1 << 24 | 1 << 31 | 1 << 32  # those that Python ignores, and the C library's own two
    assert int(status["SigIgn"], 16) & ~ours == 0


def test_standard_input_comes_from_the_request(agent: ExecAgent) -> None:
    text = "é" * 300_000
    rule = program("/usr/bin/wc", stdin="true")
    assert str(agent.run(rule, command="wc", args=["-c"], stdin=text)["stdout"]).strip() == "600000"
    assert agent.run(rule, command="wc", args=["-c"], stdin="")["stdout"] == "0\n"
    assert agent.run(rule, command="wc", args=["-c"])["stdout"] == "0\n"


def test_a_program_that_reads_nothing_does_not_hang(agent: ExecAgent) -> None:
    found = agent.run(program("/bin/true", stdin="true"), command="true", stdin="x" * 1_000_000)
    assert (found["ok"], found["exit_code"]) == (True, 0)


def test_output_is_cut_and_the_rest_drained(agent: ExecAgent) -> None:
    rule = program("/bin/sh", args='["-c", {pattern: ".*"}]', output="11")
    found = agent.run(rule, **shell("printf ééééééé; head -c 2000000 /dev/zero; echo short >&2"))
    assert (found["stdout"], found["stderr"]) == ("ééééé", "short\n")  # the sixth would be cut in two
    assert found["truncated"] is True
    assert found["exit_code"] == 0
    assert agent.run(rule, **shell("printf 12345678901"))["truncated"] is False
    assert agent.run(rule, **shell("printf 123456789012 >&2"))["truncated"] is True


@pytest.mark.parametrize("size", [50_000_000, pytest.param(1_000_000_000, marks=pytest.mark.slow)])
def test_a_flood_of_output_takes_bounded_memory(agent: ExecAgent, size: int) -> None:
    running = agent.start(program("/usr/bin/head"), command="head", args=["-c", str(size), "/dev/zero"])
    found = running.answer()
    assert (found["exit_code"], found["truncated"], len(found["stdout"])) == (0, True, 256 * 1024)
    assert running.peak_kib() < 48 * 1024


def test_programs_that_cannot_be_started(agent: ExecAgent, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("#!/bin/sh\n")
    found = agent.run(program(str(file)), command=str(file))
    assert (found["code"], found["error"]) == ("not_allowed", f"{file} cannot be started: Permission denied")
    gone = tmp_path / "gone"
    found = agent.run(program(str(gone)), command=str(gone))
    assert (found["code"], found["error"]) == (
        "not_found",
        f"{gone} cannot be started: No such file or directory",
    )


def test_an_argument_list_that_the_system_does_not_take(agent: ExecAgent) -> None:
    found = agent.run(program("/bin/true"), command="true", args=["x" * 131_072] * 2)
    assert (found["ok"], found["error"]) == (False, "/bin/true cannot be started: Argument list too long")
    found = agent.run(program("/bin/true"), command="true", args=["\ud800"])
    assert (found["code"], found["error"]) == (
        "bad_request",
        "an argument or a variable holds half of a surrogate pair",
    )


def test_the_folder_is_entered_without_following_links(agent: ExecAgent, tmp_path: Path) -> None:
    (tmp_path / "in/side").mkdir(parents=True)
    (tmp_path / "in/link").symlink_to("/etc")
    rule = program("/bin/pwd", args="[]", cwd=f"[{tmp_path}/in]")
    assert agent.run(rule, command="pwd")["stdout"] == "/\n"
    assert agent.run(rule, command="pwd", cwd=f"{tmp_path}/in/side")["stdout"] == f"{tmp_path}/in/side\n"
    for cwd, words in (
        (f"{tmp_path}/in/link", f"{tmp_path}/in/link: Not a directory (links are not followed)"),
        (f"{tmp_path}/in/gone", f"{tmp_path}/in/gone: No such file or directory"),
        (f"{tmp_path}/inside", f'`cwd` may not be "{tmp_path}/inside", only / or below {tmp_path}/in'),
        (f"{tmp_path}/in/../x", '`cwd` must be an absolute path without ".", ".."'),
        ("/etc", '`cwd` may not be "/etc"'),
    ):
        found = agent.run(rule, command="pwd", cwd=cwd)
        assert found["code"] == "not_allowed"
        assert words in found["error"]


SLOW_PATTERN = program("/bin/true", args='[{pattern: "(a+)+b"}]')


def test_a_pattern_that_takes_for_ever_ends_at_the_deadline(agent: ExecAgent) -> None:
    found = agent.run(SLOW_PATTERN, command="true", args=["a" * 60], timeout=300)
    assert found["code"] == "timeout"
    assert "the allow-list could not be matched within 0.3 s; nothing was run" in found["error"]


def test_a_pattern_that_takes_for_ever_can_be_cancelled(agent: ExecAgent) -> None:
    running = agent.start(SLOW_PATTERN, command="true", args=["a" * 60], timeout=3_600_000)

    def matches() -> bool:
        fields = Path(f"/proc/{running.child}/stat").read_text().rpartition(")")[2].split()
        caught = Path(f"/proc/{running.child}/status").read_text().partition("SigCgt:\t")[2].split()[0]
        return bool(int(caught, 16) & 1 << signal.SIGTERM - 1) and fields[0] == "R"

    wait_until(matches, "the child matches")
    os.kill(running.child, signal.SIGTERM)
    found = running.answer()
    assert (found["code"], found["error"]) == ("cancelled", "it was cancelled before the program began")


OLD_PYTHON = ROOT / ".venv/python39/python3"


@pytest.mark.slow
@pytest.mark.skipif(
    not OLD_PYTHON.exists(), reason="tools/python39 brings the oldest Python that the agent works with"
)
def test_all_of_it_under_the_oldest_python(agent: ExecAgent, tmp_path: Path) -> None:
    old: dict[str, Any] = {"python": str(OLD_PYTHON)}
    limits = "{memory: 268435456, cpu_seconds: 9, files: 64}"
    rule = program("/bin/sh", stdin="true", env="{TZ: '[A-Z]+'}", cwd=f"[{tmp_path}]", limits=limits)
    found = agent.run(
        rule, **old, **shell("cat; pwd; echo $TZ"), stdin="é\n", env={"TZ": "UTC"}, cwd=str(tmp_path)
    )
    assert found == {
        "ok": True,
        "exit_code": 0,
        "stdout": f"é\n{tmp_path}\nUTC\n",
        "stderr": "",
        "truncated": False,
    }
    found = agent.run(rule, **old, **shell("setsid sleep 1000 & echo begun; sleep 1000"), timeout=300)
    assert (found["code"], found["stdout"]) == ("timeout", "begun\n")
    assert agent.run(SLOW_PATTERN, **old, command="true", args=["a" * 60], timeout=300)["code"] == "timeout"
    if read_abi():
        rule = program("/bin/sh", write=f"[{tmp_path}/in]")
        (tmp_path / "in").mkdir()
        assert agent.run(rule, **old, **shell(f"echo x > {tmp_path}/in/a"))["exit_code"] == 0
        assert agent.run(rule, **old, **shell(f"echo x > {tmp_path}/a"))["exit_code"] == 2
