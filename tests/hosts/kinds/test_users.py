"""host.user and host.group with the real programs of a machine, and with those of Alpine and FreeBSD."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fazai.errors import DeviceError
from fazai.model import Problem, Secret, Verb
from fazai.providers.hosts.kinds import load_host_kinds
from tests.hosts.helpers import SHELLS, Host, resource
from tests.hosts.machines import Machine, shim

HASH = "$6$salt$nothing/that.opens"


def line(machine: Machine, file: str, name: str) -> list[str] | None:
    path = machine.folder / "upper/etc" / file
    lines = path.read_text().splitlines() if path.exists() else []
    return next((text.split(":") for text in lines if text.startswith(f"{name}:")), None)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_user_is_made_changed_taken_back_and_removed(shell: str, tmp_path: Path) -> None:
    machine = Machine.made(tmp_path, shell)
    fields: dict[str, Any] = {
        "name": "app-1",
        "uid": 7001,
        "group": "crew",
        "groups": ["adm", "staff"],
        "home": "/srv/it's a home",
        "shell": "/usr/sbin/nologin",
        "comment": 'the $(app) `of` "all", -x',
        "password": Secret(HASH),
    }

    async def run() -> None:
        host = machine.host()
        async with host.session:
            group, user = resource("host.group", {"name": "crew", "gid": 7100}), resource("host.user", fields)
            assert [c.verb for c in await host.converge(group, user)] == [Verb.CREATE, Verb.CREATE]
            passwd = line(machine, "passwd", "app-1")
            assert passwd is not None
            assert passwd[2:] == ["7001", "7100", fields["comment"], fields["home"], fields["shell"]]
            assert (line(machine, "shadow", "app-1") or [])[1] == HASH
            assert (machine.folder / "upper/srv/it's a home").is_dir()
            before = host.session.shell.blocks
            assert (await host.look(group, user)).changes == ()
            assert host.session.shell.blocks == before + 1

            changed = {**fields, "groups": ["staff", "games"], "comment": "-c", "home": "/srv/b", "uid": 7002}
            changed["password"], changed["group"] = Secret("!" + HASH), "users"
            changes = await host.converge(resource("host.user", changed))
            assert changes[0].before["groups"] == ["adm", "staff"]
            assert str(changes[0].before["password"]) == "***"
            assert (line(machine, "shadow", "app-1") or [])[1] == "!" + HASH
            assert "app-1" not in (line(machine, "group", "adm") or [""])[-1]
            await host.undo(changes)
            assert (await host.look(group, user)).changes == ()

            gone = [resource("host.user", {"name": "app-1"}, "absent")]
            gone.append(resource("host.group", {"name": "crew"}, "absent"))
            changes = await host.converge(*gone)
            assert [change.verb for change in changes] == [Verb.DELETE, Verb.DELETE]
            assert line(machine, "passwd", "app-1") is None
            await host.undo(changes)
            assert (await host.look(group, user)).changes == ()
            assert (line(machine, "shadow", "app-1") or [])[1] == HASH

    asyncio.run(run())


def test_what_is_not_declared_is_left_alone(tmp_path: Path) -> None:
    """Only a name: made by the rules of the machine; afterwards nothing of it is compared."""
    machine = Machine.made(tmp_path)

    async def run() -> None:
        host = machine.host()
        async with host.session:
            await host.converge(resource("host.user", {"name": "anna"}))
            machine_line = line(machine, "passwd", "anna")
            assert machine_line is not None
            assert machine_line[5] == "/home/anna"
            assert (machine.folder / "upper/home/anna").is_dir()
            more = resource("host.user", {"name": "anna", "groups": "adm, games", "append": True})
            (change,) = await host.converge(more)
            assert change.after == {"groups": ["adm", "games"]}
            less = resource("host.user", {"name": "anna", "groups": ["games"], "append": True})
            assert (await host.look(less)).changes == ()
            await host.converge(resource("host.user", {"name": "anna", "groups": []}))
            assert (line(machine, "group", "games") or [])[-1] == ""
            once = {"name": "anna", "password": Secret("!"), "update_password": "on_create"}
            assert (await host.look(resource("host.user", once))).changes == ()
            system = {"name": "daemon-x", "system": True, "create_home": False}
            await host.converge(resource("host.user", system))
            number = (line(machine, "passwd", "daemon-x") or [])[2]
            assert int(number) < 1000
            assert not (machine.folder / "upper/home/daemon-x").exists()
            moved = {"name": "anna", "home": "/srv/anna", "move_home": True}
            (machine.folder / "upper/home/anna/kept").write_text("x")
            await host.converge(resource("host.user", moved))
            assert (machine.folder / "upper/srv/anna/kept").read_text() == "x"
            removal = resource("host.user", {"name": "anna", "remove": True}, "absent")
            (change,) = await host.converge(removal)
            assert not (machine.folder / "upper/srv/anna").is_dir()
            assert host.session.inverse(change, change.ref) is None

    asyncio.run(run())


#: Programs of other systems, in the words of their manuals, upon those of this one (moved to /opt/real).
ALPINE = {
    "adduser": """
h= g= s= G= S= H= u=
while getopts Dh:g:s:G:SHu:k: o; do case $o in D) ;; h) h=$OPTARG;; g) g=$OPTARG;; s) s=$OPTARG;;
G) G=$OPTARG;; S) S=-r;; H) H=-M;; u) u=$OPTARG;; *) exit 1;; esac; done
shift $((OPTIND - 1)); [ $# = 1 ] && [ -n "$G" ] || exit 1
exec /opt/real/useradd $S ${H:--m} ${h:+-d "$h"} ${g:+-c "$g"} ${s:+-s "$s"} ${u:+-u "$u"} -g "$G" -- "$1"
""",
    "addgroup": """
S= g=
while getopts Sg: o; do case $o in S) S=-r;; g) g=$OPTARG;; *) exit 1;; esac; done; shift $((OPTIND - 1))
[ $# = 1 ] && exec /opt/real/groupadd $S ${g:+-g "$g"} -- "$1"
[ $# = 2 ] && exec gpasswd -a "$1" "$2"
exit 1
""",
    "deluser": """
r=; [ "$1" != --remove-home ] || { r=-r; shift; }
[ $# = 1 ] && exec /opt/real/userdel $r -- "$1"
exit 1
""",
    "delgroup": """
[ $# = 1 ] && exec /opt/real/groupdel -- "$1"
[ $# = 2 ] && exec gpasswd -d "$1" "$2"
exit 1
""",
}
FREEBSD = {
    "pw": """
what=$1 name=$2; shift 2
case $what in groupadd) [ "$3" != -M ] || { m=$4; set -- "$1" "$2"; } ;; usermod)
[ "$*" != "-H 0" ] || { read -r hash; echo "$name:$hash" | chpasswd -e; exit; } ;; esac
/opt/real/$what "$@" "$name" || exit
[ -z "$m" ] || gpasswd -M "$m" "$name"
"""
}


@pytest.mark.parametrize(
    ("programs", "shell"), [(ALPINE, "busybox"), (FREEBSD, "dash")], ids=["alpine", "freebsd"]
)
def test_other_systems(programs: dict[str, str], shell: str, tmp_path: Path) -> None:
    machine = Machine.made(tmp_path, shell)
    for name, script in programs.items():
        shim(machine, name, script)
    tools = "useradd usermod userdel groupadd groupmod groupdel"
    machine.run(f"mkdir /opt/real; cd /usr/sbin; mv {tools} /opt/real")
    fields = {"name": "app", "uid": 7001, "groups": ["adm"], "home": "/srv/a b", "shell": "/bin/sh"}
    fields.update(comment="it's $HOME\\n", password=Secret(HASH))
    plain = {"name": "anna", "system": True}

    async def run() -> None:
        host = machine.host()
        async with host.session:
            group, user = resource("host.group", {"name": "crew", "gid": 7100}), resource("host.user", fields)
            anna = resource("host.user", plain)
            assert len(await host.converge(group, user, anna)) == 3
            if programs is ALPINE:  # pw knows no such users
                assert int((line(machine, "passwd", "anna") or [])[2]) < 1000
            assert (line(machine, "shadow", "app") or [])[1] == HASH
            moved = {**fields, "comment": "", "group": "crew", "groups": ["games"], "shell": "/bin/x"}
            changes = await host.converge(resource("host.user", {**moved, "uid": 7009, "home": "/srv/c"}))
            words = line(machine, "passwd", "app")
            assert words == ["app", "x", "7009", "7100", "", "/srv/c", "/bin/x"]
            await host.undo(changes)
            assert (await host.look(group, user, anna)).changes == ()
            changes = await host.converge(resource("host.group", {"name": "crew", "gid": 7200}))
            await host.undo(changes)
            await host.converge(resource("host.user", {"name": "anna", "groups": ["crew"]}))
            removal = {"name": "crew", "state": "absent"}
            changes = await host.converge(resource("host.group", removal))
            await host.undo(changes)
            assert line(machine, "group", "crew") == ["crew", "x", "7100", "anna"]
            changes = await host.converge(resource("host.user", {"name": "app"}, "absent"))
            await host.undo(changes)
            assert (await host.look(group, user)).changes == ()
            await host.converge(resource("host.user", {"name": "app", "remove": True}, "absent"))
            assert not (machine.folder / "upper/srv/a b").is_dir()

    asyncio.run(run())
    assert not (machine.folder / "upper/etc/passwd+").exists()


def test_a_hash_that_may_not_be_read_is_said(tmp_path: Path) -> None:
    machine = Machine.made(tmp_path)
    machine.put(
        "/opt/sh/awk", "#!/bin/sh\necho 'awk: cannot open /etc/shadow (Permission denied)' >&2; exit 2\n"
    )

    async def run() -> None:
        host = machine.host()
        async with host.session:
            wanted = resource("host.user", {"name": "root", "password": Secret("!")})
            (error,) = (await host.look(wanted)).errors
            assert "hash cannot be read" in str(error)
            assert error.hint == "become: true"

    asyncio.run(run())


def test_a_refusal_of_the_program_is_shown_without_the_hash(tmp_path: Path) -> None:
    machine = Machine.made(tmp_path)

    async def run() -> None:
        host = machine.host()
        async with host.session:
            wanted = resource("host.user", {"name": "x", "group": "nowhere", "password": Secret(HASH)})
            diff = await host.look(wanted)
            with pytest.raises(DeviceError) as caught:
                await host.session.write(diff.changes[0])
            assert "nowhere" in str(caught.value)
            assert HASH not in str(caught.value)

    asyncio.run(run())


@pytest.mark.parametrize("name", ["host.user", "host.group"])
def test_a_folder_has_no_users(name: str, tmp_path: Path) -> None:
    async def run() -> None:
        host = Host.local(tmp_path)
        async with host.session:
            (error,) = (await host.look(resource(name, {"name": "x"}))).errors
            assert "needs a running machine" in str(error)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"password": Secret("plain")}, "password"),
        ({"password": Secret("")}, "password"),
        ({"password": Secret("$6$a\nroot::0")}, "password"),
        ({"comment": "a:0:0"}, "comment"),
        ({"comment": "a\nroot"}, "comment"),
        ({"home": "/a:b"}, "home"),
        ({"groups": ["-x"]}, "groups"),
        ({"groups": ["a,b"]}, "groups"),
        ({"append": True}, "append"),
        ({"uid": -1}, "uid"),
    ],
)
def test_what_no_line_of_passwd_can_hold_is_refused(fields: dict[str, Any], field: str) -> None:
    _, problems = load_host_kinds()["host.user"].normalise({"name": "x", **fields}, "present")
    assert [problem.field for problem in problems] == [field]
    assert "plain" not in repr(problems)


@pytest.mark.parametrize("name", ["-x", "a b", "$(id)", "a:b", "é", "a\n", ""])
def test_names_that_are_none(name: str) -> None:
    for kind in ("host.user", "host.group"):
        assert isinstance(load_host_kinds()[kind].identify({"name": name}), Problem)
