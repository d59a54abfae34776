"""Interfaces that are made, routing, the shaper, the system: each kind's life on both releases."""

from __future__ import annotations

import pytest

from tests.opnsense.helpers import Start
from tests.opnsense.kinds.lifecycle import Case, check_lifecycle

CASES = [
    Case("opnsense.loopback", {"description": "router id"}, {"deviceId": 7}),
    Case(
        "opnsense.monit_alert",
        {"recipient": "ops@example.org", "enabled": True, "events": ["timeout", "nonexist"]},
        {"events": ["timeout"], "reminder": 10},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("release", ["26.7.2", "26.1.11"])
def test_life(start: Start, case: Case, release: str) -> None:
    if release in case.releases:
        check_lifecycle(start, case, release)
