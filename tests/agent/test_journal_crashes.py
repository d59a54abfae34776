"""The journal where its process is killed, the disk is full, or a file is damaged."""

from __future__ import annotations

import ctypes
import os
import random
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from fazai.agent.errors import Refused
from fazai.agent.journal import Journal
from tests.campaign import campaign_size

from .journal_runs import FAULTS, Rounds, in_process


@pytest.mark.parametrize("fault", FAULTS)
def test_a_killed_agent_does_nothing_twice(tmp_path: Path, fault: str) -> None:
    rounds = Rounds(tmp_path)
    ids = [f"a-{number}" for number in range(60)]
    killed = rounds.run(ids, fault, 2)
    assert killed == -signal.SIGKILL
    assert rounds.run(ids, fault, 3) in (0, -signal.SIGKILL)
    assert rounds.run(ids, None, 0) == 0
    rounds.check(ids)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_many_rounds_at_each_fault(memory: Path, fault: str) -> None:
    rounds = Rounds(memory)
    draw = random.Random(fault)
    ids: list[str] = []
    kills = 0
    for number in range(campaign_size(200)):
        ids += [f"a-{number}-{each}" for each in range(6)]
        ended = rounds.run(ids[-18:], fault, draw.randint(1, 3))
        assert ended in (0, -signal.SIGKILL)
        kills += ended != 0
        if number % 20 == 0:
            rounds.run(ids[-18:], None, 0)
    assert kills > campaign_size(200) // 10
    assert rounds.run(ids[-60:], None, 0) == 0
    rounds.check(ids[-60:])


def _mount_small_disk(folder: Path) -> bool:
    """Mount a disk of 256 KiB in a mount namespace of this process's own; return whether that may be done."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_namespace, private = 0x00020000, 1 << 14 | 1 << 18
    if libc.unshare(new_namespace) != 0 or libc.mount(None, b"/", None, private, None) != 0:
        return False
    return bool(libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=256k,mode=0700") == 0)


class _Disk:
    """A disk that can be filled and emptied: a small one, else a limit of the process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir()
        self._mounted = _mount_small_disk(folder)

    def fill(self, journal: Path) -> None:
        if not self._mounted:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            size = max(file.stat().st_size for file in journal.iterdir())
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            return
        try:
            with (self.folder / "filler").open("wb", buffering=0) as file:
                while file.write(b"x" * 512):
                    pass
        except OSError:
            return

    def empty(self) -> None:
        if self._mounted:
            (self.folder / "filler").unlink()
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _begin_until_full(journal: Journal) -> int:
    for number in range(100):
        try:
            journal.begin(f"b-{number}", "d" * 64, "command.exec")
        except Refused as error:
            if error.code == "unavailable" and "the journal cannot be written: " in error.message:
                return number
            raise
        journal.finish(f"b-{number}", {"ok": True, "stdout": "y" * 200})
    raise AssertionError("the disk is not full")


def _on_a_full_disk(folder: Path) -> None:
    disk = _Disk(folder)
    place = folder / "journal"
    journal = Journal(place, 1 << 20, lambda: 1.0)
    journal.begin("a-1", "d" * 64, "command.exec")
    disk.fill(place)
    answer = {"ok": True, "action_id": "a-1", "stdout": "x" * 8000}
    assert not journal.finish("a-1", answer)
    assert journal.trouble
    assert [("a-1", "command.exec", answer)] == list(journal.unacknowledged())
    assert journal.begin("a-1", "d" * 64, "command.exec") == answer
    assert _begin_until_full(journal) == 0
    assert not journal.settle()
    disk.empty()
    assert journal.settle()
    assert not journal.trouble
    assert journal.begin("a-2", "d" * 64, "command.exec") is None
    journal.close()
    again = Journal(place, 1 << 20, lambda: 1.0)
    assert again.begin("a-1", "d" * 64, "command.exec") == answer
    assert [action_id for action_id, _, _ in again.unacknowledged()] == ["a-1", "a-2"]
    again.close()


def _acknowledged_on_a_full_disk(folder: Path) -> None:
    disk = _Disk(folder)
    place = folder / "journal"
    journal = Journal(place, 1 << 20, lambda: 1.0)
    journal.begin("a-1", "d" * 64, "command.exec")
    disk.fill(place)
    assert not journal.finish("a-1", {"ok": True, "stdout": "x" * 8000})
    journal.acknowledge(["a-1"])
    assert list(journal.unacknowledged()) == []
    disk.empty()
    journal.close()
    again = Journal(place, 1 << 20, lambda: 1.0)
    assert list(again.unacknowledged()) == []
    assert again.begin("a-1", "d" * 64, "command.exec") is not None
    again.close()


def _died_on_a_full_disk(folder: Path) -> None:
    disk = _Disk(folder)
    place = folder / "journal"
    journal = Journal(place, 1 << 20, lambda: 1.0)
    journal.begin("a-1", "d" * 64, "command.exec")
    disk.fill(place)
    assert not journal.finish("a-1", {"ok": True, "stdout": "x" * 8000})
    journal._files.close()  # as if it were killed: what is in memory only is lost
    again = Journal(place, 1 << 20, lambda: 1.0)  # it opens all the same
    ((action_id, _method, answer),) = again.unacknowledged()
    assert (action_id, answer["code"]) == ("a-1", "interrupted")
    disk.empty()
    assert again.settle()
    again.close()


def _half_a_line_at_the_end_of_a_segment(folder: Path) -> None:
    journal = Journal(folder, 1 << 20, lambda: 1.0)
    file = folder / "journal-00000001"
    journal.begin("a-1", "d" * 64, "command.exec")
    number = 0
    while file.stat().st_size < (1 << 16) - 1500:
        number += 1
        journal.begin(f"c-{number}", "d" * 64, "command.exec")
        journal.finish(f"c-{number}", {"ok": True})
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    whole = file.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (whole + 100, resource.RLIM_INFINITY))
    assert _begin_until_full(journal) == 0
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert file.stat().st_size == whole
    assert journal.finish("a-1", {"ok": True, "stdout": "x" * 8000})  # goes to the next segment
    journal.close()
    again = Journal(folder, 1 << 20, lambda: 1.0)
    assert len(again) == number + 1
    again.close()


@pytest.mark.parametrize(
    "run",
    [
        _on_a_full_disk,
        _acknowledged_on_a_full_disk,
        _died_on_a_full_disk,
        _half_a_line_at_the_end_of_a_segment,
    ],
)
def test_a_full_disk(tmp_path: Path, run: Callable[[Path], None]) -> None:
    assert in_process(lambda: run(tmp_path / "disk")) == 0
