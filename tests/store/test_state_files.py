"""What release 0.1.0 kept in files beside the database is read into it once."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import msgspec
import pytest

from fazai.errors import StateError
from fazai.store.daemon import RunRecord
from fazai.store.factory import open_daemon_store
from fazai.store.sqlite.schema import FILE_NAME, MIGRATIONS

#: As 0.1.0 wrote them: a check that left a plan, and an approval of it that waits.
CHECKED = (
    '{"run_id":"01KANHC0E8M5T3W9Q7Z2R4V6XA","job":"edge","mode":"check","trigger":"api","by":"ann","asked":1.0,'
    '"limit":[],"reason":null,"started":1.0,"finished":2.0,"exit_code":2,"error":null,"plan_hash":"abc",'
    '"applies":null,"approved":3.0,"approved_by":"bob","approved_run":"01KANHC0E8M5T3W9Q7Z2R4V6XB"}'
)
WAITS = (
    '{"run_id":"01KANHC0E8M5T3W9Q7Z2R4V6XB","job":"edge","mode":"apply","trigger":"approval","by":"bob",'
    '"asked":3.0,"limit":[],"reason":null,"started":null,"finished":null,"exit_code":null,"error":null,'
    '"plan_hash":null,"applies":"01KANHC0E8M5T3W9Q7Z2R4V6XA","approved":null,"approved_by":null,'
    '"approved_run":null}'
)
CHECKED_ID, WAITS_ID = "01KANHC0E8M5T3W9Q7Z2R4V6XA", "01KANHC0E8M5T3W9Q7Z2R4V6XB"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A state folder of 0.1.0."""
    folder = tmp_path / "state"
    (folder / "runs").mkdir(mode=0o700, parents=True)
    with contextlib.closing(sqlite3.connect(folder / FILE_NAME)) as connection:
        for migration in MIGRATIONS[:3]:
            connection.executescript(migration)
        connection.execute("PRAGMA user_version = 3")
    (folder / "runs" / f"{CHECKED_ID}.json").write_text(CHECKED)
    (folder / "runs" / f"{CHECKED_ID}.plan").write_bytes(b"the plan")
    (folder / "runs" / f"{WAITS_ID}.json").write_text(WAITS)
    (folder / "schedule.json").write_text('{"edge":1700000000.5}')
    return folder


def test_files_of_an_earlier_release_are_read_once(old: Path) -> None:
    with contextlib.closing(open_daemon_store(old)) as store:
        checked, waits = asyncio.run(store.run_records())
        assert [checked, waits] == [msgspec.json.decode(text, type=RunRecord) for text in (CHECKED, WAITS)]
        assert (checked.approved_by, waits.applies) == ("bob", CHECKED_ID)
        assert asyncio.run(store.plan(CHECKED_ID)) == b"the plan"
        assert asyncio.run(store.began()) == {"edge": 1700000000.5}
        waits.started = 4.0
        asyncio.run(store.put_run_records([waits]))
        asyncio.run(store.put_began("edge", 1700000001.5))
    assert list((old / "runs").iterdir()) == []
    assert not (old / "schedule.json").exists()
    with contextlib.closing(open_daemon_store(old)) as store:
        assert asyncio.run(store.run_records()) == [checked, waits]


def test_files_that_are_read_a_second_time_change_nothing(old: Path) -> None:
    """A daemon was killed after it had read them, and before they were gone."""
    with contextlib.closing(open_daemon_store(old)) as store:
        checked, _ = asyncio.run(store.run_records())
        checked.approved_by = "eve"
        asyncio.run(store.put_run_records([checked]))
        asyncio.run(store.put_began("edge", 1700000001.5))
    (old / "runs" / f"{CHECKED_ID}.json").write_text(CHECKED)
    (old / "schedule.json").write_text('{"edge":1700000000.5}')
    with contextlib.closing(open_daemon_store(old)) as store:
        assert asyncio.run(store.run_records())[0].approved_by == "eve"
        assert asyncio.run(store.plan(CHECKED_ID)) == b"the plan"
        assert asyncio.run(store.began()) == {"edge": 1700000001.5}


def test_a_plan_that_a_run_still_writes_is_left_to_it(old: Path) -> None:
    goes_on = CHECKED.replace('"exit_code":2', '"exit_code":null').replace('"abc"', "null")
    (old / "runs" / f"{CHECKED_ID}.json").write_text(goes_on)
    with contextlib.closing(open_daemon_store(old)) as store:
        assert asyncio.run(store.plan(CHECKED_ID)) is None
    assert (old / "runs" / f"{CHECKED_ID}.plan").exists()


def test_a_record_that_cannot_be_read_is_named_and_nothing_is_lost(old: Path) -> None:
    (old / "runs" / "x.json").write_text('{"run_id":')
    for _ in range(2):
        with pytest.raises(StateError, match=r"x\.json cannot be read: .*the plan in it is lost"):
            open_daemon_store(old)
    assert len(list((old / "runs").iterdir())) == 4
    (old / "runs" / "x.json").unlink()
    with contextlib.closing(open_daemon_store(old)) as store:
        assert len(asyncio.run(store.run_records())) == 2


def test_a_damaged_schedule_makes_every_job_due(old: Path) -> None:
    (old / "schedule.json").write_text("{")
    with contextlib.closing(open_daemon_store(old)) as store:
        assert asyncio.run(store.began()) == {}
