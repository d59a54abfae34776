"""Hosts to try things on: an OpenSSH server, folders as hosts, and the command line in this process."""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fazai.cli import main
from tests.hosts.sshd import SSHD, Sshd

ME = getpass.getuser()


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


@dataclass
class World:
    """`folder` holds the inventory, the state, and the hosts' folders."""

    folder: Path
    capsys: pytest.CaptureFixture[str]
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def local(self, name: str = "box", **more: Any) -> Path:
        """A host that is a folder; returns it."""
        root = self.folder / name
        root.mkdir(exist_ok=True)
        self.hosts[name] = {"provider": "local", "root": str(root), **more}
        return root

    def ssh(self, server: Sshd, name: str = "web", **more: Any) -> Path:
        """A host behind the server, with a folder of its own; returns that."""
        root = self.folder / name
        root.mkdir(exist_ok=True)
        known = server.known_hosts(self.folder / "known_hosts")
        self.hosts[name] = {
            "provider": "ssh",
            "ansible_host": "127.0.0.1",
            "ansible_port": server.port,
            "ansible_user": ME,
            "ansible_ssh_private_key_file": str(server.user_key),
            "known_hosts": str(known),
            "root": str(root),
            "agent": False,
            **more,
        }
        self.hosts[name] = {k: v for k, v in self.hosts[name].items() if v is not None}
        return root

    def fazai(
        self,
        command: str,
        *words: str | Path,
        resources: Sequence[Mapping[str, Any]] | None = None,
        **top: Any,
    ) -> Result:
        """The command line on an inventory of these hosts, in this process."""
        path = self.folder / "inventory.yml"
        shared = {} if resources is None else {"resources": list(resources)}
        if self.hosts:
            path.write_text(json.dumps({"all": {"hosts": self.hosts, **shared}, **top}, indent=1))
        return self.fazai_bare(command, path, *words)

    def fazai_bare(self, *words: str | Path) -> Result:
        """The command line without an inventory, in this process."""
        self.capsys.readouterr()
        code = main([*map(str, words)])
        said = self.capsys.readouterr()
        return Result(code, said.out, said.err)


@pytest.hookimpl(tryfirst=True)
def pytest_itemcollected(item: pytest.Item) -> None:
    """Try each case under one shell in the fast tests, under the others in the slow ones."""
    if "shell" in getattr(item, "fixturenames", ()) and item.get_closest_marker("in_turn") is None:
        item.add_marker(pytest.mark.in_turn("shell"))


@pytest.fixture
def world(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("FAZAI_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return World(tmp_path, capsys)


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sshd")


@pytest.fixture
def server(keys: Path) -> Iterator[Sshd]:
    """An OpenSSH server; the same keys for all tests of a process."""
    if SSHD is None:
        if os.environ.get("FAZAI_NO_SKIPS"):
            pytest.fail("OpenSSH's server is not installed: tools/test-hosts installs it")
        pytest.skip("OpenSSH's server is not installed (sshd)")
    with Sshd(keys) as sshd:
        yield sshd
