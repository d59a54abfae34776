"""Boxes: names of hosts that stand for one host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fazai.model import Target
from fazai.providers.hosts.local.provider import PROVIDER as LOCAL
from fazai.providers.hosts.ssh.provider import PROVIDER as SSH


def ssh(name: str, **options: Any) -> str:
    return SSH.box_of(Target(name, "ssh", "write", options))


@pytest.mark.parametrize(
    ("options", "same"),
    [
        ({"host": "WEB.example.net"}, True),
        ({"ansible_host": "web.example.net", "ansible_port": 22}, True),
        ({"host": "web.example.net", "user": "ana"}, True),
        ({"host": "web.example.net", "port": 2222}, False),
        ({"host": "web.example.net", "jump": "bastion"}, False),
        ({"host": "web.example.net", "ssh_config": "/etc/other"}, False),
        ({"host": "web.example.net", "root": "/srv/image"}, False),
        ({"host": "web"}, False),
    ],
)
def test_ssh(options: dict[str, Any], same: bool) -> None:
    assert (ssh("w", **options) == ssh("web.example.net")) == same


def test_ssh_behind_one_bastion_whoever_logs_in() -> None:
    assert ssh("a", host="10.0.0.5", jump="ana@bastion") == ssh("b", host="10.0.0.5", jump="bastion:22")


def test_local(tmp_path: Path) -> None:
    def local(**options: Any) -> str:
        return LOCAL.box_of(Target("h", "local", "write", options))

    (tmp_path / "fs").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "fs")
    assert local() == local(root="/") == "local:/"
    assert local(root=str(tmp_path / "fs")) == local(root=str(tmp_path / "link"))
    assert local(root=str(tmp_path / "fs")) != local()
