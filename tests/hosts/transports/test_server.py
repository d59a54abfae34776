"""Passwords and agreed algorithms, which only a server in this process shows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from fazai.errors import AccessDenied, FazaiError
from fazai.model import Secret, Target
from fazai.providers.hosts.shell.become import Become
from fazai.providers.hosts.ssh.connecting import Connections
from fazai.providers.hosts.ssh.settings import Hop, SshSettings, settings_of
from fazai.providers.hosts.ssh.transport import start_ssh_shell


class Server(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == ("me", "open sesame")


async def shell(process: asyncssh.SSHServerProcess[bytes]) -> None:
    """Says back what it was told; what a real one does, the other tests show."""
    process.stdout.write((process.command or "").encode() + b": " + await process.stdin.readline())
    process.exit(0)


async def talk(tmp_path: Path, password: str, kex: Sequence[str] = ()) -> tuple[Any, ...]:
    """Log in, and say which algorithms were agreed on and what the shell answered; or the error."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    options: dict[str, Any] = {"kex_algs": kex} if kex else {}
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=Server,
        server_host_keys=[key],
        process_factory=shell,
        encoding=None,
        **options,
    )
    port = server.get_port()
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{port} {key.export_public_key().decode()}")
    settings = SshSettings(
        Hop("127.0.0.1", port, "me"), password=Secret(password), known_hosts=(str(known),), agent=False
    )
    try:
        channel = await start_ssh_shell("box", settings, Become(), Connections(str(tmp_path), {}))
    except FazaiError as error:
        return (error,)
    else:
        channel.stdin.write(b"hello\n")
        said = await channel.stdout.read()
        chosen = channel._connection.get_extra_info("send_cipher")
        await channel.close()
        return said, chosen
    finally:
        server.close()
        await server.wait_closed()


def test_a_password(tmp_path: Path) -> None:
    said, cipher = asyncio.run(talk(tmp_path, "open sesame"))
    assert said == b"sh -s: hello\n"
    assert cipher == "aes128-gcm@openssh.com"


def test_a_wrong_password(tmp_path: Path) -> None:
    (error,) = asyncio.run(talk(tmp_path, "open barley"))
    assert isinstance(error, AccessDenied)
    assert "barley" not in str(error)
    assert "is it the right password? user: and password: say who logs in" in str(error)


@pytest.mark.parametrize(
    ("offered", "possible"),
    [
        (("diffie-hellman-group-exchange-sha256", "curve25519-sha256"), True),
        (("diffie-hellman-group-exchange-sha256",), True),
        (("diffie-hellman-group1-sha1",), False),
    ],
)
def test_algorithms(offered: tuple[str, ...], possible: bool, tmp_path: Path) -> None:
    found = asyncio.run(talk(tmp_path, "open sesame", offered))
    if possible:
        assert found[0] == b"sh -s: hello\n"
    else:
        assert isinstance(found[0], FazaiError)
        assert "no common algorithms" in found[0].message


class Recording(asyncssh.SSHServer):
    """Takes one password, and keeps all that it was offered."""

    def __init__(self, right: str, offered: list[str]) -> None:
        self._right = right
        self._offered = offered

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        self._offered.append(password)
        return password == self._right

    def connection_requested(self, *_: Any) -> bool:
        return True


@pytest.mark.parametrize("by_config", [False, True], ids=["jump", "ProxyJump"])
@pytest.mark.parametrize("jump_password", [None, "of the bastion"])
def test_each_hop_has_its_own_password(jump_password: str | None, by_config: bool, tmp_path: Path) -> None:
    """A bastion is never offered what is the target's, nor asked to prove that it has the target's key."""
    key, other = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    at_bastion: list[str] = []
    at_target: list[str] = []

    def listen(right: str, offered: list[str], host_key: asyncssh.SSHKey) -> Any:
        return asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=lambda: Recording(right, offered),
            server_host_keys=[host_key],
            process_factory=shell,
            encoding=None,
        )

    async def run() -> bytes | FazaiError:
        bastion = await listen("of the bastion", at_bastion, key)
        target = await listen("of the target", at_target, other)
        known = tmp_path / "known_hosts"
        known.write_text(f"[127.0.0.1]:{bastion.get_port()} {key.export_public_key().decode()}")
        way = f"me@127.0.0.1:{bastion.get_port()}"
        config = tmp_path / "config"
        config.write_text(f"Host *\n  ProxyJump {way}\n" if by_config else "")
        words = {} if jump_password is None else {"jump_password": Secret(jump_password)}
        options: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": target.get_port(),
            "user": "me",
            "agent": False,
            "password": Secret("of the target"),
            "known_hosts": str(known),
            "ssh_config": str(config),
            "host_key": " ".join(other.export_public_key().decode().split()[:2]),
            **({} if by_config else {"jump": way}),
            **words,
        }
        settings = settings_of(Target("box", "ssh", "write", options))
        try:
            channel = await start_ssh_shell("box", settings, Become(), Connections(str(tmp_path), {}))
        except FazaiError as error:
            return error
        else:
            channel.stdin.write(b"hello\n")
            said: bytes = await channel.stdout.read()
            await channel.close()
            return said
        finally:
            for server in (bastion, target):
                server.close()
                await server.wait_closed()

    found = asyncio.run(run())
    if jump_password is None:
        assert isinstance(found, AccessDenied)
        assert "jump_password" in str(found)
        assert (at_bastion, at_target) == ([], [])
    else:
        assert found == b"sh -s: hello\n"
        assert (at_bastion, at_target) == (["of the bastion"], ["of the target"])
