"""`entries`, `policy` and `rules` in the daemon's configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from fazai.daemon.runs.child import command_line, entries_path
from fazai.daemon.runs.config_file import read_daemon_config
from fazai.errors import FazaiError
from fazai.store.daemon import RunRecord


def read(folder: Path, text: str) -> object:
    (folder / "daemon.yml").write_text(text)
    return read_daemon_config(folder / "daemon.yml")


def test_the_files_are_relative_to_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "daemon.yml").write_text("policy: p.yml\nrules: /etc/r.yml\n")
    found = read_daemon_config(tmp_path / "daemon.yml")
    assert (found.policy, found.rules) == (tmp_path / "p.yml", Path("/etc/r.yml"))


@pytest.mark.parametrize("modes", ["[check]", "[apply]", "[check, apply]"])
def test_a_job_with_entries_can_be_planned_and_approved(tmp_path: Path, modes: str) -> None:
    with pytest.raises(FazaiError, match="entries needs the modes check and approve"):
        read(tmp_path, f"runs: {{edge: {{inventory: i.yml, modes: {modes}, entries: true}}}}")
    with pytest.raises(FazaiError, match="entries is true or false"):
        read(tmp_path, "runs: {edge: {inventory: i.yml, entries: 1}}")


def test_a_run_is_given_the_file_and_a_plan_brings_its_own(tmp_path: Path) -> None:
    (tmp_path / "daemon.yml").write_text("runs: {edge: {inventory: i.yml, entries: true}}")
    job = read_daemon_config(tmp_path / "daemon.yml").jobs["edge"]
    record = RunRecord(run_id="R", job="edge", mode="check", trigger="rule", by="x", asked=0.0)
    file, plan = entries_path(tmp_path, "edge"), tmp_path / "runs/R.plan"
    words = command_line(job, record, plan, None, file)
    assert words[words.index("--entries") + 1] == str(tmp_path / "entries/edge.json")
    assert "--entries" not in command_line(job, record, plan)
    record.applies = "Q"
    assert "--entries" not in command_line(job, record, plan, "hash", file)
