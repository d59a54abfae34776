"""Strict at the border: what is wrong, where, and what to do. And the files that go with the script."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from fazai import __version__
from tests.agent.conftest import SCRIPT, Agent

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/telemetry-agent.md"
SETTINGS = re.findall(r"^    setting ([A-Z_]+) ", SCRIPT.read_text(), re.M)

WRONG = {
    "INTERVAL_S=0": "expected seconds from 0.050 to 86400",
    "INTERVAL_S=1e3": "expected seconds",
    "INTERVAL_S=60s": 'got "60s"',
    "INTERVAL_S=": "expected seconds",
    "SERVER=": "is not set",
    "SERVER=fazai.example.net": "expected https://HOST",
    "SERVER=https://user:pw@fazai.example.net": "expected https://HOST",
    "SERVER=https://fazai.example.net/?x": "expected https://HOST",
    "SERVER=http://fazai.example.net": "FAZAI_AGENT_ALLOW_HTTP=yes",
    "SERVER=file:///etc/passwd": "expected https://HOST",
    'SERVER=https://a/"b': "expected https://HOST",
    "KEY=short": "expected 16 to 256 printable ASCII characters",
    "KEY_PREVIOUS=correct horse battery": "is set without FAZAI_AGENT_KEY",
    "HOSTNAME=a b": "without spaces",
    "SAMPLE=cpu,dsik": 'got "dsik"',
    "STATE_DIR=relative": "expected an absolute path",
    "STATE_DIR=": "expected a path",
    "CA_FILE=/nonexistent.pem": "cannot be read",
    "TLS_VERIFY=maybe": "expected one of: yes no",
    "TLS_VERIFY=": "expected one of",
    "TOP_N=-1": "expected a number from 0 to 100",
    "TOP_N=08x": "expected a number",
    "SPOOL_MAX_BYTES=1": "expected a number from 4096",
    "BACKOFF_MIN_S=400": "is more than BACKOFF_MAX_S",
    "INTERVALL_S=60": "no such setting",
}


def test_nothing_needs_room_on_the_disk_of_tmp() -> None:
    """bash before 5.1 writes a here-string to a file: on a full disk nothing more would be delivered."""
    assert [line for line in SCRIPT.read_text().splitlines() if "<<<" in line] == []


@pytest.mark.in_turn("source")
@pytest.mark.parametrize("source", ["file", "environment"])
@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_setting_is_named(line: str, source: str, agent: Agent, tmp_path: Path) -> None:
    name, _, value = line.partition("=")
    agent.settings.pop(name, None)
    config = tmp_path / "agent.env"
    config.write_text(f"# a comment\n\nFAZAI_AGENT_{line}\n" if source == "file" else "")
    config.chmod(0o600)
    if source == "file":
        settings = agent.env()
        agent.environment |= {k: v for k, v in settings.items() if not k.startswith("FAZAI_AGENT_")}
        done = subprocess.run(
            agent.command("--once", "--config", str(config)),
            env={k: v for k, v in settings.items() if k != f"FAZAI_AGENT_{name}"},
            capture_output=True,
            text=True,
        )
    else:
        done_bytes = agent.run("--once", "--config", str(config), code=None, **{name: value})
        done = subprocess.CompletedProcess([], done_bytes.returncode, "", done_bytes.stderr.decode())
    assert done.returncode == 3, done.stderr
    assert WRONG[line] in done.stderr
    assert name in done.stderr
    if source == "file" and "got" in WRONG[line] and name != "SAMPLE":
        assert f"{config}:3: " in done.stderr
    assert not agent.state.exists()


def test_a_secret_is_never_repeated(agent: Agent, tmp_path: Path) -> None:
    config = tmp_path / "agent.env"
    config.write_text("FAZAI_AGENT_KEY=hunter2\nhunter2 alone\nFAZAI_AGENT_TOKEN='hunter2\n")
    done = agent.run("--once", "--config", str(config), code=3)
    assert "hunter2" not in done.stderr.decode()
    assert [line.split(": ")[1] for line in done.stderr.decode().splitlines()][:2] == [
        f"{config}:2",
        f"{config}:3",
    ]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_file_with_a_secret_is_private(mode: int, agent: Agent, tmp_path: Path) -> None:
    config = tmp_path / "agent.env"
    config.write_text("FAZAI_AGENT_KEY=correct horse battery staple\n")
    config.chmod(mode)
    assert f"chmod 600 {config}" in agent.run("--once", "--config", str(config), code=3).stderr.decode()


def test_files_are_read_and_never_run(agent: Agent, tmp_path: Path) -> None:
    config = tmp_path / "agent.env"
    config.write_text(f'FAZAI_AGENT_HOSTNAME=$(touch${{IFS}}{tmp_path}/run)\r\nFAZAI_AGENT_ID="web-1"\n')
    found = agent.run("--print", "--config", str(config)).stdout
    assert b'"hostname":"$(touch' in found
    assert b'"id":"web-1"' in found
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments",
    [["--nonsense"], ["--once", "--print"], ["--config"], ["--splay", "x"], ["--config", "/none"]],
)
def test_wrong_usage(arguments: list[str], agent: Agent) -> None:
    assert agent.run(*arguments, code=3).stderr.startswith(b"telemetry.sh: ")


def test_version_and_help(agent: Agent) -> None:
    assert agent.run("--version").stdout.decode().strip() == __version__
    text = agent.run("--help").stdout.decode()
    assert [name for name in SETTINGS if not re.search(rf"\b{name}\b", text)] == []


def test_selftest(agent: Agent) -> None:
    agent.state.mkdir()
    done = agent.run("--selftest")
    assert all(line.startswith("ok ") for line in done.stdout.decode().splitlines())
    agent.state.rmdir()
    failed = agent.run("--selftest", code=1).stdout.decode()
    assert f"FAIL  {agent.state} can be written" in failed


def test_a_missing_tool_is_named(agent: Agent, tmp_path: Path) -> None:
    agent.environment["PATH"] = str(tmp_path)
    assert "curl: not found" in agent.run("--once", code=3).stderr.decode()


def test_every_setting_is_in_its_page() -> None:
    text = PAGE.read_text()
    assert len(SETTINGS) > 25
    assert [name for name in SETTINGS if f"`{name}`" not in text] == []


def test_make_check_runs_shellcheck_over_every_script() -> None:
    (line,) = re.findall(r"^\t\$\(BIN\)/shellcheck (.*)$", (ROOT / "Makefile").read_text(), re.M)
    checked = {path for pattern in line.split() for path in ROOT.glob(pattern)}
    assert checked >= {*SCRIPT.parent.glob("*.sh"), SCRIPT.parent / "fazai-telemetry.openrc"}


def test_the_script_and_its_units_are_shipped() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = setuptools["package-data"]["fazai"]
    for name in ("telemetry.sh", "fazai-telemetry.service", "fazai-telemetry.openrc", "fazai-telemetry.cron"):
        path = SCRIPT.parent / name
        assert path.is_file()
        assert any(path.match(pattern.removeprefix("**/")) for pattern in patterns), name
        if name != "telemetry.sh":
            assert (ROOT / "deploy" / name).resolve() == path.resolve()


def test_the_unit_is_hardened_and_starts_the_script() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(SCRIPT.parent / "fazai-telemetry.service")
    service = unit["Service"]
    assert service["ExecStart"].split() == [
        "/opt/fazai/agent/telemetry.sh",
        "--config",
        "/etc/fazai/telemetry.env",
    ]
    assert service["User"] == "fazai-agent"
    assert service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["StateDirectory"] == "fazai-agent"
    assert service["KillMode"] == "mixed"  # a sample that is being made is finished
    assert service["RestartPreventExitStatus"] == "3"
    analyze = shutil.which("systemd-analyze")
    if analyze:
        done = subprocess.run(
            [analyze, "verify", SCRIPT.parent / "fazai-telemetry.service"], capture_output=True, text=True
        )
        wrong = [
            line
            for line in done.stderr.splitlines()
            if "fazai-telemetry" in line and not re.search("not executable|, ignoring", line)
        ]
        assert wrong == []
