"""fazai apply --textfile: what node_exporter's textfile collector reads, whatever became of the run."""

from __future__ import annotations

import stat
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fazai.cli.textfile import METRICS
from fazai.lab import Fault

from .conftest import World


def read(path: Path) -> dict[str, float]:
    """name, or name/value of the second label -> value; each read by Prometheus' own parser."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(path.read_text()):
        assert family.type == "gauge"
        for sample in family.samples:
            assert sample.name in METRICS
            labels = dict(sample.labels)
            assert labels.pop("file") == path.stem
            key = "/".join([sample.name.removeprefix("fazai_apply_"), *labels.values()])
            assert key not in found
            found[key] = sample.value
    return found


def test_a_run_that_changes(world: World, tmp_path: Path) -> None:
    world.firewall()
    path = tmp_path / "edge.prom"
    before = time.time()
    assert world.fazai("apply", world.inventory(), "--textfile", str(path)).code == 0
    found = read(path)
    assert (found["exit_code"], found["check"]) == (0, 0)
    assert before - 1 <= found["end_timestamp_seconds"] <= time.time() + 1
    assert found["success_timestamp_seconds"] == found["end_timestamp_seconds"]
    assert 0 < found["duration_seconds"] < 60
    assert (found["changes/done"], found["changes/planned"], found["changes/failed"]) == (3, 0, 0)
    assert found["targets/changed"] == 1
    assert (found["target_pending_changes/fw-01"], found["target_failed/fw-01"]) == (0, 0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [one.name for one in tmp_path.iterdir() if "prom" in one.name] == ["edge.prom"]


def test_a_check_says_what_is_pending(world: World, tmp_path: Path) -> None:
    world.firewall()
    path = tmp_path / "edge.prom"
    assert world.fazai("apply", world.inventory(), "--check", "--textfile", str(path)).code == 2
    found = read(path)
    assert (found["exit_code"], found["check"], found["changes/planned"]) == (2, 1, 3)
    assert found["target_pending_changes/fw-01"] == 3
    assert "success_timestamp_seconds" in found


def test_a_failed_run_keeps_when_one_last_succeeded(world: World, tmp_path: Path) -> None:
    firewall = world.firewall()
    path = tmp_path / "edge.prom"
    assert world.fazai("apply", world.inventory(), "--textfile", str(path)).code == 0
    success = read(path)["success_timestamp_seconds"]
    firewall.inject(Fault(kind="status", status=500))
    code = world.fazai("apply", world.inventory(), "--textfile", str(path)).code
    found = read(path)
    assert code not in (0, 2)
    assert found["exit_code"] == code
    assert found["target_failed/fw-01"] == 1
    assert found["success_timestamp_seconds"] == success
    assert found["end_timestamp_seconds"] > success


def test_a_run_that_never_began_is_seen(world: World, tmp_path: Path) -> None:
    path = tmp_path / "edge.prom"
    result = world.fazai("apply", "nowhere.yml", "--textfile", str(path))
    assert result.code == 3
    assert "nowhere.yml" in result.err
    found = read(path)
    assert found["exit_code"] == 3
    assert not any(name.startswith(("targets", "success")) for name in found)


def test_of_a_saved_plan_too(world: World, tmp_path: Path) -> None:
    world.firewall()
    plan, path = tmp_path / "plan.json", tmp_path / "edge.prom"
    assert world.fazai("plan", world.inventory(), "-o", str(plan)).code == 2
    assert world.fazai("apply", "--plan", str(plan), "--textfile", str(path)).code == 0
    assert read(path)["changes/done"] == 3


def test_what_cannot_be_written_fails_no_run(world: World, tmp_path: Path) -> None:
    world.firewall()
    result = world.fazai("apply", world.inventory(), "--textfile", str(tmp_path / "no/edge.prom"))
    assert result.code == 0
    assert "edge.prom cannot be written: No such file or directory" in result.err


@pytest.mark.parametrize("name", ["edge.txt", ".prom", "edge"])
def test_a_name_that_nobody_reads_is_refused(world: World, tmp_path: Path, name: str) -> None:
    firewall = world.firewall()
    result = world.fazai("apply", world.inventory(), "--textfile", str(tmp_path / name))
    assert result.code == 3
    assert "does not end in .prom" in result.err
    assert len(firewall.requests) == 0
    assert not (tmp_path / name).exists()
