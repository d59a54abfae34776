"""What the agent's policy allows of a reconcile: modes, kinds, texts that would be run, paths and links."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fazai.agent.errors import Refused
from fazai.agent.state.policy import Policy, resolve_path
from fazai.errors import Refused as RefusedHere
from fazai.model import FieldSpec
from fazai.providers.hosts.kinds import load_host_kinds
from tests.hosts.helpers import look, resource
from tests.hosts.remote.agent import AgentProcess, Config, Rules

KINDS = {name: kind for name, kind in load_host_kinds().items() if kind.by_agent}
SPECIAL = ("host.command", "host.cron")


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Callable[[Rules], AgentProcess]]:
    started: list[AgentProcess] = []

    def start(rules: Rules) -> AgentProcess:
        (tmp_path / "root").mkdir(exist_ok=True)
        started.append(AgentProcess(Config(str(tmp_path / "root"), rules)))
        return started[-1]

    yield start
    for each in started:
        each.end()


def judged(rules: Rules, kind: str, fields: Mapping[str, Any], *, root: str = "", **more: Any) -> str:
    """What the policy says of a resource; empty: it is allowed."""
    state = more.pop("state", "present")
    try:
        Policy(rules, KINDS, root).check(resource(kind, fields, state), **more)
    except Refused as refused:
        return refused.message if refused.code == "not_allowed" and refused.hint else f"? {refused}"
    return ""


FILE = {"path": "/etc/app/a.conf", "content": "x"}


@pytest.mark.parametrize(
    ("mode", "writes", "said"),
    [
        ("no", False, "this machine is not to be reconciled"),
        ("no", True, "this machine is not to be reconciled"),
        ("look", False, ""),
        ("look", True, "this machine may only be looked at"),
        ("yes", False, ""),
        ("yes", True, ""),
    ],
)
def test_modes(mode: str, writes: bool, said: str) -> None:
    assert judged(Rules(mode=mode), "host.file", FILE, writes=writes) == said


def test_kinds_that_are_named_alone_are_allowed() -> None:
    rules = Rules(kinds=["host.file"])
    assert judged(rules, "host.file", FILE) == ""
    assert judged(rules, "host.link", {"path": "/l", "target": "x"}) == (
        "host.link /l: this kind is not allowed here"
    )


@pytest.mark.parametrize(
    ("kind", "fields", "name"),
    [
        ("host.command", {"argv": ["true"], "creates": "/x"}, "host.command"),
        ("host.command", {"shell": "true", "unless": ["false"]}, "host.command"),
        ("host.cron", {"name": "n", "job": "true", "user": "root"}, "host.cron"),
        ("host.file", {**FILE, "validate": "sh %s"}, "host.file.validate"),
        ("host.line", {"path": "/l", "line": "x", "validate": "sh %s"}, "host.line.validate"),
        ("host.block", {"path": "/l", "block": "x", "validate": "sh %s"}, "host.block.validate"),
    ],
)
def test_a_text_that_would_be_run_has_to_be_named(kind: str, fields: Mapping[str, Any], name: str) -> None:
    assert "would be run as a program, and that is not allowed here" in judged(Rules(), kind, fields)
    if name.count(".") == 2:  # the kind's name alone is for what the kind is for
        assert "would be run as a program" in judged(Rules(kinds=[kind]), kind, fields)
    assert judged(Rules(kinds=[kind, name]), kind, fields) == ""
    with pytest.raises(Refused) as refused:
        Policy(Rules(), KINDS, "").check(resource(kind, fields))
    hint = str(refused.value.hint)
    assert f"must name {name}, and with it every other kind that is wanted; then SIGHUP" in hint


def test_every_field_that_names_a_command_is_known_to_run_one() -> None:
    """A new field whose text is run must stand in `HostKind.programs`."""

    def runs(spec: FieldSpec) -> bool:
        words = f"{spec.name} {spec.doc}".lower()
        return "command" in words or "program and its arguments" in words or "script" in words

    found = {(name, spec.name) for name, kind in KINDS.items() for spec in kind.specs if runs(spec)}
    harmless = {("host.package", "name")}  # several by one command of ours
    known = {(name, field) for name, kind in KINDS.items() for field in kind.programs}
    assert found - harmless <= known
    assert {name for name, kind in KINDS.items() if kind.programs - {"validate"}} == set(SPECIAL)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_with_paths_alone_what_has_no_path_is_not_allowed(kind: str) -> None:
    import yaml

    ((_, fields),) = yaml.safe_load(KINDS[kind].example.replace("{{", "").replace("}}", "")).items()
    wanted = resource(kind, fields)
    from fazai.providers.hosts.kind import Want

    want = Want(wanted, lambda path: path)
    has_path = bool(KINDS[kind].touches(want)) and not KINDS[kind].reaches_further(want)
    names = [kind] if kind in SPECIAL else None
    said = judged(Rules(paths=["/nowhere"], kinds=names), kind, fields)
    if has_path:
        assert "is not a path that is allowed here" in said
        assert judged(Rules(paths=["/"], kinds=names), kind, fields) == ""
    elif names is None:
        assert "what it changes has no path, and only some paths are allowed here" in said
        paths = ["/"] if KINDS[kind].touches(want) else ["/nowhere"]
        assert judged(Rules(paths=paths, kinds=[kind]), kind, fields) == ""
    else:
        assert said == ""


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/srv/app", True),
        ("/srv/app/deep/down", True),
        ("/srv/application", False),
        ("/srv", False),
        ("/etc/passwd", False),
        ("/srv/app/out/secret", False),  # a link to /etc
        ("/srv/app/up/x", False),  # a link to ..
        ("/srv/app/round/x", False),  # a link to itself
        ("/srv/app/in/x", True),  # a link to a folder there
        ("/srv/app/absolute/x", True),  # the same by an absolute name
    ],
)
def test_paths_are_judged_by_where_they_lead(path: str, allowed: bool, tmp_path: Path) -> None:
    app = tmp_path / "srv/app"
    (app / "folder").mkdir(parents=True)
    for name, target in {
        "out": "/etc",
        "up": "..",
        "round": "round",
        "in": "folder",
        "absolute": "/srv/app/folder",
    }.items():
        (app / name).symlink_to(target)
    said = judged(Rules(paths=["/srv/app"]), "host.file", {"path": path, "content": "x"}, root=str(tmp_path))
    assert (said == "") is allowed, said


def test_a_link_itself_is_no_way_out_but_what_is_read_through_it_is(tmp_path: Path) -> None:
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv/link").symlink_to("/etc/shadow")
    rules = Rules(paths=["/srv"])
    link = {"path": "/srv/link", "target": "/opt/x"}
    assert judged(rules, "host.link", link, root=str(tmp_path)) == ""
    line = {"path": "/srv/link", "line": "x"}
    said = judged(rules, "host.line", line, root=str(tmp_path))
    assert "/etc/shadow, where /srv/link leads, is not a path that is allowed here" in said


def test_where_paths_lead(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/up").symlink_to("../../../../../etc")
    (tmp_path / "abs").symlink_to("/a/b")
    root = str(tmp_path)
    assert resolve_path(root, "/a/up/x") == "/etc/x"  # not out of the root
    assert resolve_path(root, "/abs/new") == "/a/b/new"
    assert resolve_path(root, "/abs", follow=False) == "/abs"
    assert resolve_path(root, "/") == "/"
    (tmp_path / "round").symlink_to("round")
    assert resolve_path(root, "/round/x") is None
    real = os.path.realpath(tmp_path)
    assert resolve_path("", f"{real}/abs/x") == "/a/b/x"


def test_a_link_that_the_same_message_makes_is_no_way_out(
    agents: Callable[[Rules], AgentProcess], tmp_path: Path
) -> None:
    """Both are allowed by their names when they are looked at; by its turn the file would be elsewhere."""
    agent = agents(Rules(paths=["/srv"]))
    (tmp_path / "root/srv").mkdir()
    (tmp_path / "root/etc").mkdir()
    wanted = [
        resource("host.link", {"path": "/srv/way", "target": "../etc"}),
        resource("host.file", {"path": "/srv/way/evil", "content": "x"}),
    ]

    async def run() -> None:
        async with agent.session() as session:
            link = (await look(session, wanted[0])).changes[0]
            file = (await look(session, wanted[1])).changes[0]
            refs, error = await session.write_joined([link, file])
            assert refs == ["/srv/way"]
            assert isinstance(error, RefusedHere)
            assert "/etc/evil, where /srv/way/evil leads, is not a path that is allowed here" in error.message

    asyncio.run(run())
    assert list((tmp_path / "root/etc").iterdir()) == []


def test_a_refusal_comes_before_anything_is_asked(
    agents: Callable[[Rules], AgentProcess], tmp_path: Path
) -> None:
    agent = agents(Rules(kinds=["host.file"]))
    unless = ["sh", "-c", ": >looked"]
    wanted = [
        resource("host.file", {"path": "/a", "content": "x"}),
        resource("host.command", {"argv": ["true"], "unless": unless, "chdir": "/"}),
    ]

    async def run() -> None:
        async with agent.session() as session:
            with pytest.raises(
                RefusedHere, match=r"refuses: host\.command true: this kind is not allowed here"
            ):
                await session.observe(wanted)

    asyncio.run(run())
    assert list((tmp_path / "root").iterdir()) == []


NO_PATH = "what it changes has no path, and only some paths are allowed here"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, f"host.sysctl kernel.core_pattern: {NO_PATH}"),
        ({"sysctl_set": False}, ""),
    ],
    ids=["kernel", "file"],
)
def test_a_setting_of_the_kernel_is_more_than_its_file(more: Mapping[str, Any], said: str) -> None:
    """With kernel.core_pattern the kernel runs a program as root, wherever the file of the setting lies."""
    fields = {"name": "kernel.core_pattern", "value": "|/srv/x", "sysctl_file": "/srv/x.conf", **more}
    assert judged(Rules(paths=["/srv"]), "host.sysctl", fields) == said
    assert judged(Rules(paths=["/srv"], kinds=["host.sysctl"]), "host.sysctl", fields) == ""


@pytest.mark.parametrize(
    ("kind", "fields", "state", "allowed"),
    [
        ("host.file", {"path": "/etc/fazai/agent.yml", "content": "x"}, "present", False),
        ("host.line", {"path": "/etc/fazai/agent.yml", "line": "x"}, "present", False),
        ("host.line", {"path": "/etc/link", "line": "x"}, "present", False),
        ("host.file", {"path": "/var/state/journal/journal-00000001", "content": "x"}, "present", False),
        ("host.directory", {"path": "/etc/fazai"}, "absent", False),
        ("host.directory", {"path": "/etc", "mode": "0777", "recurse": True}, "present", False),
        ("host.directory", {"path": "/etc/fazai", "mode": "0755"}, "present", True),
        ("host.file", {"path": "/etc/fazai/agent.yml.d", "content": "x"}, "present", True),
    ],
)
@pytest.mark.parametrize("paths", [None, ["/"]])
def test_nobody_writes_the_policy_through_the_agent(
    tmp_path: Path, kind: str, fields: Mapping[str, Any], state: str, allowed: bool, paths: list[str] | None
) -> None:
    (tmp_path / "etc/fazai").mkdir(parents=True)
    (tmp_path / "etc/fazai/agent.yml").write_text("")
    (tmp_path / "etc/link").symlink_to("fazai/agent.yml")
    own = [f"{tmp_path}/etc/fazai/agent.yml", f"{tmp_path}/var/state", ""]
    policy = Policy(Rules(paths=paths), KINDS, str(tmp_path), own)
    said = ""
    try:
        policy.check(resource(kind, fields, state), writes=True)
    except Refused as refused:
        said = refused.message
    assert ("is the agent's own, or holds what is" in said) is not allowed, said
