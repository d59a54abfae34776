"""fazai policy check and explain; docs/policy.md and the sample are what they say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fazai.cli.main import main
from fazai.policy import bounds_reading, reading
from fazai.policy.protection import FREE_KIND, PROTECTED_KINDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/policy.md").read_text()
(POLICY,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.M | re.S)
ACTION, EFFECT = re.findall(r"^```json\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.yml").write_text(POLICY)
    (tmp_path / "action.json").write_text(ACTION)
    (tmp_path / "effect.json").write_text(EFFECT)
    return tmp_path


def test_the_page_shows_what_the_commands_print(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = re.findall(r"^```\n\$ fazai (policy [^\n]*)\n(.*?)^```$", PAGE, re.M | re.S)
    assert [words.split()[1] for words, _ in shown] == ["check", "explain", "explain"]
    for (words, said), code in zip(shown, (0, 7, 2), strict=True):
        assert main(words.split()) == code
        assert capsys.readouterr().out == said


def test_the_page_names_every_field_and_every_protected_kind() -> None:
    named = set(re.findall(r"`([a-z_.]+)`", PAGE))
    named |= {word for words in re.findall(r"`([^`\n]+)`", PAGE) for word in re.findall(r"([a-z_]+):", words)}
    assert {
        *reading._TOP,
        *reading._RULE,
        *reading._DENY,
        *reading._SHELL,
        *bounds_reading._LIST,
        *(word for form in bounds_reading._SINGLE for word in form),
        FREE_KIND,
        *PROTECTED_KINDS,
    } - named == {"rules"}


def test_the_sample_is_good(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "check", str(ROOT / "deploy/policy.yml")]) == 0
    assert "2 rules, 2 that deny, 3 programs" in capsys.readouterr().out


def test_mistakes_have_their_lines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "policy.yml").write_text(POLICY.replace("per_hour: 12", "per_day: 12").replace("verbs", "verb"))
    assert main(["policy", "check", "policy.yml"]) == 3
    said = capsys.readouterr().err
    assert "policy.yml:11:5: a rule knows no 'per_day'" in said
    assert "policy.yml:8:5: a rule knows no 'verb'\n  hint: did you mean \"verbs\"?" in said
    assert main(["policy", "explain", "action.json", "--policy", "policy.yml"]) == 3
    assert "policy.yml:11:5: a rule knows no 'per_day'" in capsys.readouterr().err


def test_wide_rules_are_warned_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "policy.yml").write_text(POLICY.replace("[fw-edge-*]", "'*'"))
    assert main(["policy", "check", "policy.yml"]) == 0
    assert "warning: policy.yml:2: attackers: it is about every target" in capsys.readouterr().err


def test_the_file_is_found_through_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAZAI_POLICY", "policy.yml")
    assert main(["policy", "check"]) == 0
    assert capsys.readouterr().out.startswith("policy.yml is good")
    monkeypatch.setenv("FAZAI_POLICY", "none.yml")
    assert main(["policy", "check"]) == 3
    said = capsys.readouterr().err
    assert 'there is no policy "none.yml"' in said
    assert "hint: without one every effect is asked for; fazai policy check FILE reads another" in said


CHANGE = {
    "target": "fw-edge-01",
    "kind": "opnsense.alias",
    "identity": "fazai_attackers",
    "verb": "update",
    "before": {"content": []},
    "after": {"content": ["192.0.2.7"]},
}


@pytest.mark.parametrize(
    ("body", "options", "code", "words"),
    [
        ({"tool": "rules.entries", "changes": [CHANGE]}, [], 0, "allow: the rule attackers allows it"),
        ({"tool": "rules.entries", "changes": [CHANGE], "free": True}, [], 0, "allow"),
        (
            {"tool": "rules.entries", "changes": [CHANGE], "free": True},
            ["--tainted"],
            2,
            "ask: a model chose",
        ),
        ({"tool": "reconcile.apply", "changes": [CHANGE]}, [], 2, "it is about rules.entries, not reconcile"),
        (
            {"tool": "rules.entries", "changes": [{**CHANGE, "target": "fw-core-1"}]},
            [],
            7,
            "refuse: core denies",
        ),
        ({"tool": "rules.entries", "changes": [{"target": "x"}]}, [], 3, "this is no effect"),
        (
            {"action": "shell", "target": "web-1", "argv": ["/usr/bin/systemctl", "restart", "nginx"]},
            [],
            0,
            "allow",
        ),
        ({"action": "shell", "argv": ["x"]}, [], 3, "this action does not say what it changes"),
        ({"action": "use_tool", "name": "x"}, [], 3, "this action does not say what it changes"),
        ({"action": "dance"}, [], 3, "this is neither an effect nor an action"),
        ([], [], 3, "this is neither an effect nor an action"),
    ],
)
def test_an_effect_is_explained(
    body: object, options: list[str], code: int, words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "e.json").write_text(json.dumps(body))
    assert main(["policy", "explain", "e.json", "--policy", "policy.yml", *options]) == code
    said = capsys.readouterr()
    assert words in said.out + said.err


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (
            ["192.0.2.7"],
            0,
            "attackers: allows it; content: each within 0.0.0.0/0 and no wider than /32, at most",
        ),
        (["192.0.2.0/24"], 2, "entry 1 is 192.0.2.0/24, wider than /32"),
        (["hunter2"], 2, "entry 1 is no address or network"),
        (["***"], 2, "ask: no rule allows a change of a secret"),
        ([f"192.0.2.{n}" for n in range(9)], 2, "it gets 9 more, and at most 8 may be added"),
    ],
)
def test_the_bound_that_is_met_or_not_is_said_without_texts_of_the_change(
    content: list[str], code: int, words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    effect = {"tool": "rules.entries", "changes": [{**CHANGE, "after": {"content": content}}]}
    (folder / "e.json").write_text(json.dumps(effect))
    explain = ["policy", "explain", "e.json", "--policy", "policy.yml"]
    assert main(explain) == code
    said = capsys.readouterr().out
    assert words in said
    assert "hunter2" not in said
    assert main([*explain, "--output", "json"]) == code
    (found, _) = json.loads(capsys.readouterr().out)["rules"]
    assert ("met" in found) is (found["against"] is None) is (code == 0)


def test_a_plan_is_explained_and_json_is_for_machines(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host = {"provider": "local", "root": str(folder / "root"), "resources": [{"host.file": FILE}]}
    (folder / "root").mkdir()
    (folder / "inventory.yml").write_text(json.dumps({"all": {"hosts": {"box": host}}}))
    assert main(["plan", "inventory.yml", "--out", "plan.json"]) == 2
    capsys.readouterr()
    policy = {
        "rules": [
            {
                "name": "motd",
                "tool": "reconcile.apply",
                "kinds": "host.file",
                "targets": "box",
                "identities": "/motd",
                "verbs": "create",
                "fields": ["content", "mode", "owner", "group"],
                "per_hour": 1,
                "expires": "2999-01-01",
            }
        ]
    }
    (folder / "policy.yml").write_text(json.dumps(policy))
    words = ["policy", "explain", "plan.json", "--policy", "policy.yml", "--output", "json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "allow"
    assert found["rules"] == [{"rule": "motd", "line": 1, "against": None}]
    policy["rules"][0]["fields"] = ["mode"]
    (folder / "policy.yml").write_text(json.dumps(policy))
    assert main(words) == 2
    assert "the rule does not cover content" in json.loads(capsys.readouterr().out)["rules"][0]["against"]


FILE = {"path": "/motd", "content": "hello\n", "mode": "0644"}


def test_the_state_of_the_daemon_here_is_protected_as_the_daemon_does_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a folder whose name says nothing."""
    own = Path("/srv/operations/state")
    rule = """rules:
- name: motd
  tool: reconcile.apply
  kinds: host.file
  targets: box
  identities: /srv/operations/state/ca.key
  verbs: create
  fields: [content]
  per_hour: 1
  expires: 2999-01-01
"""
    (folder / "policy.yml").write_text(rule)
    change = {
        "target": "box",
        "kind": "host.file",
        "identity": f"{own}/ca.key",
        "verb": "create",
        "before": {},
    }
    effect = {"tool": "reconcile.apply", "changes": [{**change, "after": {"content": "x"}}]}
    (folder / "e.json").write_text(json.dumps(effect))
    words = ["policy", "explain", "e.json", "--policy", "policy.yml"]
    assert main(words) == 0
    capsys.readouterr()
    monkeypatch.setenv("FAZAI_STATE_DIR", str(own))
    assert main(words) == 2
    said = f"no rule allows what names a file of fazai's own: '{own}/ca.key'"
    assert said in capsys.readouterr().out
