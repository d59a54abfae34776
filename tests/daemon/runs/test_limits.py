"""Which targets a run contacts that was asked for with a limit; what a child finds where it works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fazai.cli import main
from fazai.lab import LabFirewall, LabSettings, LabThread
from tests.daemon.runs_world import World, beside, write_inventory

NAMES = ("fw-01", "fw-02", "fw.3")


@pytest.fixture(scope="module")
def firewalls() -> Iterator[dict[str, LabFirewall]]:
    with LabThread() as lab:
        yield {name: lab.start(name, LabSettings(auth_delay_s=0.0)) for name in NAMES}


def _three(folder: Path, firewalls: dict[str, LabFirewall]) -> None:
    """An inventory of three firewalls; two of them are the group `edge`."""
    hosts: dict[str, Any] = {}
    for name, firewall in firewalls.items():
        write_inventory(folder, firewall)
        hosts[name] = json.loads((folder / "inventory.yml").read_text())["all"]["hosts"]["fw-01"]
        firewall.requests.clear()
    groups = {"edge": {"hosts": {"fw-01": None, "fw.3": None}}}
    (folder / "inventory.yml").write_text(json.dumps({"all": {"hosts": hosts, "children": groups}}))


def _contacted(firewalls: dict[str, LabFirewall]) -> list[str]:
    return [name for name, firewall in firewalls.items() if firewall.requests]


@pytest.mark.parametrize(
    ("of_job", "asked", "contacted"),
    [
        pytest.param([], ["fw-02"], ["fw-02"], marks=pytest.mark.slow),
        ([], ["fw-01", "fw.3"], ["fw-01", "fw.3"]),
        pytest.param([], ["edge"], ["fw-01", "fw.3"], marks=pytest.mark.slow),
        pytest.param(["all"], ["fw-02"], ["fw-02"], marks=pytest.mark.slow),
        pytest.param(["all"], ["fw-02", "fw.3"], ["fw-02", "fw.3"], marks=pytest.mark.slow),
        pytest.param(["edge"], ["fw-01"], ["fw-01"], marks=pytest.mark.slow),
        pytest.param(["edge", "fw-02"], ["edge"], ["fw-01", "fw.3"], marks=pytest.mark.slow),
        (["all:!fw-01"], ["edge"], ["fw.3"]),
    ],
)
def test_a_limit_narrows_what_is_contacted(
    tmp_path: Path,
    firewalls: dict[str, LabFirewall],
    of_job: list[str],
    asked: list[str],
    contacted: list[str],
) -> None:
    job = {"limit": of_job} if of_job else {}
    with beside(tmp_path, firewalls["fw-01"], job=job) as edge:
        _three(tmp_path, firewalls)
        row = edge.ended(edge.started(edge.run(limit=asked)))
        assert row["exit_code"] == 2, row.get("error")
        assert _contacted(firewalls) == contacted
        assert edge.plan(row["run_id"])["targets"] == contacted


def test_a_limit_never_widens(tmp_path: Path, firewalls: dict[str, LabFirewall]) -> None:
    with beside(tmp_path, firewalls["fw-01"], job={"limit": ["all:!fw-01"]}) as edge:
        _three(tmp_path, firewalls)
        row = edge.ended(edge.started(edge.run(limit=["fw-01"])))
        assert row["exit_code"] == 3
        assert "leaves no host" in row["error"]
        assert _contacted(firewalls) == []


def test_changes_of_a_run_that_has_not_told_of_any_are_none(
    tmp_path: Path, firewalls: dict[str, LabFirewall]
) -> None:
    """Right after an approval: it is there, and has no changes yet."""
    with beside(tmp_path, firewalls["fw-01"], job={"limit": ["fw-01"]}) as edge:
        _three(tmp_path, firewalls)
        checked = edge.ended(edge.started(edge.run()))
        where = f"/runs/{checked['run_id']}/approve"
        run_id = edge.started(edge.client.post(where, json={"plan_hash": checked["plan_hash"]}))
        at_once = edge.client.get(f"/runs/{run_id}/changes")
        assert at_once.status_code == 200, at_once.text
        assert edge.ended(run_id)["exit_code"] == 0
        assert edge.client.get(f"/runs/{run_id}/changes").json()["total"] == 1
        firewalls["fw-01"].call("POST", "/api/firewall/alias/delItem/" + _alias(edge), {})
        unknown = edge.client.get("/runs/01KANHC0E8M5T3W9Q7Z2R4V6XB/changes")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")


def _alias(edge: World) -> str:
    rows = edge.firewall.call("POST", "/api/firewall/alias/searchItem", {})["rows"]
    return next(str(row["uuid"]) for row in rows if row["name"] == "blocklist")


def test_a_run_does_not_import_from_where_the_daemon_was_started(
    tmp_path: Path, firewalls: dict[str, LabFirewall], monkeypatch: pytest.MonkeyPatch
) -> None:
    trap, sprung = tmp_path / "trap", tmp_path / "sprung"
    trap.mkdir()
    for name in ("msgspec", "json", "fazai", "sitecustomize"):
        (trap / f"{name}.py").write_text(f"open({str(sprung)!r}, 'a').write({name!r})\n")
    monkeypatch.chdir(trap)
    with beside(tmp_path, firewalls["fw-01"], job={"limit": ["fw-01"]}) as edge:
        _three(tmp_path, firewalls)
        row = edge.ended(edge.started(edge.run()))
        assert row["exit_code"] == 2, row.get("error")
        assert not sprung.exists()


@pytest.mark.parametrize(
    "text", ["../../evil", "01KANHC0E8M5T3W9Q7Z2R4V6X", "01kanhc0e8m5t3w9q7z2r4v6xb", "é" * 26]
)
def test_an_id_that_is_none_is_refused(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in _environ(tmp_path, text).items():
        monkeypatch.setenv(name, value)
    assert main(["plan", str(_inventory(tmp_path))]) == 3
    assert "and that is no id of a run" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inventory.yml", "run"]
    assert list((tmp_path / "run").iterdir()) == []


def test_an_id_can_be_used_once(tmp_path: Path) -> None:
    run_id = "01KANHC0E8M5T3W9Q7Z2R4V6XB"
    assert _plan(tmp_path, run_id).returncode == 0
    again = _plan(tmp_path, run_id)
    assert again.returncode == 3
    assert f"FAZAI_RUN_ID is {run_id}, and that run was made before" in again.stderr


def _plan(folder: Path, run_id: str) -> subprocess.CompletedProcess[str]:
    """`fazai plan` of a folder as a host, with that id."""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ["PYTHONPATH"], **_environ(folder, run_id)}
    words = [sys.executable, "-m", "fazai", "plan", str(_inventory(folder))]
    return subprocess.run(words, env=env, cwd=folder, capture_output=True, text=True, timeout=120)


def _inventory(folder: Path) -> Path:
    """An inventory with a folder as a host."""
    (folder / "run").mkdir(exist_ok=True)
    host = {"provider": "local", "root": str(folder / "run"), "resources": []}
    (folder / "inventory.yml").write_text(json.dumps({"all": {"hosts": {"h1": host}}}))
    return folder / "inventory.yml"


def _environ(folder: Path, run_id: str) -> dict[str, str]:
    return {
        "HOME": str(folder / "run"),
        "FAZAI_STATE_DIR": str(folder / "run" / "state"),
        "FAZAI_SOCKET": str(folder / "none.sock"),
        "FAZAI_RUN_ID": run_id,
    }
