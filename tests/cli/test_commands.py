"""The command line around the runs: help, usage, completion, terminals, cron, the lab."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fazai.cli.main import COMMANDS, main

from .conftest import RESOURCES, World

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(world: World, command: str) -> None:
    result = world.fazai(command, "--help")
    assert result.code == 0
    assert "Usage: fazai" in result.out
    assert command == "version" or "Example" in result.out


def test_help_and_version_need_no_heavy_module() -> None:
    code = (
        "import sys; from fazai.cli import main; main(['--help']); "
        "print(sorted({'httpx', 'jinja2', 'yaml', 'asyncio', 'sqlite3', 'msgspec'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


def test_validate_needs_neither_http_client_nor_templates(world: World) -> None:
    world.firewall()
    inventory = world.inventory()
    code = (
        f"import sys; from fazai.cli import main; print(main(['validate', {str(inventory)!r}])); "
        "print(sorted({'httpx', 'jinja2', 'asyncio', 'sqlite3', 'ssl'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == ["valid: 1 target, 3 resources", "0", "[]"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("aply",), 'did you mean "apply"?'),
        (("apply", "--limt", "x", "y"), "--limit"),
        (("apply",), "an inventory is missing"),
        (("apply", "nowhere.yml"), "nowhere.yml"),
        (("apply", "--forks", "0", "x"), "--forks"),
        (("plan", "--output", "xml", "x"), "--output"),
        (("kinds", "opnsense.alais"), 'did you mean "opnsense.alias"?'),
        (("kinds", "alias"), 'did you mean "opnsense.alias"?'),
        (("apply", "--plan", "nowhere.json"), "nowhere.json"),
        (("completion",), "an argument is missing, one of: bash, zsh, fish"),
        (("token", "create", "ci"), "--role is missing, one of: viewer, operator, admin"),
        (("completion", "tcsh"), "tcsh"),
    ],
)
def test_bad_usage_is_exit_3_with_a_line_of_help(world: World, words: tuple[str, ...], text: str) -> None:
    result = world.fazai(*words)
    assert result.code == 3
    assert text in result.err
    assert "hint:" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("words", [("agents",), ("pki", "ca")])
def test_a_group_alone_shows_its_help(world: World, words: tuple[str, ...]) -> None:
    result = world.fazai(*words)
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith(f"Usage: fazai {' '.join(words)} [OPTIONS] COMMAND [ARGS]...\n\n")
    assert "\nCommands:\n" in result.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(world: World, shell: str) -> None:
    result = world.fazai("completion", shell)
    assert result.code == 0
    assert "_FAZAI_COMPLETE" in result.out


def test_completion_completes() -> None:
    env = {**os.environ, "_FAZAI_COMPLETE": "bash_complete", "COMP_WORDS": "fazai dr", "COMP_CWORD": "1"}
    code = "import sys; sys.argv = ['fazai']; from fazai.cli import main; main()"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env).stdout
    assert out.strip() == "plain,drift"


def completed(world: World, *words: str) -> list[str]:
    """What bash is offered for the last of these words."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_FAZAI_COMPLETE", "bash_complete")
        patch.setenv("COMP_WORDS", " ".join(("fazai", *words)))
        patch.setenv("COMP_CWORD", str(len(words)))
        world.capsys.readouterr()
        with contextlib.suppress(SystemExit):
            main([])
    return [line.partition(",")[2] for line in world.capsys.readouterr().out.splitlines() if line]


def test_hosts_kinds_and_runs_are_completed(world: World) -> None:
    path = world.folder / "hosts.ini"
    path.write_text("[edge]\nfw-01\nfw-02\n[core]\nsw-01\n")
    assert completed(world, "plan", str(path), "--limit", "fw") == ["fw-01", "fw-02"]
    assert completed(world, "apply", "-i", str(path), "-l", "e") == ["edge"]
    assert completed(world, "plan", str(path), "--limit", "edge,!fw-0") == ["edge,!fw-01", "edge,!fw-02"]
    assert completed(world, "inventory", str(path), "--limit", "s") == ["sw-01"]
    assert completed(world, "inventory", "/none", "--limit", "s") == []
    assert completed(world, "kinds", "host.se") == ["host.service"]
    assert completed(world, "plan", "--kind", "opnsense.ali") == ["opnsense.alias"]
    world.firewall()
    world.fazai("plan", world.inventory())
    (run,) = completed(world, "show", "0")
    assert run in world.fazai("history", "--output", "json").out


def test_kinds(world: World) -> None:
    listed = world.fazai("kinds").out
    assert re.search(r"^opnsense\.alias +\S", listed, re.M)
    one = world.fazai("kinds", "opnsense.rule").out
    assert "ordered" in one
    assert "destination_port" in one
    found = json.loads(world.fazai("kinds", "opnsense.rule", "--output", "json").out)
    assert found["identity"] == ["description"]


def test_an_empty_environment_as_in_cron(world: World) -> None:
    world.firewall()
    inventory = world.inventory()
    env = {"FAZAI_STATE_DIR": str(world.folder / "state")}
    result = world.child("apply", inventory, "--quiet", env=env, cwd="/")
    assert result.code == 0, result.err
    again = world.child("apply", inventory, "--quiet", env=env, cwd="/")
    assert (again.code, again.out, again.err) == (0, "", "")


def test_the_state_folder_has_one_name_and_an_older_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.firewall()
    inventory = world.inventory()
    one, other, older = (world.folder / name for name in ("one", "other", "older"))
    monkeypatch.setenv("FAZAI_STATE_DIR", str(one))
    for state in (other, older):
        monkeypatch.setenv("FAZAI_STATE", str(state))
        result = world.fazai("apply", inventory, "--quiet")
        assert result.code == 0, result.err
        monkeypatch.delenv("FAZAI_STATE_DIR", raising=False)
    found = [(folder / "fazai.sqlite3").is_file() for folder in (one, other, older)]
    assert found == [True, False, True]


def test_a_charset_that_lacks_letters(world: World) -> None:
    world.firewall()
    inventory = world.inventory(resources=[{"opnsense.category": {"name": "gestão"}}])
    env = {"FAZAI_STATE_DIR": str(world.folder / "state"), "PYTHONIOENCODING": "ascii"}
    result = world.child("apply", inventory, "--verbose", env=env)
    assert (result.code, result.err) == (0, "")
    assert "+ category gest\\xe3o" in result.out


@pytest.mark.parametrize(("redirect", "code"), [(">&-", 0), (">&- 2>&-", 0), (">/dev/full", 1)])
def test_standard_output_that_is_closed_or_full(world: World, redirect: str, code: int) -> None:
    world.firewall()
    words = ["sh", "-c", f'exec "$0" -m fazai apply "$1" {redirect}', sys.executable, str(world.inventory())]
    result = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == code
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr
    assert world.fazai("drift", world.inventory()).code == 0  # it was carried out


def test_a_reader_that_goes_away_does_not_end_an_apply(world: World) -> None:
    """The line of the first target cannot be written while the second one is still written to."""
    world.firewall()
    world.firewall("fw-02", latency_s=0.2)
    process = world.start("apply", world.inventory(), env={**os.environ, "PYTHONUNBUFFERED": "1"})
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    process.communicate(timeout=30)
    assert world.fazai("drift", world.inventory()).code == 0


def test_the_line_of_a_wrong_template_is_quoted(world: World) -> None:
    inventory = world.inventory({"fw": {"provider": "opnsense", "base_url": "http://127.0.0.1:1"}})
    playbook = world.folder / "play.yml"
    playbook.write_text(
        "- hosts: all\n  resources:\n    - opnsense.category: {name: 'a{{ undefinedd }}'}\n"
        "    - opnsense.category: {name: b}\n      when: undefineddd\n"
    )
    err = world.fazai("validate", inventory, "-p", playbook).err.splitlines()
    assert "    3 |     - opnsense.category: {name: 'a{{ undefinedd }}'}" in err
    line = err.index("    5 |       when: undefineddd")
    assert err[line + 1].index("^") == err[line].index("undefineddd")


def test_a_login_name_that_is_not_utf_8(world: World) -> None:
    world.firewall()
    env = {"FAZAI_STATE_DIR": str(world.folder / "state"), "LOGNAME": os.fsdecode(b"ana\xff")}
    assert world.child("apply", world.inventory(), env=env).code == 0


def test_interrupted_while_reading_is_a_document(world: World) -> None:
    """Ctrl-C while a secret's program runs."""
    began = world.folder / "began"
    os.mkfifo(began)
    inventory = world.folder / "inventory.yml"
    inventory.write_text(
        "all: {hosts: {fw: {provider: opnsense, base_url: http://127.0.0.1:1, secret: !cmd "
        f"[sh, -c, 'echo > {began}; exec sleep 60'], resources: [opnsense.category: {{name: a}}]}}}}}}"
    )
    process = world.start("plan", inventory, "--output", "json")
    began.read_text()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert json.loads(out)["exit_code"] == 130
    assert "Traceback" not in err


def test_a_reader_that_goes_away(world: World) -> None:
    world.firewall()
    process = world.start("plan", world.inventory())
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=30)
    assert "Traceback" not in err
    assert "Exception ignored" not in err


def _at_a_terminal(world: World, *words: str | Path, answer: bytes = b"", **env: str) -> tuple[int, str]:
    """Run at a pseudo terminal; what it shows."""
    environ = {**os.environ, "FAZAI_STATE_DIR": str(world.folder / "state"), "TERM": "xterm", **env}
    pid, master = pty.fork()
    if pid == 0:  # pragma: no cover - the child
        os.execve(sys.executable, [sys.executable, "-m", "fazai", *map(str, words)], environ)
    shown = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
        if answer and b"[y/N]" in shown:
            os.write(master, answer)
            answer = b""
    os.close(master)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), shown.decode(errors="replace")


class TestTerminal:
    def test_progress_and_colours(self, world: World) -> None:
        world.firewall(latency_s=0.15)
        code, shown = _at_a_terminal(world, "apply", world.inventory())
        assert code == 0
        assert "\x1b[32m+ alias dns_servers" in shown
        assert "\r\x1b[K" in shown
        assert "0/1  fw-01 create" in shown

    def test_no_color(self, world: World) -> None:
        world.firewall()
        code, shown = _at_a_terminal(world, "apply", world.inventory(), NO_COLOR="1")
        assert code == 0
        assert "\x1b[3" not in shown

    def test_dumb_terminal(self, world: World) -> None:
        world.firewall()
        code, shown = _at_a_terminal(world, "apply", world.inventory(), TERM="dumb")
        assert code == 0
        assert "\x1b" not in shown

    @pytest.mark.parametrize(
        ("answer", "code"), [(b"y\n", 0), (b"n\n", 3), pytest.param(b"\n", 3, marks=pytest.mark.slow)]
    )
    def test_deletions_are_asked_about(self, world: World, answer: bytes, code: int) -> None:
        world.firewall()
        world.fazai("apply", world.inventory())
        gone = [*RESOURCES[:2], {**RESOURCES[2], "state": "absent"}]
        inventory = world.inventory(resources=gone)
        world.forget()
        found, shown = _at_a_terminal(world, "apply", inventory, answer=answer)
        assert found == code, shown
        assert '- rule "allow dns"' in shown
        assert bool(world.writes()) is (code == 0)

    def test_interrupted_before_the_question(self, world: World) -> None:
        """Nothing is deleted when the look that would have led to the question was cut short."""
        world.firewall(latency_s=0.3)
        world.fazai("apply", world.inventory())
        inventory = world.inventory(resources=[{**RESOURCES[2], "state": "absent"}])
        world.forget()
        process = world.start("apply", inventory)
        while not world.firewalls["fw-01"].requests:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "interrupted; nothing was written" in err
        assert world.writes() == []


class TestLab:
    def test_up_status_reset(self, world: World) -> None:
        process = world.start("lab", "up", "edge")
        assert process.stdout is not None
        line = process.stdout.readline()
        assert re.search(r"edge +http://127\.0\.0\.1:\d+", line), line
        assert "edge" in world.fazai("lab", "status").out
        inventory = world.folder / "lab.yml"
        host = {"provider": "opnsense", "mode": "write", "base_url": "lab://edge", "resources": RESOURCES}
        inventory.write_text(json.dumps({"all": {"hosts": {"edge": host}}}))
        assert "RESULT 3 changed" in world.fazai("apply", inventory).out
        key = json.loads(json.dumps(line)).split("key ")[1].strip()
        host |= {"base_url": re.findall(r"http://\S+", line)[0]}
        text = json.dumps({"all": {"hosts": {"edge": host}}})[:-4]
        inventory.write_text(text + f', "secret": !file "{key}"}}}}}}}}')
        assert "RESULT 0 changed" in world.fazai("apply", inventory).out
        used = world.fazai("lab", "reset", "edge")
        assert used.code == 5
        assert "edge" in used.err
        assert "hint:" in used.err
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert "Traceback" not in out + err
        assert world.fazai("lab", "reset", "edge").code == 0

    def test_settings_file(self, world: World) -> None:
        settings = world.folder / "settings.yml"
        settings.write_text("faults: [{kind: cuts}]\n")
        result = world.fazai("lab", "up", "edge", "--settings", settings)
        assert result.code == 3
        assert f"{settings}: the lab's settings are not valid" in result.err
        assert "'cuts' - at `$.faults[0].kind`" in result.err

    def test_releases(self, world: World) -> None:
        inventory = world.folder / "lab.yml"
        host = {"provider": "opnsense", "mode": "write", "resources": RESOURCES}
        host |= {"base_url": "lab://old?release=26.1.11"}
        inventory.write_text(json.dumps({"all": {"hosts": {"old": host}}}))
        assert "RESULT 3 changed" in world.fazai("apply", inventory).out
        assert "RESULT 0 changed" in world.fazai("apply", inventory).out


@pytest.mark.parametrize("path", sorted(ROOT.glob("inventory/*.yml")), ids=lambda p: p.name)
def test_examples_validate(world: World, path: Path) -> None:
    result = world.fazai("validate", path)
    assert result.code == 0, result.err


def test_the_demo_inventory_converges(world: World) -> None:
    first = world.fazai("apply", ROOT / "inventory/lab.yml", "--verbose")
    assert first.code == 0, first.out
    assert "RESULT 49 changed, 0 unchanged, 0 failed" in first.out
    second = world.fazai("apply", ROOT / "inventory/lab.yml")
    assert "RESULT 0 changed, 49 unchanged, 0 failed" in second.out
    assert world.fazai("drift", ROOT / "inventory/lab.yml").code == 0
    for page in ("README.md", "README.pt-BR.md"):  # show what is printed, but for times and runs
        (shown,) = re.findall(r"```\n\$ fazai apply(.*?)```", (ROOT / page).read_text(), re.S)
        lines = [re.sub(r"   \d+\.\d s .*", "", line) for line in shown.splitlines()[1:]]
        printed = first.out + second.out
        assert [line for line in lines if line not in printed and line[0] not in "…$"] == []


def test_every_playbook_is_in_an_example_inventory() -> None:
    used = "".join(path.read_text() for path in ROOT.glob("inventory/**/*.yml"))
    assert all(f"playbooks/{path.name}" in used for path in ROOT.glob("playbooks/*.yml"))


def test_show_without_a_run_shows_the_latest(world: World) -> None:
    empty = world.fazai("show")
    assert (empty.code, "there is no run yet" in empty.err) == (3, True)
    world.firewall()
    world.fazai("plan", world.inventory())
    world.fazai("apply", world.inventory())
    latest = world.fazai("history", "-n", "1").out.split()[0]
    assert world.fazai("show").out == world.fazai("show", latest.rstrip("…")).out
