"""The contract for settings whose recorded files hold the collections of the same model, too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from fazai.lab import LabSettings, LabThread
from tests.lab import recorded
from tests.lab.test_wider_recording import exchanges

pytestmark = [
    pytest.mark.recorded,
    pytest.mark.skipif(not recorded.WIDER.is_dir(), reason="no second recording: FAZAI_RECORDINGS_MORE"),
]

Write = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Part:
    """The exchanges of a file whose names begin with `prefix`: what was written before some of them without
    being recorded, and the collections in a `get` of the whole model."""

    file: str
    prefix: str
    count: int
    before: dict[int, Write] = field(default_factory=dict)
    collections: tuple[str, ...] = ()
    items: bool = False  # the exchanges of a collection, between which things were done that are not recorded

    def __str__(self) -> str:
        return self.prefix


_FACTORY = {
    "unbound": {
        "general": {"dnssec": "0", "active_interface": ""},
        "advanced": {"hideidentity": "0"},
    }
}
_DNSMASQ = {"dnsmasq": {"port": "53053", "interface": "lan", "dhcp": {"enable_ra": "1"}}}
_LISTS = ("hosts", "domainoverrides", "dhcp_tags", "dhcp_ranges", "dhcp_options", "dhcp_boot")

PARTS = [
    Part("unbound_settings_more", "unbound/settings", 88, {321: ("/api/unbound/settings/set", _FACTORY)}),
    Part("kea_dhcpv4_more", "kea/dhcpv4", 44),
    Part("kea_dhcpv6", "kea/dhcpv6", 43),
    Part(
        "dnsmasq_settings_more",
        "dnsmasq/settings",
        62,
        {297: ("/api/dnsmasq/settings/set", _DNSMASQ)},
        _LISTS,
    ),
    # the firewall sets the limits of its three default tests by the number of its processors
    Part("monit_settings_more", "monit/settings", 52, collections=("test",)),
    Part("ids_settings_more", "ids/settings", 59, {170: ("/api/ids/service/reconfigure", {})}),
    Part("ids_settings_more", "ids/settings UserRule", 55, items=True),
    Part("ids_settings_more", "ids/settings Policy", 53, items=True),
    Part("ids_settings_more", "ids/settings PolicyRule", 47, items=True),
]


@pytest.fixture(scope="module")
def lab() -> Iterator[LabThread]:
    with LabThread() as running:
        yield running


def _without(body: Any, names: tuple[str, ...]) -> Any:
    """The answer without these collections of the model."""
    if not names or not isinstance(body, dict):
        return body
    return {
        root: {name: value for name, value in inner.items() if name not in names}
        if isinstance(inner, dict)
        else inner
        for root, inner in body.items()
    }


def _with_fingerprint(value: Any) -> Any:
    """The recording has a word in the place of each fingerprint."""
    return json.loads(json.dumps(value).replace("<fingerprint>", ":".join(["0a"] * 20)))


class _Settings(recorded.Replay):
    """A replay that leaves collections out of both answers."""

    collections: tuple[str, ...] = ()

    def prepare_items(self, exchange: dict[str, Any], passing: set[str]) -> None:
        self._passing = passing
        self._prepare_wider(exchange)

    def translated(self, value: Any) -> Any:
        return _with_fingerprint(super().translated(value))

    def _differ(self, theirs: Any, ours: Any, where: str, shortened: bool) -> Any:
        if not where:
            theirs, ours = _without(theirs, self.collections), _without(ours, self.collections)
        return super()._differ(theirs, ours, where, shortened)


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_settings_answer_as_recorded(lab: LabThread, part: Part) -> None:
    firewall = lab.start(f"settings-{PARTS.index(part)}", LabSettings(auth_delay_s=0))
    wrong, compared = [], 0
    with httpx.Client(base_url=firewall.base_url, verify=False) as client:
        replay = _Settings(firewall, client, set(recorded.settings("")["volatile"]))
        replay.collections = part.collections
        passing = recorded._named_once(exchanges(part.file))
        for index, exchange in enumerate(exchanges(part.file)):
            if index in part.before:
                path, body = part.before[index]
                assert "failed" not in str(firewall.call("POST", path, body))
            if exchange["name"].startswith(f"{part.prefix}:"):
                compared += 1
                if part.items:
                    replay.prepare_items(exchange, passing)
                problems = replay.problems(index, exchange, replay.send(exchange))
                wrong += [f"#{index} {exchange['name']}: {problem}" for problem in problems]
    assert not wrong, "\n".join(wrong)
    assert compared == part.count
