"""Drift of an agent and its words, as data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from fazai.providers.hosts.agent.files import agent_script, service_file, shipped_version
from fazai.providers.hosts.agent.health import AgentReport, read_report
from fazai.providers.hosts.agent.settings import (
    known_settings,
    read_agent_settings,
    setting_problem,
    settings_text,
)
from fazai.providers.hosts.kinds import load_host_kinds
from tests.hosts.helpers import resource

NOW = 1_000_000


def status(**changes: Any) -> dict[str, str]:
    """Return the status of an agent that delivers, a day after it began."""
    usual = {
        "version": "0.1.0",
        "state": "running",
        "pid": 7,
        "started_at": NOW - 86_400,
        "written_at": NOW - 10,
        "interval_s": "60.000",
        "last_delivery_at": NOW - 10,
        "spool_depth": 0,
        "failures": 0,
        "last_error": "",
    }
    return {name: str(value) for name, value in {**usual, **changes}.items()}


def report(found: Mapping[str, str], **more: Any) -> AgentReport:
    usual = {"folder": False, "now": NOW, "init": "systemd", "active": "active", "installed_at": NOW - 86_400}
    return AgentReport(status=found, **{**usual, **more})


REFUSED = {"failures": 3, "last_error": "status 401: there is no key", "spool_depth": 12}
CASES: tuple[tuple[str, AgentReport, str | None], ...] = (
    ("it delivers", report(status()), None),
    (
        "it is refused",
        report(status(last_delivery_at=NOW - 300, **REFUSED)),
        "not delivering for 300 s: status 401: there is no key, spool 12",
    ),
    ("one failure is chance", report(status(failures=1, last_delivery_at=NOW - 70, spool_depth=1)), None),
    (
        "it was just started, and is refused",
        report(status(started_at=NOW - 20, last_delivery_at="", **REFUSED)),
        None,
    ),
    (
        "it never delivered",
        report(status(started_at=NOW - 400, last_delivery_at="", failures=2, last_error="no route")),
        "not delivering for 400 s: no route, spool 0",
    ),
    ("it hangs", report(status(written_at=NOW - 500)), "no sign of life for 500 s, spool 0"),
    (
        "a long interval is no silence",
        report(status(interval_s="3600.000", written_at=NOW - 500, last_delivery_at=NOW - 500)),
        None,
    ),
    ("it was just installed", report({}, installed_at=NOW - 30), None),
    (
        "it never ran",
        report({}, installed_at=NOW - 300),
        "it never ran, 300 s after it was installed",
    ),
    ("a folder in which nothing ever ran", report({}, folder=True), None),
    ("nobody whom we know runs it", report({}, init="none"), None),
    (
        "cron, refused again and again",
        report(status(state="stopped", started_at=NOW - 30, last_delivery_at="", **REFUSED), init="cron"),
        "not delivering: status 401: there is no key, spool 12",
    ),
    (
        "cron that stopped",
        report(status(state="stopped", written_at=NOW - 900), init="cron"),
        "no sign of life for 900 s, spool 0",
    ),
)


@pytest.mark.parametrize("case", CASES, ids=[name for name, _, _ in CASES])
def test_what_is_drift(case: tuple[str, AgentReport, str | None]) -> None:
    _, found, wanted = case
    if "interval_s" in found.status:
        text = "".join(f"{name}={value}\n" for name, value in found.status.items())
        said = f"now={NOW}\nversion=0.1.0\ninit={found.init}\nactive=active\nenabled=enabled\nuser=yes\n"
        found = read_report(said.encode(), text.encode(), folder=False, interval_s=60, grace_s=None)
    assert found.trouble() == wanted


def test_the_clock_and_counters_are_no_state() -> None:
    """Else a saved plan would be stale at once."""
    assert repr(report(status(delivered=1))) == repr(report(status(delivered=2, written_at=NOW - 3)))
    assert repr(report(status())) != repr(report(status(written_at=NOW - 500)))


def test_settings_are_read_as_they_are_written() -> None:
    pairs = {"SERVER": "https://x", "KEY": 'it\'s "quoted" 0123456789', "BATCH_RECORDS": "5"}
    found = read_agent_settings(settings_text(pairs))
    assert (found["server"], found["batch_records"]) == ("https://x", "5")
    assert found["key"].reveal() == pairs["KEY"]
    assert str(found["key"]) == "***"


@pytest.mark.parametrize(
    ("interval_s", "line"),
    [(1, "* * * * *"), (60, "* * * * *"), (150, "*/2 * * * *"), (300, "*/5 * * * *"), (9000, "*/30 * * * *")],
)
def test_cron_counts_in_minutes(interval_s: float, line: str) -> None:
    assert f"\n{line} fazai-agent /opt/fazai/agent/telemetry.sh --once".encode() in service_file(
        "cron", interval_s
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "is missing"),
        ({"server": "https://x", "key": "short"}, "16 to 256"),
        ({"server": "https://x", "key": "a" * 16 + "\n" + "b" * 16 + "\n" + "c" * 16}, "more than two lines"),
        ({"server": "https://x", "interval": 0.01}, "from 0.05 on"),
        ({"server": "https://x", "interval": "60"}, "must be a number"),
        ({"server": "https://x", "settings": {"batch_recods": "1"}}, "no setting of the agent"),
        ({"server": "https://x", "settings": {"interval_s": "1"}}, "a field of its own"),
        ({"server": "https://x", "hostname": "web 1"}, "printable ASCII characters without spaces"),
        ({"server": "https://x", "settings": {"spool_max_bytes": "abc"}}, "must be a number from 4096"),
        ({"server": "https://x", "settings": {"spool_max_bytes": 5}}, "must be a number from 4096"),
        ({"server": "https://x", "settings": {"backoff_max_s": "5m"}}, "must be seconds from 0.01 to 86400"),
        ({"server": "https://x", "settings": {"log_format": "xml"}}, "must be one of: json text"),
        ({"server": "https://x", "settings": {"proc": "proc"}}, "must be an absolute path"),
        ({"server": "https://x\nFAZAI_AGENT_PROC=/"}, "must be one line"),
        ({"server": "https://x", "settings": {"batch_records": "1\nX=y"}}, "must be one line"),
    ],
)
def test_what_is_refused_before_any_contact(fields: dict[str, Any], words: str) -> None:
    _, problems = load_host_kinds()["host.telemetry_agent"].normalise(fields, "present")
    assert any(words in problem.message for problem in problems), problems


def test_the_agent_says_what_it_knows() -> None:
    assert shipped_version()
    assert {"SERVER", "KEY", "PROC"} <= known_settings().keys()
    made = resource("host.telemetry_agent", {"server": "https://x", "interval": 60.0})
    assert (made.identity, made.fields["interval"]) == ("telemetry", 60)


def test_every_default_of_the_agent_is_one_that_is_taken() -> None:
    lines = re.findall(r"^    setting ([A-Z_]+) [a-z]+ (\S+)", agent_script().decode(), re.MULTILINE)
    assert len(lines) > 25
    assert [name for name, default in lines if setting_problem(name, default.strip("'"))] == []
