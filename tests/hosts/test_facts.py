"""`fazai facts`: what this machine says of itself, through a folder and through SSH, under every shell."""

from __future__ import annotations

import asyncio
import json
import os
import platform
from pathlib import Path

import pytest

from fazai.providers.hosts.facts import QUESTIONS, facts_of
from fazai.providers.hosts.shell.questions import Output
from tests.hosts.conftest import ME, World
from tests.hosts.helpers import SHELLS, Host, shell_environ
from tests.hosts.sshd import Sshd


@pytest.mark.parametrize("shell", SHELLS)
def test_this_machine(shell: str, tmp_path: Path) -> None:
    async def run() -> dict[str, object]:
        host = Host.local(tmp_path, shell_environ(shell, tmp_path))
        async with host.session:
            return dict(await host.session.facts())

    found = asyncio.run(run())
    assert found["arch"] == platform.machine()
    assert found["kernel"] == f"{platform.system()} {platform.release()}"
    assert found["hostname"] == platform.node()
    assert found["cpus"] == os.cpu_count()
    assert found["user"] == ME
    assert isinstance(found["memory_mib"], int)
    assert isinstance(found["os"], dict)


def test_text_and_json_and_hosts_that_do_not_answer(world: World, server: Sshd) -> None:
    world.ssh(server)
    world.ssh(server, "gone", ansible_port=1)
    found = world.fazai("facts", "--output", "json")
    assert found.code == 4
    assert found.document["web"]["arch"] == platform.machine()
    assert "refuses connections" in found.document["gone"]["error"]
    found = world.fazai("facts", "web")
    assert (found.code, found.out.splitlines()[0]) == (0, "web")
    assert f"  arch           {platform.machine()}" in found.out
    assert json.dumps(found.out)


def test_a_freebsd_box() -> None:
    said = {
        "names": "FreeBSD\n14.1-RELEASE\namd64\nbox\nroot\n",
        "os": "14.1-RELEASE-p5\n",
        "cpus": "4\n",
        "memory": "MemTotal: 8388608 kB\ncat: /proc/uptime: No such file or directory\n",
        "disks": "Filesystem 1024-blocks Used Avail Capacity Mounted on\n"
        "/dev/ada0p2 1048576 524288 524288 50% /\n"
        "devfs 1 1 0 100% /dev\nzroot/var log 2048 0 2048 0% /var/a b\n",
        "addresses": "lo0: flags=8049\n\tinet 127.0.0.1 netmask 0xff000000\nem0: f\n"
        "\tinet 192.0.2.7 netmask 0xffffff00\n\tinet6 fe80::1%em0 prefixlen 64\n"
        "\tinet6 2001:db8::7 prefixlen 64\n",
        "init": "rc\n",
        "packages": "pkg\n",
    }
    found = facts_of({QUESTIONS[name]: Output(0, text.encode()) for name, text in said.items()})
    assert found["os"] == {"name": "FreeBSD", "version": "14.1-RELEASE-p5"}
    assert found["addresses"] == ["192.0.2.7", "2001:db8::7"]
    assert found["disks"][0] == {"mount": "/", "device": "/dev/ada0p2", "size_mib": 1024, "free_mib": 512}
    assert (found["cpus"], found["memory_mib"], found["init"], found["packages"]) == (4, 8192, "rc", "pkg")
    assert "uptime_s" not in found
