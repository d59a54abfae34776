"""Commands and handlers on real hosts: when they run, what they print, and what becomes of a failure."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest

from fazai.wire.events import ExecLogEvent
from tests.contract import decode_event
from tests.hosts.conftest import World
from tests.hosts.sshd import Sshd


def events(world: World) -> list[dict[str, Any]]:
    """Return what the run that was just made recorded."""
    from fazai.store.sqlite.ledger import SqliteStore

    store = SqliteStore(world.folder / "state")
    try:
        return asyncio.run(store.events(asyncio.run(store.history(1))[0].run_id))
    finally:
        store.close()


def test_a_command_runs_until_its_guard_holds(world: World) -> None:
    root = world.local()
    command = {"argv": ["touch", str(root / "made"), "./-q -n $(x) 'y'"], "chdir": "/", "creates": "/made"}
    found = world.fazai("apply", resources=[{"host.command": command}])
    assert (found.code, "1 changed" in found.out) == (0, True), found
    assert sorted(path.name for path in root.iterdir()) == ["-q -n $(x) 'y'", "made"]
    found = world.fazai("apply", resources=[{"host.command": command}])
    assert (found.code, "0 changed, 1 unchanged" in found.out) == (0, True), found


def test_unless_and_removes_and_a_shell_on_request(world: World) -> None:
    root = world.local()
    (root / "stale").write_text("")
    wanted: list[dict[str, Any]] = [
        {
            "host.command": {
                "shell": "echo $WHAT | tr a-z A-Z >out; exit 0",
                "chdir": "/",
                "unless": ["test", "-s", f"{root}/out"],
            }
        },
        {"host.command": {"argv": ["rm", "stale"], "chdir": "/", "removes": "/stale"}},
    ]
    wanted[0]["host.command"]["environment"] = {"WHAT": "it's $HOME"}
    found = world.fazai("apply", resources=wanted)
    assert (found.code, (root / "out").read_text()) == (0, "IT'S $HOME\n"), found
    assert not (root / "stale").exists()
    assert "2 unchanged" in world.fazai("apply", resources=wanted).out


def test_what_a_command_prints_is_told_and_secrets_are_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.local()
    shell = "echo token is $TOKEN; printf 'half %s' $TOKEN >&2; echo; exit 7"
    fields = {"shell": shell, "creates": "/never", "environment": {"TOKEN": "{{ token }}"}}
    world.hosts["box"]["token"] = "s3cr3t-token"
    inventory = world.folder / "inventory.yml"
    world.fazai("validate", resources=[{"host.command": fields}])
    text = inventory.read_text().replace('"s3cr3t-token"', "!env TOKEN")
    inventory.write_text(text)
    world.hosts.clear()
    monkeypatch.setenv("TOKEN", "s3cr3t-token")
    found = world.fazai("apply")
    assert (found.code, "exit status 7" in found.out, "half ***" in found.out) == (1, True, True), found
    logged = [event for event in events(world) if event["type"] == "exec_log"]
    said = {(event["stream"], event["chunk"]) for event in logged}
    assert ("stdout", "token is ***\n\n") in said or ("stdout", "token is ***\n") in said
    assert ("stderr", "half ***") in said
    assert "s3cr3t" not in found.out + found.err + json.dumps(events(world))
    for event in logged:
        decoded = decode_event(
            json.dumps(
                {"timestamp": "2026-11-22T03:04:05Z", **{k: event[k] for k in ("type", "stream", "chunk")}}
            )
        )
        assert isinstance(decoded, ExecLogEvent)


def test_a_command_that_prints_a_secret_of_another_resource_or_its_encodings(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token is a part of a file that an earlier resource writes; what prints it does not know of it."""
    world.local()
    world.hosts.clear()
    token = "s3cr3t'token/&with+all"
    monkeypatch.setenv("TOKEN", token)
    (world.folder / "inventory.yml").write_text(
        f"""
all:
  hosts:
    box:
      provider: local
      root: {world.folder}/box
      token: !env TOKEN
      resources:
        - host.file: {{path: /conf, content: "user=me\\npass={{{{ token }}}}\\n"}}
        - host.command:
            shell: >-
              sed -n s/pass=//p conf; sed -n s/pass=//p conf | base64; base64 conf; base64 -w0 conf;
              echo; od -An -tx1 -v conf | tr -d ' \\n'; echo; head -c 20000 /dev/zero | tr '\\0' x;
              sed -n s/pass=//p conf; sed -n s/pass=//p conf >&2; exit 7
            chdir: /
            creates: /never
"""
    )
    found = world.fazai("apply")
    assert (found.code, "exit status 7: ***" in found.out) == (1, True), found.out
    logged = events(world)
    said = "".join(event["chunk"] for event in logged if event["type"] == "exec_log")
    assert said.startswith("***\n***")
    everything = found.out + found.err + json.dumps(logged)
    inner = base64.b64encode(b"\0\0" + token.encode()).decode()[4:-4]
    forms = [base64.b64encode(token.encode()).decode()[:-4], token.encode().hex(), inner, token[:12]]
    assert [form for form in forms if form in everything] == []


@pytest.mark.parametrize("provider", ["local", "ssh"])
def test_a_handler_runs_once_after_the_changes(
    provider: str, world: World, request: pytest.FixtureRequest
) -> None:
    root = world.local("web") if provider == "local" else world.ssh(request.getfixturevalue("server"))
    notify = {"notify": "restart app"}
    resources = [
        {"host.file": {"path": "/a", "content": "a"}, **notify},
        {"host.file": {"path": "/b", "content": "b"}, "notify": ["restart app", "other"]},
        {
            "host.command": {"shell": "cat a b >>log", "chdir": "/"},
            "listen": "restart app",
            "name": "restart",
        },
        {"host.command": {"shell": "echo other >>log", "chdir": "/"}, "listen": "other"},
    ]
    plan = world.fazai("plan", resources=resources)
    assert (plan.code, "2 to change" in plan.out) == (2, True), plan
    found = world.fazai("apply", resources=resources)
    assert (found.code, "2 changed" in found.out, "1 host, 2 resources" in found.out) == (0, True, True), (
        found
    )
    assert (root / "log").read_text() == "abother\n"
    assert world.fazai("apply", resources=resources).code == 0
    assert (root / "log").read_text() == "abother\n"


def test_handlers_of_a_play(world: World) -> None:
    root = world.local()
    world.hosts["box"]["where"] = str(root)
    play = {
        "hosts": "all",
        "resources": [{"host.directory": {"path": "/d"}, "notify": "tell"}],
        "handlers": [{"name": "tell", "host.command": {"argv": ["touch", "{{ where }}/told"]}}],
    }
    path = world.folder / "play.yml"
    path.write_text(json.dumps([play]))
    found = world.fazai("apply", "-p", path)
    assert (found.code, (root / "told").exists()) == (0, True), found


def test_a_handler_of_what_stays_done_is_due_again_when_it_failed(world: World) -> None:
    """Nothing takes a command back, so what it notified has not run yet."""
    root = world.local()
    command = {"host.command": {"shell": f"touch {root}/made", "creates": "/made"}, "notify": "tell"}
    handler = {"host.command": {"shell": f"test -e {root}/ready && touch {root}/told"}, "listen": "tell"}
    failed = world.fazai("apply", resources=[command, handler])
    assert (failed.code, "cannot be taken back: it stays done" in failed.out) == (1, True), failed.out
    (root / "ready").touch()
    assert world.fazai("apply", resources=[command, handler]).code == 0
    assert (root / "told").exists()
    assert world.fazai("plan", resources=[command, handler]).code == 0


def test_a_handler_that_fails_takes_the_changes_back_and_is_due_again(world: World) -> None:
    root = world.local()
    (root / "a").write_text("old")
    resources = [
        {"host.file": {"path": "/a", "content": "new"}, "notify": "restart"},
        {"host.command": {"shell": "echo cannot restart >&2; test -e ok", "chdir": "/"}, "listen": "restart"},
    ]
    found = world.fazai("apply", resources=resources)
    assert (found.code, "cannot restart" in found.out, "1 change taken back" in found.out) == (1, True, True)
    assert (root / "a").read_text() == "old"
    (root / "ok").write_text("")
    found = world.fazai("apply", resources=resources)
    assert (found.code, (root / "a").read_text()) == (0, "new"), found


def test_a_command_is_not_taken_back_and_that_is_said(world: World) -> None:
    root = world.local()
    (root / "a").write_text("old")
    resources: list[dict[str, Any]] = [
        {"host.file": {"path": "/a", "content": "new"}},
        {"host.command": {"argv": ["touch", "x"], "chdir": "/", "creates": "/x"}},
        {"host.file": {"path": "/no/folder", "content": "x"}},
    ]
    found = world.fazai("apply", resources=resources)
    assert (found.code, "cannot be taken back: it stays done" in found.out) == (1, True), found
    assert ((root / "a").read_text(), (root / "x").exists()) == ("old", True)


@pytest.mark.parametrize(
    ("resource", "said"),
    [
        ({"host.command": {"argv": ["true"]}}, "would run every time"),
        ({"host.command": {"argv": "rm -rf /", "creates": "/x"}}, "must be a list"),
        ({"host.command": {"creates": "/x"}}, "argv: is missing"),
        (
            {"host.file": {"path": "/a", "content": ""}, "notify": "restrat"},
            'no handler listens to "restrat"',
        ),
        ({"host.file": {"path": "/a", "content": ""}, "listen": "x"}, "cannot be a handler"),
        ({"host.file": {"path": "a", "content": ""}}, "absolute path"),
        ({"host.file": {"path": "/a/../b", "content": ""}}, 'must not hold ".."'),
        (
            {"host.file": {"path": "/a" * 2100, "content": ""}},
            "inventory.yml:12:14: host.file: path: is 4200 bytes long, and at most 4063 can be managed",
        ),
        (
            {"host.directory": {"path": f"/{'é' * 130}/b", "state": "absent"}},
            "path: has a name of 260 bytes in it, and none can be longer than 255",
        ),
        ({"host.command": {"argv": ["x"], "creates": "/" + "a" * 256}}, "creates: has a name of 256 bytes"),
        (
            {"host.link": {"path": "/a", "target": "x/" * 2100}},
            "target: is 4200 bytes long, and no link can hold more than 4095",
        ),
        (
            {"host.file": {"path": "/" + "a" * 240, "content": "", "backup": True}},
            "backup: makes a name longer than 255 bytes, as the file's own has more than 234",
        ),
        ({"host.file": {"path": "/a", "content": "", "mode": 420}}, 'mode: "0644"'),
        ({"host.file": {"path": "/a", "content": "", "mdoe": "0644"}}, 'did you mean "mode"'),
        ({"host.file": {"path": "/a", "content": "", "validate": "true"}}, "does not say where"),
        ({"host.link": {"path": "/a"}}, "target: is missing"),
        ({"host.command": {"argv": ["a", {"b": 1}], "creates": "/x"}}, "must be text"),
    ],
)
def test_what_is_wrong_is_found_before_any_contact(resource: dict[str, Any], said: str, world: World) -> None:
    world.local()
    found = world.fazai(
        "validate", resources=[resource, {"host.command": {"argv": ["true"]}, "listen": "restart"}]
    )
    assert (found.code, said in found.err) == (3, True), found


def test_a_run_that_was_cut_off_runs_its_handler_next_time(world: World, server: Sshd) -> None:
    """The journal keeps what was notified: the file is as wanted, and the handler is still due."""
    root = world.ssh(server)
    resources = [
        {"host.file": {"path": "/a", "content": "new"}, "notify": "restart"},
        {
            "host.command": {"shell": f"echo x >>{root}/log; test -e {root}/ok || kill -9 $PPID"},
            "listen": "restart",
        },
    ]
    found = world.fazai("apply", resources=resources)
    assert found.code == 1, found
    (root / "ok").write_text("")
    assert Path(root / "log").exists()
    found = world.fazai("apply", resources=resources)
    assert found.code == 0, found
    assert (root / "log").read_text() == "x\nx\n"


def test_a_folder_in_which_a_command_runs_is_walked_to(world: World) -> None:
    """Also by a guard: a link of a folder host leads to that folder's own root, and `-` is no option."""
    root = world.local()
    for name in ("-d/e", "srv", "etc"):
        (root / name).mkdir(parents=True)
    (root / "srv/current").symlink_to("/-d/e")
    command = {"shell": "echo $PWD; touch made", "chdir": "/srv/current", "unless": ["test", "-e", "made"]}
    found = world.fazai("apply", resources=[{"host.command": command}])
    assert (found.code, (root / "-d/e/made").exists()) == (0, True), found
    assert f"{root}/-d/e\n" in "".join(str(event.get("chunk", "")) for event in events(world))
    assert "1 unchanged" in world.fazai("apply", resources=[{"host.command": command}]).out
    missing = {**command, "chdir": "/nowhere"}
    found = world.fazai("apply", resources=[{"host.command": missing}])
    assert (found.code, "/nowhere: no such file or directory" in found.out) == (1, True), found
