"""The command line before it has begun: Ctrl-C while modules are read, settings of the environment."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fazai.config import ProcessConfig
from fazai.errors import UsageError

#: Stands in the place of a module that the start reads, and reads for ever.
SLOW = "import sys, time\nsys.stdout.write('reading\\n')\nsys.stdout.flush()\nwhile True: time.sleep(0.01)\n"


def start(folder: Path, **options: bool) -> subprocess.Popen[str]:
    (folder / "click.py").write_text(SLOW)
    return subprocess.Popen(
        [sys.executable, "-c", "import sys; from fazai.__main__ import main; sys.exit(main())", "version"],
        env={"PYTHONPATH": f"{folder}:{Path(__file__).parents[2]}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if options.get("ignored") else None,
    )


def test_ctrl_c_while_modules_are_read_is_one_line(tmp_path: Path) -> None:
    with start(tmp_path) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "reading\n"
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (130, "error: interrupted\n")


def test_who_ignores_ctrl_c_goes_on_ignoring_it(tmp_path: Path) -> None:
    """A job in the background of a shell without job control."""
    with start(tmp_path, ignored=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "reading\n"
        child.send_signal(signal.SIGINT)
        child.send_signal(signal.SIGTERM)
        _, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (-signal.SIGTERM, "")


@pytest.mark.parametrize(
    ("name", "least", "most", "default"),
    [("FAZAI_KEEP_RUNS", 10, 1_000_000, 5000), ("FAZAI_KEEP_TARGETS_DAYS", 1, 3660, 90)],
)
def test_what_the_environment_keeps_has_its_range(name: str, least: int, most: int, default: int) -> None:
    def read(text: str) -> int:
        found = ProcessConfig.from_environ({name: text}, root=True)
        return found.keep_runs if name == "FAZAI_KEEP_RUNS" else found.keep_targets_days

    assert [read(text) for text in ("", str(least), str(most))] == [default, least, most]
    for wrong in (str(least - 1), str(most + 1), "-1", "90d", "x" * 99, "\u0669" * 2):
        with pytest.raises(UsageError, match=f"{name} is '.{{1,32}}', a number from {least} to {most} was"):
            read(wrong)
