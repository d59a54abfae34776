"""file.apply with its journal where the agent is killed: a file is old or new, and no id is done twice."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest

from fazai.agent.errors import Refused
from fazai.agent.files.applying import apply_file
from fazai.agent.journal import Journal
from tests.campaign import campaign_size

from .conftest import FAULTS, Machine, no_confinement

PATH = "/etc/app/motd"
JOURNAL_FAULTS = ("intent.written", "intent.synced", "outcome.written", "outcome.synced")


def _content(number: int) -> bytes:
    return b"%d\n" % number * (1 + number % 7 * 9000)


class _Agent:
    """An agent with one file, and the numbers of the contents that it was given, by `action_id`."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine = machine
        self.file = machine / PATH
        self.folder = folder
        self.answers = folder / "answers"
        self.answers.touch()

    def ask(self, number: int, fault: str | None) -> int:
        """Ask a forked agent for the content of a number, with the hash of what is there; return its end."""
        have = self.file.read_bytes() if self.file.exists() else None
        request = {
            "method": "file.apply",
            "action_id": f"p-{number}",
            "path": PATH,
            "content_base64": base64.b64encode(_content(number)).decode(),
            "base_sha256": "absent" if have is None else hashlib.sha256(have).hexdigest(),
        }
        child = os.fork()
        if child == 0:
            try:
                self._carry_out(request, fault)
            finally:
                if sys.exc_info()[0] is not None:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def _carry_out(self, request: dict[str, Any], fault: str | None) -> None:
        def reach(name: str) -> None:
            if name == fault:
                os.kill(os.getpid(), signal.SIGKILL)

        journal = Journal(self.folder / "journal", 1 << 20, lambda: 1_800_000_000.0, fault=reach)
        answer = journal.begin(request["action_id"], "d" * 64, "file.apply")
        if answer is None:
            try:
                done = apply_file(request, self.machine.config, confine=no_confinement, fault=reach)
                answer = {"ok": True, **done}
            except Refused as error:
                answer = {"ok": False, "code": error.code}
            journal.finish(request["action_id"], answer)
        with self.answers.open("a") as stream:
            stream.write(f"{request['action_id']} {answer.get('code', 'applied')}\n")
        journal.close()


def _check(agent: _Agent, fault: str, rounds: int) -> None:
    before = None
    for number in range(1, rounds + 1):
        assert agent.ask(number, fault) == -signal.SIGKILL
        have = agent.file.read_bytes() if agent.file.exists() else None
        assert have in (before, _content(number))
        assert have == before or not fault.startswith("intent.")
        outcome = _answer_of(agent, number)
        # Asked again: it is not done a second time, whatever stands there.
        assert (agent.file.read_bytes() if agent.file.exists() else None) == have
        assert outcome == ("applied" if fault.startswith("outcome.") else "interrupted")
        assert outcome == "interrupted" or have == _content(number)
        before = have


def _answer_of(agent: _Agent, number: int) -> str:
    assert agent.ask(number, None) == 0
    lines = dict(line.split() for line in agent.answers.read_text().splitlines())
    return lines[f"p-{number}"]


@pytest.mark.parametrize("fault", [*FAULTS, *JOURNAL_FAULTS])
def test_a_killed_agent_and_its_file(machine: Machine, tmp_path: Path, fault: str) -> None:
    _check(_Agent(machine, tmp_path), fault, 3)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [*FAULTS, *JOURNAL_FAULTS])
def test_many_killed_agents_and_their_file(memory: Path, fault: str) -> None:
    _check(_Agent(Machine(memory), memory), fault, campaign_size(200))


def _replace_for_ever(agent: _Agent, number: int) -> None:
    while True:
        number += 1
        base = hashlib.sha256(agent.file.read_bytes()).hexdigest()
        content = base64.b64encode(_content(number)).decode()
        request = {"path": PATH, "content_base64": content, "base_sha256": base}
        apply_file(request, agent.machine.config, confine=no_confinement)


@pytest.mark.slow
def test_killed_at_any_moment(memory: Path) -> None:
    """Not at a fault but whenever: readers see a whole content all the time."""
    agent = _Agent(Machine(memory), memory)
    draw = random.Random(1)
    agent.file.write_bytes(_content(0))
    seen: set[int] = set()
    for _ in range(campaign_size(200)):
        child = os.fork()
        if child == 0:
            try:
                _replace_for_ever(agent, int(agent.file.read_bytes().split(b"\n", 1)[0]))
            finally:
                os._exit(1)
        until, looks = len(seen) + draw.randint(0, 3), draw.randint(0, 30)
        while len(seen) < until or looks > 0:
            looks -= len(seen) >= until
            content = agent.file.read_bytes()
            number = int(content.split(b"\n", 1)[0])
            assert content == _content(number)
            seen.add(number)
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert len(seen) > campaign_size(200) // 2
