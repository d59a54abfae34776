"""What somebody who comes from Ansible meets first: handlers in the reports, hosts without a provider."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fazai.cli.main import main

PLAYBOOK = """
- hosts: h1
  resources:
    - host.file: {{path: {folder}/a.conf, content: x}}
      notify: [restart a, reload b]
  handlers:
    - host.command: {{argv: [touch, {folder}/restarted]}}
      name: restart a
    - host.command: {{shell: "echo nope >&2; exit {code}"}}
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


def test_variables_that_are_almost_named_as_an_option_are_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Any name may be a variable: a misspelt option would have no effect without a word."""
    path = tmp_path / "inventory.yml"
    options = "provider: ssh, become_usr: root, key_file: x, ansible_ssh_comon_args: x, ansible_user: ops"
    mine = "http_port: 80, max_hosts: 4, ansible_python_interpreter: /usr/bin/python3, dns_servers: [a]"
    path.write_text(f"all: {{vars: {{{options}, {mine}}}, hosts: {{h1: , h2: {{knwon_hosts: x}}}}}}\n")
    assert main(["validate", str(path)]) == 0
    more = "of h1 and 1 more host is no option; did you mean"
    assert capsys.readouterr().err.splitlines() == [
        f'note: the variable "become_usr" {more} "become_user"?',
        f'note: the variable "key_file" {more} "key"?',
        f'note: the variable "ansible_ssh_comon_args" {more} "ansible_ssh_common_args"?',
        'note: the variable "knwon_hosts" of h2 is no option; did you mean "known_hosts"?',
    ]
    assert main(["validate", str(path), "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_an_option_that_is_missing_is_named_with_the_variable_that_was_meant_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = "provider: opnsense, base_ulr: https://192.0.2.1, secret: {api_key: a, api_secret: b}"
    (tmp_path / "inventory.yml").write_text(f"all: {{hosts: {{fw-01: {{{options}}}}}}}\n")
    assert main(["validate", str(tmp_path / "inventory.yml")]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith(": base_url is missing, for fw-01")
    assert lines[-1] == '  hint: "base_ulr" is set: was base_url meant?'


def test_a_key_that_is_not_there_is_named_with_the_one_that_was_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "id_ops").touch()
    (tmp_path / "inventory.yml").write_text("all: {hosts: {h1: {provider: ssh, key: id_op}}}\n")
    assert main(["validate", str(tmp_path / "inventory.yml")]) == 3
    error = capsys.readouterr().err
    assert f"key is no file: {tmp_path}/id_op, for h1" in error
    assert 'did you mean "id_ops"?' in error


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


def local(folder: Path, resources: str, *, hosts: str = "h1: {provider: local}") -> str:
    (folder / "inventory.yml").write_text(f"all:\n  hosts: {{{hosts}}}\n  resources: [{resources}]\n")
    return str(folder / "inventory.yml")


def test_a_plan_prints_the_command_that_applies_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = local(tmp_path, f"host.file: {{path: {tmp_path}/a, content: x}}".join("{}"))
    assert main(["plan", given, "-o", str(tmp_path / "plan.json")]) == 2
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith("saved, apply it with: fazai apply --plan ")
    assert main(said.partition("fazai ")[2].split()) == 0
    assert (tmp_path / "a").read_text() == "x"


def test_a_plan_that_cannot_be_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = local(tmp_path, f"host.file: {{path: {tmp_path}/a, content: x}}".join("{}"))
    out = f"{given}/plan.json"
    assert main(["plan", given, "-o", out]) == 3
    said = capsys.readouterr()
    assert (
        f"error: {out}: the plan cannot be written: Not a directory\n  hint: name another --out" in said.err
    )
    assert "RESULT 1 to change" in said.out


def test_hosts_of_two_providers_are_counted_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts = "h1: {provider: local}, h2: {provider: ssh, ansible_host: 127.0.0.1, ansible_port: 1}"
    main(["plan", local(tmp_path, f"host.file: {{path: {tmp_path}/a}}".join("{}"), hosts=hosts)])
    assert " 2 hosts, 2 resources\n" in capsys.readouterr().out


def test_a_read_only_target_counts_as_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hosts = "h1: {provider: local, mode: read}"
    given = local(tmp_path, f"host.file: {{path: {tmp_path}/a, content: x}}".join("{}"), hosts=hosts)
    assert main(["apply", given]) == 7
    assert "RESULT 0 changed, 0 unchanged, 0 failed, 1 refused " in capsys.readouterr().out


def test_a_command_that_does_not_make_what_it_is_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = local(tmp_path, f'host.command: {{argv: ["true"], creates: {tmp_path}/never}}'.join("{}"))
    assert main(["apply", given]) == 1
    out = capsys.readouterr().out
    assert "what it is run for still is not so" in out
    assert "hint: does it make what creates:, removes: or unless: look at?" in out
    assert main(["history"]) == 0
    assert " 1 target, 1 resource, " in capsys.readouterr().out
    assert main(["show"]) == 0
    shown = capsys.readouterr().out
    assert f"options creates={tmp_path}/never" in shown
    assert "errors h1/host.command/true: after writing" in shown
    assert "['" not in shown


def test_a_resource_without_a_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", local(tmp_path, "{host.command: {}}")]) == 3
    assert "host.command: argv: is missing: what is to be run" in capsys.readouterr().err


def test_a_lab_whose_state_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "state" / "lab" / "lab.json"
    file.mkdir(parents=True)
    assert main(["lab", "status"]) == 3
    said = capsys.readouterr().err
    assert said.startswith(f"error: {file} cannot be read: Is a directory\n  hint: mend its owner and mode")


def test_the_facts_of_an_inventory_are_those_of_its_hosts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A firewall of the lab is left out, as any other: what is asked of hosts is nothing that it has."""
    firewall = "fw-01: {provider: opnsense, base_url: lab://fw-01}"
    inventory = tmp_path / "inventory.yml"
    inventory.write_text(f"all: {{hosts: {{{firewall}, h1: {{provider: local}}}}}}\n")
    assert main(["facts", str(inventory), "--output", "json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["h1"]
    assert main(["facts", str(inventory), "fw-01"]) == 3
    assert capsys.readouterr().err.startswith("error: none of these targets is a host\n")
