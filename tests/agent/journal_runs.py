"""What the tests of the journal's crashes share: an agent in a forked process that is killed at a fault.

Each action appends its id to a file, so that one which was carried out twice shows.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from fazai.agent.journal import Journal

LIMIT = 144 * 1024
#: Every fault of the journal, and those of the action between its intent and its outcome.
FAULTS = (
    "intent.written",
    "intent.synced",
    "effect.started",
    "effect.done",
    "outcome.written",
    "outcome.synced",
    "told",
    "acks.written",
    "acks.synced",
    "segment.created",
    "rewrite.written",
    "rewrite.synced",
    "rewrite.renamed",
    "segment.removed",
)


class Rounds:
    """A folder with a journal, the file of effects, and the answers that were given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.effects = folder / "effects"
        self.told = folder / "told"
        self.time = 1_800_000_000.0
        for file in (self.effects, self.told):
            file.touch()

    def run(self, ids: list[str], fault: str | None, count: int) -> int:
        """Carry actions out in a forked process that is killed when it comes to a fault for the nth time;
        return how it ended."""
        self.time += 2 * 3600
        child = os.fork()
        if child == 0:
            try:
                self._work(ids, fault, count)
            finally:
                if sys.exc_info()[0] is not None:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def _work(self, ids: list[str], fault: str | None, count: int) -> None:
        seen: Counter[str] = Counter()

        def reach(name: str) -> None:
            seen[name] += 1
            if name == fault and seen[name] == count:
                os.kill(os.getpid(), signal.SIGKILL)

        journal = Journal(self.folder / "journal", LIMIT, lambda: self.time, fault=reach)
        for action_id in ids:
            answer = journal.begin(action_id, "d" * 64, "command.exec")
            if answer is None:
                reach("effect.started")
                _append(self.effects, action_id)
                reach("effect.done")
                answer = {"ok": True, "action_id": action_id, "stdout": "x" * 3000, "exit_code": 7}
                journal.finish(action_id, answer)
            _append(self.told, f"{action_id} {answer.get('exit_code', answer.get('code'))}")
            reach("told")
            journal.acknowledge([action_id])
            if int(action_id.rpartition("-")[2]) % 4 == 0:
                journal.settle()
        journal.close()

    def check(self, ids: list[str]) -> None:
        """See that each action was carried out once at most, and that what was told stayed as it was."""
        effects = Counter(self.effects.read_text().split())
        assert [action_id for action_id, count in effects.items() if count > 1] == []
        told: dict[str, str] = {}
        for line in self.told.read_text().splitlines():
            action_id, outcome = line.split()
            assert told.setdefault(action_id, outcome) == outcome
            assert outcome == "interrupted" or effects[action_id] == 1
        assert set(told) >= set(ids)
        size = sum(file.stat().st_size for file in (self.folder / "journal").iterdir())
        assert size <= LIMIT
        assert list((self.folder / "journal").glob("*.tmp")) == []


def _append(file: Path, line: str) -> None:
    with file.open("a") as stream:
        stream.write(f"{line}\n")


def in_process(run: Callable[[], None]) -> int:
    """Run in a forked process and return how it ended: 0 where nothing was raised."""
    child = os.fork()
    if child == 0:
        try:
            run()
        finally:
            if sys.exc_info()[0] is not None:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
