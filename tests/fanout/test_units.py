"""The parts of `fazai exec` and `fazai cp` that need no host: waves, budgets, what is kept of output."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fazai.errors import TimedOut, Unreachable, Unsure, UsageError
from fazai.fanout.output import KEPT_BYTES, TOLD_BYTES, OutputKeeper, OutputRoom
from fazai.fanout.waves import parse_budget, parse_waves
from fazai.masking import make_mask
from fazai.outcome import TargetOutcome, TargetStatus

SECRET = "correct-horse-battery-staple"


@pytest.mark.parametrize(
    ("text", "count", "sizes"),
    [
        (None, 20, ()),
        ("10", 20, (10,)),
        ("1,10%,100%", 20, (1, 2, 20)),
        (" 1 , 50% ", 5, (1, 2)),
        ("1%", 20, (1,)),  # never none
    ],
)
def test_waves(text: str | None, count: int, sizes: tuple[int, ...]) -> None:
    assert parse_waves(text, count) == sizes


@pytest.mark.parametrize("text", ["", "0", "0%", "101%", "-1", "1,,2", "1.5", "x", "1 %", "٣"])
def test_waves_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="is no list of sizes"):
        parse_waves(text, 20)


def test_budgets() -> None:
    assert [parse_budget(text, 20) for text in (None, "0", "4", "0%", "10%", "100%")] == [
        None,
        0,
        4,
        0,
        2,
        20,
    ]
    for text in ("", "-1", "101%", "x"):
        with pytest.raises(UsageError, match="is no number"):
            parse_budget(text, 20)


@pytest.mark.parametrize("error", [Unreachable("x", stage="read"), TimedOut("x"), Unsure("x")])
def test_who_gave_no_answer(error: Exception) -> None:
    outcome = TargetOutcome("one", "ssh", "p", TargetStatus.FAILED, 1, errors=(error,))  # type: ignore[arg-type]
    assert (outcome.answered, outcome.asked) == (False, True)


@pytest.mark.parametrize(
    ("status", "notes", "asked"),
    [
        (TargetStatus.SKIPPED, (), False),
        (TargetStatus.INTERRUPTED, ("interrupted before it began",), False),
        (TargetStatus.CHANGED, (), True),
        (TargetStatus.REFUSED, (), True),
    ],
)
def test_who_was_not_asked(status: TargetStatus, notes: tuple[str, ...], asked: bool) -> None:
    outcome = TargetOutcome("one", "ssh", "p", status, 1, notes=notes)
    assert (outcome.answered, outcome.asked) == (True, asked)


@settings(deadline=None)
@given(
    before=st.sampled_from([0, 5, TOLD_BYTES - 9, KEPT_BYTES - 9, KEPT_BYTES + 8 * 1024 - 9]),
    filler=st.sampled_from(["x", "é", "\n", f"{SECRET}\n", f"{SECRET}\U0001f600"]),
    piece=st.sampled_from([1009, 4096, 65536, 10**9]),
    after=st.booleans(),
)
def test_no_part_of_a_secret_is_kept_or_told(before: int, filler: str, piece: int, after: bool) -> None:
    told: list[str] = []
    keeper = OutputKeeper(make_mask([SECRET]), lambda stream, text: told.append(text), OutputRoom())
    data = f"{filler * (before // len(filler.encode()))}{SECRET}{'tail' * 5000 if after else ''}".encode()
    for start in range(0, len(data), piece):
        keeper.hear("stdout", data[start : start + piece])
    result = keeper.result(0)
    for shown in (result.stdout, "".join(told)):
        assert SECRET[:12] not in shown
    assert len(result.stdout.encode()) <= KEPT_BYTES
    assert len("".join(told)) <= TOLD_BYTES + 50
    assert result.truncated is (len(data) > KEPT_BYTES + 8 * 1024)


def test_a_run_keeps_only_so_much_in_all() -> None:
    room = OutputRoom(100_000)
    sizes = []
    for _ in range(4):
        keeper = OutputKeeper(lambda text: text, lambda stream, text: None, room)
        keeper.hear("stdout", b"x" * 60_000)
        found = keeper.result(0)
        sizes.append((len(found.stdout), found.truncated))
    assert sizes == [(60_000, False), (40_000, True), (4096, True), (4096, True)]
