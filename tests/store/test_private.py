"""What lies in the state folder is its owner's alone, whatever the umask and whatever was there before; and
the local socket is that of its state folder."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fazai.config import daemon_socket_path, named_state_folder
from fazai.store.base import Run
from fazai.store.daemon import NewEvent, Token
from fazai.store.factory import describe_openness
from fazai.store.sqlite.daemon import SqliteDaemonStore
from fazai.store.sqlite.ledger import SqliteStore
from fazai.store.sqlite.schema import FILE_NAME
from fazai.store.sqlite.tokens import TokenFile
from tests.daemon.live import live, settings

RUN = Run("01KANHC0E8M5T3W9Q7Z2R4V6XB", "apply", (), "root", "h", 1, 1.0)


@pytest.fixture(autouse=True)
def _open_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def lax(tmp_path: Path) -> Path:
    """A state folder that somebody made before, as mkdir does."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o755)
    return folder


def _modes(folder: Path) -> dict[str, str]:
    """Of everything in it that others could use in some way."""
    return {
        str(path.relative_to(folder)): oct(path.lstat().st_mode & 0o777)
        for path in folder.rglob("*")
        if path.lstat().st_mode & 0o077 and not stat.S_ISSOCK(path.lstat().st_mode)
    }


def _ledger(folder: Path) -> None:
    store = SqliteStore(folder)

    async def main() -> None:
        async with store.lease("fw-01", RUN):
            await store.run_begin(RUN)
            assert (folder / f"{FILE_NAME}-wal").exists()
            assert _modes(folder) == {}

    asyncio.run(main())
    store.close()


def _daemon(folder: Path) -> None:
    store = SqliteDaemonStore(folder)
    asyncio.run(store.publish([NewEvent("log", b"{}")]))
    assert _modes(folder) == {}
    store.close()


def _tokens(folder: Path) -> None:
    TokenFile(folder).put(Token("0" * 64, "ci", "viewer", time.time()))


@pytest.mark.parametrize("use", [_ledger, _daemon, _tokens])
def test_files_are_private_in_a_folder_that_is_not(lax: Path, use: Callable[[Path], None]) -> None:
    use(lax)
    assert _modes(lax) == {}
    said = describe_openness(lax)
    assert said == f"the state folder {lax} is open to others (mode 0755): chmod 700 {lax}"
    lax.chmod(0o700)
    assert describe_openness(lax) is None


@pytest.mark.parametrize("use", [_ledger, _daemon, _tokens])
def test_a_folder_that_was_not_there_is_private(tmp_path: Path, use: Callable[[Path], None]) -> None:
    folder = tmp_path / "state"
    use(folder)
    assert oct(folder.stat().st_mode & 0o777) == "0o700"
    assert _modes(folder) == {}
    assert describe_openness(folder) is None


def test_what_an_earlier_release_left_open_is_closed(lax: Path) -> None:
    _daemon(lax)
    (lax / FILE_NAME).chmod(0o644)
    lax.chmod(0o700)
    assert describe_openness(lax) == f"{lax / FILE_NAME} is open to others: chmod 600 {lax / FILE_NAME}"
    _ledger(lax)
    assert _modes(lax) == {}


def test_the_daemon_says_it_and_its_files_are_private(tmp_path: Path, lax: Path) -> None:
    asked = settings(tmp_path)
    with live(tmp_path, socket=lax / "daemon.sock") as daemon:
        assert asked.state == lax
        assert f"the state folder {lax} is open to others (mode 0755)" in daemon.log()
        assert oct((lax / "daemon.sock").stat().st_mode & 0o777) == "0o660"  # by its group: docs/daemon.md
        assert _modes(lax) == {}
    assert _modes(lax) == {}


def test_a_run_says_it(tmp_path: Path, lax: Path) -> None:
    (tmp_path / "host").mkdir()
    host = f"{{provider: local, root: {tmp_path / 'host'}, resources: []}}"
    (tmp_path / "inventory.yml").write_text(f"all: {{hosts: {{h1: {host}}}}}\n")
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ["PYTHONPATH"],
        "HOME": str(tmp_path),
        "FAZAI_STATE_DIR": str(lax),
    }
    words = [sys.executable, "-m", "fazai", "plan", str(tmp_path / "inventory.yml")]
    found = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    assert f"warning: the state folder {lax} is open to others (mode 0755): chmod 700 {lax}" in found.stderr
    assert _modes(lax) == {}


# -- the socket


@pytest.mark.parametrize(
    ("environ", "root", "wanted"),
    [
        ({}, True, "/run/fazai/daemon.sock"),
        ({"FAZAI_STATE_DIR": "/var/lib/fazai"}, True, "/run/fazai/daemon.sock"),
        ({"FAZAI_STATE_DIR": "/var/lib/fazai/"}, False, "/run/fazai/daemon.sock"),
        ({"FAZAI_STATE_DIR": "/srv/test"}, True, "/srv/test/daemon.sock"),
        ({"FAZAI_STATE": "/srv/test"}, True, "/srv/test/daemon.sock"),
        ({"FAZAI_STATE_DIR": "/srv/test", "FAZAI_SOCKET": "/s"}, True, "/s"),
        ({"FAZAI_STATE_DIR": "/srv/test", "XDG_RUNTIME_DIR": "/run/user/7"}, False, "/srv/test/daemon.sock"),
        ({"XDG_RUNTIME_DIR": "/run/user/7", "HOME": "/h"}, False, "/run/user/7/fazai-daemon.sock"),
        ({"HOME": "/h"}, False, "/h/.local/state/fazai/daemon.sock"),
    ],
)
def test_the_socket_is_that_of_its_state_folder(environ: dict[str, str], root: bool, wanted: str) -> None:
    assert str(daemon_socket_path(environ, root=root)) == wanted


def test_a_run_with_a_state_folder_of_its_own_is_no_concern_of_the_machines_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root's daemon in a folder of its own used to take the machine's socket."""
    from fazai.cli import environment

    monkeypatch.delenv("FAZAI_SOCKET", raising=False)
    monkeypatch.setenv("FAZAI_STATE_DIR", str(tmp_path / "state"))
    assert named_state_folder(os.environ) == tmp_path / "state"
    assert environment.find_local_socket(root=True) is None
    with live(tmp_path, socket=daemon_socket_path(os.environ, root=True)):
        assert environment.find_local_socket(root=True) == tmp_path / "state" / "daemon.sock"
