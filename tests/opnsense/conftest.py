"""A lab for the tests that need a firewall: real HTTP on loopback."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from fazai.lab import LabFirewall, LabSettings, LabThread
from tests.opnsense.helpers import Start


@pytest.fixture(scope="module")
def lab() -> Iterator[LabThread]:
    """One lab per module; firewalls in it are cheap."""
    with LabThread() as started:
        yield started


@pytest.fixture
def start(lab: LabThread, request: pytest.FixtureRequest) -> Start:
    """Start a firewall of this test's own: `start()` or `start(release=…, tls=…, faults=…)`."""
    count = 0

    def make(**settings: object) -> LabFirewall:
        nonlocal count
        count += 1
        wanted = LabSettings(**{"auth_delay_s": 0.0, **settings})  # type: ignore[arg-type]
        name = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]
        return lab.start(f"{name}.{count}", wanted)

    return make


@pytest.fixture
def firewall(start: Start) -> LabFirewall:
    """A firewall of this test's own, with the defaults of the lab."""
    return start()
