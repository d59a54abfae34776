"""The inspector of the Model Context Protocol, which is its authors' own client in another language
(`tools/mcp-inspector`): it lists and calls our tools, and finds nothing to say of their schemas."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.live import PATIENCE_S, live, token
from tests.daemon.runs_world import world
from tests.daemon.tools.test_mcp_stdio import environ

RUN = Path(sys.prefix) / "mcp-inspector/run"


@pytest.fixture
def inspector() -> Path:
    if not RUN.exists():
        missing = "the inspector is not here; ./tools/mcp-inspector installs it"
        if os.environ.get("FAZAI_NEED_TOOLS"):
            pytest.fail(missing)
        pytest.skip(missing)
    return RUN


def inspect(inspector: Path, home: Path, *words: str) -> tuple[Any, str]:
    found = subprocess.run(
        [str(inspector), *words, "--connect-timeout", str(int(PATIENCE_S * 1000))],
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE_S,
        env={**os.environ, "HOME": str(home)},
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return json.loads(found.stdout), found.stderr


@pytest.mark.slow
@pytest.mark.parametrize("way", ["stdio", "http"])
def test_the_inspector_lists_and_calls(inspector: Path, tmp_path: Path, way: str) -> None:
    text = token(tmp_path, "assistant", "operator")
    with live(tmp_path) as daemon:
        if way == "http":
            server = [f"{daemon.url}/mcp", "--transport", "http", "--header", f"Authorization: Bearer {text}"]
        else:
            given = environ(tmp_path, daemon.url, text)
            options = [word for name, value in given.items() for word in ("-e", f"{name}={value}")]
            server = [*options, sys.executable, "-m", "fazai", "mcp"]
        listed, said = inspect(inspector, tmp_path, *server, "--method", "tools/list", "--strict")
        names = [tool["name"] for tool in listed["tools"]]
        assert {"fleet_list", "reconcile_apply"} <= set(names)
        assert said.strip() == "", "the schemas are not good everywhere"
        call = ("--method", "tools/call", "--tool-name", "fleet_list", "--tool-arg", "limit=3")
        found, _ = inspect(inspector, tmp_path, *server, *call)
    assert found["isError"] is False
    assert found["structuredContent"]["note"] == "0 machines"


@pytest.mark.slow
def test_the_inspector_gets_a_proposal(inspector: Path, tmp_path: Path) -> None:
    with world(tmp_path) as edge:
        call = ("--method", "tools/call", "--tool-name", "reconcile_apply", "--tool-arg", "playbook=edge")
        found, _ = inspect(inspector, tmp_path, f"{edge.daemon.url}/mcp", "--transport", "http", *call)
        assert found["structuredContent"]["changes"][0]["identity"] == "blocklist"
        assert "blocklist" not in edge.aliases()
