"""State in a folder: what was answered is there after a stop, a kill, a damaged line; the history too."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fazai.errors import LockHeld, StateError, UsageError
from fazai.lab import Lab, LabFirewall, LabSettings, find_firewall
from fazai.lab.command import describe_lab, reset_lab
from fazai.lab.engine.config import FOLD_AT, FirewallConfig


def visit(folder: Path, work: Callable[[LabFirewall], Any], **settings: Any) -> Any:
    async def run() -> Any:
        async with Lab(folder) as lab:
            return work(await lab.start("fw", LabSettings(auth_delay_s=0, **settings)))

    return asyncio.run(run())


def add_category(firewall: LabFirewall, name: str) -> str:
    made = firewall.call("POST", "/api/firewall/category/addItem", {"category": {"name": name}})
    return str(made["uuid"])


def categories(firewall: LabFirewall) -> set[str]:
    return {row["name"] for row in firewall.call("POST", "/api/firewall/category/searchItem")["rows"]}


def history(firewall: LabFirewall) -> list[str]:
    return [item["id"] for item in firewall.call("GET", "/api/core/backup/backups/this")["items"]]


def test_state_keys_and_history_survive_a_stop(tmp_path: Path) -> None:
    def first(firewall: LabFirewall) -> tuple[str, list[str]]:
        for name in ("a", "b", "c"):
            add_category(firewall, name)
        return firewall.api_key, history(firewall)

    def second(firewall: LabFirewall) -> tuple[str, list[str], set[str]]:
        return firewall.api_key, history(firewall), categories(firewall)

    key, ids = visit(tmp_path, first)
    assert visit(tmp_path, second) == (key, ids, {"a", "b", "c"})
    assert (tmp_path / "fw" / "key.json").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "fw").stat().st_mode & 0o777 == 0o700


def test_an_earlier_configuration_can_be_reverted_to_after_a_restart(tmp_path: Path) -> None:
    def first(firewall: LabFirewall) -> str:
        add_category(firewall, "a")
        kept = history(firewall)[0]
        add_category(firewall, "b")
        return kept

    kept = visit(tmp_path, first)

    def second(firewall: LabFirewall) -> set[str]:
        assert firewall.call("POST", f"/api/core/backup/revertBackup/{kept}") == {"status": "reverted"}
        return categories(firewall)

    assert visit(tmp_path, second) == {"a"}
    assert visit(tmp_path, categories) == {"a"}


def test_a_deleted_backup_stays_deleted_and_the_configuration_stays(tmp_path: Path) -> None:
    def first(firewall: LabFirewall) -> list[str]:
        add_category(firewall, "a")
        add_category(firewall, "b")
        newest = history(firewall)[0]
        assert firewall.call("POST", f"/api/core/backup/deleteBackup/{newest}") == {"status": "deleted"}
        return history(firewall)

    ids = visit(tmp_path, first)
    assert len(ids) == 1
    assert visit(tmp_path, lambda firewall: (history(firewall), categories(firewall))) == (ids, {"a", "b"})


def test_the_journal_is_folded_and_the_history_is_kept_short(tmp_path: Path) -> None:
    config = FirewallConfig({}, 5, tmp_path)
    for number in range(FOLD_AT + 10):
        edit = config.edit()
        edit.put("things", str(number % 7), {"value": str(number)})
        if number % 3 == 0:
            edit.drop("things", str((number + 1) % 7))
        edit.commit("test", "me", 1000.0 + number)
    state, ids = config.state, [revision.id for revision in config.history]
    assert (tmp_path / "journal.ndjson").read_bytes().count(b"\n") < FOLD_AT
    again = FirewallConfig({}, 5, tmp_path)
    assert again.state == state
    assert [list(items) for items in again.state.values()] == [list(items) for items in state.values()]
    assert [revision.id for revision in again.history] == ids
    assert [revision.state for revision in again.history] == [revision.state for revision in config.history]


def test_a_last_line_cut_short_is_dropped(tmp_path: Path) -> None:
    config = FirewallConfig({}, 5, tmp_path)
    for name in ("one", "two"):
        edit = config.edit()
        edit.put("things", name, {"value": name})
        edit.commit("test", "me", 1000.0)
    journal = tmp_path / "journal.ndjson"
    journal.write_bytes(journal.read_bytes()[:-10])
    assert set(FirewallConfig({}, 5, tmp_path).items("things")) == {"one"}


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "base.json").write_text("no json\n")
    with pytest.raises(StateError, match="cannot be used"):
        FirewallConfig({}, 5, tmp_path)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "ä b"])
def test_names_that_cannot_be_folders(tmp_path: Path, name: str) -> None:
    async def run() -> None:
        async with Lab(tmp_path) as lab:
            with pytest.raises(UsageError, match="cannot name a firewall of the lab"):
                await lab.start(name)

    asyncio.run(run())


# `fazai lab up` in a process of its own

PROGRAM = """
import asyncio, sys
from pathlib import Path
from fazai.lab import LabSettings
from fazai.lab.command import serve_lab
def out(line):
    print(line, flush=True)
asyncio.run(serve_lab(Path(sys.argv[1]), ["a", "b"], LabSettings(auth_delay_s=0), out))
"""


@contextlib.contextmanager
def lab_up(folder: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        for _ in range(2):
            assert process.stdout.readline().split()[1].startswith("http://127.0.0.1:")
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_a_lab_that_is_up_is_found_and_stops_cleanly(tmp_path: Path) -> None:
    assert find_firewall(tmp_path, "a") is None
    with lab_up(tmp_path) as process:
        address = find_firewall(tmp_path, "a")
        assert address is not None
        assert find_firewall(tmp_path, "nosuch") is None
        assert [line.split()[:2] for line in describe_lab(tmp_path)] == [["a", "up"], ["b", "up"]]
        with pytest.raises(LockHeld, match="a is being served from"):
            reset_lab(tmp_path, ["a"])
        body = {"category": {"name": "kept"}}
        url = f"{address.base_url}/api/firewall/category/addItem"
        assert httpx.post(url, json=body, auth=address.key()).json()["result"] == "saved"
        text = (tmp_path / "lab.json").read_text()
        assert address.key()[1] not in text
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    assert find_firewall(tmp_path, "a") is None
    assert not (tmp_path / "lab.json").exists()
    with lab_up(tmp_path):
        again = find_firewall(tmp_path, "a")
        assert again is not None
        assert again.base_url == address.base_url
        answer = httpx.post(f"{again.base_url}/api/firewall/category/searchItem", json={}, auth=again.key())
        assert answer.json()["total"] == 1
    assert [line.split()[:2] for line in describe_lab(tmp_path)] == [["a", "down"], ["b", "down"]]
    with pytest.raises(UsageError, match="keeps no firewall 'nosuch'"):
        reset_lab(tmp_path, ["nosuch"])
    assert len(reset_lab(tmp_path, ["a"])) == 1
    assert not (tmp_path / "a").exists()
    assert (tmp_path / "b").exists()
    assert len(reset_lab(tmp_path, [])) == 1
    assert describe_lab(tmp_path) == []


def test_a_killed_lab_leaves_what_it_answered(tmp_path: Path) -> None:
    with lab_up(tmp_path) as process:
        address = find_firewall(tmp_path, "b")
        assert address is not None
        url = f"{address.base_url}/api/firewall/category/addItem"
        for name in ("x", "y"):
            httpx.post(url, json={"category": {"name": name}}, auth=address.key())
        os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=60)
    assert (tmp_path / "lab.json").exists()
    assert find_firewall(tmp_path, "b") is None
    assert json.loads((tmp_path / "ports.json").read_text())["b"] > 0
    with lab_up(tmp_path):
        again = find_firewall(tmp_path, "b")
        assert again is not None
        answer = httpx.post(f"{again.base_url}/api/firewall/category/searchItem", json={}, auth=again.key())
        assert {row["name"] for row in answer.json()["rows"]} == {"x", "y"}
