"""fazai rules check and test; docs/rules.md and the samples are what they say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fazai.cli.main import main
from fazai.rules import reading
from fazai.rules.entries import render_entries
from fazai.rules.values import OPERATORS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/rules.md").read_text()
RULES, PLAYBOOK, CONFIG = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.M | re.S)
(RECORDS,) = re.findall(r"^```json\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules.yml").write_text(RULES)
    (tmp_path / "records.ndjson").write_text(RECORDS)
    (tmp_path / "daemon.yml").write_text(CONFIG)
    (tmp_path / "attackers.yml").write_text(PLAYBOOK)
    return tmp_path


def test_the_page_shows_what_the_commands_print(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"^```\n(\$ fazai rules .*?)^```$", PAGE, re.M | re.S)
    shown = re.findall(r"^\$ fazai ([^\n]*)\n(.*?)(?=^\$|\Z)", block, re.M | re.S)
    assert len(shown) == 2
    for words, said in shown:
        assert main(words.split()) == 0
        assert capsys.readouterr().out == said


def test_the_page_names_every_field() -> None:
    named = {word for span in re.findall(r"`([^`\n]+)`", PAGE) for word in re.findall(r"[a-z_]+", span)}
    wanted = {*reading._TOP, *reading._RULE, *reading._ENTRY, *reading._THEN, *OPERATORS}
    assert wanted - named == set()


def test_the_example_of_the_page_works(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The job's playbook is valid with a file of entries, and not without one."""
    host = {"provider": "opnsense", "base_url": "lab://fw-01"}
    inventory = {"all": {"hosts": {"fw-01": host}, "children": {"edge": {"hosts": {"fw-01": {}}}}}}
    (folder / "inventory.yml").write_text(json.dumps(inventory))
    entry = {"address": "203.0.113.7", "until": "2999-01-01T00:00:00Z", "why": "x"}
    body = {"format": "fazai-entries/1", "aliases": {"fazai_attackers": [entry]}}
    (folder / "entries.json").write_text(json.dumps(body))
    words = ["validate", "inventory.yml", "--playbook", "attackers.yml"]
    assert main([*words, "--entries", "entries.json"]) == 0
    assert "valid: 1 target, 1 resource" in capsys.readouterr().out
    assert main(words) == 3
    assert "fazai_entries" in capsys.readouterr().err
    assert main([*words, "--entries", "none.json"]) == 3
    assert 'there is no file of entries "none.json"' in capsys.readouterr().err
    assert main(["rules", "check", "rules.yml", "--config", "daemon.yml"]) == 0


def test_the_samples_are_good(capsys: pytest.CaptureFixture[str]) -> None:
    sample = str(ROOT / "deploy/rules.yml")
    assert main(["rules", "check", sample, "--config", str(ROOT / "deploy/daemon.yml")]) == 0
    assert "3 rules: suricata, clamav, keeps-failing" in capsys.readouterr().out


def test_mistakes_have_their_lines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "rules.yml").write_text(
        RULES.replace("at_most", "atmost").replace("job: attackers", "job: atackers")
    )
    assert main(["rules", "check", "rules.yml", "--config", "daemon.yml"]) == 3
    said = capsys.readouterr().err
    assert "rules.yml:7:23: severity has no 'atmost'" in said
    assert "rules.yml:13:20: the daemon's configuration has no job 'atackers'" in said


def test_a_plan_keeps_its_file_of_entries_and_is_stale_once_that_or_the_time_moved(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "root").mkdir()
    resource = {"host.file": {"path": "/blocked", "content": "{{ fazai_entries.a | join(',') }}\n"}}
    host = {"provider": "local", "root": str(folder / "root"), "resources": [resource]}
    (folder / "inventory.yml").write_text(json.dumps({"all": {"hosts": {"box": host}}}))

    def write(*entries: tuple[str, str]) -> None:
        rows = [{"address": address, "until": until} for address, until in entries]
        (folder / "e.json").write_text(json.dumps({"format": "fazai-entries/1", "aliases": {"a": rows}}))

    write(("203.0.113.7", "2999-01-01T00:00:00Z"), ("203.0.113.8", "2020-01-01T00:00:00Z"))
    assert main(["plan", "inventory.yml", "--entries", "e.json", "--out", "plan.json"]) == 2
    assert json.loads((folder / "plan.json").read_text())["arguments"]["entries"] == ["e.json"]
    write(("203.0.113.7", "2999-01-01T00:00:00Z"), ("203.0.113.9", "2999-01-01T00:00:00Z"))
    capsys.readouterr()
    assert main(["apply", "--plan", "plan.json"]) == 6
    assert "the plan is stale" in capsys.readouterr().err
    write(("203.0.113.7", "2999-01-01T00:00:00Z"), ("203.0.113.8", "2020-01-01T00:00:00Z"))
    assert main(["apply", "--plan", "plan.json"]) == 0
    assert (folder / "root/blocked").read_text() == "203.0.113.7\n"


def test_a_default_file_that_is_not_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "etc").mkdir()
    monkeypatch.setenv("FAZAI_RULES", "etc/rules.yml")
    assert main(["rules", "check"]) == 3
    said = capsys.readouterr().err
    assert 'there is no file of event rules "etc/rules.yml"' in said
    assert "hint: without it there are no rules; fazai rules check FILE reads another" in said
    assert main(["notify", "test", "--config", "etc/daemon.yml"]) == 3
    assert "hint: --config names the daemon's" in capsys.readouterr().err


def test_records_that_are_none_are_said_with_their_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text, words in (
        ("{}\n", "line 1: the record has no `timestamp`"),
        ('{"timestamp": 1}\nnone\n', "records.ndjson:2: this is not JSON"),
        ("[]\n", "records.ndjson:1: a record is an object"),
    ):
        (folder / "records.ndjson").write_text(text)
        assert main(["rules", "test", "rules.yml", "records.ndjson"]) == 3
        assert words in capsys.readouterr().err


def test_entries_are_listed_with_their_ends_and_reasons(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAZAI_STATE_DIR", str(folder / "state"))
    assert main(["rules", "entries"]) == 0
    assert capsys.readouterr().out == "0 entries\n"
    (folder / "state/entries").mkdir(parents=True)
    rows = [
        ("attackers", "203.0.113.7", 32503680000.0, "scan: 5 hits"),
        ("attackers", "203.0.113.8", 1.0, "old"),
    ]
    (folder / "state/entries/edge.json").write_bytes(render_entries(["attackers", "other"], rows))
    assert main(["rules", "entries"]) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first.split() == [
        "attackers",
        "203.0.113.7",
        "until",
        "3000-01-01",
        "00:00:00Z",
        "scan:",
        "5",
        "hits",
    ]
    assert last == "1 entry"
    assert main(["rules", "entries", "--output", "json"]) == 0
    assert [row["job"] for row in json.loads(capsys.readouterr().out)] == ["edge"]
    (folder / "state/entries/edge.json").write_text("{}")
    assert main(["rules", "entries"]) == 3
    assert "edge.json: this is no file of entries" in capsys.readouterr().err


def test_json_is_for_machines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules", "test", "rules.yml", "records.ndjson", "--output", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["rule"], row["group"], row["count"], row["refused"] is None) for row in rows] == [
        ("suricata", "203.0.113.7", 3, True),
        ("suricata", "192.0.2.9", 3, False),
        ("keeps-failing", "fw-01", 2, True),
    ]
