"""bench/soak.py for half a minute; longer by hand: FAZAI_SOAK_S=600 python -m bench.soak."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.soak import Soak


@pytest.mark.slow
def test_half_a_minute_of_everything(tmp_path: Path) -> None:
    soak = Soak(tmp_path, float(os.environ.get("FAZAI_SOAK_S", "30")))
    soak.run()
    assert len(soak.seen.hosts) == 4
    assert min(soak.seen.reported.values()) > 100
    assert soak.seen.scrapes > 10
    assert soak.seen.reconnects >= 6  # each kill ended a stream
