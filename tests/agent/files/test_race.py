"""A process that swaps folders, files and temporary files for links while files are replaced: nothing outside
of the root changes."""

from __future__ import annotations

import base64
import errno
import mmap
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from fazai.agent.errors import Refused
from fazai.agent.files import opening
from tests.campaign import campaign_size

from .conftest import Machine


class Racer:
    """A forked process that goes on swapping until it is ended; `swaps` counts."""

    def __init__(self, machine: Machine) -> None:
        self._counter = mmap.mmap(-1, 8)
        self._folder = machine / "etc/app"
        self._outside = machine / "outside"

    @property
    def swaps(self) -> int:
        return int.from_bytes(self._counter[:8], "little")

    def check(self) -> None:
        """See that the process still runs."""
        assert os.waitid(os.P_PID, self._child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    @contextmanager
    def running(self) -> Iterator[None]:
        child = os.fork()
        if child == 0:
            try:
                self._swap_forever()
            finally:
                os._exit(1)
        self._child = child
        try:
            yield
        finally:
            os.kill(child, signal.SIGKILL)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL

    def _swap_forever(self) -> None:
        os.chdir(self._folder)
        outside = str(self._outside)
        number = 0
        while True:
            number += 1
            self._counter[:8] = number.to_bytes(8, "little")
            if number % 3 == 0:
                self._swap_temporary(outside)
            elif number % 3 == 1:  # the file, for a link
                with suppress(OSError):
                    os.symlink(f"{outside}/secret", "link")
                    os.rename("link", "sub/motd")
                with suppress(OSError):
                    os.unlink("sub/motd")
            else:  # the folder, for a link
                with suppress(OSError):
                    os.rename("sub", "away")
                    os.symlink(outside, "sub")
                with suppress(OSError):
                    os.unlink("sub")
                with suppress(OSError):
                    os.rename("away", "sub")

    @staticmethod
    def _swap_temporary(outside: str) -> None:
        with suppress(OSError):
            for name in os.listdir("sub"):
                if name.startswith(".fazai-"):
                    os.unlink(f"sub/{name}")
                    os.symlink(f"{outside}/planted", f"sub/{name}")


def _snapshot(folder: Path) -> list[tuple[object, ...]]:
    """Return all that stands below a folder, with contents, owners, modes and times of change."""
    found: list[tuple[object, ...]] = []
    for path in sorted([folder, *folder.rglob("*")]):
        stat = path.lstat()
        content = path.read_bytes() if path.is_file() else None
        found.append((path.name, stat.st_ino, stat.st_mode, stat.st_uid, stat.st_ctime_ns, content))
    return found


def _race(machine: Machine, applies: int, swaps: int) -> Counter[str]:
    (machine / "outside/secret").write_text("secret\n")
    (machine / "outside/motd").write_text("another one\n")
    (machine / "etc/app/sub/motd.tmp").symlink_to(machine / "outside/planted")
    before = _snapshot(machine / "outside")
    outcomes: Counter[str] = Counter()
    racer = Racer(machine)
    with racer.running():
        number = 0
        while number < applies or racer.swaps < swaps or not outcomes["applied"]:
            number += 1
            racer.check()
            content = f"{number}\n" * 50
            try:
                base = machine.diff("/etc/app/sub/motd", content)["base_sha256"]
                encoded = base64.b64encode(content.encode()).decode()
                machine.apply("/etc/app/sub/motd", content_base64=encoded, base_sha256=base)
                outcomes["applied"] += 1
            except Refused as error:
                outcomes[error.code] += 1
    assert _snapshot(machine / "outside") == before
    assert set(outcomes) <= {"applied", "not_allowed", "conflict", "not_found"}
    assert outcomes["not_allowed"] + outcomes["conflict"] > 0
    return outcomes


@pytest.fixture
def machine(memory: Path) -> Machine:
    return Machine(memory)


@pytest.fixture(params=["openat2", "part by part"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The two ways of opening a folder."""

    def refuse(*_arguments: object) -> int:
        raise OSError(errno.ENOSYS, "no")

    if request.param != "openat2":
        monkeypatch.setattr(opening, "call_kernel", refuse)
    return str(request.param)


@pytest.mark.usefixtures("way")
def test_a_short_race(machine: Machine) -> None:
    _race(machine, 60, 2000)


@pytest.mark.slow
@pytest.mark.usefixtures("way")
def test_a_long_race(machine: Machine) -> None:
    assert _race(machine, campaign_size(1000), campaign_size(100_000))["applied"] > campaign_size(1000) // 100
