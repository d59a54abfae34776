"""tools/mutate.py, on a module whose tests are known to lack something."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

MODULE = '''\
"""A module."""

LIMIT = 3


def is_many(count: int) -> bool:
    """Return whether these are many."""
    return count > LIMIT


def describe(count: int) -> str:
    if is_many(count):
        return "many"
    return f"{count}"


def idle() -> None:
    raise ValueError("never")
'''
TESTS = """\
from counting import describe, is_many

def test_is_many():
    assert is_many(5) and not is_many(2)

def test_describe():
    assert describe(5) == "many"
    assert describe(1)
"""


def _mutate(folder: Path, *words: str) -> list[str]:
    (folder / "counting.py").write_text(MODULE)
    (folder / "test_counting.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\npythonpath = .\nmarkers = slow\n gemma\n")
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/mutate.py"), "counting.py", "test_counting.py", *words],
        cwd=folder,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_what_no_test_notices_is_listed(tmp_path: Path) -> None:
    said = _mutate(tmp_path)
    assert "survived    8: count > LIMIT  →  count >= LIMIT" in said
    assert "survived    3: 3  →  4" in said
    assert "not reached 18: raise ValueError('never')  →  pass" in said
    assert not [line for line in said if " 12: " in line or " 13: " in line]  # a test compares them
    assert "2 survived, 4 killed, 2 not reached" in said


def test_the_changes_of_one_line_alone(tmp_path: Path) -> None:
    said = _mutate(tmp_path, "--line", "8")
    assert "2 tests; 2 of 8 changes" in said
    assert "1 killed, 1 survived" in said
