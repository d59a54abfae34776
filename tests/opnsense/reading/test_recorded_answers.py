"""What the firewall answered when it was recorded, read by the parsers; skipped without recordings."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fazai.providers.opnsense.reading.backup import is_configuration
from fazai.providers.opnsense.reading.firmware import parse_firmware
from fazai.providers.opnsense.reading.rules import parse_rule
from fazai.providers.opnsense.reading.services import parse_service
from fazai.providers.opnsense.reading.values import listed_rows
from fazai.providers.opnsense.reading.vpn import parse_openvpn
from tests.opnsense.helpers import recorded, recordings

pytestmark = pytest.mark.recorded


def answer(file: str, name: str) -> Any:
    """One recorded answer."""
    return next(record["response"] for record in recorded(file) if record["name"] == name)


def wider(file: str, name: str) -> Any:
    """One answer of the second recording."""
    folder = Path(os.environ.get("FAZAI_RECORDINGS_MORE", recordings().with_name("opnsense-more")))
    if not folder.is_dir():
        pytest.skip(f"no recordings at {folder}: set FAZAI_RECORDINGS_MORE")
    return next(one["response"] for one in json.loads((folder / file).read_text()) if one["name"] == name)


def test_rules_of_the_recording() -> None:
    found = wider("firewall_filter_more.json", "firewall/filter: searchRule (row shape)")
    rows, total = listed_rows(found, "fw-01", "firewall/filter/searchRule")
    rules = [parse_rule(row) for row in rows]
    assert total == len(rules) == 31
    assert sum(rule.automatic for rule in rules) == 27
    first = msgspec.to_builtins(rules[0])
    assert first == {
        "id": "02f4bab031b57d1e30553ce08e0ec131",
        "automatic": True,
        "enabled": True,
        "action": "block",
        "direction": "in",
        "ip": "inet46",
        "description": "Default deny / state violation rule",
        "log": True,
    }
    own = next(rule for rule in rules if not rule.automatic)
    assert (own.sequence, own.interface, own.action, own.source, own.destination) == (
        *(1, "lan", "pass", "lan"),
        None,
    )
    assert (own.enabled, own.log, own.packets, own.description) == (
        *(True, False, None),
        "Default allow LAN to any rule",
    )


def test_rules_with_counters_of_the_recording() -> None:
    """It has the first eight rows of 29, and no counters: its pf had none."""
    found = answer("firewall_filter.json", "searchRule show_all")
    rows, total = listed_rows(found, "fw-01", "firewall/filter/searchRule")
    rules = [parse_rule(row) for row in rows]
    assert (len(rules), total) == (8, 29)
    assert {rule.evaluations for rule in rules} == {None}


def test_services_of_the_recording() -> None:
    rows, total = listed_rows(answer("core.json", "service search"), "fw-01", "core/service/search")
    services = {one.name: one for row in rows if (one := parse_service(row)) is not None}
    assert total == len(services) == 12
    assert (services["unbound"].running, services["unbound"].locked) == (True, False)
    assert (services["cron"].running, services["cron"].description) == (False, "Cron")
    assert services["pf"].locked is True


def test_firmware_of_the_recording() -> None:
    found = parse_firmware(answer("core.json", "firmware status GET"), (), 0)
    assert (found.version, found.latest, found.status) == ("26.7.2", "26.7.2", "error")
    assert (found.needs_reboot, found.upgrade_needs_reboot, found.upgrade) == (False, False, None)
    assert found.message == 'The release type "opnsense" is not available on this repository.'
    assert found.last_check == "Mon Jan 1 00:00:00 UTC 2024"


def test_the_recorded_backup_is_a_configuration() -> None:
    assert is_configuration(answer("core.json", "backup download").encode())


def test_openvpn_instances_that_do_not_run() -> None:
    found = wider("openvpn_service.json", "searchSessions")
    rows, total = listed_rows(found, "fw-01", "openvpn/service/searchSessions")
    tunnels = [parse_openvpn(row) for row in rows]
    assert total == 2
    assert [(one.role, one.name, one.status) for one in tunnels if one is not None] == [
        ("server", "srv", "stopped"),
        ("server", "srv2", "stopped"),
    ]
