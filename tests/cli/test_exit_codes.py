"""What docs/exit-codes.md says of each command is what it does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fazai.cli.main import COMMANDS, main

PAGE = Path(__file__).parents[2] / "docs/exit-codes.md"
#: A command line for each code that the page gives for a command, but for those that need a peer.
CASES: dict[str, dict[int, str]] = {
    "apply": {0: "apply done.yml", 2: "apply new.yml --check", 3: "apply nope.yml", 7: "apply read.yml"},
    "plan": {0: "plan done.yml", 2: "plan new.yml", 3: "plan new.yml -t nope", 4: "plan away.yml"},
    "drift": {0: "drift done.yml", 2: "drift new.yml -q", 3: "drift"},
    "validate": {0: "validate new.yml", 3: "validate wrong.yml"},
    "inventory": {0: "inventory new.yml", 3: "inventory new.yml --host nope"},
    "exec": {
        0: "exec done.yml h1 -- true",
        1: "exec done.yml h1 -- false",
        2: "exec done.yml h1 --check -- true",
        3: "exec done.yml -- true",
        4: "exec away.yml h1 -- true",
        7: "exec read.yml h1 -- true",
    },
    "cp": {
        0: "cp done.yml h1: done.yml /copy",
        1: "cp done.yml h1:/nope got",
        2: "cp done.yml h1: done.yml /copy --check",
        3: "cp done.yml done.yml /copy",
        4: "cp away.yml h1: done.yml /copy",
        7: "cp read.yml h1: done.yml /copy",
    },
    "import": {3: "import done.yml"},
    "diff": {3: "diff done.yml"},
    "facts": {0: "facts new.yml", 3: "facts nope.yml", 4: "facts away.yml"},
    "doctor": {0: "doctor", 1: "doctor wrong.yml", 3: "doctor nope.yml"},
    "probe": {1: "probe tcp 127.0.0.1 1", 3: "probe tcp web-01"},
    "notify": {3: "notify test --config nope"},
    "agents list": {3: "agents list --state nope", 4: "agents list"},
    "agents status": {2: "agents status agents.yml", 3: "agents status new.yml", 4: "agents status lost.yml"},
    "agents restart": {1: "agents restart agents.yml", 3: "agents restart new.yml"},
    "agents logs": {0: "agents logs agents.yml", 4: "agents logs lost.yml"},
    "agents rotate-key": {4: "agents rotate-key agents.yml"},
    "agents update": {0: "agents update agents.yml", 3: "agents update new.yml"},
    "agents remove": {3: "agents remove new.yml"},
    "agent check": {3: "agent check --config nope"},
    "agent run": {3: "agent run --config nope"},
    "agent enrol": {3: "agent enrol --config nope"},
    "kinds": {0: "kinds host.file", 3: "kinds nope"},
    "lab": {0: "lab status", 3: "lab reset nope"},
    "history": {0: "history"},
    "show": {0: "show", 3: "show nope"},
    "store": {0: "store check", 3: "store restore nope"},
    "generate, chat": {3: "generate x --grammar nope", 4: "generate x --socket nope"},
    "ask": {3: "ask go --iterations 0", 4: "ask go --url http://127.0.0.1:1"},
    "session": {3: "session list --url nope", 4: "session list --url http://127.0.0.1:1"},
    "kb": {3: "kb search", 4: "kb search x"},
    "mcp": {3: "mcp --nope"},
    "policy check": {3: "policy check nope"},
    "policy explain": {2: "policy explain effect.json --policy policy.yml", 3: "policy explain nope"},
    "rules": {3: "rules check nope"},
    "worker": {3: "worker"},
    "daemon": {3: "daemon --config nope"},
    "tail": {3: "tail --until nope=1", 4: "tail --url http://127.0.0.1:1"},
    "token": {0: "token list", 3: "token revoke nope"},
    "pki": {0: "pki init", 3: "pki list", 7: "pki ca switch"},
    "completion, version": {0: "version", 3: "completion"},
}
LOCAL = "provider: local, mode: {mode}, root: {root}"
FILES = {
    "done": "host.file: {path: /done, content: x}",
    "new": "host.file: {path: /new, content: x}",
    "read": "host.file: {path: /new, content: x}",
    "agents": f"host.telemetry_agent: {{server: 'https://fazai.example.net', key: {'0f' * 16}}}",
}
AWAY = (
    "all: {{hosts: {{h1: {{provider: ssh, ansible_host: 127.0.0.1, ansible_port: 1, user: x}}}}, "
    "resources: [{0}]}}"
)


def page() -> dict[str, set[int]]:
    """The codes of each command, as the page says them."""
    rows = re.findall(r"^\| `fazai ([^|]+)` \|([^|]+)\|", PAGE.read_text(), re.MULTILINE)
    return {
        name.replace("`, `", ", "): {int(code) for code in re.findall(r"\d+", codes)} for name, codes in rows
    }


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAZAI_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("FAZAI_SECRETS", str(tmp_path / "secrets"))
    monkeypatch.setenv("FAZAI_SOCKET", str(tmp_path / "none.sock"))
    for name in ("FAZAI_URL", "FAZAI_INVENTORY", "FAZAI_GEMMA_FALLBACK_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "root").mkdir()
    (tmp_path / "root/done").write_text("x")
    for name, resource in FILES.items():
        options = LOCAL.format(mode="read" if name == "read" else "write", root=tmp_path / "root")
        text = f"all: {{hosts: {{h1: {{{options}}}}}, resources: [{resource}]}}\n"
        (tmp_path / f"{name}.yml").write_text(text)
    (tmp_path / "wrong.yml").write_text("all: {host: }\n")
    (tmp_path / "away.yml").write_text(AWAY.format(FILES["new"]))
    (tmp_path / "policy.yml").write_text("rules: []\n")
    change = {"target": "fw-01", "kind": "opnsense.alias", "identity": "x", "verb": "create"}
    (tmp_path / "effect.json").write_text(json.dumps({"tool": "reconcile.apply", "changes": [change]}))
    (tmp_path / "lost.yml").write_text(AWAY.format(FILES["agents"]))


def test_the_page_names_every_command() -> None:
    names = {name.split()[0].rstrip(",") for name in page()} | {"chat", "version"}
    assert names == set(COMMANDS)
    assert page().keys() == CASES.keys()


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [(command, code, words) for command, cases in CASES.items() for code, words in cases.items()],
)
def test_a_command_ends_as_the_page_says(
    command: str, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code in page()[command]
    if command in ("show", "store"):
        assert main(["drift", "done.yml"]) == 0
    if command == "pki" and code == 7:
        assert main(["pki", "init"]) == 0
    assert main(words.split()) == code
    said = capsys.readouterr()
    assert (
        said.err
        if code == 3 or (code == 1 and command not in ("exec", "cp", "doctor", "probe"))
        else said.out or said.err
    )


def test_an_agent_that_was_never_installed_is_told_to_cron(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agents", "status", "agents.yml"]) == 2
    assert capsys.readouterr().out.splitlines()[1].split() == ["h1", *"-----", "not", "installed"]
    assert main(["agents", "status", "agents.yml", "--output", "json"]) == 2
    row = json.loads(capsys.readouterr().out)["h1"]
    assert row == {"well": False, "installed": False, "trouble": "not installed"}
    assert main(["agents", "restart", "agents.yml"]) == 1
    assert capsys.readouterr().err == "h1: no telemetry agent is installed; install it with: fazai apply\n"
