"""A shell of this machine as a channel."""

from __future__ import annotations

import asyncio
import os

from fazai.errors import DeviceError, FazaiError
from fazai.hosts.become import Become, become_refusal, greet

__all__ = ["LocalChannel", "start"]

_GRACE_S = 5.0


class LocalChannel:
    """The streams of a child process."""

    def __init__(self, process: asyncio.subprocess.Process, host: str, become: Become) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.stdin, self.stdout, self.stderr = process.stdin, process.stdout, process.stderr
        self._process = process
        self._host = host
        self._become = become

    async def refusal(self, said: str) -> FazaiError:
        if self._become.method:
            return become_refusal(self._become, self._host, said)
        return DeviceError(f"the shell ended: {said or 'it said nothing'}", where=self._host)

    async def close(self) -> None:
        """The end of its input ends the shell; one that does not listen is killed."""
        self.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), _GRACE_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


async def start(host: str, become: Become, root: str, environ: dict[str, str] | None = None) -> LocalChannel:
    """Start the shell. Raises DeviceError when `root` is no folder, AccessDenied when sudo says no."""
    if root and not os.path.isdir(root):  # noqa: ASYNC240 - a stat
        raise DeviceError(f"root: {root} is no folder", where=host, hint=f"mkdir -p {root}")
    process = await asyncio.create_subprocess_exec(
        "/bin/sh",
        "-c",
        become.command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environ,
        start_new_session=True,  # an interrupt at our terminal is for us: what is in flight is finished
    )
    channel = LocalChannel(process, host, become)
    try:
        await greet(channel, become, host)
    except FazaiError:
        await channel.close()
        raise
    return channel
