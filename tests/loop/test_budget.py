"""What an objective has used: the time without that in which it waits for a person, rests, or is over."""

from __future__ import annotations

import pytest

from fazai.loop.journal import (
    Answered,
    AnyEntry,
    Ended,
    ObjectiveSet,
    Paused,
    Question,
    Resumed,
    SessionState,
)
from fazai.wire.sessions import Budget

BEGUN = ObjectiveSet(at=0.0, text="x", by="uid:0", budget=Budget(seconds=900))
ASKED = Question(at=10.0, action_id="a-1", question="which?")
ANSWERED = Answered(at=2000.0, action_id="a-1", text="both", by="uid:0")


@pytest.mark.parametrize(
    ("entries", "seconds"),
    [
        ((BEGUN,), 3000.0),
        ((BEGUN, ASKED), 10.0),
        ((BEGUN, ASKED, ANSWERED), 1010.0),
        ((BEGUN, ASKED, Paused(at=20.0, by="x", reason="y"), Resumed(at=100.0, by="x")), 10.0),
        ((BEGUN, ASKED, Paused(at=20.0, by="x", reason="y"), ANSWERED), 10.0),
        (
            (BEGUN, ASKED, Paused(at=20.0, by="x", reason="y"), ANSWERED, Resumed(at=2500.0, by="x")),
            510.0,
        ),
        ((BEGUN, Ended(at=30.0, reason="done")), 30.0),
        ((BEGUN, ASKED, Ended(at=30.0, reason="aborted")), 10.0),
    ],
)
def test_time_is_counted_while_it_runs(entries: tuple[AnyEntry, ...], seconds: float) -> None:
    state = SessionState()
    for entry in entries:
        state.follow(entry)
    assert state.spent.elapsed(3000.0) == seconds
