"""A provider of hosts that tells how far what is sent to each has come."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fazai.model import Target
from fazai.providers.hosts.provider import ShellProvider
from fazai.providers.hosts.shell.channel import ByteWriter, ShellChannel


class CountedProvider(ShellProvider):
    """A provider of hosts that tells how many bytes were sent to each: what a person sees of a large file on
    its way."""

    def __init__(self, inner: ShellProvider, tell: Callable[[str, int], object]) -> None:
        self._inner, self._tell = inner, tell

    def starter(self, target: Target, timeout_s: float) -> Callable[[], Awaitable[ShellChannel]]:
        start = self._inner.starter(target, timeout_s)

        async def start_counted() -> ShellChannel:
            return _CountedChannel(await start(), lambda size: self._tell(target.name, size))

        return start_counted


class _CountedChannel:
    """A channel, and what goes to its standard input is counted."""

    def __init__(self, channel: ShellChannel, tell: Callable[[int], object]) -> None:
        self.stdin: ByteWriter = _CountedWriter(channel.stdin, tell)
        self.stdout, self.stderr = channel.stdout, channel.stderr
        self.refusal, self.close = channel.refusal, channel.close
        self._channel = channel

    @property
    def ends_all(self) -> bool:
        return self._channel.ends_all


class _CountedWriter:
    def __init__(self, writer: ByteWriter, tell: Callable[[int], object]) -> None:
        self._writer, self._tell, self._size = writer, tell, 0

    def write(self, data: bytes, /) -> None:
        self._writer.write(data)
        self._size += len(data)

    async def drain(self) -> None:
        await self._writer.drain()  # deadline: BlockRunner.run
        self._tell(self._size)
