"""A firewall of the lab over real HTTP, an inventory for it, and the command line, here or in a child."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fazai.cli import main
from fazai.lab import LabFirewall, LabSettings, LabThread


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
    """`folder` holds the inventory and the state; `firewalls` are those that were started."""

    folder: Path
    lab: LabThread
    capsys: pytest.CaptureFixture[str]
    firewalls: dict[str, LabFirewall] = field(default_factory=dict)
    children: list[subprocess.Popen[str]] = field(default_factory=list)

    def firewall(self, name: str = "fw-01", **settings: Any) -> LabFirewall:
        settings.setdefault("auth_delay_s", 0.0)
        self.firewalls[name] = self.lab.start(name, LabSettings(**settings))
        return self.firewalls[name]

    def host(self, name: str = "fw-01", **more: Any) -> dict[str, Any]:
        """The host's variables: address, key, writable."""
        firewall = self.firewalls[name]
        secret = {"api_key": firewall.api_key, "api_secret": firewall.api_secret}
        return {
            "provider": "opnsense",
            "mode": "write",
            "base_url": firewall.base_url,
            "secret": secret,
            "retries": 1,
            **more,
        }

    def inventory(self, hosts: Mapping[str, Mapping[str, Any]] | None = None, **top: Any) -> Path:
        """An inventory file; without hosts: one firewall with `resources`."""
        resources = top.pop("resources", RESOURCES)
        if hosts is None:
            hosts = {name: self.host(name, resources=resources) for name in self.firewalls}
        path = self.folder / "inventory.yml"
        path.write_text(json.dumps({"all": {"hosts": hosts}, **top}, indent=1))
        return path

    def fazai(self, *words: str | Path) -> Result:
        """The command line, in this process."""
        self.capsys.readouterr()
        code = main([str(word) for word in words])
        said = self.capsys.readouterr()
        return Result(code, said.out, said.err)

    def start(self, *words: str | Path, **options: Any) -> subprocess.Popen[str]:
        """The command line, in a process of its own."""
        process = subprocess.Popen(
            [sys.executable, "-m", "fazai", *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **{"env": {**os.environ, "FAZAI_STATE_DIR": str(self.folder / "state")}, **options},
        )
        self.children.append(process)
        return process

    def child(self, *words: str | Path, **options: Any) -> Result:
        process = self.start(*words, **options)
        out, err = process.communicate(timeout=60)
        return Result(process.returncode, out, err)

    def writes(self, name: str = "fw-01") -> list[str]:
        """The paths of the calls that changed something."""
        return [
            path
            for _, path, _ in self.firewalls[name].requests
            if path.rstrip("/")
            .split("/")[4]
            .lower()
            .startswith(("set", "add", "del", "toggle", "apply", "reconf"))
        ]

    def forget(self, name: str = "fw-01") -> None:
        self.firewalls[name].requests.clear()


RESOURCES: list[dict[str, Any]] = [
    {"opnsense.category": {"name": "managed", "color": "2e7d32"}},
    {
        "opnsense.alias": {
            "name": "dns_servers",
            "type": "host",
            "content": ["192.0.2.53", "192.0.2.54"],
            "categories": ["managed"],
        }
    },
    {
        "opnsense.rule": {
            "description": "allow dns",
            "interface": ["lan"],
            "protocol": "UDP",
            "destination_net": "dns_servers",
            "destination_port": "53",
            "action": "pass",
        }
    },
]


@pytest.fixture
def world(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    monkeypatch.setenv("FAZAI_STATE_DIR", str(tmp_path / "state"))
    for name in ("FAZAI_INVENTORY", "FAZAI_FORKS", "FAZAI_LAB", "FAZAI_SECRETS"):
        monkeypatch.delenv(name, raising=False)
    with LabThread() as lab:
        made = World(tmp_path, lab, capsys)
        yield made
        for child in made.children:
            if child.poll() is None:  # a test that failed left it behind
                child.kill()
                child.wait()
            for stream in (child.stdout, child.stderr):
                if stream is not None:
                    stream.close()
