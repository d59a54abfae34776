"""Kinds whose item is a few lines of a file that others write to as well: sysctl, cron, authorized_key."""

from __future__ import annotations

import asyncio
import base64
import os
from pathlib import Path
from typing import Any

import pytest

from fazai.errors import DeviceError
from fazai.model import Problem, Verb
from fazai.providers.hosts.kinds import load_host_kinds
from tests.hosts.cases import Case
from tests.hosts.helpers import HOSTILE, SHELLS, Host, resource, shell_environ
from tests.hosts.kinds import test_kinds
from tests.hosts.machines import Machine, missing, shim


def _public_key(number: int) -> str:
    data = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes([number]) * 32
    return f"ssh-ed25519 {base64.b64encode(data).decode()}"


KEY_1, KEY_2, KEY_3 = map(_public_key, (1, 2, 3))

CASES = (
    Case(
        "sysctl in a file that others write to, with the last line that counts",
        "host.sysctl",
        {"name": "net.ipv4.ip_forward", "value": 1},
        {"/etc/sysctl.d/99-fazai.conf": "# mine\nnet.ipv4.ip_forward = 1\nvm.swappiness=10\n"},
        {"value": "0"},
        {"/etc/sysctl.d/99-fazai.conf": "# mine\nnet.ipv4.ip_forward = 0\nvm.swappiness=10\n"},
        removed={"/etc/sysctl.d/99-fazai.conf": "# mine\nvm.swappiness=10\n"},
        before={
            "/etc/sysctl.d": "<dir>",
            "/etc/sysctl.d/99-fazai.conf": (
                "# mine\n- net.ipv4.ip_forward=1\nvm.swappiness=10\n net.ipv4.ip_forward = 0 "
            ),
        },
    ),
    Case(
        "sysctl in a file of its own",
        "host.sysctl",
        {"name": "net.ipv4.tcp_rmem", "value": "4096\t87380  6291456", "sysctl_file": "/etc/sysctl.d/x"},
        {"/etc/sysctl.d/x": ("0644", "net.ipv4.tcp_rmem = 4096 87380 6291456\n")},
        {"value": "1 2 3"},
        {"/etc/sysctl.d/x": "net.ipv4.tcp_rmem = 1 2 3\n"},
        {"sysctl_file": "/etc/sysctl.d/x"},
        removed={"/etc/sysctl.d/x": None},
    ),
    Case(
        "cron in a file",
        "host.cron",
        {
            "name": "a $(job) it's",
            "minute": 5,
            "user": "root",
            "cron_file": "x",
            "job": 'echo "$(id)" \\% \\n',
        },
        {"/etc/cron.d/x": ("0644", '#fazai: a $(job) it\'s\n5 * * * * root echo "$(id)" \\% \\n\n')},
        {"minute": "*", "hour": "1-5", "disabled": True, "job": "-x"},
        {"/etc/cron.d/x": "#fazai: a $(job) it's\n#* 1-5 * * * root -x\n"},
        {"cron_file": "x"},
        removed={"/etc/cron.d/x": None},
    ),
    Case(
        "cron taken over from Ansible, between other jobs",
        "host.cron",
        {"name": "job", "special_time": "daily", "user": "app", "cron_file": "x", "job": "a  b"},
        {"/etc/cron.d/x": "A=1\n#fazai: job\n@daily app a  b\n#Ansible: job 2\n1 1 1 1 1 root b\n"},
        {"special_time": None, "weekday": "mon", "user": "root"},
        {"/etc/cron.d/x": "A=1\n#fazai: job\n* * * * mon root a  b\n#Ansible: job 2\n1 1 1 1 1 root b\n"},
        {"cron_file": "x"},
        removed={"/etc/cron.d/x": "A=1\n#Ansible: job 2\n1 1 1 1 1 root b\n"},
        before={
            "/etc/cron.d": "<dir>",
            "/etc/cron.d/x": "A=1\n#Ansible: job\n1 2 3 4 5 root x\n#Ansible: job 2\n1 1 1 1 1 root b\n",
        },
    ),
    Case(
        "authorized key",
        "host.authorized_key",
        {
            "user": "nobody-here",
            "path": "/keys/a",
            "key": KEY_1 + " me",
            "key_options": 'command="a b",no-pty',
        },
        {"/keys/a": ("0600", f'command="a b",no-pty {KEY_1} me\n'), "/keys": ("0700", "<dir>")},
        {"key_options": None, "key": KEY_1 + " $(id) it's"},
        {"/keys/a": f"{KEY_1} $(id) it's\n"},
        {"path": "/keys/a"},
        removed={"/keys/a": ""},
    ),
    Case(
        "authorized key among others",
        "host.authorized_key",
        {"user": "me", "key": f"{KEY_2} two\n"},
        {"/home/it's me/.ssh/authorized_keys": f"# {KEY_2}\n{KEY_1} one\nrubbish\n{KEY_2} two\n"},
        removed={"/home/it's me/.ssh/authorized_keys": f"# {KEY_2}\n{KEY_1} one\nrubbish\n"},
        before={
            "/etc": "<dir>",
            "/etc/passwd": f"root:x:0:0::/:/bin/sh\nme:x:{os.getuid()}:{os.getgid()}::/home/it's me:\n",
            "/home/it's me/.ssh": "<dir>",
            "/home/it's me/.ssh/authorized_keys": f"# {KEY_2}\n{KEY_1} one\nrubbish",
        },
    ),
    Case(
        "authorized keys and no others",
        "host.authorized_key",
        {"user": "x", "path": "/keys/a", "key": KEY_2, "exclusive": True},
        {"/keys/a": f"# all\n{KEY_2}\n"},
        {"key": f"{KEY_1}\n{KEY_2}"},
        {"/keys/a": f"# all\n{KEY_1}\n{KEY_2}\n"},
        None,
        before={"/keys": "<dir>", "/keys/a": f"# all\n{KEY_1} one\nno-pty {KEY_3} three\n"},
    ),
)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_kind(case: Case, shell: str, tmp_path: Path) -> None:
    test_kinds.test_a_kind(case, shell, tmp_path)


# -- the running kernel ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", SHELLS)
def test_a_key_that_stands_twice(shell: str, tmp_path: Path) -> None:
    """sshd takes the first line of a key: one without options made those of the last one worthless."""
    root = tmp_path / "fs"
    (root / "home/a/.ssh").mkdir(parents=True)
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text(f"a:x:{os.getuid()}:{os.getgid()}::/home/a:\n")
    file, strict = root / "home/a/.ssh/authorized_keys", f'from="192.0.2.1" {KEY_1}'
    before = f"{KEY_1}\n{KEY_2}\n{strict}\n{KEY_2}\n"
    file.write_text(before)
    only = resource("host.authorized_key", {"user": "a", "key": KEY_1, "key_options": 'from="192.0.2.1"'})
    same = resource("host.authorized_key", {"user": "a", "key": KEY_2})
    gone = resource("host.authorized_key", {"user": "a", "key": KEY_1}, "absent")

    async def run() -> None:
        host = Host.local(root, shell_environ(shell, tmp_path))
        async with host.session:
            changes = await host.converge(only, same)
            assert file.read_text() == f"{strict}\n{KEY_2}\n{KEY_2}\n"
            await host.undo(changes)
            assert file.read_text() == f"{KEY_1}\n{strict}\n{KEY_2}\n{KEY_2}\n"
            file.write_bytes(before.replace("\n", "\r\n").encode())  # which sshd reads as well
            await host.converge(gone)

    asyncio.run(run())
    assert file.read_bytes() == f"{KEY_2}\r\n{KEY_2}\r\n".encode()


@pytest.mark.parametrize("shell", ["dash", "busybox"])
def test_the_kernel_is_set_and_set_back(shell: str, tmp_path: Path) -> None:
    """The machine has a network of its own: nothing of this one's is touched."""
    machine = Machine.made(tmp_path, shell)
    name = "net.ipv4.ip_forward"
    file = machine.folder / "upper/etc/sysctl.d/99-fazai.conf"
    mine = Path("/proc/sys/net/ipv4/ip_forward").read_text()

    async def run() -> None:
        host = machine.host()
        async with host.session:

            async def kernel() -> str:
                result = await host.session.shell.run(f"cat /proc/sys/{name.replace('.', '/')}")
                return result.out.decode().strip()

            # a network namespace begins with the values of the machine, so a known one is set first
            await host.session.shell.run(f"sysctl -w {name}=0")
            on, off = (resource("host.sysctl", {"name": name, "value": value}) for value in (1, 0))
            changes = await host.converge(on)
            assert (changes[0].verb, await kernel()) == (Verb.CREATE, "1")
            await host.undo(changes)
            assert (await kernel(), file.exists()) == ("0", False)
            await host.converge(on)
            await host.session.shell.run(f"sysctl -w {name}=0")
            (change,) = await host.converge(on)  # somebody set it, and the file says otherwise
            assert (change.before, change.after) == ({"running": "0"}, {"running": "1"})
            changes = await host.converge(off)
            await host.undo(changes)
            assert (await kernel(), file.read_text()) == ("1", f"{name} = 1\n")
            alone = {"name": name, "value": "0", "sysctl_set": False}
            await host.converge(resource("host.sysctl", alone))
            assert (await kernel(), file.read_text()) == ("1", f"{name} = 0\n")
            tabs = {"name": "net.ipv4.ping_group_range", "value": "0 7"}
            await host.converge(resource("host.sysctl", tabs))
            changes = await host.converge(resource("host.sysctl", {"name": name}, "absent"))
            assert name not in file.read_text()
            unknown = resource("host.sysctl", {"name": "net.ipv4.no_such", "value": "1"})
            (error,) = (await host.look(unknown)).errors
            said = "host.sysctl net.ipv4.no_such: the kernel does not tell its value: sysctl: "
            assert (error.message.startswith(said), "No such file" in error.message) == (True, True), error
            hint = "is the name right, and its module loaded? sysctl_set: false writes the file alone"
            assert error.hint == hint
            refused = resource("host.sysctl", {"name": name, "value": "x"})
            (change,) = (await host.look(refused)).changes
            with pytest.raises(DeviceError, match="nvalid argument"):
                await host.session.write(change)
            assert name not in file.read_text()  # what the kernel refuses is in no file

    asyncio.run(run())
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == mine


# -- crontabs -------------------------------------------------------------------------------------------


def with_crontab(folder: Path) -> Machine:
    """A machine with Debian's own crontab."""
    machine = Machine.made(folder)
    machine.add("cron")
    return machine


def _busybox() -> str:
    found = [path for path in ("/bin/busybox", "/usr/bin/busybox") if Path(path).exists()]
    return found[0] if found else missing("busybox is not installed")


def test_a_crontab(tmp_path: Path) -> None:
    machine = with_crontab(tmp_path)
    spool = machine.folder / "upper/var/spool/cron/crontabs/daemon"

    async def run() -> None:
        host = machine.host()
        async with host.session:
            jobs = [
                resource("host.cron", {"name": name.strip(), "user": "daemon", "job": f"echo {name}".strip()})
                for name in HOSTILE
                if "\n" not in name
            ]
            assert len(await host.converge(*jobs)) == len(jobs)
            before = host.session.shell.blocks
            assert (await host.look(*jobs)).changes == ()
            assert host.session.shell.blocks == before + 1
            text = spool.read_text("utf-8", "surrogateescape")
            assert "#fazai: $(touch gone)\n* * * * * echo $(touch gone)\n" in text
            gone = resource("host.cron", {"name": "plain", "user": "daemon"}, "absent")
            changes = await host.converge(gone)
            assert "echo plain\n" not in spool.read_text("utf-8", "surrogateescape")
            await host.undo(changes)
            assert (await host.look(*jobs)).changes == ()
            own = resource("host.cron", {"name": "plain", "special_time": "reboot", "job": "x"})
            await host.converge(own)  # our own crontab, not that of the other user
            assert (spool.parent / "root").read_text().endswith("\n#fazai: plain\n@reboot x\n")
            await host.converge(resource("host.cron", {"name": "plain"}, "absent"))
            assert not (spool.parent / "root").exists()

    asyncio.run(run())


def test_a_crontab_that_cannot_be_read_is_not_overwritten(tmp_path: Path) -> None:
    machine = Machine.made(tmp_path)
    script = (
        'echo "$*" >>/tmp/said; [ "$1" = -l ] || exit 0\n'
        '[ -e /tmp/shut ] || { echo "no crontab for root"; exit 1; }\n'
        'echo "crontab: not allowed" >&2; exit 1'
    )
    shim(machine, "crontab", script)

    async def run() -> None:
        host = machine.host()
        job, gone = (
            resource("host.cron", {"name": "x", "job": "y"}),
            resource("host.cron", {"name": "x"}, "absent"),
        )
        async with host.session:
            diff = await host.look(job)
            await host.converge(resource("host.file", {"path": "/tmp/shut", "content": ""}))
            with pytest.raises(DeviceError, match="crontab: not allowed"):
                await host.session.write(diff.changes[0])
            for wanted in (job, gone):
                (error,) = (await host.look(wanted)).errors
                assert error.message == "host.cron x: the crontab cannot be read: crontab: not allowed"
                assert error.hint == "become: true; is the user there?"

    asyncio.run(run())
    assert set((machine.folder / "upper/tmp/said").read_text().splitlines()) == {"-l"}


def test_a_file_of_cron_that_cannot_be_read_is_not_one_without_the_job(tmp_path: Path) -> None:
    folder = tmp_path / "etc/cron.d"
    folder.mkdir(parents=True)
    (folder / "folder").mkdir()
    (folder / "large").write_bytes(b"#" * (1024 * 1024 + 1))

    async def run() -> None:
        host = Host.local(tmp_path)
        async with host.session:
            for name, said in (
                ("folder", "/etc/cron.d/folder is a directory, not a file"),
                ("large", "larger than 1 MiB"),
            ):
                job = {"name": "x", "cron_file": name, "user": "root", "job": "true"}
                for state in ("present", "absent"):
                    (error,) = (await host.look(resource("host.cron", job, state))).errors
                    assert said in str(error)

    asyncio.run(run())


def test_a_folder_has_no_crontab(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host.local(tmp_path)
        async with host.session:
            (error,) = (await host.look(resource("host.cron", {"name": "x", "job": "y"}))).errors
            assert "has no crontab of a user" in str(error)
            assert error.hint == "cron_file: …"

    asyncio.run(run())


@pytest.mark.parametrize("shell", SHELLS)
def test_a_full_disk_leaves_the_old_file(shell: str, tmp_path: Path) -> None:
    """There is room for a copy, and not for the line that is added."""
    machine = Machine.made(tmp_path, shell)
    if shell == "busybox":
        machine.run(f"ln -sf {_busybox()} /usr/bin/awk")

    async def run() -> None:
        host = machine.host()
        async with host.session:
            setup = (
                "mkdir -p /etc/cron.d; mount -t tmpfs -o size=8k none /etc/cron.d; cd /etc/cron.d || exit 1"
            )
            made = await host.session.shell.run(f"{setup}; yes '# a line of text' | head -n 240 >x; cksum x")
            job = {"name": "long", "job": "echo " + "x" * 300, "user": "root", "cron_file": "x"}
            diff = await host.look(resource("host.cron", job))
            with pytest.raises(DeviceError, match=r"(?i)no space left"):
                await host.session.write(diff.changes[0])
            now = await host.session.shell.run("cd /etc/cron.d; cksum x; ls -A")
            assert now.out == made.out + b"x\n"

    asyncio.run(run())


# -- authorized keys ------------------------------------------------------------------------------------


def test_a_key_lets_its_owner_in(tmp_path: Path) -> None:
    """Owner and modes are those that sshd asks for; ssh-keygen reads the file, and says the same name."""
    machine = Machine.made(tmp_path)
    machine.run("useradd -m -u 7001 anna")
    file = machine.folder / "upper/home/anna/.ssh/authorized_keys"
    wanted = resource("host.authorized_key", {"user": "anna", "key": f"{KEY_1} a"})

    async def run() -> None:
        host = machine.host()
        async with host.session:
            await host.converge(wanted, resource("host.authorized_key", {"user": "anna", "key": KEY_2}))
            for path, mode in ((file.parent, 0o700), (file, 0o600)):
                found = path.stat()
                assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (mode, 7001, 7001)
            names = machine.run("ssh-keygen -lf /home/anna/.ssh/authorized_keys")
            assert wanted.identity.removeprefix("anna ") in names
            later = resource("host.authorized_key", {"user": "later", "key": KEY_1})
            diff = await host.look(later)  # the user may be made in this run
            assert [change.verb for change in diff.changes] == [Verb.CREATE]
            with pytest.raises(DeviceError, match="there is no user later"):
                await host.session.write(diff.changes[0])
            await host.session.shell.run("cd /home/anna && rm -r .ssh && ln -s /etc .ssh")
            (error,) = (await host.look(wanted)).errors
            said = "unsafe step /home/anna/.ssh: a link of root in a folder that anna (uid 7001) can change"
            assert error.message.endswith(said)

    if not Path("/usr/bin/ssh-keygen").exists():
        missing("ssh-keygen is not installed")
    asyncio.run(run())
    assert not (machine.folder / "upper/etc/authorized_keys").exists()


# -- what is wrong before any contact -------------------------------------------------------------------

BAD = KEY_1.split()[1]
WRONG: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("host.sysctl", {"name": "-w", "value": "1"}, "name"),
    ("host.sysctl", {"name": "a=b", "value": "1"}, "name"),
    ("host.sysctl", {"name": "a\nb", "value": "1"}, "name"),
    ("host.sysctl", {"name": "a", "value": " "}, "value"),
    ("host.sysctl", {"name": "a"}, "value"),
    ("host.cron", {"name": "a\nb", "job": "x"}, "name"),
    ("host.cron", {"name": "a", "job": "x\n* * * * * y"}, "job"),
    ("host.cron", {"name": "a", "job": "x", "cron_file": "../x", "user": "root"}, "cron_file"),
    ("host.cron", {"name": "a", "job": "x", "cron_file": "x.conf", "user": "root"}, "cron_file"),
    ("host.cron", {"name": "a", "job": "x", "cron_file": "x"}, "user"),
    ("host.cron", {"name": "a", "job": "x", "minute": "* *"}, "minute"),
    ("host.cron", {"name": "a", "job": "x", "minute": ""}, "minute"),
    ("host.cron", {"name": "a", "job": "x", "minute": 1, "special_time": "daily"}, "minute"),
    ("host.authorized_key", {"user": "a", "key": "hello"}, "key"),
    ("host.authorized_key", {"user": "a", "key": f"ssh-rsa {BAD}"}, "key"),
    ("host.authorized_key", {"user": "a", "key": KEY_1[:-2]}, "key"),
    ("host.authorized_key", {"user": "a", "key": ""}, "key"),
    ("host.authorized_key", {"user": "a", "key": KEY_1, "key_options": "a\nb"}, "key_options"),
    ("host.authorized_key", {"user": "a", "key": f"no-pty {KEY_1}", "key_options": "b"}, "key_options"),
)


@pytest.mark.parametrize(("name", "fields", "field"), WRONG)
def test_what_is_wrong_before_any_contact(name: str, fields: dict[str, Any], field: str) -> None:
    kind = load_host_kinds()[name]
    identity = kind.identify(fields)
    _, problems = kind.normalise(fields, "present")
    assert [problem.field for problem in problems] == [field]
    assert not isinstance(identity, Problem) or identity.field == field


# -- what cannot be read ------------------------------------------------------------------------------------

UNREADABLE: dict[str, tuple[dict[str, Any], str]] = {
    "host.sysctl": ({"name": "a.b", "value": "1"}, "/etc/sysctl.d/99-fazai.conf"),
    "host.cron": ({"name": "a", "job": "true", "user": "root", "cron_file": "x"}, "/etc/cron.d/x"),
}


@pytest.mark.parametrize("state", ["present", "absent"])
@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_file_that_cannot_be_read_is_refused_when_it_is_looked_at(
    kind: str, state: str, tmp_path: Path
) -> None:
    """It is not planned as something new, to fail when it is written."""
    fields, name = UNREADABLE[kind]
    path = tmp_path / name.lstrip("/")
    path.parent.mkdir(parents=True)

    async def run(said: str) -> None:
        host = Host.local(tmp_path)
        async with host.session:
            diff = await host.look(resource(kind, fields, state))
            assert (diff.changes, [said in error.message for error in diff.errors]) == ((), [True]), diff

    os.mkfifo(path)
    asyncio.run(run(f"{name} is a special file, not a file"))
    path.unlink()
    path.mkdir()
    asyncio.run(run(f"{name} is a directory, not a file"))
    path.rmdir()
    path.write_bytes(b"#\n" * (1024 * 1024))
    asyncio.run(run(f"{name} is larger than 1 MiB"))


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_file_of_roots_that_we_may_not_read(kind: str, tmp_path: Path) -> None:
    machine = Machine.made(tmp_path)
    fields, name = UNREADABLE[kind]
    machine.put(name, "# theirs\n", 0o600)
    shim(machine, "sh", 'exec setpriv --reuid 65534 --regid 65534 --clear-groups /bin/sh "$@"')
    if kind == "host.sysctl":
        fields = {**fields, "sysctl_set": False}

    async def run() -> None:
        host = machine.host()
        async with host.session:
            (error,) = (await host.look(resource(kind, fields))).errors
            assert (f"{name} may not be read" in error.message, error.hint) == (True, "become: true")

    asyncio.run(run())


def test_sysctl_and_crontab_that_do_not_answer(tmp_path: Path) -> None:
    machine = Machine.made(tmp_path)
    shim(machine, "sysctl", "exit 127")
    shim(machine, "crontab", "echo 'You (root) are not allowed to use this program' >&2; exit 1")
    wanted = [
        resource("host.sysctl", {"name": "vm.swappiness", "value": "1"}),
        resource("host.cron", {"name": "a", "job": "true", "user": "root"}),
    ]

    async def run() -> list[str]:
        host = machine.host()
        async with host.session:
            diff = await host.look(*wanted)
            assert diff.changes == ()
            return [error.message for error in diff.errors]

    assert asyncio.run(run()) == [
        "host.sysctl vm.swappiness: there is no sysctl on the host",
        "host.cron a (root): the crontab cannot be read: You (root) are not allowed to use this program",
    ]
