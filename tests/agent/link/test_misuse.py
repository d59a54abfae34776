"""The agent's commands on a machine where something is in the way: one sentence, with the place."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.agent.link.conftest import ROOT, Agent

TOKEN = "fza_" + "x" * 32 + ".0123456789abcdef"


def _agent(*words: str, stdin: str = "") -> tuple[int, str]:
    code = "import sys; from fazai.agent.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("name", ["../x", "a/O=b", "a b", "x" * 65, "-a", "a\nb"])
def test_a_name_that_is_none_reaches_no_other_program(tmp_path: Path, name: str) -> None:
    words = (
        "enrol",
        "--config",
        f"{tmp_path}/agent.yml",
        "--daemon",
        "https://127.0.0.1:1",
        f"--name={name}",
    )
    code, said = _agent(*words, stdin=f"{TOKEN}\n")
    assert code == 3
    assert said.startswith(f"error: {name!r:.80} is no name for an agent (--name: ")
    assert not (tmp_path / "agent").exists()


def test_a_state_folder_that_cannot_be_written_is_named(agent: Agent) -> None:
    """Nothing can be made in /proc, whoever asks."""
    agent.configure("wss://localhost:1")
    text = agent.config.read_text()
    agent.config.write_text(text.replace(f"state: {agent.state}", "state: /proc/fazai-agent"))
    code, said = _agent("run", "--config", str(agent.config))
    assert (code, said) == (
        3,
        "error: /proc/fazai-agent: the folder cannot be made: No such file or directory\n",
    )


def test_a_journal_that_cannot_be_opened_is_named(agent: Agent) -> None:
    agent.configure("wss://localhost:1")
    journal = agent.state / "journal"
    journal.mkdir(mode=0o700)
    (journal / "lock").mkdir()
    code, said = _agent("run", "--config", str(agent.config))
    assert (code, said) == (3, f"error: {journal}: the journal cannot be opened: Is a directory\n")


def test_a_policy_that_somebody_else_can_write_does_not_run(agent: Agent) -> None:
    agent.configure("wss://localhost:1")
    agent.config.chmod(0o666)
    code, said = _agent("run", "--config", str(agent.config))
    assert code == 3
    assert said.startswith(f"error: {agent.config}: others may write to it (mode 0666)")


def test_a_certificate_that_is_none_is_said_in_words(agent: Agent) -> None:
    agent.configure("wss://localhost:1")
    agent.pair = replace(agent.pair, certificate=agent.folder / "none.pem")
    (agent.folder / "none.pem").write_text("garbage")
    agent.configure("wss://localhost:1")
    agent.start()
    agent.wait_said("one of them is no PEM file, or is damaged")
