"""The time limit that each test has (tests/conftest.py), in a pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def _run(folder: Path, text: str) -> str:
    (folder / "conftest.py").write_text(
        (ROOT / "tests/conftest.py").read_text().replace("_LAST_S = 30", "_LAST_S = 1")
    )
    (folder / "test_wait.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:schemathesis", "."],
        cwd=folder,
        env={**os.environ, "FAZAI_TEST_LIMIT_S": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert (done.returncode, "over its limit" in done.stdout) == (1, True), done.stdout
    return done.stdout


def test_a_test_that_waits_for_ever_fails_and_the_next_one_runs(tmp_path: Path) -> None:
    said = _run(
        tmp_path,
        "import threading\n"
        "def waits_elsewhere(event): event.wait()\n"
        "def test_waits():\n"
        "    event = threading.Event()\n"
        "    thread = threading.Thread(target=waits_elsewhere, args=(event,), daemon=True)\n"
        "    thread.start()\n"
        "    event.wait()\n"
        "def test_next(): pass\n",
    )
    assert "test_wait.py::test_waits: over its limit of 1 s" in said
    assert "in waits_elsewhere" in said
    assert "1 failed, 1 passed" in said


def test_a_test_that_keeps_what_is_raised_ends_its_process(tmp_path: Path) -> None:
    said = _run(
        tmp_path,
        "import threading\n"
        "def test_keeps():\n"
        "    while True:\n"
        "        try:\n"
        "            threading.Event().wait()\n"
        "        except BaseException:\n"
        "            pass\n",
    )
    assert "test_wait.py::test_keeps: over its limit of 1 s" in said
    assert "Timeout (0:00:02)!" in said
