"""Connections to a real OpenSSH server: who it is, who we are, and the ways in between."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fazai.model import Target
from fazai.providers.hosts.session import HostSession
from fazai.providers.hosts.shell.questions import Answer, Output, OutputOf
from fazai.providers.hosts.ssh.provider import SshProvider
from tests.hosts.conftest import ME, World
from tests.hosts.sshd import Sshd, keygen

ONE = [{"host.file": {"path": "/a.conf", "content": "one\n"}}]


def test_a_closed_port_is_unreachable(world: World, server: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    world.ssh(server, ansible_port=port)
    found = world.fazai("apply", resources=ONE)
    assert (found.code, "refuses connections" in found.out + found.err) == (4, True), found


def test_a_server_that_says_nothing_is_unreachable(world: World, server: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        world.ssh(server, ansible_port=silent.getsockname()[1], connect_timeout=1)
        found = world.fazai("apply", resources=ONE)
    assert (found.code, "did not answer within 1 s" in found.out + found.err) == (4, True), found


def test_a_name_that_is_none(world: World, server: Sshd) -> None:
    world.ssh(server, ansible_host="no-such-host.invalid")
    found = world.fazai("apply", resources=ONE)
    assert (found.code, "no-such-host.invalid" in found.out + found.err) == (4, True), found


def test_an_unknown_host_is_not_talked_to(world: World, server: Sshd) -> None:
    root = world.ssh(server)
    (world.folder / "known_hosts").write_text("")
    found = world.fazai("apply", resources=ONE)
    said = found.out + found.err
    assert (found.code, "is not known" in said, "SHA256:" in said, "accept-new" in said) == (
        4,
        *[True] * 3,
    ), said
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("policy", ["strict", "accept-new"])
def test_a_host_key_that_changed_is_never_connected_to(policy: str, world: World, server: Sshd) -> None:
    root = world.ssh(server, host_key=policy)
    server.known_hosts(world.folder / "known_hosts", keygen(world.folder / "other"))
    before = (world.folder / "known_hosts").read_text()
    found = world.fazai("apply", resources=ONE)
    said = found.out + found.err
    assert (found.code, "has changed" in said, "ssh-keygen -R" in said) == (4, True, True), said
    assert list(root.iterdir()) == []
    assert (world.folder / "known_hosts").read_text() == before


def test_a_new_host_is_added_on_request_and_known_then(world: World, server: Sshd) -> None:
    world.ssh(server, host_key="accept-new")
    known = world.folder / "known_hosts"
    known.unlink()
    assert world.fazai("apply", resources=ONE).code == 0
    assert known.read_text().startswith(f"[127.0.0.1]:{server.port} ssh-ed25519 ")
    world.hosts["web"]["host_key"] = "strict"
    assert world.fazai("apply", resources=ONE).code == 0
    assert len(known.read_text().splitlines()) == 1


def test_a_pinned_host_key(world: World, server: Sshd) -> None:
    public = server.host_key.with_suffix(".pub").read_text()
    world.ssh(server, host_key=" ".join(public.split()[:2]), known_hosts=None)
    assert world.fazai("apply", resources=ONE).code == 0
    other = keygen(world.folder / "other").with_suffix(".pub").read_text()
    world.hosts["web"]["host_key"] = " ".join(other.split()[:2])
    found = world.fazai("apply", resources=ONE)
    assert (found.code, "not the pinned one" in found.out + found.err) == (4, True), found


def test_checking_cannot_be_switched_off(world: World, server: Sshd) -> None:
    world.ssh(server, ansible_ssh_common_args="-o StrictHostKeyChecking=no")
    found = world.fazai("apply", resources=ONE)
    assert (found.code, "cannot be switched off" in found.err) == (3, True), found


def test_a_key_that_is_not_authorized(world: World, server: Sshd) -> None:
    world.ssh(server, ansible_ssh_private_key_file=str(keygen(world.folder / "stranger")))
    found = world.fazai("apply", resources=ONE)
    said = found.out + found.err
    assert (found.code, f"does not let {ME} log in" in said, "authorized_keys" in said) == (1, True, True), (
        said
    )


def test_a_key_with_a_passphrase(world: World, server: Sshd) -> None:
    key = keygen(world.folder / "locked", passphrase="open sesame")
    server.authorized.write_text(key.with_suffix(".pub").read_text())
    world.ssh(server, ansible_ssh_private_key_file=None, key="locked")
    found = world.fazai("apply", resources=ONE)
    assert (found.code, "is encrypted" in found.out + found.err) == (1, True), found
    world.hosts["web"]["passphrase"] = "open sesame"
    assert world.fazai("apply", resources=ONE).code == 0
    world.hosts["web"]["passphrase"] = "open barley"
    found = world.fazai("apply", resources=ONE)
    assert "another passphrase" in found.out + found.err
    assert "barley" not in found.out + found.err


def test_a_certificate(world: World, server: Sshd) -> None:
    authority, key = keygen(world.folder / "authority"), keygen(world.folder / "certified")
    words = ["ssh-keygen", "-q", "-s", str(authority), "-I", "me", "-n", ME, str(key) + ".pub"]
    subprocess.run(words, check=True)
    server.configure(f"TrustedUserCAKeys {authority}.pub")
    world.ssh(server, ansible_ssh_private_key_file=str(key))
    assert world.fazai("apply", resources=ONE).code == 0


def test_the_agent(world: World, server: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    path = world.folder / "agent"
    agent = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not path.exists():
            assert agent.poll() is None
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        subprocess.run(["ssh-add", "-q", str(server.user_key)], check=True, stderr=subprocess.DEVNULL)
        world.ssh(server, ansible_ssh_private_key_file=None, agent=True)
        assert world.fazai("apply", resources=ONE).code == 0
        world.hosts["web"]["agent"] = False
        refused = world.fazai("apply", resources=ONE)
        assert (refused.code, "does not let" in refused.out) == (1, True), refused
    finally:
        agent.terminate()
        agent.wait()


def test_ssh_config_says_how(world: World, server: Sshd) -> None:
    folder = world.folder / "home/.ssh"
    folder.mkdir(parents=True)
    known = server.known_hosts(folder / "known_hosts").read_text().replace("[127.0.0.1]", "[lab-host]")
    (folder / "known_hosts").write_text(known)
    (folder / "config").write_text(
        f"Host web\n  HostName 127.0.0.1\n  HostKeyAlias lab-host\n  Port {server.port}\n  User {ME}\n"
        f"  IdentityFile {server.user_key}\n"
    )
    root = world.folder / "web"
    root.mkdir()
    world.hosts["web"] = {"provider": "ssh", "root": str(root)}
    found = world.fazai("apply", resources=ONE)
    assert found.code == 0, found


def jumping(world: World, server: Sshd, bastion: Sshd, count: int, **more: Any) -> None:
    for number in range(count):
        world.ssh(server, f"web-{number}", **more)
    known = world.folder / "known_hosts"
    with known.open("a") as file:
        file.write(bastion.known_hosts(world.folder / "second").read_text())


@pytest.mark.parametrize("how", ["jump", "ansible_ssh_common_args"])
def test_hosts_behind_one_bastion_share_the_way(how: str, world: World, server: Sshd, keys: Path) -> None:
    with Sshd(keys) as bastion:
        way = f"{ME}@127.0.0.1:{bastion.port}"
        jumping(world, server, bastion, 3, **{how: way if how == "jump" else f"-o ProxyJump={way}"})
        found = world.fazai("apply", resources=ONE)
        assert found.code == 0, found
        assert (bastion.connections, server.connections) == (1, 3)


def test_a_bastion_that_is_another_one(world: World, server: Sshd, keys: Path) -> None:
    with Sshd(keys) as bastion:
        world.ssh(server, jump=f"{ME}@127.0.0.1:{bastion.port}")
        found = world.fazai("apply", resources=ONE)
        assert (found.code, f"[127.0.0.1]:{bastion.port} is not known" in found.out + found.err) == (
            4,
            True,
        ), found
        assert server.connections == 0


def test_a_greeting_in_a_start_up_file_is_none_of_our_business(world: World, server: Sshd) -> None:
    """A login shell that talks before our script runs."""
    world.ssh(server)
    server.configure("ForceCommand echo welcome; echo trouble >&2; exec $SSH_ORIGINAL_COMMAND")
    assert world.fazai("apply", resources=ONE).code == 0
    assert world.fazai("apply", resources=ONE).code == 0


def test_a_user_without_a_shell(world: World, server: Sshd) -> None:
    world.ssh(server)
    server.configure("ForceCommand echo This account is not available; exit 1")
    found = world.fazai("apply", resources=ONE)
    said = "error: web: the shell ended with status 1: This account is not available"  # one name, once
    assert (found.code, said in found.out) == (1, True), found


def test_only_what_is_understood(world: World, server: Sshd) -> None:
    world.ssh(server, ansible_ssh_common_args="-o RemoteCommand=evil")
    found = world.fazai("validate", resources=ONE)
    assert (found.code, "not understood" in found.err) == (3, True), found
    world.ssh(server, jump="a@b:c")
    found = world.fazai("validate", resources=ONE)
    assert (found.code, "no host to go through" in found.err) == (3, True), found
    world.ssh(server, key="nowhere")
    found = world.fazai("validate", resources=ONE)
    assert (found.code, "is no file" in found.err) == (3, True), found


#: What the shell on the host has of ours.
_GIVEN = OutputOf('echo "${SSH_AUTH_SOCK-none} ${DISPLAY-none} ${FZ_SENT-none} ${FZ_SET-none}"')


def test_no_host_gets_what_it_could_use_as_us(
    world: World, server: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ~/.ssh/config says: neither the agent nor the display, no variables, no forwarded ports, and
    nothing is run here."""
    folder = world.folder / "home/.ssh"
    folder.mkdir(parents=True)
    ran = world.folder / "ran"
    (folder / "config").write_text(
        "Host *\n  ForwardAgent yes\n  ForwardX11 yes\n  ForwardX11Trusted yes\n  SendEnv FZ_*\n"
        "  SetEnv FZ_SET=set\n  RequestTTY force\n  RemoteCommand echo remote\n"
        f"  RemoteForward 127.0.0.1:0 127.0.0.1:1\n  PermitLocalCommand yes\n  LocalCommand touch {ran}\n"
        "  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n"
    )
    server.configure("AcceptEnv FZ_*", "AllowAgentForwarding yes", "X11Forwarding yes")
    path = world.folder / "agent"
    agent = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not path.exists():
            assert agent.poll() is None
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        monkeypatch.setenv("DISPLAY", ":1")
        monkeypatch.setenv("FZ_SENT", "sent")
        world.ssh(server, agent=None, root=None)
        options = {k: v for k, v in world.hosts["web"].items() if k != "provider"}

        async def run() -> Answer:
            session = SshProvider().connect(Target("web", "ssh", "write", options))
            assert isinstance(session, HostSession)
            async with session:
                return (await session.ask(_GIVEN))[_GIVEN]

        found = asyncio.run(run())
    finally:
        agent.terminate()
        agent.wait()
    assert isinstance(found, Output)
    assert found.out.splitlines()[0] == b"none none none none"
    assert not ran.exists()
