"""No kind without a case: who adds a kind and no case for it is told here which."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fazai.registry import Registry
from tests.hosts.cases import CASES
from tests.opnsense.catalogue.strategies import ALL_KINDS
from tests.opnsense.kinds import test_devices, test_dhcp, test_settings, test_vpn

#: Kinds of hosts whose cases need more than a folder, and the file of tests/hosts/kinds with them.
ELSEWHERE: Mapping[str, str] = {
    "host.agent": "../../supervisor/remote/test_life.py",
    "host.authorized_key": "test_shared_files.py",
    "host.command": "test_commands.py",
    "host.cron": "test_shared_files.py",
    "host.download": "test_download.py",
    "host.group": "test_users.py",
    "host.package": "test_packages.py",
    "host.service": "test_services.py",
    "host.sysctl": "test_shared_files.py",
    "host.telemetry_agent": "../../supervisor/test_machines.py",
    "host.user": "test_users.py",
}


#: Kinds of firewalls whose life is a test of its own, and the file of tests/opnsense/kinds with it.
OF_THEIR_OWN: Mapping[str, str] = {
    "opnsense.dnsmasq_tag": "test_dhcp.py",
    "opnsense.trust_cert": "test_vpn.py",
}


def _kinds(first: str) -> set[str]:
    return {kind.name for kind in Registry().kinds() if kind.name.startswith(first)}


def test_every_kind_of_a_firewall_has_cases() -> None:
    """Made at random, applied, changed, undone and deleted (tests/opnsense/catalogue/test_properties.py), or
    a whole life on both releases (tests/opnsense/kinds)."""
    lives = (*test_devices.CASES, *test_dhcp.CASES, *test_settings.CASES, *test_vpn.CASES)
    assert {*ALL_KINDS, *(case.kind for case in lives), *OF_THEIR_OWN} == _kinds("opnsense.")
    for kind, name in OF_THEIR_OWN.items():
        assert f'"{kind}"' in (Path(__file__).parent / "opnsense/kinds" / name).read_text(), kind


def test_every_kind_of_a_host_has_cases() -> None:
    assert {case.kind for case in CASES} | set(ELSEWHERE) == _kinds("host.")
    for kind, name in ELSEWHERE.items():
        assert kind.partition(".")[2] in (Path(__file__).parent / "hosts/kinds" / name).read_text(), kind
