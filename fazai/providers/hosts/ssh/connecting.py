"""Connections to hosts, through others where that is said; what is the same for many hosts is read once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import asyncssh

from fazai.compat.timeouts import deadline
from fazai.errors import AccessDenied, FazaiError, InventoryError, Unreachable
from fazai.providers.hosts.ssh.settings import Hop, SshSettings, parse_hops, settings_of_jump
from fazai.providers.hosts.ssh.trust import KnownHosts, Trust

#: Seconds for a connection to end, once it was told to.
_CLOSE_S = 2.0

#: Modern first. Group exchange costs the client 0.4 s of CPU a host, so it stands last.
_KEX = (
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group14-sha256",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group-exchange-sha256",
)
_CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes128-ctr",
)
_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk")
_SYSTEM_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts"


@dataclass(slots=True)
class _SharedConnection:
    """A connection that others go through; closed when the last of them is."""

    connection: asyncssh.SSHClientConnection
    users: int = 0

    @property
    def closed(self) -> bool:
        return self.connection.is_closed()

    def leave(self) -> None:
        self.users -= 1
        if self.users <= 0:
            self.connection.close()
            asyncio.get_running_loop().call_later(_CLOSE_S, self.connection.abort)


async def end_connection(connection: asyncssh.SSHClientConnection) -> None:
    """Close a connection; cut it when the other side does not take notice."""
    connection.close()
    try:
        async with deadline(_CLOSE_S):
            await connection.wait_closed()
    except TimeoutError:
        connection.abort()


async def _leave_after(connection: asyncssh.SSHClientConnection, way: _SharedConnection) -> None:
    await connection.wait_closed()  # deadline: none, it lives as long as its target is spoken to
    way.leave()


class _HostKeyClient(asyncssh.SSHClient):
    """Answers asyncssh about host keys that known_hosts does not have; knows the ProxyCommand's process."""

    def __init__(self, trust: Trust) -> None:
        self.trust = trust
        self._way: subprocess.Popen[bytes] | None = None

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self._way = conn.get_extra_info("subprocess")

    async def wait_for_way(self) -> None:
        """Wait until the ProxyCommand has ended, at most `_CLOSE_S`. asyncssh kills it when a connection does
        not come about, and waits for it only where it gave up by itself."""
        with contextlib.suppress(TimeoutError):
            async with deadline(_CLOSE_S):
                # asyncio waits for it, sets this, and tells only asyncssh
                while self._way is not None and self._way.returncode is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        return self.trust.unknown(host, port, key)


class Connections:
    """Opens connections for one run; keeps keys, known hosts, and the connections to hosts on the way."""

    def __init__(self, home: str | None = None, environ: Mapping[str, str] | None = None) -> None:
        self._own_home = home
        # an old server that only knows finite-field exchanges is talked to, and the user is not told how
        warnings.filterwarnings("ignore", message="Diffie-Hellman over finite fields")
        self._environ = os.environ if environ is None else environ
        self._known = KnownHosts()
        self._keys: dict[tuple[object, ...], list[Any]] = {}
        self._shared: dict[tuple[object, ...], asyncio.Future[_SharedConnection]] = {}

    @property
    def _home(self) -> str:
        return self._own_home or os.path.expanduser("~")

    async def open(self, target: str, settings: SshSettings) -> asyncssh.SSHClientConnection:
        """Open a connection to the target, logged in. Raises Unreachable, AccessDenied, InventoryError."""
        trust = self._trust(settings)
        client, waited_for = _HostKeyClient(trust), [settings.hop]
        try:
            async with contextlib.AsyncExitStack() as failing:
                failing.push_async_callback(client.wait_for_way)
                async with deadline(settings.connect_timeout_s):
                    connection = await self._open(target, settings, client, waited_for)
                failing.pop_all()
                return connection
        except TimeoutError:
            silent = _shown_address(replace(settings, hop=waited_for[-1]))
            text = f"{silent} did not answer within {settings.connect_timeout_s:g} s"
            hint = "is it up? is the port open? connect_timeout: and timeout: say how long it may take"
            raise Unreachable(text, stage="connect", where=target, hint=hint) from None
        except asyncssh.HostKeyNotVerifiable:
            raise trust.refusal(target, _shown_address(settings)) from None
        except asyncssh.PermissionDenied:
            raise _login_refused(target, settings) from None
        except (asyncssh.Error, OSError) as error:
            raise _connection_failed(target, settings, error) from None

    async def _open(
        self, target: str, settings: SshSettings, client: _HostKeyClient, waited_for: list[Hop]
    ) -> asyncssh.SSHClientConnection:
        """Connect, through others where that is said. `waited_for` gets the hosts whose answer is waited for,
        one after the other."""
        options = asyncssh.SSHClientConnectionOptions(**self._options(settings, client))
        jumps = settings.jumps
        if jumps is None and isinstance(options.tunnel, str):
            jumps = parse_hops(options.tunnel)  # ProxyJump of ~/.ssh/config
        if not jumps:
            # deadline: `open`
            return await asyncssh.connect(settings.hop.host, options=options, config=None, tunnel=None)
        waited_for.append(jumps[-1])
        way = await self._way(target, settings, jumps)
        waited_for.append(settings.hop)
        with contextlib.ExitStack() as failing:
            failing.callback(way.leave)
            connection = await asyncssh.connect(  # deadline: `open`
                settings.hop.host, options=options, config=None, tunnel=way.connection
            )
            failing.pop_all()
        asyncio.ensure_future(_leave_after(connection, way))  # noqa: RUF006 - ends with the connection
        return connection

    async def _way(self, target: str, settings: SshSettings, jumps: tuple[Hop, ...]) -> _SharedConnection:
        """Return the connection to the last host on the way; hosts behind the same one share it."""
        key = (settings_of_jump(settings, jumps), id(asyncio.get_running_loop()))
        for old in [k for k, f in self._shared.items() if f.done() and (f.exception() or f.result().closed)]:
            del self._shared[old]
        opening = self._shared.get(key)
        if opening is None:
            opening = self._shared[key] = asyncio.ensure_future(self._share(target, key[0]))
            opening.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may wait
        shared = await asyncio.shield(opening)
        shared.users += 1
        return shared

    async def _share(self, target: str, settings: SshSettings) -> _SharedConnection:
        return _SharedConnection(await self.open(target, settings))

    def _options(self, settings: SshSettings, client: _HostKeyClient) -> dict[str, Any]:
        config = settings.config or os.path.join(self._home, ".ssh", "config")
        has_config = os.path.isfile(config)
        found: dict[str, Any] = {
            "host": settings.hop.host,
            "config": [config] if has_config else None,
            "known_hosts": client.trust,
            "kex_algs": _KEX,
            "encryption_algs": _CIPHERS,
            "compression_algs": None,
            "client_factory": lambda: client,
            "login_timeout": settings.connect_timeout_s,
            "keepalive_interval": 15,
            "x509_trusted_certs": None,
            "gss_kex": False,
            "gss_auth": False,
            # whatever ~/.ssh/config says: no host gets what it could use as us
            "agent_forwarding": False,
            "x11_forwarding": False,
            "gss_delegate_creds": False,
            "env": {},
            "send_env": None,
        }
        password = None if settings.password is None else settings.password.reveal()
        given = {"port": settings.hop.port, "username": settings.hop.user, "password": password}
        found.update({name: value for name, value in given.items() if value is not None})
        if not settings.agent:
            found["agent_path"] = None
        if (settings.key is not None or not has_config) and (keys := self._load(settings)):
            found["client_keys"] = list(keys)
        return found

    def _load(self, settings: SshSettings) -> list[Any]:
        """Return the private keys, each with its certificate; read once for all hosts. Raises
        InventoryError."""
        passphrase = settings.passphrase.reveal() if settings.passphrase else None
        names = [os.path.join(self._home, ".ssh", name) for name in _KEYS]
        paths = [settings.key] if settings.key else [name for name in names if os.path.isfile(name)]
        stamps = tuple((path, os.stat(path).st_mtime_ns) for path in paths if os.path.exists(path))
        key = (stamps, settings.certificate, passphrase)
        found = self._keys.get(key)
        if found is None:
            pairs = (self._pair(path, settings, passphrase) for path in paths)
            found = self._keys[key] = [pair for pair in pairs if pair is not None]
        return found

    def _pair(self, path: str, settings: SshSettings, passphrase: str | None) -> Any:
        asks_agent = settings.agent and bool(self._environ.get("SSH_AUTH_SOCK"))
        hint = "passphrase: !env NAME, or add the key to the agent"
        try:
            private = asyncssh.read_private_key(path, passphrase)
        except asyncssh.KeyEncryptionError:
            text = f"the private key needs another passphrase: {path}"
            raise InventoryError(text, where=path, hint=hint) from None
        except (asyncssh.KeyImportError, OSError) as error:
            encrypted = passphrase is None and "assphrase" in str(error)
            if settings.key is None or (encrypted and asks_agent):  # the agent may have it
                return None
            if encrypted:
                text = f"the private key is encrypted: {path}"
                raise InventoryError(text, where=path, hint=hint) from None
            raise InventoryError(f"{path} is no private key: {error}", where=path) from None
        beside = f"{path}-cert.pub"
        certificate = settings.certificate or (beside if os.path.isfile(beside) else None)
        if certificate is None:
            return private
        try:
            return private, asyncssh.read_certificate(certificate)
        except (asyncssh.KeyImportError, OSError) as error:
            raise InventoryError(f"the certificate cannot be read: {error}", where=certificate) from None

    def _trust(self, settings: SshSettings) -> Trust:
        usual = (os.path.join(self._home, ".ssh", "known_hosts"), _SYSTEM_KNOWN_HOSTS)
        pinned = None
        if settings.host_key not in ("strict", "accept-new"):
            try:
                pinned = asyncssh.import_public_key(settings.host_key)
            except asyncssh.KeyImportError:
                raise InventoryError(
                    f"host_key of {settings.hop.host} is no public key",
                    hint="a line as ssh-keyscan prints it, without the name",
                ) from None
        return Trust(settings.known_hosts or usual, self._known, settings.host_key == "accept-new", pinned)


def _shown_address(settings: SshSettings) -> str:
    hop = settings.hop
    return hop.host if hop.port in (None, 22) else f"[{hop.host}]:{hop.port}"


def _login_refused(target: str, settings: SshSettings) -> FazaiError:
    user = settings.hop.user or "this user"
    tried = "key and password" if settings.password is not None else "key"
    hint = "is the public key in its authorized_keys? user: and key: say who logs in"
    if settings.password is not None:
        hint = "is it the right password? user: and password: say who logs in"
    if settings.on_the_way:
        tried = tried.replace("password", "jump_password")
        hint = "it is a host to go through: jump: says as whom, key: and jump_password: with what"
    text = f"{_shown_address(settings)} does not let {user} log in with the {tried} it was given"
    return AccessDenied(text, where=target, hint=hint)


def _connection_failed(target: str, settings: SshSettings, error: Exception) -> FazaiError:
    """Return the error for a connection that did not come about."""
    address = _shown_address(settings)
    stage, hint = "connect", None
    if isinstance(error, asyncssh.KeyExchangeFailed):
        text, stage = f"no common algorithms with {address}: {error.reason}", "handshake"
    elif isinstance(error, asyncssh.ChannelOpenError):
        text, hint = f"the way to {address} is closed: {error.reason}", "look at the host of jump:"
    elif isinstance(error, socket.gaierror):
        text, stage, hint = f"there is no host {settings.hop.host}", "resolve", "is host: right?"
    elif isinstance(error, ConnectionRefusedError):
        text, hint = f"{address} refuses connections", "is its SSH server running? port:"
    elif isinstance(error, OSError):
        text = f"{address}: {error.strerror or error}"
    else:
        text = f"{address} broke the connection off: {getattr(error, 'reason', '') or error}"
        stage, hint = "handshake", "MaxStartups in its sshd_config limits logins at once; fewer --forks"
    return Unreachable(text, stage=stage, where=target, hint=hint)
