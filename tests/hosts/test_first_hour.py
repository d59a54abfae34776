"""First steps of somebody who comes from Ansible: the messages, and when they come."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from fazai.errors import DeviceError
from fazai.providers.hosts.kind import Want
from fazai.providers.hosts.kinds import load_host_kinds
from fazai.providers.hosts.shell.questions import Output
from tests.hosts.conftest import World
from tests.hosts.helpers import resource
from tests.hosts.sshd import Sshd


def test_a_host_that_has_nothing_to_do_is_not_contacted(world: World, server: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    world.ssh(server, "h1", ansible_port=port)
    root = world.local("h3")
    playbook = world.folder / "site.yml"
    playbook.write_text("- hosts: h3\n  resources:\n    - host.file: {path: /a, content: x}\n")
    for command in ("plan", "apply", "drift"):
        found = world.fazai(command, "-p", playbook)
        assert found.code == (2 if command == "plan" else 0), found
        assert "refuses connections" not in found.out + found.err
    assert (root / "a").read_text() == "x"
    playbook.write_text("- hosts: h1\n  resources:\n    - host.file: {path: /a, content: x}\n")
    found = world.fazai("plan", "-p", playbook)
    assert (found.code, "refuses connections" in found.out) == (4, True), found


def test_a_handler_that_is_due_is_run_where_nothing_is_declared_any_more(world: World) -> None:
    """A handler that an earlier run left over is something to do."""
    root = world.local()
    made = {"host.file": {"path": "/a", "content": "x"}, "notify": "tell"}
    shell = f"test -e {root}/ready || kill -9 $$; touch {root}/told"
    told = {"host.command": {"shell": shell}, "listen": "tell"}
    failed = world.fazai("apply", resources=[made, told])
    assert (failed.code, "could not be taken back" in failed.out) == (1, True), failed
    (root / "ready").touch()
    found = world.fazai("apply", resources=[told])
    assert found.code == 0, found
    assert (root / "told").exists(), found


@pytest.mark.parametrize("handler", [False, True])
def test_ctrl_c_on_a_host(handler: bool, world: World) -> None:
    """Files need no activation; where a handler has not run, that is said."""
    root = world.local()
    shell = f"kill -INT {os.getpid()}; sleep 0.1; touch {root}/done"
    wanted: list[dict[str, Any]] = [
        {"host.command": {"shell": shell, "creates": "/done"}, **({"notify": "tell"} if handler else {})},
        {"host.command": {"argv": ["touch", f"{root}/later"], "creates": "/later"}},
        {"host.command": {"argv": ["true"]}, "listen": "tell"},
    ]
    found = world.fazai("apply", resources=wanted)
    state = "are made, and what they notified has not run yet" if handler else "are made and stay"
    assert (found.code, f"interrupted: 1 of 2 changes {state}" in found.out) == (130, True), found
    assert "not yet activated" not in found.out
    assert not (root / "later").exists()


@pytest.mark.parametrize("kind", ["host.file", "host.line", "host.block"])
def test_what_is_not_valid_says_by_which_command(kind: str, world: World) -> None:
    root = world.local()
    (root / "a").write_text("old\n")
    fields: dict[str, dict[str, Any]] = {
        "host.file": {"content": "new\n"},
        "host.line": {"line": "new"},
        "host.block": {"block": "new\n"},
    }
    wanted = {"path": "/a", **fields[kind], "validate": "grep -q nowhere %s"}
    found = world.fazai("apply", resources=[{kind: wanted}])
    said = "validate: grep -q nowhere %s did not succeed: nothing takes its place, the old file stays"
    assert (found.code, "exit status 1" in found.out, said in found.out) == (1, True, True), found
    assert (root / "a").read_text() == "old\n"


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        ("host.file", {"dest": "/a", "content": "x"}, ('there is no field "dest"', 'did you mean "path"?')),
        ("host.file", {"name": "/a", "content": "x"}, ('there is no field "name"', 'did you mean "path"?')),
        ("host.file", {"content": "x"}, ("path: is missing", "")),
        ("host.line", {"dest": "/a", "line": "x"}, ('there is no field "dest"', 'did you mean "path"?')),
        ("host.block", {"destfile": "/a", "block": "x"}, ('is no field "destfile"', 'did you mean "path"?')),
        ("host.directory", {"pat": "/a"}, ('there is no field "pat"', 'did you mean "path"?')),
        ("host.link", {"dest": "/a", "src": "/b"}, ('there is no field "dest"', 'did you mean "path"?')),
        ("host.download", {"path": "/a", "url": "http://x"}, ('no field "path"', 'did you mean "dest"?')),
        ("host.package", {"pkg": "curl"}, ('there is no field "pkg"', 'did you mean "name"?')),
        (
            "host.command",
            {"cmd": "ls", "creates": "/a"},
            ('there is no field "cmd"', 'did you mean "shell"?'),
        ),
    ],
)
def test_a_field_under_ansibles_name(
    kind: str, fields: dict[str, Any], said: tuple[str, str], world: World
) -> None:
    world.local()
    found = world.fazai("validate", resources=[{kind: fields}])
    first = found.err.split("error: ")[1]
    assert (found.code, said[0] in first, said[1] in first) == (3, True, True), found


def test_no_crontab_is_said_before_anything_is_written(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host has no program of that name."""
    programs = world.folder / "bin"
    programs.mkdir()
    for name in ("sh", "cat", "rm", "stat", "head", "mktemp", "sha256sum", "awk", "sed", "id"):
        found = shutil.which(name)
        if found is not None:
            (programs / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(programs))
    world.hosts["box"] = {"provider": "local", "become": False}
    wanted = {"name": "fz", "job": "true", "user": "root"}
    if shutil.which("crontab", path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"):
        pytest.skip("this machine has a crontab")
    result = world.fazai("plan", resources=[{"host.cron": wanted}])
    assert (result.code, "there is no crontab on the host" in result.out) == (1, True), result
    assert "host.package" in result.out
    result = world.fazai("plan", resources=[{"host.cron": {**wanted, "state": "absent"}}])
    assert result.code == 0, result


def test_what_a_look_says_where_there_is_no_crontab() -> None:
    kind = load_host_kinds()["host.cron"]

    def read(state: str) -> object:
        want = Want(resource("host.cron", {"name": "fz", "job": "true", "user": "root"}, state), str)
        (question,) = kind.ask(want)
        return kind.read(want, {question: Output(127, b"sh: crontab: not found\n")})

    with pytest.raises(DeviceError, match="there is no crontab on the host"):
        read("present")
    assert read("absent") is None


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("ansible_become_method", "su", "sudo or doas; su is not supported"),
        ("become_method", "su", "sudo or doas; su is not supported"),
        ("ansible_port", "ssh", "port of its SSH server"),
        ("ansible_become", "yes please", "do everything as another user"),
    ],
)
def test_an_option_that_is_wrong_says_what_it_is_for(
    option: str, value: str, said: str, world: World, tmp_path: Path
) -> None:
    world.hosts["box"] = {"provider": "ssh", option: value}
    found = world.fazai("validate")
    assert (found.code, said in found.err) == (3, True), found
    assert "hint: as " not in found.err
