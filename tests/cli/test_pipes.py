"""A reader that goes away (`| head -1`) is no error: the exit code is what it is with one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INVENTORY = """
all:
  hosts:
    h1:
      provider: local
      mode: write
      root: {root}
      resources: [host.file: {{path: /a, content: "{{{{ inventory_hostname }}}}"}}]
"""


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    path = tmp_path / "inventory.yml"
    path.write_text(INVENTORY.format(root=tmp_path / "root"))
    return path


def run(folder: Path, *words: str, closed: tuple[int, ...] = ()) -> int:
    """The exit code, with the streams of these numbers leading to nobody."""
    reader, writer = os.pipe()
    os.close(reader)
    streams = [writer if number in closed else subprocess.DEVNULL for number in (1, 2)]
    try:
        return subprocess.run(
            [sys.executable, "-m", "fazai", *words],
            cwd=ROOT,
            env={**os.environ, "HOME": str(folder), "FAZAI_STATE_DIR": str(folder / "state")},
            stdout=streams[0],
            stderr=streams[1],
            timeout=120,
        ).returncode
    finally:
        os.close(writer)


@pytest.mark.in_turn("closed")
@pytest.mark.parametrize("closed", [(1,), (1, 2)])
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("inventory", "INVENTORY"), 0),
        (("inventory", "INVENTORY", "--list"), 0),
        (("inventory", "/none/such"), 3),
        (("validate", "INVENTORY"), 0),
        (("plan", "INVENTORY"), 2),
        (("plan", "INVENTORY", "--output", "json"), 2),
        (("apply", "INVENTORY", "--check", "--diff"), 2),
        (("kinds",), 0),
        (("history",), 0),
        (("completion", "bash"), 0),
    ],
)
def test_a_closed_pipe_changes_no_exit_code(
    words: tuple[str, ...], code: int, closed: tuple[int, ...], inventory: Path
) -> None:
    given = [str(inventory) if word == "INVENTORY" else word for word in words]
    assert run(inventory.parent, *given, closed=closed) == code


def test_an_apply_goes_on_when_nobody_reads(inventory: Path) -> None:
    assert run(inventory.parent, "apply", str(inventory), closed=(1, 2)) == 0
    assert (inventory.parent / "root/a").read_text() == "h1"
