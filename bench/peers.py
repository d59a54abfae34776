"""Where fazai and its peers are, and how the peers are installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["ansible", "fazai", "install"]

_FOLDER = Path(__file__).parent.parent / ".bench"


def fazai() -> str:
    return str(Path(sys.executable).parent / "fazai")


def ansible(name: str = "ansible-inventory") -> str | None:
    """The path of a command of ansible-core, or None when it is not installed."""
    path = _FOLDER / "ansible" / "bin" / name
    return str(path) if path.exists() else None


def install() -> None:
    """ansible-core in a virtual environment of its own."""
    folder = _FOLDER / "ansible"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([str(folder / "bin" / "pip"), "install", "--quiet", "ansible-core>=2.17"], check=True)
