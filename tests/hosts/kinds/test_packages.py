"""host.package: the real apt with a repository of the test's own; the others by what their manuals say."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fazai.errors import DeviceError
from fazai.model import Problem, Verb
from fazai.providers.hosts.kinds import load_host_kinds
from fazai.providers.hosts.kinds.shared.packaging import MANAGERS
from tests.hosts.helpers import Host, resource
from tests.hosts.machines import Machine, missing, shim

NAME = "fz-a.b+c"
_CONTROL = """Package: {name}
Version: {version}
Architecture: all
Maintainer: test <test@example.com>
Description: nothing
"""


def package(folder: Path, name: str, version: str) -> str:
    """Build a package of one configuration file; returns its entry for the list of packages."""
    tree = folder / f"{name}_{version}"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "etc").mkdir()
    control = _CONTROL.format(name=name, version=version)
    (tree / "DEBIAN/control").write_text(control)
    (tree / "DEBIAN/conffiles").write_text(f"/etc/{name}.conf\n")
    (tree / f"etc/{name}.conf").write_text("as it came\n")
    target = folder / f"{name}_{version}.deb"
    subprocess.run(["dpkg-deb", "-Znone", "-b", tree, target], check=True, capture_output=True)
    data = target.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return f"{control}Filename: ./{target.name}\nSize: {len(data)}\nSHA256: {digest}\n\n"


def debian(folder: Path, shell: str = "dash") -> Machine:
    """A machine with this one's apt, which knows the packages of a folder alone."""
    machine = Machine.made(folder, shell)
    if not Path("/usr/bin/apt-get").exists():
        missing("apt is not installed")
    repository = machine.folder / "upper/repo"
    repository.mkdir()
    entries = [package(repository, NAME, "1.0"), package(repository, NAME, "1:1.1~rc-2")]
    entries.append(package(repository, "fz-other", "3"))
    (repository / "Packages").write_text("".join(entries))
    machine.put("/etc/apt/only.list", "deb [trusted=yes] file:/repo ./\n", 0o644)
    options = 'Dir::Etc::sourcelist "/etc/apt/only.list";\nDir::Etc::sourceparts "/nowhere";\n'
    options += 'Dir::State::lists "/repo/lists";\nAPT::Sandbox::User "root";\n'
    machine.put("/etc/apt/apt.conf.d/zz-test", options, 0o644)
    (repository / "lists/partial").mkdir(parents=True)
    return machine


@pytest.mark.slow
def test_the_real_apt(tmp_path: Path) -> None:
    machine = debian(tmp_path)
    config = machine.folder / f"upper/etc/{NAME}.conf"
    installed = resource("host.package", {"name": NAME, "version": "1.0", "update_cache": True})
    plain = resource("host.package", {"name": NAME})
    heard: list[str] = []

    async def run() -> None:
        host = machine.host()
        host.session.listen(lambda stream, text: heard.append(text))
        async with host.session:
            other = resource("host.package", {"name": "fz-other", "install_recommends": False})
            assert [change.verb for change in await host.converge(installed, other)] == [Verb.CREATE] * 2
            assert config.read_text() == "as it came\n"
            before = host.session.shell.blocks
            assert (await host.look(installed, other, plain)).changes == ()
            assert host.session.shell.blocks == before + 1
            config.write_text("changed by hand\n")
            newest = resource("host.package", {"name": NAME, "state": "latest"})
            (change,) = changes = await host.converge(newest)
            assert (change.before, change.after) == ({"version": "1.0"}, {"version": "1:1.1~rc-2"})
            assert config.read_text() == "changed by hand\n"  # nobody was asked, and nothing was lost
            await host.undo(changes)
            assert (await host.look(installed)).changes == ()
            changes = await host.converge(resource("host.package", {"name": NAME}, "absent"))
            assert config.exists()
            await host.undo(changes)
            assert (await host.look(installed)).changes == ()
            await host.converge(resource("host.package", {"name": NAME, "purge": True}, "absent"))
            await host.converge(resource("host.package", {"name": "fz-other"}, "absent"))
            several = {"name": ["fz-other", NAME]}
            heard.clear()
            (change,) = changes = await host.converge(resource("host.package", several))
            assert change.after == {"fz-other": "installed", NAME: "installed"}
            assert "".join(heard).count("Reading package lists") == 1  # one transaction
            await host.undo(changes)
            await host.converge(installed)
            (change,) = changes = await host.converge(
                resource("host.package", {**several, "state": "latest"})
            )
            assert change.before == {NAME: "1.0", "fz-other": "absent"}
            assert change.after == {NAME: "1:1.1~rc-2", "fz-other": "installed"}
            await host.undo(changes)
            assert len((await host.look(installed, other)).changes) == 1
            await host.converge(resource("host.package", {**several, "purge": True}, "absent"))
            diff = await host.look(resource("host.package", {"name": "fz-nowhere"}))
            with pytest.raises(DeviceError, match="Unable to locate package fz-nowhere"):
                await host.session.write(diff.changes[0])

    asyncio.run(run())
    assert "Setting up fz-a.b+c (1.0)" in "".join(heard)


#: Programs that keep what is installed in /tmp/db, and can get what is in /tmp/repo, as `name version`.
_COMMON = """
echo "${0##*/} $*" >>/tmp/said
drop() { grep -v "^$1 " /tmp/db >/tmp/db+; mv /tmp/db+ /tmp/db; }
has() { sed -n "s/^$1 //p" /tmp/db; }
newest() { sed -n "s/^$1 //p" /tmp/repo | tail -n 1; }
add() { grep -qx "$1 $2" /tmp/repo || { echo "no package $1 $2"; exit 104; }
drop "$1"; echo "$1 $2" >>/tmp/db; }
"""
#: dnf(8), rpm(8): an older version is not installed over a newer one
_DNF = """
while [ "${1#-}" != "$1" ]; do shift; done; what=$1; shift
while [ "${1#-}" != "$1" ]; do shift; done
for n; do v=
case $n in *[a-z]-[0-9]*) v=${n##*[a-z]-}; n=${n%-"$v"} ;; esac
case $what in
check-update) [ "$(has "$n")" != "$(newest "$n")" ] || exit 0
echo; echo "$n.noarch  $(newest "$n")  base"; exit 100 ;;
install) [ -n "$(has "$n")" ] && [ "${v:-0}" \\< "$(has "$n")" ] || add "$n" "${v:-$(newest "$n")}" ;;
upgrade) add "$n" "$(newest "$n")" ;; downgrade) add "$n" "$v" ;; remove) drop "$n" ;; *) exit 1 ;; esac
done
"""
_RPM = """
case $1 in -qa) cat /tmp/db ;; -q) has "$4" ;; *) exit 1 ;; esac
"""
#: zypper(8)
_ZYPPER = """
while [ "${1#-}" != "$1" ]; do shift; done; what=$1; shift
old=; while [ "${1#-}" != "$1" ]; do [ "$1" != --oldpackage ] || old=1; shift; done
for a; do n=${a%%=*} v=
case $a in *=*) v=${a#*=} ;; esac
case $what in
info) echo "Name           : $n"; echo "Version        : $(newest "$n")"
if [ "$(has "$n")" = "$(newest "$n")" ]; then echo "Status         : up-to-date"
else echo "Status         : out-of-date (version $(has "$n") installed)"; fi ;;
install) [ -n "$v" ] && [ -z "$old" ] && exit 1; add "$n" "${v:-$(newest "$n")}" ;;
update) add "$n" "$(newest "$n")" ;; remove) drop "$n" ;; *) exit 1 ;; esac
done
"""
#: apk(8)
_APK = """
[ "$1" != -q ] || shift; what=$1; shift; old=; [ "$1" != -u ] || { old=1; shift; }
[ "$1" != --purge ] || shift
case $what in info) sed 's/ /-/' /tmp/db; exit ;;
version) echo "Installed:                                Available:"; n=$3
[ "$(has "$n")" = "$(newest "$n")" ] || echo "$n-$(has "$n")              < $(newest "$n") "; exit ;; esac
for a; do n=${a%%=*} v=; case $a in *=*) v=${a#*=} ;; esac
case $what in add) [ -n "$(has "$n")$v" ] && [ -z "$old$v" ] || add "$n" "${v:-$(newest "$n")}" ;;
del) drop "$n" ;; *) exit 1 ;; esac
done
"""
#: pkg(8), pkg-version(8), pkg-rquery(8)
_PKG = """
what=$1; shift; case $what in query) cat /tmp/db; exit ;;
version) [ "$(has "$6")" = "$(newest "$6")" ] || echo "$6-$(has "$6")     <"; exit ;;
rquery) sed -n "s/^$3 //p" /tmp/repo | tail -n 1; exit ;; esac
[ "$ASSUME_ALWAYS_YES" = yes ] || [ $what = update ] || { echo "Proceed? [y/N]"; exit 1; }
while [ "${1#-}" != "$1" ]; do shift; done
for n; do v=; case $n in *[a-z]-[0-9]*) v=${n##*[a-z]-}; n=${n%-"$v"} ;; esac
case $what in install) add "$n" "${v:-$(newest "$n")}" ;; upgrade) add "$n" "$(newest "$n")" ;;
delete) drop "$n" ;; *) exit 1 ;; esac
done
"""
OTHERS = {
    "dnf": {"dnf": _DNF, "rpm": _RPM},
    "yum": {"yum": _DNF, "rpm": _RPM},
    "zypper": {"zypper": _ZYPPER, "rpm": _RPM},
    "apk": {"apk": _APK},
    "pkg": {"pkg": _PKG},
}


def other(manager: str, folder: Path) -> tuple[Machine, str, str]:
    """A machine with another manager, where other-lib is installed; an old and a new version of app."""
    machine = Machine.made(folder, "busybox" if manager == "apk" else "bash")
    old, new = ("1.0-r0", "2.0-r1") if manager == "apk" else ("1.0-1", "2.0-1")
    machine.put("/tmp/db", f"other-lib {old}\n")
    machine.put("/tmp/repo", f"other-lib {old}\napp {old}\napp {new}\ntool {old}\n")
    machine.run("rm -f /usr/bin/apt-get /usr/bin/rpm")
    for name, script in OTHERS[manager].items():
        shim(machine, name, _COMMON + script)
    return machine, old, new


def there(machine: Machine) -> list[str]:
    return (machine.folder / "upper/tmp/db").read_text().splitlines()


@pytest.mark.parametrize("manager", OTHERS)
def test_other_managers(manager: str, tmp_path: Path) -> None:
    machine, old, new = other(manager, tmp_path)

    async def run() -> None:
        host = machine.host()
        async with host.session:
            plain = resource("host.package", {"name": "app", "update_cache": True})
            pinned = resource("host.package", {"name": "app", "version": old})
            latest = resource("host.package", {"name": "app", "state": "latest"})
            gone = resource("host.package", {"name": "app"}, "absent")
            changes = await host.converge(plain)
            assert f"app {new}" in there(machine)
            await host.undo(changes)
            assert (await host.look(gone)).changes == ()
            await host.converge(latest)
            changes = await host.converge(pinned)
            assert f"app {old}" in there(machine)
            await host.undo(changes)
            assert f"app {new}" in there(machine)
            await host.converge(pinned)
            (change,) = changes = await host.converge(latest)
            assert change.after["version"].endswith(new)
            await host.undo(changes)
            assert (await host.look(pinned)).changes == ()
            changes = await host.converge(gone)
            assert there(machine) == [f"other-lib {old}"]
            await host.undo(changes)
            assert (await host.look(pinned)).changes == ()

    asyncio.run(run())


@pytest.mark.in_turn("manager")
@pytest.mark.parametrize("manager", OTHERS)
def test_several_are_one_command_of_other_managers(manager: str, tmp_path: Path) -> None:
    machine, old, new = other(manager, tmp_path)
    names = ["app", "other-lib", "tool"]

    def commands() -> int:
        said = (machine.folder / "upper/tmp/said").read_text().splitlines()
        words = ("install", "add", "upgrade", "update", "remove", "del", "delete")
        return sum(any(word in line.split() and line.split()[-1] != word for word in words) for line in said)

    async def run() -> None:
        host = machine.host()
        async with host.session:
            several = resource("host.package", {"name": names})
            (change,) = changes = await host.converge(several)
            assert (change.identity, change.before) == ("app, other-lib, tool", {})
            assert change.after == {"app": "installed", "tool": "installed"}
            assert commands() == 1
            await host.undo(changes)
            assert there(machine) == [f"other-lib {old}"]
            await host.converge(resource("host.package", {"name": "app", "version": old}))
            (change,) = changes = await host.converge(
                resource("host.package", {"name": names, "state": "latest"})
            )
            assert (change.before["tool"], change.after["tool"]) == ("absent", "installed")
            assert (change.before["app"], change.after["app"].endswith(new)) == (old, True)
            assert f"app {new}" in there(machine)
            await host.undo(changes)
            assert there(machine) == [f"other-lib {old}", f"app {old}"]
            before = commands()
            (change,) = changes = await host.converge(resource("host.package", {"name": names}, "absent"))
            assert (change.verb, set(change.before)) == (Verb.DELETE, {"app", "other-lib"})
            assert (there(machine), commands()) == ([], before + 1)
            await host.undo(changes)
            assert sorted(there(machine)) == [f"app {old}", f"other-lib {old}"]

    asyncio.run(run())


def test_no_manager_and_one_that_does_not_answer(tmp_path: Path) -> None:
    machine = Machine.made(tmp_path)
    machine.run("rm -f /usr/bin/apt-get")
    wanted = resource("host.package", {"name": "app"})

    async def look() -> str:
        host = machine.host()
        async with host.session:
            (error,) = (await host.look(wanted)).errors
            return str(error)

    assert "no package manager that is known" in asyncio.run(look())
    shim(machine, "pkg", "echo 'pkg: database is locked' >&2; exit 1")
    assert "does not say what is installed: pkg: database is locked" in asyncio.run(look())


def test_a_folder_has_no_packages(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host.local(tmp_path)
        async with host.session:
            (error,) = (await host.look(resource("host.package", {"name": "x"}))).errors
            assert "needs a running machine" in str(error)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": "-y"}, "name"),
        ({"name": "nano-"}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": "a=1"}, "name"),
        ({"name": "./x.deb"}, "name"),
        ({"name": "a*"}, "name"),
        ({"name": "$(id)"}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "curl, jq"}, "name"),
        ({"name": ["curl", "-y"]}, "name"),
        ({"name": []}, "name"),
        ({"name": ["curl", ["jq"]]}, "name"),
        ({"name": ["curl", "jq"], "version": "1"}, "version"),
        ({"version": "-1"}, "version"),
        ({"version": "1 2"}, "version"),
        ({"version": "1;id"}, "version"),
        ({"version": "1", "state": "latest"}, "version"),
    ],
)
def test_what_a_manager_would_take_for_something_else(fields: dict[str, Any], field: str) -> None:
    kind = load_host_kinds()["host.package"]
    _, problems = kind.normalise({"name": "app", **fields}, "present")
    assert [problem.field for problem in problems] == [field]
    assert not isinstance(kind.identify({"name": "libstdc++6"}), Problem)


def test_how_several_are_named() -> None:
    kind = load_host_kinds()["host.package"]
    assert kind.identify({"name": ["jq", "curl", "jq"]}) == "jq, curl"
    assert kind.identify({"name": ["curl"]}) == kind.identify({"name": "curl"}) == "curl"
    assert kind.normalise({"name": ["curl"]}, "present") == ({"name": "curl"}, [])
    for name in ([], ["a", ["b"]], None):
        assert isinstance(kind.identify({"name": name}), Problem)


@pytest.mark.parametrize(
    ("manager", "version", "forms"),
    [
        ("apt", "1:2-3", {"1:2-3"}),
        ("dnf", "1.2-3.el9", {"0:1.2-3.el9", "0:1.2", "1.2-3.el9", "1.2"}),
        ("dnf", "1:1.2-3.el9", {"1:1.2-3.el9", "1:1.2"}),
        ("apk", "1.2-r3", {"1.2-r3"}),
    ],
)
def test_the_ways_to_say_a_version(manager: str, version: str, forms: set[str]) -> None:
    assert set(MANAGERS[manager].forms(version)) == forms
