"""`make uninstall`: away goes what `make install` made, and nothing else."""

from __future__ import annotations

import os
import subprocess
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]


def uninstall(prefix: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PREFIX": str(prefix)}
    return subprocess.run(
        ["make", "-s", "uninstall"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def installed(prefix: Path) -> Path:
    """What `make install` leaves, as far as it matters here."""
    home = prefix / "lib/fazai"
    venv.create(home, with_pip=False)
    (home / "bin/fazai").touch()
    (prefix / "bin").mkdir(exist_ok=True)
    (prefix / "bin/fazai").symlink_to(home / "bin/fazai")
    return home


def test_what_was_installed_goes_and_nothing_else(tmp_path: Path) -> None:
    home = installed(tmp_path)
    (tmp_path / "bin/other").touch()
    (tmp_path / "lib/other").mkdir()
    done = uninstall(tmp_path)
    assert (done.returncode, done.stdout) == (0, f"removed: {home} {tmp_path}/bin/fazai\n"), done.stderr
    assert [path.name for path in (tmp_path / "bin").iterdir()] == ["other"]
    assert [path.name for path in (tmp_path / "lib").iterdir()] == ["other"]
    again = uninstall(tmp_path)
    assert (again.returncode, again.stdout) == (0, "removed: nothing, as nothing was there\n")


def test_what_somebody_else_put_there_stays(tmp_path: Path) -> None:
    home = installed(tmp_path)
    (tmp_path / "bin/fazai").unlink()
    (tmp_path / "bin/fazai").write_text("pipx made this")
    done = uninstall(tmp_path)
    assert (done.returncode, home.exists()) == (0, False)
    assert "bin/fazai leads elsewhere, and stays" in done.stderr
    assert (tmp_path / "bin/fazai").read_text() == "pipx made this"
    home.mkdir()
    (home / "notes").write_text("mine")
    done = uninstall(tmp_path)
    assert done.returncode != 0
    assert "is no virtual environment, and stays" in done.stderr
    assert (home / "notes").exists()
