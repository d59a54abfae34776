"""A whole machine to throw away: this one's files under an overlay, in namespaces of its own.

What is done there (users, packages, settings of the network) is done by the real programs, and is nowhere
but in the overlay's upper folder, which is the test's.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from fazai.model import Target
from fazai.providers.hosts.kinds import load_host_kinds
from fazai.providers.hosts.local.transport import LocalChannel
from fazai.providers.hosts.session import HostSession
from fazai.providers.hosts.shell.become import Become
from tests.hosts.helpers import Host

__all__ = ["Machine", "missing", "shim"]

_LAYERS = Path(__file__).parents[2] / ".venv/hosts"
_ENTER = """set -e
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
for d in /proc /dev $2; do mkdir -p "$1/root$d"; mount --rbind "$d" "$1/root$d"; done
cd "$1/root"; shift 2; exec chroot . "$@"
"""


def missing(reason: str) -> NoReturn:
    """Skip, or fail where nothing may be missing."""
    if os.environ.get("FAZAI_NO_SKIPS"):
        pytest.fail(reason)
    pytest.skip(reason)


@dataclass
class Machine:
    """`folder` holds the overlay; `path` is the PATH of its shell; `apart`: with a network of its own."""

    folder: Path
    apart: bool = True
    path: str = "/usr/sbin:/usr/bin:/sbin:/bin"

    @classmethod
    def made(cls, folder: Path, shell: str = "dash", *, apart: bool = True) -> Machine:
        """A new machine whose `sh` is this shell. Skips where we may not make one."""
        if os.geteuid() != 0 or shutil.which("unshare") is None:
            missing("a machine to throw away takes root, and unshare")
        for name in ("upper", "work", "root"):
            (folder / name).mkdir(parents=True)
        machine = cls(folder, apart)
        found = shutil.which(shell)
        if found is None:
            missing(f"{shell} is not installed")
        machine.put("/opt/sh/sh", f'#!{found}\nexec {found}{" sh" if shell == "busybox" else ""} "$@"\n')
        machine.path = f"/opt/sh:{machine.path}"
        tried = subprocess.run(machine.argv("/bin/true"), capture_output=True, text=True, check=False)
        if tried.returncode != 0:
            missing(f"a machine to throw away takes namespaces and an overlay: {tried.stderr.strip()}")
        return machine

    def add(self, name: str) -> None:
        """The programs of another system, as tools/test-hosts unpacked them."""
        layer = _LAYERS / name
        if not layer.is_dir():
            missing(f"{name} is not unpacked: tools/test-hosts does it")
        subprocess.run(["cp", "-a", f"{layer}/.", self.folder / "upper"], check=True)

    def put(self, path: str, text: str, mode: int = 0o755) -> None:
        """A file of the machine, before it is entered."""
        target = self.folder / "upper" / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def argv(self, *words: str) -> list[str]:
        """A command of ours that runs a command there."""
        inside = (
            "unshare",
            "-mnu" if self.apart else "-mu",
            "--propagation",
            "private",
            "--",
            "/bin/sh",
            "-c",
            _ENTER,
            "enter",
        )
        # what is mounted apart from / is not below the overlay: our own code and Python, where they are
        ours = {str(Path(__file__).parents[2]), sys.prefix, sys.base_prefix}
        apart = [path for path in sorted(ours) if os.stat(path).st_dev != os.stat("/").st_dev]
        return [*inside, str(self.folder), " ".join(apart), *words]

    def run(self, script: str) -> str:
        """Run a script there and return what it prints. Raises CalledProcessError with what it said."""
        done = subprocess.run(
            self.argv("/bin/sh", "-c", script),
            env=self.environ,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    @property
    def environ(self) -> Mapping[str, str]:
        return {"PATH": self.path, "HOME": "/root", "TMPDIR": "/tmp"}

    def host(self) -> Host:
        """A session on it, as on any host."""

        async def begin() -> LocalChannel:
            process = await asyncio.create_subprocess_exec(
                *self.argv("sh", "-s"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self.environ,
                start_new_session=True,
            )
            return LocalChannel(process, "box", Become())

        target = Target("box", "local", "write", {})
        return Host(self.folder / "upper", HostSession(target, load_host_kinds(), begin, timeout_s=60))


def shim(machine: Machine, name: str, script: str) -> None:
    """A program that the machine cannot have, as a script that keeps its state in files."""
    machine.put(f"/opt/sh/{name}", f"#!/bin/sh\n{script}\n")
