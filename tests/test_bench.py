"""Every measurement of `bench/` still runs, at its smallest size: what it finds is nobody's affair here."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from bench import agent, hosts, inventory, journal, kb, memory, reconcile, startup
from bench.__main__ import ASKED, NAMES


@pytest.mark.parametrize("name", [*NAMES, *ASKED])
def test_what_the_command_offers_is_there(name: str) -> None:
    assert callable(importlib.import_module(f"bench.{name}").main)


@pytest.mark.slow
def test_startup() -> None:
    found = startup.main(rounds=1)
    assert any(line.startswith("| `fazai validate` |") for line in found), found


@pytest.mark.slow
def test_inventory() -> None:
    found = inventory.main(rounds=1, hosts=20, groups=2)
    assert any(line.startswith("| `fazai inventory --list` |") for line in found), found


def test_kb() -> None:
    found = kb.main(count=120, queries=6)
    (row,) = [line for line in found if line.startswith("| fazai |")]
    assert row.endswith("1.000 (@5) |"), found


def test_journal() -> None:
    found = journal.main(rounds=1, targets=4, widths=(1, 3))
    assert [line.split(" |")[0] for line in found[2:]] == ["| 1", "| 3"]


@pytest.mark.slow
def test_memory() -> None:
    found = memory.main(targets=2, count=2)
    assert [line.split(",")[0] for line in found[2:]] == ["| 2 x 2", "| 2 x 2"]
    assert all(line.endswith("| 2 |") for line in found[2:]), found


def test_agent() -> None:
    found = agent.main(samples=2, spooled=2, rounds=1)
    assert any("CPU a sample, collected, spooled, signed and delivered (mean of 2" in line for line in found)


def test_an_agent_that_does_not_deliver_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "_PATIENCE_S", 0.0)
    (tmp_path / "status").write_text("delivered=0\nlast_error=status 401\n")
    with pytest.raises(RuntimeError, match=r"no delivered=1 after 0 s: .*'last_error': 'status 401'"):
        agent._until(tmp_path / "status", "delivered", 1)


@pytest.mark.slow
def test_reconcile() -> None:
    found = reconcile.main(rounds=1)
    assert any(line.startswith("| the same again | 2 | 0 | 0 |") for line in found), found


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["noop", "converge"])
def test_hosts(measure: str, tmp_path: Path) -> None:
    out = tmp_path / "results" / "hosts.jsonl"
    hosts.turn(measure, 2, 1, [hosts.LOOK, hosts.FAZAI], out=out)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["contender"], row["logins"]) for row in rows] == [
        (hosts.BARE, 1.0),
        (hosts.LOOK, 1.0),
        (hosts.FAZAI, 1.0),
    ]
