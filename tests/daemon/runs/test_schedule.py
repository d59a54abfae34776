"""The timetable with clocks of the test's own; and the schedule of a daemon."""

from __future__ import annotations

import asyncio
from contextlib import closing
from dataclasses import fields
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from fazai.cli.main import main
from fazai.daemon.runs.config import GemmaLimits, Polling, Retention
from fazai.daemon.runs.config_file import read_daemon_config
from fazai.daemon.runs.records import RunRecords
from fazai.daemon.runs.schedule import Rhythm, Timetable, Window
from fazai.errors import Errors, FazaiError
from fazai.inventory import Inventory, load_inventory
from fazai.store.base import Run, TargetState
from fazai.store.daemon import RunRecord, StoreLimits
from fazai.store.sqlite.daemon import SqliteDaemonStore
from fazai.store.sqlite.ledger import SqliteStore
from fazai.yamltext import YamlMap, load_yaml
from tests.daemon.live import until
from tests.daemon.runs_world import world

ROOT = Path(__file__).parents[3]
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
    made.add_jobs({"edge": rhythm}, clocks.now_s, clocks.wall, {} if last is None else {"edge": last})
    return made


def runs(clocks: Clocks, made: Timetable, seconds: int, step_s: int = 10) -> list[float]:
    """When it was due, in seconds from now."""
    began, found = clocks.now_s, []
    for _ in range(0, seconds, step_s):
        found += [clocks.now_s - began for _ in made.take_due(clocks.now_s, clocks.wall)]
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
    assert made.take_due(clocks.now_s, clocks.wall) == ["edge"]
    clocks.step(5 * 900)
    assert made.take_due(clocks.now_s, clocks.wall, busy={"edge"}) == []
    assert made.take_due(clocks.now_s, clocks.wall) == ["edge"]
    assert made.take_due(clocks.now_s, clocks.wall) == []
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


#: Windows of Europe/Berlin, and when they are open (UTC) on the nights in which clocks change.
SPRING = {  # 28 March 2027: 01:00Z is 03:00, one hour there is not
    ("02:30", "02:45"): ("01:00", "01:15"),
    ("02:30", "04:00"): ("01:00", "02:00"),
    ("01:30", "02:30"): ("00:30", "01:00"),
    ("01:00", "05:00"): ("00:00", "03:00"),
    ("02:00", "03:00"): ("01:00", "02:00"),
    ("03:00", "03:30"): ("01:00", "01:30"),
}
AUTUMN = {  # 31 October 2027: 02:00 to 03:00 comes twice, from 00:00Z and from 01:00Z
    ("02:30", "02:45"): ("00:30", "00:45"),
    ("02:30", "04:00"): ("00:30", "03:00"),
    ("01:30", "02:30"): ("23:30", "00:30"),
    ("01:00", "05:00"): ("23:00", "04:00"),
    ("03:00", "03:30"): ("02:00", "02:30"),
}
NIGHTS = [(date(2027, 3, 28), *row) for row in SPRING.items()]
NIGHTS += [(date(2027, 10, 31), *row) for row in AUTUMN.items()]


@pytest.mark.parametrize(("day", "window", "wanted"), NIGHTS)
def test_windows_in_the_nights_in_which_clocks_change(
    day: date, window: tuple[str, str], wanted: tuple[str, str]
) -> None:
    begin, end = (time.fromisoformat(text) for text in window)
    rhythm = Rhythm(60, windows=(Window(begin, end),), zone=ZoneInfo("Europe/Berlin"))
    noon = datetime.combine(day - timedelta(days=1), time(12), UTC)
    minutes = [noon + timedelta(minutes=n) for n in range(24 * 60)]
    opened = [one for one in minutes if rhythm.open_at(one)]
    assert opened, "the night is skipped"
    assert len(opened) == (opened[-1] - opened[0]).total_seconds() // 60 + 1, "it opens twice"
    assert f"{opened[0]:%H:%M}" == wanted[0]
    assert f"{opened[-1] + timedelta(minutes=1):%H:%M}" == wanted[1]
    assert rhythm.next_open(noon) == opened[0]  # what `next_at` says, it is open at
    clocks = Clocks()
    clocks.wall = noon
    made = table(clocks, rhythm)
    assert made.next_at("edge", clocks.now_s, clocks.wall) == opened[0]


def test_a_night_that_was_skipped() -> None:
    rhythm = Rhythm(60, windows=(Window(time(2, 30), time(2, 45)),), zone=ZoneInfo("Europe/Berlin"))
    found = rhythm.next_open(datetime(2027, 3, 28, 0, 30, tzinfo=UTC))
    assert found == datetime(2027, 3, 28, 1, 0, tzinfo=UTC)
    assert rhythm.open_at(found)


def test_a_restart_neither_repeats_nor_forgets() -> None:
    clocks = Clocks()
    soon = table(clocks, Rhythm(900), last=clocks.wall.timestamp() - 600)
    assert runs(clocks, soon, 900) == [300]
    late = table(clocks, Rhythm(900), last=clocks.wall.timestamp() - 86400)
    assert runs(clocks, late, 100) == [0]
    future = table(clocks, Rhythm(900), last=clocks.wall.timestamp() + 86400 * 365)
    assert runs(clocks, future, 1000) == [900]


def test_the_daemon_runs_its_schedule(tmp_path: Path) -> None:
    with closing(SqliteDaemonStore(tmp_path / "state")) as store:
        asyncio.run(store.put_began("edge", 1.0))  # long ago, so it is due now
    with world(tmp_path, job={"schedule": {"every": "1h", "jitter": "1s"}}) as edge:
        (job,) = edge.client.get("/runs/schedule").json()["jobs"]
        assert (job["every_s"], job["mode"], job["modes"]) == (3600.0, "check", ["check", "approve", "apply"])
        run_queue = edge.daemon.services.run_queue
        until(lambda: any(record.exit_code is not None for record in run_queue.records))
        record = next(iter(run_queue.records))
        assert (record.trigger, record.exit_code) == ("schedule", 2)
        (job,) = edge.client.get("/runs/schedule").json()["jobs"]
        assert job["pending_plan"] is not None
        assert datetime.fromisoformat(job["next_at"]) > datetime.fromtimestamp(record.asked, UTC)
    with closing(SqliteDaemonStore(tmp_path / "state")) as store:
        assert asyncio.run(store.began())["edge"] >= record.asked


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
    found = read_daemon_config(path)
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
        read_daemon_config(path)
        return
    with pytest.raises(FazaiError) as caught:
        read_daemon_config(path)
    errors = caught.value.errors if isinstance(caught.value, Errors) else (caught.value,)
    said = [str(error) for error in errors]
    assert any(f"daemon.yml:{line}:" in one and text in one for one in said), said


def test_all_that_is_wrong_with_a_schedule_is_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "daemon.yml"
    path.write_text(CONFIG.replace("every: 15m", "every: 1s").replace("jitter: 1m", "jitter: soon"))
    with pytest.raises(Errors) as caught:
        read_daemon_config(path)
    assert [str(error).partition("daemon.yml:")[2][:24] for error in caught.value.errors] == [
        "10:14: every is at least",
        "11:15: jitter is a time ",
    ]


def test_the_example_is_read() -> None:
    found = read_daemon_config(Path(__file__).parents[3] / "deploy" / "daemon.yml")
    assert set(found.jobs) == {"edge", "night", "attackers"}
    assert [name for name, job in found.jobs.items() if job.entries] == ["attackers"]
    assert found.jobs["night"].schedule is not None
    rhythm = found.jobs["night"].schedule.rhythm
    assert rhythm.open_at(datetime(2026, 11, 21, 12, 0, tzinfo=UTC))  # a Saturday
    assert not rhythm.open_at(datetime(2026, 11, 20, 12, 0, tzinfo=UTC))


def test_how_long_things_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "daemon.yml"
    path.write_text(
        "retention:\n  events: {age: 7d12h, size: 64MiB}\n  telemetry: {size: 2GB}\n"
        "  hosts: 90d\n  runs: 20\n  ledger: 100\n  deliveries: 30d\n"
        "  targets: 36h\n  compaction: {every: 5m, index: 5000}\ngemma: {sessions: 8, idle: 90s}\n"
    )
    found = read_daemon_config(path).retention
    assert (found.events_s, found.events_bytes) == (7.5 * 86400, 64 << 20)
    assert (found.telemetry_s, found.telemetry_bytes) == (30 * 86400.0, 2 << 30)
    assert (found.hosts_s, found.runs, found.ledger) == (90 * 86400.0, 20, 100)
    assert (found.deliveries_s, Retention().deliveries_s) == (30 * 86400.0, 400 * 86400.0)
    assert (found.targets_s, found.compact_every_s, found.index_records) == (1.5 * 86400, 300.0, 5000)
    assert read_daemon_config(path).gemma == GemmaLimits(sessions=8, idle_s=90.0)


def test_the_sample_names_every_limit_with_its_default() -> None:
    sample = ROOT / "deploy/daemon.yml"
    found = read_daemon_config(sample)
    assert (found.retention, found.gemma, found.polling) == (Retention(), GemmaLimits(), Polling())
    node = load_yaml(sample, what="configuration")
    assert isinstance(node, YamlMap)
    for section, limits in (("retention", Retention()), ("gemma", GemmaLimits()), ("opnsense", Polling())):
        keys = [len(value) if isinstance(value, YamlMap) else 1 for value in node[section].values()]
        assert sum(keys) == len(fields(limits)), section


def test_the_store_keeps_to_the_configuration(tmp_path: Path) -> None:
    """Each limit of the store is one of the configuration: none has a value that nobody can set."""
    path = tmp_path / "daemon.yml"
    path.write_text(
        "retention:\n  events: {age: 1d, size: 1MiB}\n  telemetry: {age: 2d, size: 2MiB}\n  ledger: 10\n"
        "  targets: 3d\n  compaction: {every: 4s, index: 5000}\n  actions: {age: 5d, size: 3MiB}\n"
    )
    day_s, kept = 86400.0, read_daemon_config(path).retention.store_limits()
    assert kept == StoreLimits(
        *(1 << 20, day_s, 2 << 20, 2 * day_s, 4.0, 10, 3 * day_s, 5000, 5 * day_s, 3 << 20)
    )
    assert Retention().store_limits() == StoreLimits()
    assert not [each for each in fields(kept) if getattr(kept, each.name) == each.default]


def test_things_can_be_kept_for_as_long_as_they_are_by_default_and_longer(tmp_path: Path) -> None:
    path = tmp_path / "daemon.yml"
    for days in (400, 3660):
        path.write_text(
            f"retention:\n  events: {{age: {days}d}}\n  telemetry: {{age: {days}d}}\n  hosts: {days}d\n"
            f"  deliveries: {days}d\n  targets: {days}d\n"
        )
        found = read_daemon_config(path).retention
        ages = {found.events_s, found.telemetry_s, found.hosts_s, found.deliveries_s, found.targets_s}
        assert ages == {days * 86400.0}


@pytest.mark.parametrize(
    ("section", "line", "said"),
    [
        ("retention", "events: {age: 0s}", "age is a time such as 90s, 15m, 1h30m or 30d, not '0s'"),
        ("retention", "events: {size: 256}", "size is a size such as 256MiB or 8GiB, not 256"),
        ("retention", "telemetry: {size: 1KiB}", "size is a size such as 256MiB or 8GiB, not '1KiB'"),
        ("retention", "telemetry: 30d", "telemetry is a mapping"),
        ("retention", "runs: 1", "runs is a number from 10 to 1000000"),
        ("retention", "ledger: yes", "ledger is a number from 10 to 1000000"),
        ("retention", "deliveries: 10m", "deliveries is a day at least, such as 30d, not '10m'"),
        ("retention", "deliveries: 3661d", "deliveries is at most 3660d, not '3661d'"),
        ("retention", "hosts: 3661d", "hosts is at most 3660d, not '3661d'"),
        ("retention", "events: {age: 3661d}", "age is at most 3660d, not '3661d'"),
        ("retention", "host: 30d", "retention knows no 'host'"),
        ("retention", "targets: 12h", "targets is a day at least, such as 30d, not '12h'"),
        ("retention", "targets: 3661d", "targets is at most 3660d, not '3661d'"),
        ("retention", "targets: 90", "targets is a time such as 90s, 15m, 1h30m or 30d, not 90"),
        ("retention", "compaction: 30s", "compaction is a mapping"),
        ("retention", "compaction: {every: 2h}", "every is at most 1h, not '2h'"),
        ("retention", "compaction: {every: 0s}", "every is a time such as 90s, 15m, 1h30m or 30d, not '0s'"),
        ("retention", "compaction: {index: 999}", "index is a number from 1000 to 10000000"),
        ("retention", "compaction: {indices: 1000}", "retention.compaction knows no 'indices'"),
        ("gemma", "sessions: 0", "sessions is a number from 1 to 1000"),
        ("gemma", "sessions: many", "sessions is a number from 1 to 1000"),
        ("gemma", "idle: 1800", "idle is a time such as 90s, 15m, 1h30m or 30d, not 1800"),
        ("gemma", "idle: 367d", "idle is at most 366d, not '367d'"),
        ("gemma", "idles: 30m", "gemma knows no 'idles'"),
    ],
)
def test_what_is_wrong_with_a_limit_has_its_place(tmp_path: Path, section: str, line: str, said: str) -> None:
    path = tmp_path / "daemon.yml"
    path.write_text(f"{section}:\n  {line}\n")
    with pytest.raises(FazaiError) as caught:
        read_daemon_config(path)
    assert said in str(caught.value)
    assert "daemon.yml:2:" in str(caught.value)


def test_the_ledger_forgets_targets_after_the_time_that_it_was_told(tmp_path: Path) -> None:
    now = [1e9]
    store = SqliteStore(tmp_path, targets_age_s=100.0, clock=lambda: now[0])

    async def end(number: int) -> list[str]:
        run_id = f"01KANHC0E8M5T3W9Q7Z2R4V6{number:02d}"
        await store.run_begin(Run(run_id, "apply", (), "root", "h", 1, now[0]))
        store.ended(f"t{number}", TargetState("changed", 0, run_id, now[0]), f"box{number}")
        await store.run_end(run_id, 0, {})
        return [*await store.targets(), *await store.names("box1")]

    assert asyncio.run(end(1)) == ["t1", "t1"]
    now[0] += 100.0
    assert asyncio.run(end(2)) == ["t1", "t2", "t1"]
    now[0] += 1.0
    assert asyncio.run(end(3)) == ["t2", "t3"]
    store.close()


def test_the_ledger_keeps_as_many_runs_as_it_was_told(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, keep_runs=10)

    async def fill() -> None:
        for number in range(13):
            run_id = f"01KANHC0E8M5T3W9Q7Z2R4V6{number:02d}"
            await store.run_begin(Run(run_id, "apply", (), "root", "h", 1, float(number)))
            await store.run_end(run_id, 0, {})

    asyncio.run(fill())
    assert len(asyncio.run(store.history(100))) == 10
    store.close()


def test_the_daemon_keeps_as_many_runs_as_it_was_told(tmp_path: Path) -> None:
    async def fill(records: RunRecords) -> None:
        for number in range(13):
            run_id = f"01KANHC0E8M5T3W9Q7Z2R4V6{number:02d}"
            one = RunRecord(
                run_id=run_id, job="edge", mode="check", trigger="api", by="x", asked=1.0, finished=2.0
            )
            await records.save(one)

    with closing(SqliteDaemonStore(tmp_path / "state")) as store:
        records = RunRecords(store, tmp_path / "state" / "runs", keep=10)
        asyncio.run(fill(records))
        stored = [one.run_id for one in asyncio.run(store.run_records())]
        assert stored == [one.run_id for one in records][::-1]
        assert len(stored) == 10


MISSING = [
    (
        "inventory: inventory.yml",
        "inventory: inventry.yml",
        3,
        "inventory names {}/inventry.yml, and there is",
    ),
    ("playbook: edge.yml", "playbook: edgy.yml", 4, "playbook names {}/edgy.yml, and there is no such file"),
    ("limit: edge", "limit: egde", 5, 'limit: the pattern "egde" matches no group and no host'),
    ("limit: edge", "limit: [edge, '!edge']", 5, "leaves no host"),
    ("secret_file: hook", "secret_file: hok", 9, "secret_file names {}/hok, and there is no such file"),
]


@pytest.mark.parametrize(("old", "new", "line", "said"), MISSING)
def test_the_daemon_does_not_start_with_what_is_not_there(
    tmp_path: Path,
    old: str,
    new: str,
    line: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The whole command: exit 3, with the place."""
    text = (
        "runs:\n  edge:\n    inventory: inventory.yml\n    playbook: edge.yml\n    limit: edge\n"
        "webhooks:\n  git:\n    host: gitea\n    secret_file: hook\n    playbook: edge\n"
    )
    hosts = (
        "all: {children: {edge: {hosts: {h1: {provider: local}}}, core: {hosts: {h2: {provider: local}}}}}\n"
    )
    (tmp_path / "inventory.yml").write_text(hosts)
    (tmp_path / "edge.yml").write_text("- {name: edge, hosts: edge, resources: []}\n")
    (tmp_path / "hook").write_text("x" * 32)
    config = tmp_path / "daemon.yml"
    config.write_text(text)

    def loaded(sources: tuple[str, ...]) -> Inventory:
        return load_inventory(sources)

    assert read_daemon_config(config, loaded).jobs["edge"].limit == ("edge",)
    config.write_text(text.replace(old, new, 1))
    for name in ("HOME", "FAZAI_STATE_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    code, err = main(["daemon", "--port", "0", "--config", str(config)]), capsys.readouterr().err
    assert code == 3, err
    assert f"{config}:{line}:" in err
    assert said.format(tmp_path) in err
