"""The spool: bounded, whole after every crash, and no reason to stop on a full disk."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.conftest import Agent, tool_folder
from tests.agent.receiver import Exchange, Receiver
from tests.agent.test_delivery import lines_of, whole


def test_the_cap_by_bytes_drops_the_oldest_and_counts(agent: Agent, receiver: Receiver) -> None:
    process = agent.start(SPOOL_MAX_BYTES="6000", BATCH_RECORDS="2", BATCH_BYTES="1024", INTERVAL_S="0.05")
    agent.wait_for_status(lambda s: int(s["dropped"]) >= 4, "four dropped records")
    agent.stop(process)
    size = sum(path.stat().st_size for path in agent.spool.iterdir())
    assert size <= 6000
    status = agent.status()
    agent.settings["SERVER"] = receiver.url
    (agent.state / "backoff").unlink()
    agent.run("--once")
    found = receiver.sequences()[process.pid]
    assert only_oldest_missing(found) == int(status["dropped"])
    assert max(sample.fields["agent"]["dropped"] for sample in receiver.store.values()) > 0


def only_oldest_missing(found: list[int]) -> int:
    """Return how many are missing. The very first ones may have been on their way, which spares them."""
    missing = set(range(1, found[-1] + 1)) - set(found)
    assert missing
    newest = [number for number in found if number > max(missing)]
    assert len(found) - len(newest) <= 2
    return len(missing)


def test_the_cap_by_age(agent: Agent) -> None:
    agent.run("--once", code=1)
    (old,) = agent.spool.glob("s-*")
    number = old.name[2:].partition("-")[0]
    # of another boot, whose clock was right
    old.rename(agent.spool / f"s-{number}-{int(time.time()) - 100:010d}-00001@0badb007-7.ndjson.gz")
    said = agent.run("--once", code=1, SPOOL_MAX_AGE_S="50").stderr.decode()
    assert agent.status()["dropped"] == "1"
    assert agent.status()["spool_depth"] == "1"
    assert "older than" in said  # the last error may be that of the delivery


def test_a_segment_is_small(agent: Agent) -> None:
    """Sixty whole samples in one segment, compressed together."""
    process = agent.start(
        SAMPLE="all", BATCH_RECORDS="60", BATCH_BYTES="1000000", BACKOFF_MIN_S="60", BACKOFF_MAX_S="60"
    )
    agent.wait_for_status(
        lambda s: int(s["spool_segments"]) >= 1 and int(s["spool_depth"]) >= 12, "a dozen records"
    )
    agent.stop(process)
    lines = lines_of(agent)
    compressed = len(gzip.compress(b"".join(lines)))
    assert compressed < len(b"".join(lines)) / 4


@pytest.mark.parametrize(
    "torn", [b'{"hostname":"vm","timestamp":"2026-', b'{"hostname":"vm","agent":{"seq":1}', b"\0" * 30]
)
def test_a_torn_write_costs_only_its_own_record(torn: bytes, agent: Agent, receiver: Receiver) -> None:
    agent.run("--once", code=1)
    lines = lines_of(agent)
    for path in agent.spool.iterdir():
        path.unlink()
    (agent.spool / "current.ndjson").write_bytes(lines[0] + torn)
    (agent.state / "backoff").unlink()
    agent.run("--once", SERVER=receiver.url)
    assert len(receiver.store) == 2
    assert json.loads(lines[0])["timestamp"] in {s.fields["timestamp"] for s in receiver.store.values()}
    assert agent.status()["dropped"] == "1"
    assert agent.status()["refused"] == "0"


def test_killed_in_mid_write_at_any_moment(agent: Agent, receiver: Receiver, tmp_path: Path) -> None:
    """gzip kills its agent in the middle of a segment, again and again."""
    flag = tmp_path / "kill"
    kill = f"rm {flag}; head -c 40; kill -9 $(cat {tmp_path}/pid)"
    half = f'[ -e {flag} ] || exec {shutil.which("gzip")} "$@"\n{kill}'
    agent.environment["PATH"] = tool_folder(tmp_path / "bin", {"gzip": half}) + ":/usr/bin:/bin"
    pids = []
    for _ in range(3):
        process = agent.start(BATCH_RECORDS="3", SERVER="http://127.0.0.1:9")
        pids.append(process.pid)
        (tmp_path / "pid").write_text(str(process.pid))
        agent.wait_for_status(lambda s: s["pid"] == str(pids[-1]), "the first sample")
        flag.touch()
        assert process.wait(20) == -signal.SIGKILL
    known = {json.loads(line)["timestamp"] for line in lines_of(agent)}
    agent.settings["SERVER"] = receiver.url
    (agent.state / "backoff").unlink()
    agent.run("--once")
    assert {s.fields["timestamp"] for s in receiver.store.values()} >= known
    whole(receiver, killed=len(pids))
    assert agent.status()["spool_depth"] == "0"
    assert not list(agent.spool.glob("*.tmp"))


@pytest.mark.parametrize("stored", [False, True])
def test_killed_in_mid_delivery(stored: bool, delivering: Agent, receiver: Receiver) -> None:
    def kill(exchange: Exchange) -> None:
        if stored:
            with receiver.changed:
                receiver.take(exchange.request_seen.records)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    process = delivering.start(INTERVAL_S="0.2")
    receiver.wait_for_records(1)
    with receiver.changed:
        receiver.script = [kill]
    receiver.wait(lambda r: not r.script, "the request")
    process.wait(20)
    delivering.run("--once")
    whole(receiver, killed=1)
    assert (receiver.duplicates > 0) == stored
    assert delivering.status()["spool_depth"] == "0"


def test_a_damaged_segment_is_dropped_and_the_next_one_goes_on(delivering: Agent, receiver: Receiver) -> None:
    delivering.run("--once", SERVER="http://127.0.0.1:9", code=1)
    (segment,) = delivering.spool.glob("s-*.gz")
    damaged = segment.read_bytes()[:200]
    (delivering.spool / "s-000000000000-1795000000-00005.ndjson.gz").write_bytes(damaged)
    (delivering.state / "backoff").unlink()
    receiver.script = [lambda e: e.reply(400, b'{"ok":false,"error":"no gzip","code":"bad_request"}')]
    delivering.run("--once", SPOOL_MAX_AGE_S="99999999")
    assert len(receiver.store) == 2
    assert delivering.status()["dropped"] == "5"


def test_a_stale_lock_is_no_obstacle(delivering: Agent, receiver: Receiver) -> None:
    process = delivering.start()
    receiver.wait_for_records(1)
    process.kill()
    process.wait()
    assert (delivering.state / "lock").is_symlink()
    (delivering.state / "lock").unlink()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    (delivering.state / "lock").symlink_to(
        f"{os.getpid()} 1 {boot}"
    )  # a pid that lives, but of another process
    delivering.run("--once")


def test_a_clock_that_is_set_drops_nothing(agent: Agent, receiver: Receiver) -> None:
    """A machine without a clock of its own: what it kept so far is of 1970, and no older for that."""
    agent.run("--once", code=1)
    (segment,) = agent.spool.glob("s-*")
    number = segment.name[2:].partition("-")[0]
    segment.rename(agent.spool / segment.name.replace(segment.name.split("-")[2], "0000000100"))
    agent.settings["SERVER"] = receiver.url
    (agent.state / "backoff").unlink()
    agent.run("--once", SPOOL_MAX_AGE_S="50")
    assert number == "000000000001"
    assert len(receiver.store) == 2
    assert agent.status()["dropped"] == "0"


def test_segments_of_an_earlier_version_are_read(agent: Agent, receiver: Receiver) -> None:
    agent.run("--once", code=1)
    (segment,) = agent.spool.glob("s-*")
    segment.rename(agent.spool / (segment.name.partition("@")[0] + ".ndjson.gz"))
    agent.run("--once", code=1)
    assert agent.status()["spool_depth"] == "2"
    agent.settings["SERVER"] = receiver.url
    (agent.state / "backoff").unlink()
    agent.run("--once")
    whole(receiver)
    assert len(receiver.store) == 3


def test_numbers_and_losses_go_on_from_run_to_run(agent: Agent, receiver: Receiver) -> None:
    """The agent runs as cron starts it, one sample a run; the server is away for longer than the spool can
    hold."""
    for _ in range(12):
        agent.run("--once", code=1, SPOOL_MAX_BYTES="4096", BATCH_RECORDS="1", BATCH_BYTES="1024")
        (agent.state / "backoff").unlink()
    dropped = int(agent.status()["dropped"])
    assert dropped > 0
    agent.settings["SERVER"] = receiver.url
    agent.run("--once")
    (numbers,) = [sorted(n for found in receiver.sequences().values() for n in found)]
    assert numbers == list(range(dropped + 1, 14))
    newest = max(receiver.store.values(), key=lambda s: s.fields["agent"]["seq"])
    assert newest.fields["agent"]["dropped"] == dropped
    (agent.state / "counters").write_text("nonsense")  # of a disk that failed: begun anew, not refused
    agent.run("--once")
    assert receiver.requests[-1].records[0].fields["agent"]["seq"] == 1


def test_of_many_that_find_a_stale_lock_one_holds_it(agent: Agent) -> None:
    """All see it stale before the first takes it: `readlink` waits until as many have asked."""
    agent.state.mkdir()
    asked = agent.home / "asked"
    asked.mkdir()
    real = shutil.which("readlink")
    gate = (
        f': >"{asked}/$$"; n=0\n'
        f"while [ $(ls {asked} | wc -l) -lt 4 ] && [ $n -lt 200 ]; do n=$((n+1)); sleep 0.01; done\n"
        f'exec {real} "$@"'
    )
    agent.environment["PATH"] = tool_folder(agent.home / "bin", {"readlink": gate}) + ":/usr/bin:/bin"
    for _ in range(3):
        (agent.state / "lock").unlink(missing_ok=True)
        (agent.state / "lock").symlink_to("1 1 00000000-of-another-boot")
        for path in asked.iterdir():
            path.unlink()
        started = [agent.start(INTERVAL_S="30", BACKOFF_MIN_S="30", BACKOFF_MAX_S="30") for _ in range(4)]
        agent.wait_for_status(lambda s: int(s["pid"]) in [p.pid for p in started], "an agent that holds it")  # noqa: B023
        losers = [p for p in started if str(p.pid) != agent.status()["pid"]]
        assert [p.wait(20) for p in losers] == [5, 5, 5], agent.log()
        (holder,) = [p for p in started if p.poll() is None]
        assert os.readlink(agent.state / "lock").split()[0] == str(holder.pid)
        agent.stop(holder)
        assert not list(agent.state.glob("next-*"))
        (agent.state / "status").unlink()


def test_who_died_while_taking_over_is_no_obstacle(delivering: Agent) -> None:
    delivering.state.mkdir()
    (delivering.state / "lock").symlink_to("1 1 dead")
    (delivering.state / "next-1-1-dead").symlink_to("2 2 dead")
    (delivering.state / "next-2-2-dead").symlink_to("3 3 dead")
    delivering.run("--once")
    assert not list(delivering.state.glob("next-*"))
    assert not (delivering.state / "lock").is_symlink()


@pytest.fixture(params=["file size limit", *(["full tmpfs"] if os.geteuid() == 0 else [])])
def full(request: pytest.FixtureRequest, agent: Agent) -> Iterator[Agent]:
    """The spool's disk takes no more: a limit of the process, or (as root) a file system of its own.

    Samples are taken seldom enough that the twenty which the agent keeps in memory cover some deliveries: on
    a busy machine one takes a second.
    """
    agent.state.mkdir()
    agent.settings["INTERVAL_S"] = "0.3"
    if request.param == "file size limit":
        agent.prelude = "ulimit -f 0"
        agent.spool.mkdir()
        yield agent
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(agent.state)], check=True)
    try:
        agent.spool.mkdir()
        with (agent.state / "ballast").open("wb", buffering=0) as ballast:
            while True:
                try:
                    ballast.write(b"x" * 4096)
                except OSError:
                    break
        yield agent
    finally:
        for process in agent.running:
            process.kill()
            process.wait()
        subprocess.run(["umount", "-l", str(agent.state)], check=True)


def test_a_full_disk_does_not_stop_delivery(full: Agent, receiver: Receiver) -> None:
    process = full.start(SERVER=receiver.url)
    receiver.wait_for_records(5)
    full.stop(process)
    whole(receiver)
    last = max(receiver.store.values(), key=lambda sample: sample.time)
    assert "cannot be written" in last.fields["agent"]["last_error"]


def test_records_wait_in_memory_while_the_disk_is_full(full: Agent, receiver: Receiver) -> None:
    receiver.script = [lambda e: e.reply(500, b"")] * 3
    process = full.start(SERVER=receiver.url, BACKOFF_MAX_S="0.04")
    receiver.wait_for_records(8)
    full.stop(process)
    whole(receiver)


@pytest.mark.parametrize("size", ["32k"] if os.geteuid() == 0 else [])
def test_on_a_full_disk_the_oldest_make_room(size: str, agent: Agent, receiver: Receiver) -> None:
    """A small file system that the spool itself fills."""
    agent.state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(agent.state)], check=True)
    try:
        process = agent.start(BATCH_RECORDS="2", SERVER="http://127.0.0.1:9")
        agent.wait_for_log("no room on the disk")
        agent.stop(process)
        dropped = sum(int(n) for n in re.findall(r"(\d+) record\(s\) dropped", agent.log()))
        (agent.state / "backoff").unlink(missing_ok=True)
        agent.settings["SERVER"] = receiver.url
        agent.run("--once")
        found = receiver.sequences()[process.pid]
        assert only_oldest_missing(found) == dropped
    finally:
        subprocess.run(["umount", "-l", str(agent.state)], check=True)


def test_a_read_only_folder_is_a_clear_error(agent: Agent) -> None:
    agent.state.write_text("a file where the folder should be")
    done = agent.run("--once", code=3)
    assert "cannot be made" in done.stderr.decode()


def test_segments_keep_their_order_whatever_their_form(agent: Agent, receiver: Receiver) -> None:
    process = agent.start(BATCH_RECORDS="1", BACKOFF_MIN_S="60", BACKOFF_MAX_S="60")
    agent.wait_for_status(lambda s: int(s["spool_segments"]) >= 4, "four segments")
    agent.stop(process)
    first, second, *_ = sorted(agent.spool.glob("s-*"))
    second.with_suffix("").write_bytes(gzip.decompress(second.read_bytes()))  # as where gzip had no room
    second.unlink()
    (agent.state / "backoff").unlink()
    agent.run("--once", SERVER=receiver.url)
    order = [sample.time for request in receiver.requests for sample in request.records]
    assert order == sorted(order)
    assert not first.exists()


def test_the_last_time_of_a_record_is_kept(delivering: Agent, receiver: Receiver) -> None:
    """bash 4 has whole seconds: the next run of `--once` in the same second gives its record another time."""
    delivering.run("--once")
    ((_, time),) = receiver.store
    numbers, last = (delivering.state / "counters").read_text().splitlines()
    assert len(numbers.split()) == 4  # what versions before read
    assert int(last) == round(time.timestamp() * 1000)
    (delivering.state / "counters").write_text(numbers + "\n")  # as they write it
    delivering.run("--once")
    assert len((delivering.state / "counters").read_text().splitlines()) == 2
