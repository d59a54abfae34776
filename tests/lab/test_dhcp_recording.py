"""Blocklists of Unbound: their part of a recorded file that is about much else, replayed whole."""

from __future__ import annotations

import json

import httpx
import pytest

from fazai.lab import LabSettings, LabThread
from tests.lab import recorded

FILE = recorded.WIDER / "unbound_settings_more.json"
pytestmark = [
    pytest.mark.recorded,
    pytest.mark.skipif(not FILE.is_file(), reason=f"no recording at {FILE}: set FAZAI_RECORDINGS_MORE"),
]
#: Deleted before an exchange without being recorded, as what followed shows.
GONE = {
    24: ("cf5e7c41-9b36-45f7-ba6f-62918feb3284",),
    25: ("8cc993a0-6bda-44f6-8c8e-2669439ee85f",),
    27: ("9d8eaa7c-1076-4c5d-97c9-44e13eb56315",),
    39: ("b86bb0f0-2cea-4011-9d91-c1e52bbb7062",),
    41: ("00000000-0000-4000-8000-000000000077",),
    60: ("6c4afb0e-1cc8-469d-801a-256f9aa8dbfa",),
}


def test_blocklists_get_the_recorded_answers() -> None:
    found = json.loads(FILE.read_text())
    chosen = [exchange for exchange in found if exchange["name"].startswith("unbound/settings Dnsbl")]
    assert len(chosen) == 64
    wrong = []
    with LabThread() as lab:
        firewall = lab.start("dnsbl", LabSettings(auth_delay_s=0))
        with httpx.Client(base_url=firewall.base_url, verify=False) as client:
            replay = recorded.Replay(firewall, client, set(recorded.settings("")["volatile"]))
            replay.before = {
                str(index): [["POST", f"/api/unbound/settings/delDnsbl/{uuid}", {}] for uuid in uuids]
                for index, uuids in GONE.items()
            }
            for index, exchange in enumerate(chosen):
                replay.prepare(index)
                replay._prepare_wider(exchange)
                problems = replay.problems(index, exchange, replay.send(exchange))
                wrong += [f"#{index} {exchange['name']}: {problem}" for problem in problems]
    assert not wrong, "\n".join(wrong)
