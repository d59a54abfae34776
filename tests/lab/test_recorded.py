"""The contract: every recorded exchange, replayed against a lab over HTTP, gets the recorded answer.

`recorded.json` says per file what happened before it without being recorded (`before`, `after`), and which
values of single exchanges cannot be the recorded ones, with the reason (`loose`). Nothing of the first
recording is left out; of the second one (`recorded_more/*.json`) those files are replayed that stand there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fazai.lab import LabSettings, LabThread
from tests.lab import recorded

NAMES = [*recorded.recordings(), *recorded.wider_recordings()]
pytestmark = [
    pytest.mark.recorded,
    pytest.mark.skipif(not NAMES, reason="no recordings: neither FAZAI_RECORDINGS nor ../shared/opnsense"),
]


@pytest.fixture(scope="module")
def lab() -> Iterator[LabThread]:
    with LabThread() as running:
        yield running


def replayed(
    lab: LabThread, name: str, *, strictly: bool = False
) -> Iterator[tuple[int, dict[str, Any], list[str]]]:
    """Each exchange of a file with what is wrong with the lab's answer; strictly: nothing is loosened."""
    plan = recorded.settings(name)
    settings = LabSettings(
        auth_delay_s=0,
        release=plan.get("release", "26.7.2"),
        rollback_s=plan.get("rollback_s", 60.0),
        factory_rules="api",  # the recorded box of 26.1 was a migrated one
    )
    firewall = lab.start(f"{name}-strictly" if strictly else name, settings)
    with httpx.Client(base_url=firewall.base_url, verify=False) as client:
        replay = recorded.Replay(firewall, client, set(recorded.settings("")["volatile"]))
        for earlier in plan.get("after", ()):
            for _ in replay.run(earlier):
                pass
        yield from replay.run(name, strictly=strictly)


@pytest.mark.parametrize("name", NAMES or ["none"])
def test_every_exchange_gets_the_recorded_answer(lab: LabThread, name: str) -> None:
    wrong = [
        f"#{index} {exchange['name']}: {problem}"
        for index, exchange, problems in replayed(lab, name)
        for problem in problems
    ]
    assert not wrong, "\n".join(wrong)


def test_what_is_said_of_the_recordings_is_about_recordings() -> None:
    """No stale file names, no stale indexes, a reason for every loosened value, and each one still needed."""
    here = Path(__file__).parent
    plans = json.loads((here / "recorded.json").read_text())
    for path in (here / "recorded_more").glob("*.json"):
        plans |= json.loads(path.read_text())
    for name, plan in plans.items():
        if name:
            count = len(recorded.exchanges(name))
            for index in (*plan.get("before", ()), *plan.get("loose", ())):
                assert int(index) < count, f"{name}: there is no exchange {index}"
            assert all(loose["why"] for loose in plan.get("loose", {}).values())


@pytest.mark.parametrize("name", [name for name in NAMES if recorded.settings(name).get("loose")])
def test_loosened_values_really_differ(lab: LabThread, name: str) -> None:
    """A loosened value that equals the recorded one again has to be tightened."""
    differing = {str(index) for index, _, problems in replayed(lab, name, strictly=True) if problems}
    assert set(recorded.settings(name)["loose"]) <= differing
