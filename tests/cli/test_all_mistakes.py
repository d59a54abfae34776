"""Everything that can be known to be wrong is said in one run, whichever stage would have found it; and a
file that is not there is named in the same words, whatever names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fazai.cli.main import main

INVENTORY = """\
all:
  vars: {provider: local, mode: write, root: FOLDER/fs, port: 80}
  host:
    web-01:
    web-02: {color: red}
    web-02:
playbook: [site.yml]
"""
SITE = """\
- hosts: wbe-01
  resource:
    - ssh.flie: {path: /etc/x, content: a}
- hosts: all
  resources:
    - host.file: {path: /etc/a, content: "{{ prt }}"}
    - host.file: {path: /etc/b, content: x, mod: "0644"}
    - host.file: {path: /etc/b, content: y}
    - host.service: {name: x, enabled: 5}
      notfy: reload
"""
#: Each mistake: where, what, and what is offered instead.
EXPECTED = """\
inventory.yml:3:3: unknown key "host" in the group "all" | did you mean "hosts"?
inventory.yml:6:5: the key "web-02" stands twice, first in line 5 | keep one of them
inventory.yml:7:11: "playbook" is no group: a list stands there | did you mean "playbooks"?
more.yml:1:10: the { that opens here is never closed | close it
site.yml:1:10: the pattern "wbe-01" matches no group and no host | did you mean "web-01"?
site.yml:2:3: a play has no "resource" | did you mean "resources"?
site.yml:3:7: there is no kind "ssh.flie" | did you mean "host.line"?
site.yml:6:42: "prt" is not defined, for web-01 and 1 more host | did you mean "port"?
site.yml:7:50: host.file "/etc/b": mod: host.file has no such field | did you mean "mode"?
site.yml:8:42: host.file "/etc/b" stands twice in this list, with different values for content, \
for web-01 and 1 more host | the other one is at site.yml:7:42
site.yml:9:40: host.service "x": enabled: must be true or false |
site.yml:10:7: a resource has no "notfy" | did you mean "notify"?
there is no playbook "mor.yml" | did you mean "more.yml"?
--extra-vars '1x=4' is not name=value | or @file, or a YAML mapping
--tags has an empty word | an empty variable of the shell?
15 errors, nothing was contacted |
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FAZAI_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("FAZAI_SOCKET", str(tmp_path / "none.sock"))
    for name in ("FAZAI_URL", "FAZAI_INVENTORY", "FAZAI_TOKEN_FILE", "FAZAI_CA_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(text: str) -> list[str]:
    """The errors, each with its hint in one line; without the quoted lines."""
    found: list[str] = []
    for line in text.splitlines():
        if line.startswith("  hint: "):
            found[-1] += line.removeprefix("  hint: ")
        elif "|" not in line[:8]:
            found.append(f"{line.removeprefix('error: ')} | ")
    return [line.rstrip() for line in found]


def test_mistakes_of_all_stages_are_said_in_one_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "inventory.yml").write_text(INVENTORY.replace("FOLDER", str(place)))
    (place / "site.yml").write_text(SITE)
    (place / "more.yml").write_text("- hosts: {a\n")
    given = ["inventory.yml", "-p", "more.yml", "-p", "mor.yml", "-t", "", "-e", "1x=4"]
    for command in ("validate", "plan", "apply"):
        assert main([command, *given]) == 3
        assert told(capsys.readouterr().err) == EXPECTED.splitlines()


def test_what_is_mended_is_gone_and_the_rest_stays(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No error is made up by another: with the first mended, the others are said as before."""
    text = (
        INVENTORY.replace("FOLDER", str(place))
        .replace("host:", "hosts:", 1)
        .replace("playbook:", "playbooks:")
    )
    (place / "inventory.yml").write_text(text.replace("    web-02:\n", ""))
    (place / "site.yml").write_text(SITE)
    assert main(["validate", "inventory.yml"]) == 3
    lines = EXPECTED.splitlines()
    assert told(capsys.readouterr().err) == [*lines[4:12], "8 errors, nothing was contacted |"]


LOST = """\
- hosts: databse
- hosts: web
- hosts: all
  resources:
    - host.file: {path: /etc/a, content: "{{ domain }}"}
      notify: reload
    - host.file: {path: /etc/b, content: "{{ prot }}"}
    - host.command: {{argv: [x]}}
  handlers:
    - host.command: {argv: [y], cread: /x}
      name: reload
"""


def test_what_may_stand_in_what_could_not_be_read_is_not_missed(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A group, a variable, an option and a handler may be in the broken file or mapping; a name that is like
    a known one is a mistake all the same."""
    (place / "inv").mkdir()
    (place / "inv/a.yml").write_text("web: {hosts: {w1: \n")
    (place / "inv/b.yml").write_text("database: {hosts: {d1: {provider: ssh, port: 5}, d2: }, vars: [x]}\n")
    (place / "site.yml").write_text(LOST.replace("{{argv: [x]}}", "5"))
    assert main(["validate", "inv", "-p", "site.yml"]) == 3
    assert told(capsys.readouterr().err) == [
        "inv/a.yml:2:1: expected a value here |",
        "inv/b.yml:1:63: vars: takes a mapping, and a list stands there | write `name: value`",
        'site.yml:1:10: the pattern "databse" matches no group and no host | did you mean "database"?',
        'site.yml:7:42: "prot" is not defined, for d1 | did you mean "port"?',
        "site.yml:8:21: host.command: takes a mapping of fields | for an example: fazai kinds host.command",
        'site.yml:10:40: host.command "y": cread: host.command has no such field | did you mean "creates"?',
        "6 errors, nothing was contacted |",
    ]


def test_only_the_first_twenty_are_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"    - ssh.flie: {{path: /{n}}}\n" for n in range(33))
    (place / "inventory.yml").write_text(f"all:\n  hosts: {{h1: {{provider: local}}}}\n  resources:\n{rows}")
    assert main(["validate", "inventory.yml"]) == 3
    lines = told(capsys.readouterr().err)
    assert len(lines) == 22
    assert lines[19].startswith('inventory.yml:23:7: there is no kind "ssh.flie"')
    assert lines[20:] == [
        "… and 13 more (fazai plan --output json has them all) |",
        "33 errors, nothing was contacted |",
    ]


FILES = [
    (
        ["validate", "inventory.yml", "-p", "site.yaml"],
        'there is no playbook "site.yaml"',
        'did you mean "site.yml"?',
    ),
    (["validate", "invntory.yml"], 'there is no inventory "invntory.yml"', 'did you mean "inventory.yml"?'),
    (
        ["validate", "inventory.yml", "-e", "@var.yml"],
        'no file of variables "var.yml"',
        'did you mean "vars.yml"?',
    ),
    (
        ["validate", "inventory.yml", "--vault-password-file", "prod@valt.txt"],
        'there is no vault password file "valt.txt"',
        'did you mean "vault.txt"?',
    ),
    (["apply", "--plan", "pln.json"], 'there is no plan "pln.json"', 'did you mean "plan.json"?'),
    (["apply", "--plan", "zzz"], 'there is no plan "zzz"', "make one with: fazai plan -o FILE"),
    (
        ["validate", "inventory.yml", "-l", "@failde"],
        'there is no limit file "failde"',
        'did you mean "failed"?',
    ),
    (["validate", "no/inventory.yml"], 'there is no inventory "no/inventory.yml"', 'there is no folder "no"'),
    (
        ["validate", "link.yml"],
        'there is no inventory "link.yml"',
        "it is a link, and what it leads to is not there",
    ),
    (["facts", "invntory.yml"], 'there is no inventory "invntory.yml"', 'did you mean "inventory.yml"?'),
    (["facts", "inventory.yml", "othr.yml"], 'there is no inventory "othr.yml"', 'did you mean "other.yml"?'),
    (["agents", "status", "web-01"], 'there is no inventory "web-01"', "the inventory comes first"),
    (["inventory", "inventory.yml", "--vault-password-file", "valt.txt"], 'file "valt.txt"', "vault.txt"),
    (
        ["daemon", "--config", "fazia.yml"],
        'there is no configuration "fazia.yml"',
        'did you mean "fazai.yml"?',
    ),
    (
        ["daemon", "--tls-cert", "crt.pem", "--tls-key", "x"],
        'there is no file "crt.pem"',
        'did you mean "cert.pem"?',
    ),
    (
        ["generate", "x", "--json-schema", "shema.json"],
        'no JSON Schema "shema.json"',
        'did you mean "schema.json"?',
    ),
    (
        ["generate", "x", "--grammar", "gramar.gbnf"],
        'no grammar "gramar.gbnf"',
        'did you mean "grammar.gbnf"?',
    ),
    (["lab", "up", "--settings", "labs.yml"], 'no file of settings "labs.yml"', 'did you mean "lab.yml"?'),
    (["store", "restore", "bakup.db"], 'there is no file "bakup.db"', 'did you mean "backup.db"?'),
]


@pytest.mark.parametrize(("words", "message", "hint"), FILES, ids=lambda value: str(value)[:60])
def test_a_file_that_is_not_there_is_named_with_the_one_that_was_meant(
    words: list[str], message: str, hint: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "inventory.yml").write_text("all: {hosts: {web-01: {provider: local}}}\n")
    there = (
        "site.yml vars.yml vault.txt plan.json failed other.yml fazai.yml cert.pem schema.json grammar.gbnf"
    )
    for name in [*there.split(), "lab.yml", "backup.db"]:
        (place / name).touch()
    (place / "link.yml").symlink_to("nowhere")
    assert main(words) == 3
    error, told_hint = capsys.readouterr().err.splitlines()[:2]
    assert message in error
    assert hint in told_hint
    assert "No such file" not in error


@pytest.mark.parametrize(("variable", "name"), [("FAZAI_TOKEN_FILE", "tokn"), ("FAZAI_CA_FILE", "tokn")])
def test_a_file_that_the_environment_names_is_not_there(
    variable: str, name: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "token").touch()
    monkeypatch.setenv("FAZAI_URL", "https://127.0.0.1:1")
    monkeypatch.setenv(variable, name)
    assert main(["tail", "--no-follow"]) == 3
    assert capsys.readouterr().err.splitlines()[-1] == '  hint: did you mean "token"?'
