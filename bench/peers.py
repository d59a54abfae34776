"""Where fazai and its peers are, and how the peers are installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["ansible", "fazai", "install", "pyinfra", "salt"]

_FOLDER = Path(__file__).parent.parent / ".bench"
_PACKAGES = {"ansible": "ansible-core>=2.17", "pyinfra": "pyinfra>=3", "salt": "salt>=3007"}


def fazai() -> str:
    return str(Path(sys.executable).parent / "fazai")


def ansible(name: str = "ansible-inventory") -> str | None:
    """The path of a command of ansible-core, or None when it is not installed."""
    return _command("ansible", name)


def pyinfra() -> str | None:
    return _command("pyinfra", "pyinfra")


def salt(name: str = "salt") -> str | None:
    """The path of a command of Salt, or None when it is not installed."""
    return _command("salt", name)


def _command(peer: str, name: str) -> str | None:
    path = _FOLDER / peer / "bin" / name
    return str(path) if path.exists() else None


def install() -> None:
    """Each in a virtual environment of its own."""
    for peer, package in _PACKAGES.items():
        folder = _FOLDER / peer
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(folder / "bin" / "pip"), "install", "--quiet", package], check=True)
