"""The SSH transport: a shell behind one connection, in one process."""

from __future__ import annotations

import asyncio
import contextlib

import asyncssh

from fazai.compat.timeouts import deadline, deadline_at
from fazai.errors import DeviceError, FazaiError, Unreachable
from fazai.providers.hosts.shell.become import Become, answer_password_prompt, become_refusal
from fazai.providers.hosts.ssh.connecting import Connections, end_connection
from fazai.providers.hosts.ssh.settings import SshSettings

_STATUS_S = 2.0


class _SshReader:
    """asyncssh's reader, whose errors are those of a connection."""

    def __init__(self, reader: asyncssh.SSHReader[bytes]) -> None:
        self._reader = reader

    async def read(self, n: int = -1, /) -> bytes:
        try:
            return await self._reader.read(n)  # deadline: BlockRunner.run, or `answer_password_prompt`
        except asyncssh.Error as error:
            raise ConnectionResetError(0, error.reason or type(error).__name__) from None


class _SshWriter:
    """asyncssh's writer, which leaves it to the reader to say that the connection is cut."""

    def __init__(self, writer: asyncssh.SSHWriter[bytes]) -> None:
        self._writer = writer

    def write(self, data: bytes, /) -> None:
        self._writer.write(data)

    async def drain(self) -> None:
        try:
            await self._writer.drain()  # deadline: BlockRunner.run, or `answer_password_prompt`
        except (asyncssh.Error, BrokenPipeError):
            return  # the reader says what happened


class SshChannel:
    """The streams of a process on the host."""

    def __init__(
        self,
        connection: asyncssh.SSHClientConnection,
        process: asyncssh.SSHClientProcess[bytes],
        host: str,
        become: Become,
    ) -> None:
        self.stdin = _SshWriter(process.stdin)
        self.stdout = _SshReader(process.stdout)
        self.stderr = _SshReader(process.stderr)
        self._connection = connection
        self._process = process
        self._host = host
        self._become = become

    async def refusal(self, said: str) -> FazaiError:
        """Return why the shell is gone: the connection is, or something did not let us in. Its status comes
        behind the end of its output."""
        with contextlib.suppress(TimeoutError, asyncssh.Error):
            async with deadline(_STATUS_S):
                await self._process.wait_closed()
        if self._process.exit_status is None and self._process.exit_signal is None:
            return Unreachable(f"the connection to {self._host} was cut", stage="read", where=self._host)
        if self._become.method:
            return become_refusal(self._become, self._host, said)
        last = said.splitlines()[-1] if said else "it said nothing"
        return DeviceError(
            f"the shell ended with status {self._process.exit_status}: {last}",
            where=self._host,
            hint="may this user run commands there (login shell, ForceCommand)?",
        )

    @property
    def ends_all(self) -> bool:
        """False: sshd passes signals on to nobody but its login user, if that is not root; some pass none
        on."""
        return False

    async def close(self, *, busy: bool = False) -> None:
        """Close the connection, without waiting long for an answer: the other side may be gone, or stuck."""
        if busy:  # sshd (7.9 and later) passes it on to all that the shell runs as the login user
            with contextlib.suppress(asyncssh.Error, OSError):
                self._process.send_signal("TERM")
        await end_connection(self._connection)


async def start_ssh_shell(
    host: str, settings: SshSettings, become: Become, connections: Connections, timeout_s: float = 60
) -> SshChannel:
    """Connect and start the shell, all within the time. Raises Unreachable, AccessDenied, DeviceError."""
    now_s = asyncio.get_running_loop().time
    until_s = now_s() + timeout_s
    connection = await connections.open(host, settings)
    with contextlib.ExitStack() as failing:
        failing.callback(connection.abort)
        try:
            async with deadline_at(until_s):
                process: asyncssh.SSHClientProcess[bytes] = await connection.create_process(
                    become.command, encoding=None, request_pty=False
                )
            channel = SshChannel(connection, process, host, become)
            await answer_password_prompt(channel, become, host, max(0.0, until_s - now_s()))
        except TimeoutError:
            text = f"{host} let us in and starts no shell within {timeout_s:g} s"
            hint = "what does its sshd wait for? a larger timeout:"
            raise Unreachable(text, stage="answer", where=host, hint=hint) from None
        except asyncssh.ChannelOpenError as error:
            text = f"{host} opens no session: {error.reason}"
            hint = "MaxSessions, or a user who may only forward?"
            raise DeviceError(text, where=host, hint=hint) from None
        except (asyncssh.Error, OSError) as error:
            text = f"the connection to {host} was cut: {error}"
            raise Unreachable(text, stage="read", where=host) from None
        failing.pop_all()
    return channel
