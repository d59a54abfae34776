"""Parts of the wider recording (`opnsense-more`) that the lab answers as the recorded firewall did."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fazai.lab import LabSettings, LabThread
from tests.lab import recorded

FOLDER = Path(os.environ.get("FAZAI_RECORDINGS_MORE", recorded.ROOT.with_name("opnsense-more")))
pytestmark = [
    pytest.mark.recorded,
    pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no recordings at {FOLDER}: set FAZAI_RECORDINGS_MORE"),
]


@pytest.fixture(scope="module")
def lab() -> Iterator[LabThread]:
    with LabThread() as running:
        yield running


def exchanges(file: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((FOLDER / f"{file}.json").read_text())
    return found


def differences(
    lab: LabThread, name: str, chosen: list[dict[str, Any]], before: list[tuple[str, dict[str, Any]]]
) -> list[str]:
    """What a fresh firewall answers otherwise than these exchanges say, after some writes of our own."""
    firewall = lab.start(name, LabSettings(auth_delay_s=0))
    for path, body in before:
        assert "failed" not in json.dumps(firewall.call("POST", path, body))
    with httpx.Client(base_url=firewall.base_url) as client:
        replay = recorded.Replay(firewall, client, set(recorded.settings("")["volatile"]))
        return [
            f"{exchange['name']}: {problem}"
            for index, exchange in enumerate(chosen)
            for problem in replay.problems(index, exchange, replay.send(exchange))
        ]


@pytest.mark.parametrize("suffix", ["Dot", "Forward"])
def test_each_wrong_field_of_a_resolver_gets_the_recorded_refusal(lab: LabThread, suffix: str) -> None:
    chosen = [
        exchange
        for exchange in exchanges("unbound_settings_more")
        if f"/{('add' + suffix)}" in exchange["path"] and "validations" in exchange["response"]
    ]
    assert len(chosen) > 10
    assert differences(lab, f"wrong-{suffix}", chosen, []) == []


def test_forwards_and_dns_over_tls_share_a_store_and_are_listed_apart(lab: LabThread) -> None:
    found = exchanges("unbound_settings_more")
    first = next(i for i, e in enumerate(found) if e["name"] == "searchForward does not list it") - 1
    chosen = [e for e in found[first : first + 5] if "bulk" not in e["name"]]
    assert chosen[0]["name"] == "addDot"
    assert any("turns it into a forward" in e["name"] for e in chosen)
    before = [("/api/unbound/settings/addDot", {"dot": {"domain": "b.example.org", "server": "192.0.2.54"}})]
    assert differences(lab, "one-store", chosen, before) == []
