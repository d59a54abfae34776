"""Effects of a change on other resources: by path, by kind, and under another name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from fazai.model import Verb
from fazai.providers.hosts.effects import (
    PathNames,
    TouchedPaths,
    ambiguous_folders,
    folders_question,
    paths_read,
)
from fazai.providers.hosts.kind import Want
from fazai.providers.hosts.kinds import load_host_kinds
from fazai.providers.hosts.shell.questions import Answer, FileAt, Output, PathState, Question
from tests.hosts.helpers import resource

KINDS = load_host_kinds()
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f x"


def want(kind: str, fields: Mapping[str, Any], state: str = "present") -> Want:
    return Want(resource(f"host.{kind}", fields, state), lambda path: path)


#: Each kind, with what it may alter (None: anything) and what it reads (None: programs are asked).
DECLARED: list[tuple[str, dict[str, Any], tuple[str, ...] | None, tuple[str, ...] | None]] = [
    ("file", {"path": "/a/f", "content": "x"}, ("/a/f",), ("/a/f",)),
    ("directory", {"path": "/a/d"}, ("/a/d",), ("/a/d",)),
    ("link", {"path": "/a/l", "target": "x"}, ("/a/l",), ("/a/l",)),
    ("line", {"path": "/a/f", "line": "x"}, ("/a/f",), ("/a/f", "/a/f")),
    ("block", {"path": "/a/f", "block": "x"}, ("/a/f",), ("/a/f", "/a/f")),
    ("sysctl", {"name": "a.b", "value": "1"}, ("/etc/sysctl.d/99-fazai.conf",), None),
    (
        "cron",
        {"name": "n", "job": "j", "user": "u", "cron_file": "f"},
        ("/etc/cron.d/f",),
        ("/etc/cron.d/f", "/etc/cron.d/f"),
    ),
    ("cron", {"name": "n", "job": "j"}, (), None),
    ("authorized_key", {"user": "u", "key": KEY, "path": "/k"}, ("/k",), None),
    ("authorized_key", {"user": "u", "key": KEY}, None, None),
    ("download", {"dest": "/t", "url": "http://x", "checksum": f"sha256:{'0' * 64}"}, ("/t",), ("/t",)),
    ("command", {"argv": ["x"], "creates": "/c", "removes": "/r"}, None, ("/c", "/r")),
    ("command", {"argv": ["x"], "unless": ["y"]}, None, None),
    ("package", {"name": "x"}, None, None),
    ("service", {"name": "x", "state": "started"}, None, None),
    ("user", {"name": "x"}, None, ("/etc/passwd", "/etc/group")),
    ("group", {"name": "x"}, None, ("/etc/group",)),
    ("telemetry_agent", {"server": "https://x"}, None, None),
    ("agent", {"daemon": "wss://x"}, None, None),
]


def test_every_kind_declares_what_it_may_alter() -> None:
    for name, fields, alters, seen in DECLARED:
        kind = KINDS[f"host.{name}"]
        wanted = want(name, fields)
        assert (kind.touches(wanted), paths_read(kind, wanted)) == (alters, seen), name
    assert {f"host.{name}" for name, *_ in DECLARED} == set(KINDS)


FILE = {"path": "/a/b", "content": "x"}
TOUCHES: list[tuple[str, Mapping[str, Any], Verb, str, dict[str, bool], bool]] = [
    ("file", FILE, Verb.UPDATE, "/a/b", {}, True),
    ("file", FILE, Verb.UPDATE, "/a/bb", {}, False),
    ("file", FILE, Verb.UPDATE, "/a", {}, False),
    ("file", FILE, Verb.UPDATE, "/a/b/c", {}, True),
    ("link", {"path": "/a/b", "target": "x"}, Verb.CREATE, "/a/b/c/d", {}, True),
    ("directory", {"path": "/a/b"}, Verb.CREATE, "/a/b/c", {}, False),  # it is as empty as nothing was
    ("directory", {"path": "/a/b"}, Verb.CREATE, "/a", {}, True),  # it may be made with it
    ("directory", {"path": "/a/b"}, Verb.UPDATE, "/a/b/c", {}, False),
    ("directory", {"path": "/a/b"}, Verb.UPDATE, "/a/b/c", {"failed": True}, True),
    ("directory", {"path": "/a/b"}, Verb.DELETE, "/a/b/c", {}, True),
    ("directory", {"path": "/a/b"}, Verb.DELETE, "/a", {}, False),
    ("command", {"argv": ["x"], "creates": "/c"}, Verb.RUN, "/anything", {}, True),
    ("command", {"argv": ["x"], "creates": "/c"}, Verb.RUN, "/x", {"denied": True}, False),
]


@pytest.mark.parametrize(("kind", "fields", "verb", "path", "more", "expected"), TOUCHES)
def test_what_a_change_alters(
    kind: str, fields: Mapping[str, Any], verb: Verb, path: str, more: dict[str, bool], expected: bool
) -> None:
    touched = TouchedPaths(PathNames({}, {}))
    touched.add(KINDS[f"host.{kind}"], want(kind, fields), verb)
    assert bool(touched.last((path,), **more)) is expected
    assert touched.last(None) == 1  # a program may look anywhere


def test_one_file_with_two_names() -> None:
    paths = ("/real/b", "/link/b", "/new/d/b")
    folders = ambiguous_folders(paths)
    assert folders == ("/real", "/link", "/new/d", "/new")
    (where,) = folders_question(folders)
    answers: dict[Question, Answer] = {where: Output(0, b"/real\0/real\0\0/other\0")}
    answers[FileAt("/etc/l", follow=True)] = PathState("file", target="x", real="/link/f")
    names = PathNames.read(folders, answers)
    assert names.of("/link/b") == {"/link/b", "/real/b"}
    assert names.of("/new/d/b") == {"/new/d/b", "/other/d/b"}
    assert names.of("/etc/l") == {"/etc/l", "/link/f", "/real/f"}
    assert names.of("/elsewhere") == {"/elsewhere"}


def test_folders_are_asked_about_only_where_one_name_stands_in_several() -> None:
    assert ambiguous_folders(["/etc/app", "/etc/app/app.conf", "/etc/hosts"]) == ()
    assert ambiguous_folders(["/etc/a/x", "/etc/b/x"]) == ("/etc/a", "/etc", "/etc/b")
    assert ambiguous_folders(["/l/d/x", "/r/d/y"]) == ("/l/d", "/l", "/r/d", "/r")
