"""What the firewall holds texts against is known before any contact."""

from __future__ import annotations

from typing import Any

import pytest

from fazai.providers.opnsense.provider import PROVIDER

CASES: list[tuple[str, dict[str, Any], str, str, str]] = [
    (
        "category",
        {"name": "c", "color": "red"},
        "color",
        'must be as the firewall takes it, not "red"',
        "A valid color code consists of 6 hex digits.",
    ),
    (
        "gateway",
        {"name": "my gw", "interface": "lan"},
        "name",
        'must be as the firewall takes it, not "my gw"',
        "A valid gateway name must be specified.",
    ),
    (
        "rule",
        {"description": "r", "interface": ["lan"], "tag": "a b"},
        "tag",
        'must be as the firewall takes it, not "a b"',
        "it must match ^([0-9a-zA-Z.,_\\-]){0,512}$",
    ),
    (
        "cron_job",
        {"description": "c", "command": "firmware poll", "minutes": "61"},
        "minutes",
        'must be as the firewall takes it, not "61"',
        "Value needs to be between 0 and 59",
    ),
    (
        "unbound_host",
        {"hostname": "a", "domain": "exa mple", "server": "192.0.2.1"},
        "domain",
        'must be as the firewall takes it, not "exa mple"',
        "A valid domain must be specified.",
    ),
    (
        "group",
        {"name": "x" * 33},
        "name",
        f'must be as the firewall takes it, not "{"x" * 33}"',
        "A groupname must contain a maximum of 32 alphanumeric characters.",
    ),
    (
        "alias",
        {"name": "a", "type": "authgroup", "content": ["admins"]},
        "content",
        '"admins" is not the id of a group',
        "write its number (GID), such as 1999",
    ),
    (
        "rule",
        {"description": "two\nlines", "interface": ["lan"]},
        "description",
        'must be one line of at most 255 characters, not "two\nlines"',
        "",
    ),
]


@pytest.mark.parametrize(("kind", "fields", "field", "message", "hint"), CASES)
def test_a_text_that_does_not_fit_is_said_with_what_would(
    kind: str, fields: dict[str, Any], field: str, message: str, hint: str
) -> None:
    _, (problem,) = PROVIDER.kinds[f"opnsense.{kind}"].normalise(fields, "present")
    assert (problem.field, problem.message) == (field, message)
    assert (problem.hint or "").startswith(hint)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (
            "alias",
            {
                "name": "p",
                "type": "port",
                "content": ["http", "https", "http:https", "8000:8100", "my_ports"],
            },
        ),
        ("cron_job", {"description": "c", "command": "firmware poll", "minutes": "*/5", "weekdays": "1-5"}),
        ("unbound_host", {"hostname": "a", "domain": "EXAMPLE.org", "server": "192.0.2.1"}),
        ("vlan", {"if": "vtnet3", "tag": 201, "vlanif": "vlan0.201"}),
        ("monit_test", {"name": "Disk Full", "type": "SpaceUsage", "condition": "space usage > 90%"}),
    ],
)
def test_a_text_that_fits_is_taken(kind: str, fields: dict[str, Any]) -> None:
    _, problems = PROVIDER.kinds[f"opnsense.{kind}"].normalise(fields, "present")
    assert [problem for problem in problems if problem.message != "is missing"] == []


def test_patterns_take_no_time_on_texts_made_to_take_it() -> None:
    """Every pattern on texts that match almost: the longest that it is asked about."""
    for kind in PROVIDER.kinds.values():
        for row in kind.rows.values():
            for piece in ("a", "/", "/a", "1,", "*,", "00:", "a-", "-", " "):
                if row.pattern:
                    kind.normalise({row.name: piece * (1024 // len(piece) - 1) + "\n!"}, "absent")
