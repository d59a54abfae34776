"""What somebody who comes from Ansible meets first: handlers in the reports, hosts without a provider."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fazai.cli.main import main

PLAYBOOK = """
- hosts: h1
  resources:
    - ssh.file: {{path: {folder}/a.conf, content: x}}
      notify: [restart a, reload b]
  handlers:
    - ssh.command: {{argv: [touch, {folder}/restarted]}}
      name: restart a
    - ssh.command: {{shell: "echo nope >&2; exit {code}"}}
      name: reload b
"""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAZAI_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("FAZAI_SOCKET", str(tmp_path / "none.sock"))
    for name in ("FAZAI_URL", "FAZAI_ALLOW_SCRIPTS", "FAZAI_INVENTORY"):
        monkeypatch.delenv(name, raising=False)


def files(folder: Path, code: int) -> list[str]:
    (folder / "inventory.yml").write_text("all: {hosts: {h1: {provider: local, mode: write}}}\n")
    (folder / "site.yml").write_text(PLAYBOOK.format(folder=folder, code=code))
    return [str(folder / "inventory.yml"), "-p", str(folder / "site.yml")]


def test_a_plan_names_the_handlers_that_will_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = files(tmp_path, 0)
    assert main(["plan", *given]) == 2
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["h1", "!", "to", "activate", "restart", "a"] in lines
    assert ["h1", "!", "to", "activate", "reload", "b"] in lines
    assert main(["plan", *given, "--output", "json"]) == 2
    (target,) = json.loads(capsys.readouterr().out)["targets"]
    assert target["to_activate"] == ["restart a", "reload b"]
    assert target["activated"] == target["not_activated"] == []
    for output in ("junit", "markdown"):
        assert main(["plan", *given, "--output", output]) == 2
        assert "! to activate restart a" in capsys.readouterr().out


def test_a_report_names_the_handlers_that_ran(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = files(tmp_path, 0)
    assert main(["apply", *given, "-v"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["h1", "!", "activated", "restart", "a"] in lines
    assert ["h1", "!", "activated", "reload", "b"] in lines


@pytest.mark.parametrize("output", ["text", "json", "junit", "markdown"])
def test_a_handler_that_fails_is_named(
    output: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["apply", *files(tmp_path, 3), "--output", output]) == 1
    told = capsys.readouterr().out
    if output == "json":
        (target,) = json.loads(told)["targets"]
        assert (target["activated"], target["not_activated"]) == (["restart a"], ["reload b"])
    else:
        assert "activated restart a" in told
        assert "not activated reload b" in told


def test_hosts_without_a_provider_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "inventory.yml"
    path.write_text("all: {hosts: {h1: {provider: local}, h2: , h3: , h4: , h5: }}\n")
    assert main(["validate", str(path)]) == 0
    assert capsys.readouterr().err == "note: 4 hosts have no provider: and are left out: h2, h3, h4, …\n"
    assert main(["validate", str(path), "--limit", "h1,h2"]) == 0
    assert capsys.readouterr().err == "note: 1 host has no provider: and is left out: h2\n"
    assert main(["validate", str(path), "--quiet"]) == 0
    assert main(["validate", str(path), "--limit", "h1"]) == 0
    assert capsys.readouterr().err == ""


def test_an_inventory_script_needs_its_option_or_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "inventory"
    path.write_text(
        '#!/bin/sh\necho \'{"web": ["w1"], "_meta": {"hostvars": {"w1": {"provider": "local"}}}}\'\n'
    )
    path.chmod(0o755)
    assert main(["validate", str(path)]) == 3
    assert "hint: --allow-scripts, or FAZAI_ALLOW_SCRIPTS=1" in capsys.readouterr().err
    assert main(["validate", str(path), "--allow-scripts"]) == 0
    monkeypatch.setenv("FAZAI_ALLOW_SCRIPTS", "1")
    assert main(["inventory", str(path)]) == 0
    assert capsys.readouterr().out.endswith("w1\n")
    monkeypatch.setenv("FAZAI_ALLOW_SCRIPTS", "maybe")
    assert main(["inventory", str(path)]) == 3
    assert "FAZAI_ALLOW_SCRIPTS is 'maybe', 1 or 0 was expected" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--tags", "--skip-tags", "--kind"])
def test_an_empty_word_of_a_selection_is_refused(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "inventory.yml"
    path.write_text("all: {hosts: {h1: {provider: local}}}\n")
    assert main(["plan", str(path), option, ""]) == 3
    assert f"{option} has an empty word" in capsys.readouterr().err
