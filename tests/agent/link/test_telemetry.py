"""Telemetry over the agent's own connection: each record once, in order, whatever happens in between."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fazai.agent.telemetry import SEGMENT_RECORDS, Spool
from fazai.wire.base import convert_to
from fazai.wire.telemetry import TelemetryRecord
from tests.agent.link.conftest import Agent
from tests.agent.link.daemon import Daemon, Peer

FAST = "telemetry: {interval: 0.2, jitter_percent: 0, sample: [uptime, cpu, mem], checks_dir: /nowhere}\n"


def _push(peer: Peer) -> dict[str, Any]:
    request = peer.receive()
    assert request["method"] == "telemetry.push"
    return request


def _take(peer: Peer, count: int) -> list[dict[str, Any]]:
    found = []
    for _ in range(count):
        request = _push(peer)
        found.append(request["payload"])
        peer.send({"ok": True, "action_id": request["action_id"]})
    return found


def test_records_come_in_order_and_once(agent: Agent, daemon: Daemon) -> None:
    agent.configure(f"wss://localhost:{daemon.port}", more=FAST)
    agent.start()
    peer = daemon.accept()
    peer.hello()
    found = _take(peer, 4)
    stamps = [record["timestamp"] for record in found]
    assert stamps == sorted(set(stamps))
    assert [record["agent"]["seq"] for record in found] == [1, 2, 3, 4]
    assert {record["hostname"] for record in found} == {"edge-7"}
    for record in found:
        assert {"uptime", "cpu", "mem"} <= set(record)
        assert "top" not in record
        convert_to(record, TelemetryRecord)
    assert found[0]["cpu"]["window_s"] > 10 * found[1]["cpu"]["window_s"]  # rates since the sample before


def test_what_was_not_answered_is_sent_again(agent: Agent, daemon: Daemon) -> None:
    """The connection ends, then the process: nothing is lost, nothing comes out of order."""
    agent.configure(f"wss://localhost:{daemon.port}", more=FAST)
    agent.start()
    peer = daemon.accept()
    peer.hello()
    first = _take(peer, 1)
    unanswered = _push(peer)
    peer.close()
    second = daemon.accept()
    second.hello()
    again = _push(second)
    assert (again["action_id"], again["payload"]) == (unanswered["action_id"], unanswered["payload"])
    agent.kill()
    second.close()
    agent.start()
    third = daemon.accept()
    third.hello()
    found = _take(third, 3)
    assert found[0] == unanswered["payload"]
    numbers = [record["agent"]["seq"] for record in [*first, *found]]
    assert numbers == sorted(set(numbers))  # they go on where the process before ended
    stamps = [record["timestamp"] for record in [*first, *found]]
    assert stamps == sorted(set(stamps))


@pytest.mark.slow
def test_a_refused_record_is_given_up_with_a_reason_and_a_busy_daemon_is_asked_again(
    agent: Agent, daemon: Daemon
) -> None:
    agent.configure(f"wss://localhost:{daemon.port}", more=FAST)
    agent.start()
    peer = daemon.accept()
    peer.hello()
    refused = _push(peer)
    error = {"ok": False, "code": "bad_request", "error": "`cpu.percent`: expected a number"}
    peer.send({**error, "action_id": refused["action_id"]})
    second = _push(peer)
    assert second["payload"]["timestamp"] > refused["payload"]["timestamp"]
    peer.send({"ok": True, "action_id": second["action_id"]})
    third = _take(peer, 1)[0]
    assert third["agent"]["refused"] == 1
    assert third["agent"]["last_error"].startswith("a record was refused by the daemon: `cpu.percent`")
    agent.wait_said("telemetry: a record was refused by the daemon: `cpu.percent`: expected a number")
    busy = _push(peer)
    peer.send({"ok": False, "code": "overloaded", "error": "later", "action_id": busy["action_id"]})
    again = _push(peer)
    assert again["payload"] == busy["payload"]


def test_actions_go_on_while_a_sample_is_taken(agent: Agent, daemon: Daemon, tmp_path: Path) -> None:
    checks = tmp_path / "checks.d"
    checks.mkdir()
    slow = checks / "slow"
    slow.write_text("#!/bin/sh\nsleep 2\necho fine\n")
    slow.chmod(0o755)
    more = (
        f"telemetry: {{interval: 600, sample: [checks, uptime], checks_dir: {checks}, check_timeout: 60}}\n"
    )
    agent.configure(f"wss://localhost:{daemon.port}", more=more)
    agent.start()
    peer = daemon.accept()
    peer.hello()
    assert peer.exec("a-1", "/bin/echo", "x")["stdout"] == "x\n"
    record = _push(peer)["payload"]
    assert record["checks"] == [{"name": "slow", "status": "ok", "exit": 0, "output": "fine"}]


def test_telemetry_that_is_switched_off_ends(agent: Agent, daemon: Daemon) -> None:
    import signal

    agent.configure(f"wss://localhost:{daemon.port}", more=FAST)
    agent.start()
    peer = daemon.accept()
    peer.hello()
    _take(peer, 1)
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.process.send_signal(signal.SIGHUP)
    agent.wait_said("the configuration was read again")
    peer.send({"method": "cancel", "action_id": "none"})
    while (message := peer.receive()).get("method") == "telemetry.push":
        peer.send({"ok": True, "action_id": message["action_id"]})
    assert message["code"] == "not_found"


# -- the spool --------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        import time

        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _open(folder: Path, clock: Clock, *, limit_bytes: int = 1_000_000, age_s: float = 86_400) -> Spool:
    return Spool(str(folder / "spool"), limit_bytes=limit_bytes, limit_age_s=age_s, now=clock)


def _drain(spool: Spool) -> Iterator[bytes]:
    while (record := spool.first()) is not None:
        yield record
        spool.take()


def test_a_spool_gives_back_what_it_was_given(tmp_path: Path, clock: Clock) -> None:
    spool = _open(tmp_path, clock)
    assert spool.first() is None
    records = [b'{"n":%d}' % number for number in range(3 * SEGMENT_RECORDS + 5)]
    for record in records:
        spool.add(record)
    assert len(spool) == len(records)
    taken = [record for record, _ in zip(_drain(spool), range(70), strict=False)]
    assert taken == records[:70]
    assert spool.first() == records[70]
    again = _open(tmp_path, clock)
    assert list(_drain(again)) == records[70:]
    assert len(again) == 0
    assert list(_drain(_open(tmp_path, clock))) == []


def test_a_spool_works_like_a_queue(tmp_path: Path, clock: Clock) -> None:
    """Whatever is added, taken, and opened again in whatever order: as a list would do it."""
    chance, spool, wanted = random.Random(5), _open(tmp_path, clock), list[bytes]()
    for number in range(3000):
        what = chance.random()
        if what < 0.5:
            record = b'{"n":%d,"x":"%s"}' % (number, b"y" * chance.randint(0, 50))
            spool.add(record)
            wanted.append(record)
        elif what < 0.98:
            assert spool.first() == (wanted[0] if wanted else None)
            if wanted:
                spool.take()
                wanted.pop(0)
        else:
            spool = _open(tmp_path, clock)
        assert len(spool) == len(wanted)
    assert spool.dropped == 0


def test_the_oldest_give_way(tmp_path: Path, clock: Clock) -> None:
    spool = _open(tmp_path, clock, limit_bytes=20_000)
    for number in range(1000):
        spool.add(b'{"n":%d,"x":"%s"}' % (number, b"y" * 80))
    sizes = sum(path.stat().st_size for path in (tmp_path / "spool").glob("*.ndjson"))
    assert sizes <= 20_000
    left = [json.loads(record)["n"] for record in _drain(spool)]
    assert left == list(range(1000 - len(left), 1000))
    assert spool.dropped == 1000 - len(left)


def test_old_records_go(tmp_path: Path, clock: Clock) -> None:
    spool = _open(tmp_path, clock, age_s=3600)
    for number in range(SEGMENT_RECORDS + 1):
        spool.add(b'{"n":%d}' % number)
    clock.now += 4000
    assert spool.first() == b'{"n":%d}' % SEGMENT_RECORDS
    assert spool.dropped == SEGMENT_RECORDS


@pytest.mark.parametrize("tail", [b'{"n":', b"\0\0\0\0"])
def test_half_a_line_of_a_crash_is_cut(tmp_path: Path, clock: Clock, tail: bytes) -> None:
    spool = _open(tmp_path, clock)
    spool.add(b'{"n":1}')
    (path,) = (tmp_path / "spool").glob("*.ndjson")
    with path.open("ab") as file:
        file.write(tail)
    again = _open(tmp_path, clock)
    again.add(b'{"n":2}')
    assert list(_drain(again)) == [b'{"n":1}', b'{"n":2}']
    assert again.dropped == 1


@pytest.mark.parametrize("place", [b"", b"x", b"99 5\n", b"1 999\n", b"-1 -1\n", b"1\n", b"9 9 9 9 9 9\n"])
def test_a_damaged_place_does_no_harm(tmp_path: Path, clock: Clock, place: bytes) -> None:
    spool = _open(tmp_path, clock)
    spool.add(b'{"n":1}')
    (tmp_path / "spool/place").write_bytes(place)
    again = _open(tmp_path, clock)
    again.add(b'{"n":2}')
    assert list(_drain(again))[-1] == b'{"n":2}'
    assert os.stat(tmp_path / "spool").st_mode & 0o777 == 0o700
