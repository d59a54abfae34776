"""host.package with the real dnf and zypper: machines to throw away, each with a repository of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from fazai.errors import DeviceError
from fazai.model import Verb
from tests.hosts.helpers import Host, resource
from tests.hosts.machines import Machine

pytestmark = pytest.mark.slow

_SPEC = """Name: {name}
Version: {version}
Release: {release}
Summary: nothing
License: none
BuildArch: noarch
%description
%install
mkdir -p %{{buildroot}}/etc; echo 'as it came' >%{{buildroot}}/etc/{name}.conf
%files
%config(noreplace) /etc/{name}.conf
"""
_PACKAGES = (("fz-app", "1.0", "1"), ("fz-app", "1:1.1", "2"), ("fz-other", "3", "1"), ("fz-base", "1", "1"))
#: Debian's rpm is set up for one user; where it is the system's own, all use one database.
_BUILD = """set -e
rm -f /usr/bin/apt-get; rpm --initdb; mkdir -p /repo
for spec in /specs/*.spec; do rpmbuild -bb --quiet --define "_topdir /tmp/build" $spec; done
cp /tmp/build/RPMS/noarch/*.rpm /repo; createrepo_c -q /repo
"""


def _with_rpm(folder: Path, tools: str) -> Machine:
    machine = Machine.made(folder, "bash")
    machine.add(tools)
    for number, (name, version, release) in enumerate(_PACKAGES):
        epoch, _, plain = version.rpartition(":")
        text = _SPEC.format(name=name, version=plain, release=release)
        if epoch:
            text = f"Epoch: {epoch}\n{text}"
        machine.put(f"/specs/{number}.spec", text, 0o644)
    machine.put("/etc/rpm/macros", "%_dbpath /var/lib/rpm\n", 0o644)
    machine.run(_BUILD)
    return machine


def dnf(folder: Path) -> Machine:
    machine = _with_rpm(folder, "dnf")
    repository = "[own]\nname=own\nbaseurl=file:///repo\nenabled=1\ngpgcheck=0\n"
    machine.put("/etc/yum.repos.d/own.repo", repository, 0o644)
    return machine


def zypper(folder: Path) -> Machine:
    machine = _with_rpm(folder, "zypper")
    machine.run("zypper --non-interactive addrepo --no-gpgcheck /repo own >/dev/null")
    return machine


async def several(host: Host) -> None:
    """Both packages as one resource: removed, put back at their versions, installed, the newest."""
    names = {"name": ["fz-app", "fz-other"]}
    await host.converge(resource("host.package", {"name": "fz-base"}))  # zypper fails when nothing is left
    (change,) = changes = await host.converge(resource("host.package", names, "absent"))
    assert change.before == {"fz-app": "1:1.1-2", "fz-other": "3-1"}
    await host.undo(changes)
    assert (await host.look(resource("host.package", {**names, "state": "latest"}))).changes == ()
    await host.converge(resource("host.package", names, "absent"))
    (change,) = changes = await host.converge(resource("host.package", names))
    assert change.after == {"fz-app": "installed", "fz-other": "installed"}
    await host.undo(changes)
    await host.converge(resource("host.package", {"name": "fz-app", "version": "1.0"}))
    (change,) = await host.converge(resource("host.package", {**names, "state": "latest"}))
    assert change.before == {"fz-app": "1.0-1", "fz-other": "absent"}
    assert change.after == {"fz-app": "1:1.1-2", "fz-other": "installed"}


@pytest.mark.parametrize("system", [dnf, zypper])
def test_packages_of_rpm(system: Callable[[Path], Machine], tmp_path: Path) -> None:
    machine = system(tmp_path)
    config = machine.folder / "upper/etc/fz-app.conf"
    old = resource("host.package", {"name": "fz-app", "version": "1.0", "update_cache": True})
    latest = resource("host.package", {"name": "fz-app", "state": "latest"})
    gone = resource("host.package", {"name": "fz-app"}, "absent")

    async def run() -> None:
        host = machine.host()
        async with host.session:
            other = resource("host.package", {"name": "fz-other", "install_recommends": False})
            assert [change.verb for change in await host.converge(old, other)] == [Verb.CREATE] * 2
            assert config.read_text() == "as it came\n"
            before = host.session.shell.blocks
            assert (await host.look(old, other)).changes == ()
            assert host.session.shell.blocks == before + 1
            config.write_text("changed by hand\n")
            (change,) = changes = await host.converge(latest)
            assert (change.before, change.after) == ({"version": "1.0-1"}, {"version": "1:1.1-2"})
            assert config.read_text() == "changed by hand\n"
            await host.undo(changes)  # back to the older one
            assert (await host.look(old)).changes == ()
            await host.undo(await host.converge(gone))
            assert (await host.look(old)).changes == ()
            await host.converge(gone)
            await host.converge(resource("host.package", {"name": "fz-app"}))
            assert (await host.look(latest)).changes == ()
            await host.converge(resource("host.package", {"name": "fz-app", "version": "1:1.1-2"}))
            await several(host)
            diff = await host.look(resource("host.package", {"name": "fz-nowhere"}))
            with pytest.raises(DeviceError, match="fz-nowhere"):
                await host.session.write(diff.changes[0])
            assert machine.run("rpm -qa --qf '%{NAME}\\n' | sort").split() == [
                "fz-app",
                "fz-base",
                "fz-other",
            ]

    asyncio.run(run())
