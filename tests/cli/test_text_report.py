"""The report for people, from outcomes of our own."""

from __future__ import annotations

import io

from fazai.errors import Unreachable
from fazai.outcome import TargetOutcome, TargetStatus
from fazai.report.text import TextReport


def test_what_failed_twice_for_one_reason_is_told_once() -> None:
    """A write, and taking back what was written before it, fail for the same lost agent."""
    lost = [Unreachable("edge-2 is not connected", stage="connect", where="edge-2") for _ in range(2)]
    other = Unreachable("another reason", stage="connect", where="edge-2")
    out = io.StringIO()
    report = TextReport(out, noun=lambda _: "host")
    report.target(
        TargetOutcome("edge-2", "agent", "p", TargetStatus.UNREACHABLE, 1, errors=(lost[0], other, lost[1]))
    )
    text = out.getvalue()
    assert text.count("edge-2 is not connected") == 1
    assert text.count("another reason") == 1
