"""The daemon's policy book: it follows its file, fails closed, and counts uses that survive a restart."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from fazai.daemon.events.announcer import Announcer
from fazai.daemon.policy.book import PolicyBook
from fazai.service.log import Log
from fazai.service.prometheus import render_metrics
from fazai.store.factory import open_daemon_store
from tests.policy.effects import ALIAS, KNOWN, NOW, change, effect


class World:
    """A policy book on a store of its own, which can be opened again, with a clock that the test sets."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder, self.file, self.now, self._stack = folder, folder / "policy.yml", NOW, stack
        self.store = open_daemon_store(str(folder / "state"))
        self.log = Log(folder / "log", logger="test")
        self.book = self.open()

    def open(self, required: bool = False) -> PolicyBook:
        announcer = Announcer(self.store, self.log)
        return PolicyBook(
            self.file,
            self.store.rules,
            announcer,
            known=lambda: KNOWN,
            now=lambda: self.now,
            required=required,
        )

    def reopen(self) -> None:
        self.store.close()
        self.store = open_daemon_store(str(self.folder / "state"))
        self.book = self.open()

    def write(self, text: str) -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text(text)
        os.replace(fresh, self.file)

    def judge(self, tainted: bool = False, target: str = "fw-edge-01") -> tuple[str, str]:
        what = effect(change(target=target), policy=self.book.generation, expires=self.now + 60)
        found = asyncio.run(self.book.claim(what, tainted=tainted))
        return found.verdict, found.reason

    def said(self) -> str:
        return (self.folder / "log").read_text()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        found = World(tmp_path, stack)
        yield found
        found.store.close()
        found.log.close()


def test_the_file_is_followed(world: World) -> None:
    assert world.judge() == ("ask", "no rule allows it")
    world.write(ALIAS)
    assert world.judge() == ("allow", "the rule scanners allows it")
    world.write(ALIAS + "deny: [{name: stop, targets: ['*']}]\n")
    assert world.judge()[0] == "refuse"
    assert "the policy" in world.said()
    assert "1 rules, 1 that deny, 0 programs" in world.said()


def test_a_broken_file_allows_nothing_until_it_is_mended_and_says_so_once(world: World) -> None:
    world.write(ALIAS)
    assert world.judge()[0] == "allow"
    world.write(ALIAS.replace("per_hour", "per_day"))
    verdict, reason = world.judge()
    assert verdict == "refuse"
    assert f"{world.file}:" in reason
    assert "knows no 'per_day'" in reason
    world.judge()
    assert world.said().count("the policy cannot be used, and nothing is allowed") == 1
    assert world.book.find_shell_refusal("web1", ["/usr/bin/uptime"]) == reason
    world.write(ALIAS)
    assert world.judge()[0] == "allow"


def test_a_file_that_goes_away_is_no_empty_policy(world: World) -> None:
    world.write(ALIAS)
    assert world.judge()[0] == "allow"
    world.file.unlink()
    assert "there is no policy" in world.judge()[1]
    assert world.judge()[0] == "refuse"


def test_a_file_that_was_asked_for_must_be_there(world: World) -> None:
    world.book = world.open(required=True)
    assert world.judge()[0] == "refuse"


def test_the_generation_is_bound(world: World) -> None:
    world.write(ALIAS)
    what = effect(change(), policy=world.book.generation, expires=NOW + 60)
    world.write(ALIAS + "# other bytes\n")
    assert world.book.generation != what.policy
    found = asyncio.run(world.book.claim(what, tainted=False))
    assert (found.verdict, found.reason) == (
        "ask",
        "the policy changed since it was prepared; propose it again",
    )
    assert asyncio.run(world.book.note_use("scanners", what)) is False


def test_a_change_between_decision_and_use_stops_it(world: World) -> None:
    world.write(ALIAS)
    what = effect(change(), policy=world.book.generation, expires=NOW + 60)
    assert asyncio.run(world.book.decide(what, tainted=False)).verdict == "allow"
    world.write(ALIAS + "deny: [{name: stop, targets: ['*']}]\n")
    assert asyncio.run(world.book.note_use("scanners", what)) is False


def test_uses_are_counted_over_a_restart_and_for_an_hour(world: World) -> None:
    world.write(ALIAS)
    assert [world.judge()[0] for _ in range(2)] == ["allow", "allow"]
    world.reopen()
    assert world.judge()[0] == "allow"
    verdict, reason = world.judge()
    assert (verdict, reason) == ("ask", "the rule scanners allows it 3 times an hour, and that is used up")
    world.now += 3599
    assert world.judge()[0] == "ask"
    world.now += 2
    assert world.judge()[0] == "allow"
    world.now -= 3000  # a clock that is set back gives nothing back
    assert [world.judge()[0] for _ in range(3)] == ["ask"] * 3


def test_a_decision_alone_counts_nothing(world: World) -> None:
    world.write(ALIAS)
    what = effect(change(), policy=world.book.generation, expires=NOW + 60)
    for _ in range(5):
        assert asyncio.run(world.book.decide(what, tainted=False)).verdict == "allow"


def test_of_many_at_once_as_many_get_it_as_the_rule_says(world: World) -> None:
    world.write(ALIAS)
    what = effect(change(), policy=world.book.generation, expires=NOW + 60)

    async def all_at_once() -> list[str]:
        books = [world.book, world.open()]
        found = await asyncio.gather(
            *(books[n % 2].claim(replace(what, ref=str(n)), tainted=False) for n in range(20))
        )
        assert {one.reason for one in found if one.verdict == "ask"} <= {
            "the rule scanners was used up meanwhile",
            "the rule scanners allows it 3 times an hour, and that is used up",
        }
        return [one.verdict for one in found]

    assert sorted(asyncio.run(all_at_once())) == ["allow"] * 3 + ["ask"] * 17


def test_decisions_are_counted(world: World) -> None:
    world.write(ALIAS)
    assert [world.judge()[0] for _ in range(4)] == ["allow", "allow", "allow", "ask"]
    shown = render_metrics(world.book.families()).decode()
    assert 'fazai_policy_decisions_total{verdict="allow"} 3.0' in shown
    assert 'fazai_policy_decisions_total{verdict="refuse"} 0.0' in shown
    assert "fazai_policy_valid 1.0" in shown
    world.write("rule: []")
    assert "fazai_policy_valid 0.0" in render_metrics(world.book.families()).decode()


def test_the_book_protects_its_own_file(world: World) -> None:
    world.write(ALIAS)
    assert str(world.file) in world.book.policy.protected
