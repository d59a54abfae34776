"""Kinds as data: each case is made, made again, changed, taken back, and removed, under every shell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CASES", "Case"]

#: A file's content; or (mode, content); or None for nothing. A directory is "<dir>", a link "-> target".
Tree = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """`before`: what is there. `made`, `changed`, `removed`: what must be there after each step; only the
    paths that are named are looked at. `absent`: fields besides the identity for the removal (None: the kind
    cannot be removed)."""

    name: str
    kind: str
    make: Mapping[str, Any]
    made: Tree
    change: Mapping[str, Any] | None = None
    changed: Tree = field(default_factory=dict)
    absent: Mapping[str, Any] | None = field(default_factory=dict)
    removed: Tree = field(default_factory=dict)
    before: Tree = field(default_factory=dict)


CASES = (
    Case(
        "file",
        "host.file",
        {"path": "/a.conf", "content": "one\n", "mode": "0640"},
        {"/a.conf": ("0640", "one\n")},
        {"content": "two\n"},
        {"/a.conf": ("0640", "two\n")},
        removed={"/a.conf": None},
    ),
    Case(
        "file without a line end, and then only its mode",
        "host.file",
        {"path": "/a", "content": "no end"},
        {"/a": ("0644", "no end")},
        {"mode": "0700"},
        {"/a": ("0700", "no end")},
        removed={"/a": None},
    ),
    Case(
        "file that is empty, and then is not",
        "host.file",
        {"path": "/a", "content": ""},
        {"/a": ("0644", "")},
        {"content": "-n\n%s\\n'\"$x`\n"},
        {"/a": ("0644", "-n\n%s\\n'\"$x`\n")},
        removed={"/a": None},
    ),
    Case(
        "file of all bytes",
        "host.file",
        {"path": "/a", "content": bytes(range(256)) * 3},
        {"/a": bytes(range(256)) * 3},
        {"content": bytes(reversed(range(256)))},
        {"/a": bytes(reversed(range(256)))},
        removed={"/a": None},
    ),
    Case(
        "file in place of a link",
        "host.file",
        {"path": "/a", "content": "mine\n"},
        {"/a": "mine\n", "/other": "other\n"},
        before={"/other": "other\n", "/a": "-> other"},
        removed={"/a": None, "/other": "other\n"},
    ),
    Case(
        "file in place of a link to a directory",
        "host.file",
        {"path": "/a", "content": "mine\n"},
        {"/a": "mine\n", "/dir/x": None},
        before={"/dir": "<dir>", "/a": "-> dir"},
        removed={"/a": None, "/dir": "<dir>"},
    ),
    Case(
        "file that must be valid",
        "host.file",
        {"path": "/a", "content": "ok\n", "validate": "grep -q ok %s"},
        {"/a": "ok\n"},
        {"content": "also ok\n"},
        {"/a": "also ok\n"},
        removed={"/a": None},
    ),
    Case(
        "directory with its parents",
        "host.directory",
        {"path": "/x/y/z", "mode": "0750"},
        {"/x/y/z": ("0750", "<dir>"), "/x/y": ("0755", "<dir>")},
        {"mode": "0700"},
        {"/x/y/z": ("0700", "<dir>")},
        removed={"/x/y/z": None, "/x/y": "<dir>"},
    ),
    Case(
        "link",
        "host.link",
        {"path": "/l", "target": "nowhere/at all"},
        {"/l": "-> nowhere/at all"},
        {"target": "-x"},
        {"/l": "-> -x"},
        removed={"/l": None},
    ),
    Case(
        "link to a directory that leads elsewhere then",
        "host.link",
        {"path": "/l", "target": "one"},
        {"/l": "-> one"},
        {"target": "two"},
        {"/l": "-> two", "/one/two": None, "/one": "<dir>"},
        before={"/one": "<dir>", "/two": "<dir>"},
        removed={"/l": None},
    ),
    Case(
        "line that takes another one's place",
        "host.line",
        {"path": "/c", "regexp": "^#?Port ", "line": "Port 22"},
        {"/c": ("0644", "a\n#Port 1\nPort 22\nb\n")},
        {"line": "Port 2222"},
        {"/c": ("0644", "a\n#Port 1\nPort 2222\nb\n")},
        {"regexp": "^#?Port "},
        {"/c": "a\nb\n"},
        before={"/c": "a\n#Port 1\nPort 2\nb\n"},
    ),
    Case(
        "line that is added to a file without a line end",
        "host.line",
        {"path": "/c", "line": 'it\'s "$(x)" `y` \\n %s é'},
        {"/c": 'a\nit\'s "$(x)" `y` \\n %s é\n'},
        absent={"line": 'it\'s "$(x)" `y` \\n %s é'},
        removed={"/c": "a\n"},
        before={"/c": "a"},
    ),
    Case(
        "line behind another one, in a new file",
        "host.line",
        {"path": "/c", "line": "-x", "insertafter": "a", "create": True},
        {"/c": "-x\n"},
        absent={"line": "-x"},
        removed={"/c": ""},
    ),
    Case(
        "telemetry agent, in a folder",
        "host.telemetry_agent",
        {"server": "https://fazai.example.net", "interval": 30, "key": "it's $(x) `y` 0123456789"},
        {
            "/etc/fazai/telemetry.env": (
                "0600",
                "# Written by fazai (host.telemetry_agent). What is changed here by hand is put back.\n"
                'FAZAI_AGENT_SERVER="https://fazai.example.net"\nFAZAI_AGENT_INTERVAL_S="30"\n'
                'FAZAI_AGENT_KEY="it\'s $(x) `y` 0123456789"\n',
            ),
        },
        {"key": None, "init": "cron", "settings": {"batch_records": 5}},
        {
            "/etc/fazai/telemetry.env": (
                "0600",
                "# Written by fazai (host.telemetry_agent). What is changed here by hand is put back.\n"
                'FAZAI_AGENT_SERVER="https://fazai.example.net"\nFAZAI_AGENT_INTERVAL_S="60"\n'
                'FAZAI_AGENT_BATCH_RECORDS="5"\n',
            ),
        },
        removed={"/opt/fazai": None, "/etc/fazai/telemetry.env": None, "/var/lib/fazai-agent": None},
    ),
    Case(
        "block",
        "host.block",
        {"path": "/c", "block": "one\ntwo", "insertbefore": "^z"},
        {"/c": "a\n# BEGIN fazai\none\ntwo\n# END fazai\nz\n"},
        {"block": "one\n\n$three\n"},
        {"/c": "a\n# BEGIN fazai\none\n\n$three\n# END fazai\nz\n"},
        removed={"/c": "a\nz\n"},
        before={"/c": "a\nz\n"},
    ),
    Case(
        "block with its own marks",
        "host.block",
        {"path": "/c", "marker": "; {mark} app", "block": "x", "create": True},
        {"/c": "; BEGIN app\nx\n; END app\n"},
        {"block": ""},
        {"/c": "; BEGIN app\n; END app\n"},
        {"marker": "; {mark} app"},
        {"/c": ""},
    ),
)
