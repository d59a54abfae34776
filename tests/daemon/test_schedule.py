"""The timetable with clocks of the test's own; and the schedule of a daemon."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from fazai.daemon.configfile import read_config
from fazai.daemon.timing import Rhythm, Timetable, Window
from fazai.errors import Errors, FazaiError
from tests.daemon.live import until
from tests.daemon.runs_world import world

SUNDAY = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class Clocks:
    """The wall clock can jump, the other cannot."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.wall = SUNDAY

    def step(self, seconds: float) -> None:
        self.now_s += seconds
        self.wall += timedelta(seconds=seconds)


def table(clocks: Clocks, rhythm: Rhythm, chance: float = 0.0, last: float | None = None) -> Timetable:
    made = Timetable(lambda: chance)
    made.begin({"edge": rhythm}, clocks.now_s, clocks.wall, {} if last is None else {"edge": last})
    return made


def runs(clocks: Clocks, made: Timetable, seconds: int, step_s: int = 10) -> list[float]:
    """When it was due, in seconds from now."""
    began, found = clocks.now_s, []
    for _ in range(0, seconds, step_s):
        found += [clocks.now_s - began for _ in made.due(clocks.now_s, clocks.wall)]
        clocks.step(step_s)
    return found


def test_every_15_minutes() -> None:
    clocks = Clocks()
    assert runs(clocks, table(clocks, Rhythm(900)), 3600) == [0, 900, 1800, 2700]


def test_jitter_is_added_and_the_first_run_is_spread() -> None:
    clocks = Clocks()
    assert runs(clocks, table(clocks, Rhythm(900, 60), chance=0.5), 3600) == [30, 960, 1890, 2820]


def test_a_wall_clock_that_jumps_neither_repeats_nor_skips() -> None:
    clocks = Clocks()
    made = table(clocks, Rhythm(900))
    assert runs(clocks, made, 1000) == [0, 900]
    for jump in (timedelta(days=-3), timedelta(days=400)):
        clocks.wall += jump
        assert runs(clocks, made, 900) == [800]


def test_what_was_missed_is_made_up_for_once() -> None:
    clocks = Clocks()
    made = table(clocks, Rhythm(900))
    assert made.due(clocks.now_s, clocks.wall) == ["edge"]
    clocks.step(5 * 900)
    assert made.due(clocks.now_s, clocks.wall, busy={"edge"}) == []
    assert made.due(clocks.now_s, clocks.wall) == ["edge"]
    assert made.due(clocks.now_s, clocks.wall) == []
    assert runs(clocks, made, 1000) == [900]


def test_a_closed_window_delays_to_its_opening() -> None:
    clocks = Clocks()
    night = Window(time(1, 0), time(5, 0), frozenset(range(5)))
    made = table(clocks, Rhythm(3600, windows=(night,)))
    assert made.next_at("edge", clocks.now_s, clocks.wall) == datetime(2026, 11, 23, 1, 0, tzinfo=UTC)
    found = runs(clocks, made, 24 * 3600, 600)
    assert found == [13 * 3600 + hour * 3600 for hour in range(4)]


@pytest.mark.parametrize(
    ("moment", "open_"),
    [
        ((2026, 11, 20, 23, 30), True),  # Friday night
        ((2026, 11, 21, 3, 59), True),  # still the window that Friday opened
        ((2026, 11, 21, 4, 0), False),
        ((2026, 11, 21, 23, 0), False),  # Saturday's never opens
    ],
)
def test_a_window_over_midnight_belongs_to_the_day_of_its_beginning(
    moment: tuple[int, int, int, int, int], open_: bool
) -> None:
    window = Window(time(22, 0), time(4, 0), frozenset({4}))
    assert Rhythm(60, windows=(window,)).open_at(datetime(*moment, tzinfo=UTC)) is open_


def test_windows_are_of_their_zone_over_a_change_of_the_clocks() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    rhythm = Rhythm(60, windows=(Window(time(2, 30), time(4, 0)),), zone=berlin)
    # on 29 March 2026 there is no 02:30; at 03:00 of the new time the window is open
    assert not rhythm.open_at(datetime(2026, 3, 29, 0, 59, tzinfo=UTC))
    assert rhythm.open_at(datetime(2026, 3, 29, 1, 0, tzinfo=UTC))
    assert not rhythm.open_at(datetime(2026, 3, 29, 2, 0, tzinfo=UTC))
    opens = rhythm.next_open(datetime(2026, 3, 28, 12, 0, tzinfo=UTC))
    assert opens is not None
    assert opens.date().isoformat() == "2026-03-29"


def test_a_restart_neither_repeats_nor_forgets() -> None:
    clocks = Clocks()
    soon = table(clocks, Rhythm(900), last=clocks.wall.timestamp() - 600)
    assert runs(clocks, soon, 900) == [300]
    late = table(clocks, Rhythm(900), last=clocks.wall.timestamp() - 86400)
    assert runs(clocks, late, 100) == [0]
    future = table(clocks, Rhythm(900), last=clocks.wall.timestamp() + 86400 * 365)
    assert runs(clocks, future, 1000) == [900]


def test_the_daemon_runs_its_schedule(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "schedule.json").write_text('{"edge": 1}')  # long ago, so it is due now
    with world(tmp_path, job={"schedule": {"every": "1h", "jitter": "1s"}}) as edge:
        (job,) = edge.client.get("/runs/schedule").json()["jobs"]
        assert (job["every_s"], job["mode"], job["modes"]) == (3600.0, "check", ["check", "approve", "apply"])
        desk = edge.daemon.services.runs
        until(lambda: any(record.exit_code is not None for record in desk.records))
        record = next(iter(desk.records))
        assert (record.trigger, record.exit_code) == ("schedule", 2)
        (job,) = edge.client.get("/runs/schedule").json()["jobs"]
        assert job["pending_plan"] is not None
        assert datetime.fromisoformat(job["next_at"]) > datetime.fromtimestamp(record.asked, UTC)
    assert "edge" in (tmp_path / "state" / "schedule.json").read_text()


CONFIG = """\
runs:
  edge:
    inventory: inventory.yml
    playbook: [edge.yml]
    limit: edge
    modes: [check, apply]
    timeout: 30m
    environment: [EDGE_PASSWORD]
    schedule:
      every: 15m
      jitter: 1m
      mode: apply
      timezone: Europe/Berlin
      windows:
        - {days: [mon-wed, fri], from: "01:30", to: 10:30}
webhooks:
  git:
    host: gitea
    secret_file: secrets/hook
    playbook: edge
    mode: apply
    branch: main
opnsense: {poll: 2m, at_once: 64, timeout: 5s}
"""


def test_a_configuration_is_read(tmp_path: Path) -> None:
    path = tmp_path / "daemon.yml"
    path.write_text(CONFIG)
    found = read_config(path)
    job = found.jobs["edge"]
    assert job.inventory == (str(tmp_path / "inventory.yml"),)
    assert (job.modes, job.timeout_s, job.environment) == (("check", "apply"), 1800.0, ("EDGE_PASSWORD",))
    assert job.schedule is not None
    (window,) = job.schedule.rhythm.windows
    assert str(window) == "mon,tue,wed,fri 01:30-10:30"
    assert found.hooks[0].secret_file == tmp_path / "secrets" / "hook"
    assert (found.polling.every_s, found.polling.at_once) == (120.0, 64)


@pytest.mark.parametrize(
    ("old", "new", "line", "text"),
    [
        ("runs:", "rums:", 1, "knows no 'rums'"),
        ("    limit: edge", "    limits: edge", 5, "knows no 'limits'"),
        ("[check, apply]", "[check, aply]", 6, "is one of check, approve, apply"),
        ("every: 15m", "every: 15", 10, "is a time such as"),
        ("every: 15m", "every: 1s", 10, "at least 10s"),
        ("mode: apply\n      timezone", "mode: check\n      timezone", 12, ""),
        ("Europe/Berlin", "Mars/Base", 13, "is not known"),
        ("mon-wed", "mon-wex", 15, "has no day"),
        ("10:30", '"25:00"', 15, "is a time of day"),
        ("host: gitea", "host: gitee", 18, "is one of github, gitlab, gitea"),
        ("playbook: edge\n", "playbook: edg\n", 20, "has no 'edg'"),
        ("modes: [check, apply]", "modes: [apply]", 6, ""),
        ("at_once: 64", "at_once: 0", 23, "is a number from 1 to 1000"),
        ("[EDGE_PASSWORD]", "['A=b']", 8, "is none"),
        ("    inventory: inventory.yml\n", "", 3, "needs inventory"),
    ],
)
def test_what_is_wrong_has_its_place(tmp_path: Path, old: str, new: str, line: int, text: str) -> None:
    path = tmp_path / "daemon.yml"
    assert old in CONFIG
    path.write_text(CONFIG.replace(old, new, 1))
    if not text:
        read_config(path)
        return
    with pytest.raises(FazaiError) as caught:
        read_config(path)
    errors = caught.value.errors if isinstance(caught.value, Errors) else (caught.value,)
    said = [str(error) for error in errors]
    assert any(f"daemon.yml:{line}:" in one and text in one for one in said), said


def test_the_example_is_read() -> None:
    found = read_config(Path(__file__).parents[2] / "deploy" / "daemon.yml")
    assert set(found.jobs) == {"edge", "night"}
    assert found.jobs["night"].schedule is not None
    rhythm = found.jobs["night"].schedule.rhythm
    assert rhythm.open_at(datetime(2026, 11, 21, 12, 0, tzinfo=UTC))  # a Saturday
    assert not rhythm.open_at(datetime(2026, 11, 20, 12, 0, tzinfo=UTC))
