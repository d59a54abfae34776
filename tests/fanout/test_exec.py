"""`fazai exec`: one program on many hosts, in waves, with one budget of failures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.hosts.conftest import Result, World
from tests.hosts.sshd import Sshd


def run(world: World, *words: str, on: str = "all", argv: tuple[str, ...]) -> Result:
    return world.fazai("exec", on, *words, "--", *argv)


def results(found: Result) -> dict[str, dict[str, Any]]:
    return {each["name"]: each.get("result") for each in found.document["targets"]}


def test_each_host_runs_the_program_and_says_what_it_printed(world: World) -> None:
    one, two = world.local("one"), world.local("two")
    found = run(world, "--output", "json", argv=("pwd",))
    assert found.code == 0
    assert results(found) == {
        "one": {"exit_status": 0, "stdout": f"{one}\n", "stderr": "", "truncated": False},
        "two": {"exit_status": 0, "stdout": f"{two}\n", "stderr": "", "truncated": False},
    }
    text = run(world, argv=("sh", "-c", "pwd; echo no >&2"))
    lines = text.out.splitlines()
    assert f"one  | {one}" in lines
    assert f"two  | {two}" in lines
    assert "one  ! no" in lines
    assert text.out.count("exit 0") == 2


def test_words_reach_the_program_as_they_are(world: World) -> None:
    world.local("one")
    words = ("$HOME", "`id`", "a b", "it's", "*", "", "-n", "\\", "new\nline", "é", "--output", "junit", "--")
    found = run(world, "--output", "json", argv=("printf", "[%s]", *words))
    assert results(found)["one"]["stdout"] == "".join(f"[{word}]" for word in words)


def test_words_that_are_no_text_reach_it_as_they_are(world: World, server: Sshd) -> None:
    world.local("one")
    world.ssh(server)
    found = run(
        world, "--output", "json", argv=("sh", "-c", 'printf %s "$1" | od -An -tx1', "sh", "a\udcff\x1b")
    )
    assert found.code == 0
    assert {each["stdout"].split() == ["61", "ff", "1b"] for each in results(found).values()} == {True}
    assert "\x1b" not in run(world, argv=("echo", "a\udcff\x1b")).out


def test_quiet_says_nothing_when_all_went_well(world: World) -> None:
    root = world.local("one")
    world.local("two")
    assert run(world, "--quiet", argv=("pwd",)).out == ""
    (root / "broken").touch()
    found = run(world, "--quiet", argv=FAILS)
    assert found.code == 1
    assert found.out.startswith("one   exit 1 ")
    assert "one  | here" in found.out.splitlines()
    assert "two " not in found.out
    assert "RESULT 1 ran, 1 failed" in found.out


def test_hosts_that_printed_the_same_stand_together(world: World) -> None:
    for name in ("a", "b", "c", "d"):
        (world.local(name) / ("odd" if name in "bd" else "even")).touch()
    (world.folder / "c/broken").touch()
    found = run(world, "--group", argv=("sh", "-c", "ls | grep -v broken; test ! -e broken"))
    assert found.code == 1
    lines = found.out.splitlines()
    assert lines[:6] == [
        "a  exit 0",
        "  | even",
        "b, d (2 targets)  exit 0",
        "  | odd",
        "c  exit 1",
        "  | even",
    ]
    assert lines[6].startswith("RESULT 3 ran, 1 failed")


def test_over_ssh_it_is_the_same(world: World, server: Sshd) -> None:
    root = world.ssh(server)
    found = run(world, "--output", "json", argv=("sh", "-c", "pwd; exit 7"))
    assert found.code == 1
    assert results(found)["web"] == {
        "exit_status": 7,
        "stdout": f"{root}\n",
        "stderr": "",
        "truncated": False,
    }
    assert found.document["targets"][0]["errors"][0]["message"] == "sh: exit status 7"


def test_there_is_no_shell_between(world: World) -> None:
    world.local("one")
    found = run(world, "--output", "json", argv=("echo hello",))
    assert found.code == 1
    assert results(found)["one"]["exit_status"] == 127
    assert "sh -c" in found.document["targets"][0]["errors"][0]["hint"]
    assert run(world, "--shell", argv=("ls | wc",)).err.count("-- sh -c") == 1
    word = run(world, argv=("cd", "/"))  # a word of the shell is no program
    assert word.code == 1
    assert "cd: exit status 127" in word.out


@pytest.mark.parametrize("data", [b"", b"two\nlines", b"\0 \\0 '\\''\xff\n" * 30_000])
def test_what_it_reads(world: World, server: Sshd, tmp_path: Path, data: bytes) -> None:
    world.local("one")
    world.ssh(server)
    (tmp_path / "in").write_bytes(data)
    found = run(world, "--stdin", str(tmp_path / "in"), "--output", "json", argv=("od", "-An", "-tx1", "-v"))
    assert found.code == 0
    for result in results(found).values():
        said = bytes.fromhex(result["stdout"].replace("\n", "")) if not result["truncated"] else data
        assert said == data
    count = run(world, "--stdin", str(tmp_path / "in"), "--output", "json", argv=("wc", "-c"))
    assert {int(each["stdout"]) for each in results(count).values()} == {len(data)}
    assert run(world, "--stdin", str(tmp_path / "in"), argv=("true",)).code == 0  # it need not read


def test_input_that_is_too_long_is_refused(world: World, tmp_path: Path) -> None:
    world.local("one")
    (tmp_path / "in").write_bytes(b"x" * (1024 * 1024 + 1))
    found = run(world, "--stdin", str(tmp_path / "in"), argv=("cat",))
    assert found.code == 3
    assert "longer than 1 MiB" in found.err
    assert "there is no file" in run(world, "--stdin", str(tmp_path / "im"), argv=("cat",)).err


def test_without_standard_input_it_reads_nothing(world: World) -> None:
    world.local("one")
    assert results(run(world, "--output", "json", argv=("cat",)))["one"]["stdout"] == ""


def test_it_runs_where_it_is_told_to(world: World, server: Sshd) -> None:
    (world.local("one") / "srv").mkdir()
    (world.ssh(server) / "srv").mkdir()
    found = run(world, "--chdir", "/srv", "--output", "json", argv=("pwd",))
    assert [each["stdout"].endswith("/srv\n") for each in results(found).values()] == [True, True]
    assert "no absolute path" in run(world, "--chdir", "srv", argv=("pwd",)).err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("all",), "which program?"),
        (("all", "--"), "which program?"),
        (("--", "id"), "a pattern is missing"),
        (("nope", "--", "id"), "matches no group and no host"),
        (("all", "--", "-l"), "is no program"),
        (("all", "--wave", "0", "--", "id"), "no list of sizes"),
        (("all", "--wave", "1,x", "--", "id"), "no list of sizes"),
        (("all", "--wave", "101%", "--", "id"), "no list of sizes"),
        (("all", "--max-failures", "-1", "--", "id"), "is no number"),
        (("all", "--timeout", "0", "--", "id"), "--timeout"),
    ],
)
def test_bad_input_contacts_nobody(world: World, words: tuple[str, ...], said: str) -> None:
    world.local("one")
    found = world.fazai("exec", *words)
    assert found.code == 3
    assert said in found.err


def test_the_last_word_is_a_pattern_whatever_lies_here(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.local("one")
    world.local("two")
    monkeypatch.chdir(world.folder)  # where there are folders of these names
    assert run(world, on="one", argv=("true",)).code == 0
    inventory = world.folder / "inventory.yml"
    for words in (("-i", inventory, "one", "two"), ("one,two", "-i", inventory), (inventory, "one,two")):
        assert "RESULT 2 ran" in world.fazai_bare("exec", *words, "--", "true").out
    monkeypatch.setenv("FAZAI_INVENTORY", str(inventory))
    assert "RESULT 1 ran" in world.fazai_bare("exec", "one", "--", "true").out
    missing = world.fazai_bare("exec", inventory, "--", "true")
    assert missing.code == 3
    assert "a pattern is missing" in missing.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("all df -h /", 'stand behind "--", which is missing'),
        ("all -h", 'stand behind "--", which is missing'),
        ("all df --help", 'stand behind "--", which is missing'),
        ("all df -qh", 'stand behind "--", which is missing'),
        ("-f 2 all df -h -- /", 'stand behind "--", which is missing'),
        ("all df -hT", "there is no option -T"),
        ("all ls -la", "there is no option -l"),
        ("all ls --all-of-them", "an option of the program stands behind it, and it behind --"),
        ("all df -q", "which program? it stands behind --"),
        ("all --outptu json -- df", "--output"),
    ],
)
def test_an_option_of_the_program_is_not_ours(world: World, words: str, said: str) -> None:
    world.local("one")
    found = world.fazai("exec", *words.split())
    assert (found.code, found.out) == (3, "")
    assert said in found.err


@pytest.mark.parametrize("words", [("--help",), ("-h",), ("-f", "3", "-q", "-h")])
def test_help_is_shown_where_it_is_asked_for(world: World, words: tuple[str, ...]) -> None:
    helped = world.fazai_bare("exec", *words)
    assert (helped.code, "Usage: fazai exec" in helped.out) == (0, True)


def test_bad_input_is_a_document_as_well(world: World) -> None:
    world.local("one")
    found = world.fazai("exec", "nope", "--output", "json", "--", "id")
    assert found.code == found.document["exit_code"] == 3
    assert found.document["command"] == "exec"
    assert found.document["errors"][0]["error"] == "InventoryError"
    assert world.fazai("exec", "nope", "--", "id", "--output", "json").out == ""  # the program's own words


# -- the budget (A15) -----------------------------------------------------------------------------------


def fleet(world: World, server: Sshd) -> list[str]:
    """20 hosts: 3 of the first 10 are dead, 2 fail."""
    for number in range(20):
        name = f"h{number:02}"
        if number in (1, 4, 8):
            world.ssh(server, name, ansible_port=1)
        elif number % 2:
            world.ssh(server, name)
        else:
            world.local(name)
        if number in (2, 7):
            (world.folder / name / "broken").touch()
    return list(world.hosts)


FAILS = ("sh", "-c", "echo here; test ! -e broken")
DEAD, FAILING = ["h01", "h04", "h08"], ["h02", "h07"]


def test_the_second_wave_never_starts_once_the_budget_is_spent(world: World, server: Sshd) -> None:
    names = fleet(world, server)
    waves = ("--wave", "10", "--max-failures", "4")
    found = run(world, *waves, "--output", "json", argv=FAILS)
    document = found.document
    targets = {each["name"]: each for each in document["targets"]}
    assert list(targets) == names
    assert document["unanswered"] == DEAD
    assert document["not_asked"] == names[10:]
    status = {name: each["status"] for name, each in targets.items()}
    assert [name for name in names if status[name] == "unreachable"] == DEAD
    assert [name for name in names if status[name] == "failed"] == FAILING
    assert [name for name in names if status[name] == "changed"] == [
        name for name in names[:10] if name not in DEAD + FAILING
    ]
    assert {name for name, result in results(found).items() if result and result["stdout"]} == {
        name for name in names[:10] if name not in DEAD
    }
    assert found.code == document["exit_code"] == 1

    text = run(world, *waves, argv=FAILS)
    assert text.code == 1
    dead = ", ".join(f"{name} (unreachable)" for name in DEAD)
    assert f"not answered: {dead}" in text.out.splitlines()
    reason = "5 of the play's targets failed, at most 4 may fail"
    assert f"not asked: {', '.join(names[10:])}: {reason}" in text.out.splitlines()
    assert "RESULT 5 ran, 3 unreachable, 2 failed, 10 not asked" in text.out

    junit = run(world, *waves, "--output", "junit", argv=FAILS)
    assert junit.code == 1
    cases = {case.get("name"): case for case in ElementTree.fromstring(junit.out).iter("testcase")}
    kinds = {name: {child.tag for child in case} for name, case in cases.items()}
    assert [name for name in names if "skipped" in kinds[name]] == names[10:]
    assert [name for name in names if "failure" in kinds[name]] == sorted(DEAD + FAILING)
    markdown = run(world, *waves, "--output", "markdown", argv=FAILS)
    assert markdown.code == 1
    assert "(exit 1)" in markdown.out
    assert markdown.out.count("| skipped |") == 10


@pytest.mark.slow
def test_a_budget_that_is_not_spent_lets_the_next_wave_start(world: World, server: Sshd) -> None:
    names = fleet(world, server)
    for budget in ("5", "25%"):
        found = run(world, "--wave", "50%,100%", "--max-failures", budget, "--output", "json", argv=FAILS)
        assert (found.code, found.document["not_asked"]) == (1, [])
        assert found.document["totals"]["changed"] == 15
    document = run(world, "--output", "json", argv=FAILS).document  # neither waves nor a budget
    assert (document["not_asked"], document["unanswered"]) == ([], DEAD)
    assert len(document["targets"]) == len(names)


def test_a_timeout_counts_and_names_who_did_not_answer(world: World) -> None:
    for name in ("one", "two", "three"):
        world.local(name)
    (world.folder / "one/slow").touch()
    argv = ("sh", "-c", "echo begun; test ! -e slow || exec sleep 60")
    words = ("--wave", "1", "--max-failures", "0", "--timeout", "0.5")
    found = run(world, *words, "--output", "json", argv=argv)
    assert found.code == 1
    assert (found.document["unanswered"], found.document["not_asked"]) == (["one"], ["two", "three"])
    target = found.document["targets"][0]
    assert target["result"]["exit_status"] is None
    assert target["result"]["stdout"].strip() == "begun"
    assert target["errors"][0]["error"] == "TimedOut"
    assert "did not end within 0.5 s, and was ended" in target["errors"][0]["message"]
    text = run(world, *words, argv=argv).out
    assert "not answered: one (timed out)" in text
    assert "not asked: two, three" in text


def test_it_is_in_the_ledger(world: World) -> None:
    world.local("one")
    assert run(world, argv=("echo", "hello")).code == 0
    history = json.loads(world.fazai_bare("history", "--output", "json").out)
    assert (history[0]["command"], history[0]["exit_code"]) == ("exec", 0)
    shown = json.loads(world.fazai_bare("show", "--output", "json").out)
    (action,) = shown["actions"]
    assert (action["kind"], action["identity"], action["status"]) == ("host.command", "echo hello", "done")
    assert action["after"] == {"argv": ["echo", "hello"]}
    types = [event["type"] for event in shown["events"]]
    assert types == ["play", "exec_log", "change", "outcome"]
    assert shown["events"][1]["chunk"] == "hello\n"
