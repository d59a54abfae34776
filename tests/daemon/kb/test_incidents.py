"""Runs leave notes by themselves: what changed, what was seen before and after; none of converged targets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fazai.outcome import TargetStatus
from fazai.timestamps import utc_now
from fazai.wire.events import ChangeEvent, Event, OutcomeEvent, RunEvent
from tests.daemon.live import Live, live, until


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Live]:
    with live(tmp_path) as found:
        yield found


def run_began(run: str, command: str = "apply") -> RunEvent:
    return RunEvent(timestamp=utc_now(), run_id=run, state="started", command=command)


def change(run: str, target: str, **more: Any) -> ChangeEvent:
    given: dict[str, Any] = {
        "kind": "opnsense.alias",
        "identity": "blocklist",
        "verb": "update",
        "before": {"content": ["192.0.2.1"]},
        "after": {"content": ["192.0.2.1", "198.51.100.7"]},
        "status": "done",
    }
    return ChangeEvent(timestamp=utc_now(), run_id=run, target=target, **{**given, **more})


def outcome(run: str, target: str, status: str, **more: Any) -> OutcomeEvent:
    return OutcomeEvent(timestamp=utc_now(), run_id=run, target=target, status=TargetStatus(status), **more)


def notes(daemon: Live) -> list[dict[str, Any]]:
    with daemon.client() as client:
        found: list[dict[str, Any]] = client.get("/kb/export").json()["notes"]
    return found


def noted(daemon: Live, *events: Event, count: int) -> list[dict[str, Any]]:
    """Publishes, and a last run whose note comes after all of theirs; returns the notes but that one."""
    daemon.publish(*events, run_began("LAST"), outcome("LAST", "last", "failed", errors=("the end",)))
    until(lambda: any(note.get("target") == "last" for note in notes(daemon)))
    found = [note for note in notes(daemon) if note.get("target") != "last"]
    assert len(found) == count, found
    return found


def test_a_change_is_noted_with_what_was_seen_before_and_after(daemon: Live) -> None:
    (note,) = noted(
        daemon, run_began("R1"), change("R1", "fw-01"), outcome("R1", "fw-01", "changed"), count=1
    )
    assert (note["title"], note["target"], note["run_id"]) == ("fw-01 changed", "fw-01", "R1")
    assert (note["origin"], note["status"], note["tags"]) == (
        "run",
        "unverified",
        ["changed", "opnsense.alias"],
    )
    assert note["text"] == (
        'update opnsense.alias blocklist: done\n  content: ["192.0.2.1"] -> ["192.0.2.1","198.51.100.7"]'
    )


def test_a_converged_target_leaves_nothing(daemon: Live) -> None:
    quiet = [outcome("R1", "fw-01", status) for status in ("converged", "skipped", "locked", "interrupted")]
    noted(daemon, run_began("R1"), *quiet, count=0)


def test_what_a_program_did_is_not_noted(daemon: Live) -> None:
    noted(daemon, run_began("R1", "exec"), outcome("R1", "web-1", "failed", errors=("exit 1",)), count=0)


def test_the_same_again_is_one_note(daemon: Live) -> None:
    events: list[Event] = []
    for run in ("R1", "R2", "R3"):
        events += [
            run_began(run, "drift"),
            change(run, "fw-01", status="planned"),
            outcome(run, "fw-01", "pending"),
        ]
    (note,) = noted(daemon, *events, count=1)
    assert (note["written"], note["run_id"]) == (3, "R1")
    assert note["title"] == "fw-01 differs from what is declared"


def test_a_note_is_bounded(daemon: Live) -> None:
    many = [change("R1", "fw-01", identity=f"item {n}", after={"x": "y" * 5000}) for n in range(300)]
    errors = tuple("e" * 9000 for _ in range(50))
    (note,) = noted(daemon, run_began("R1"), *many, outcome("R1", "fw-01", "failed", errors=errors), count=1)
    assert "and more changes" in note["text"]
    assert len(note["text"]) < 16_000


def test_a_target_that_fails_differently_each_time_fills_nothing(daemon: Live) -> None:
    events: list[Event] = [run_began("R1")]
    events += [outcome("R1", "fw-01", "failed", errors=(f"after {n} s",)) for n in range(30)]
    assert len(noted(daemon, *events, count=12)) == 12
    assert "runs on fw-01 are not noted for an hour" in daemon.log()


def test_a_secret_in_an_error_is_not_noted(tmp_path: Path) -> None:
    secret = tmp_path / "secrets" / "fw.json"
    secret.parent.mkdir(mode=0o700)
    secret.write_text('{"api_key": "k-Zx81hQ", "api_secret": "Vq93.sTTe"}')
    with live(tmp_path) as daemon:
        errors = ("it answered: key k-Zx81hQ, secret Vq93.sTTe",)
        (note,) = noted(daemon, run_began("R1"), outcome("R1", "fw-01", "failed", errors=errors), count=1)
    assert "Zx81" not in note["text"]
    assert "sTTe" not in note["text"]


def test_notes_of_runs_are_found(daemon: Live) -> None:
    noted(daemon, run_began("R1"), change("R1", "fw-01"), outcome("R1", "fw-01", "changed"), count=1)
    client: httpx.Client
    with daemon.client() as client:
        (doc,) = client.get("/kb/search", params={"q": "o que mudou com 198.51.100.7 no fw-01"}).json()[
            "docs"
        ]
    assert (doc["origin"], doc["target"]) == ("run", "fw-01")
