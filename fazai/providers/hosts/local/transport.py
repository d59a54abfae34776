"""The local transport: a shell of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Collection, Iterable
from typing import Final

from fazai.errors import DeviceError, FazaiError
from fazai.providers.hosts.shell.become import Become, answer_password_prompt, become_refusal

#: Seconds for a shell that ends by itself, for what is told to end, and for what is killed.
_GRACE_S: Final = 5.0
_TERM_S: Final = 1.0
_KILL_S: Final = 2.0


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

    @property
    def ends_all(self) -> bool:
        """True when what the shell runs is ours to end: not as another user, whom sudo or doas made us."""
        return not self._become.method or os.geteuid() == 0

    async def close(self, *, busy: bool = False) -> None:
        """End the shell. The end of its input ends it; one that does not listen is killed with all that it
        started, except for what has become a child of somebody else: a daemon is meant to stay."""
        pid = self._process.pid
        known: set[int] = set()
        try:
            self.stdin.close()
            if not busy and await self._ended(_GRACE_S):
                return
            for number, seconds in ((signal.SIGTERM, _TERM_S), (signal.SIGKILL, _KILL_S)):
                known |= _find_descendants(pid)
                _send_signal(pid, known, number)
                if await self._ended(seconds, known):
                    return
        finally:
            if self._process.returncode is None:
                _send_signal(pid, known | _find_descendants(pid), signal.SIGKILL)
            self._release()

    async def _ended(self, seconds: float, others: Collection[int] = ()) -> bool:
        """Tell whether the shell, and these as well, end within this time. (`wait` may also wait for those
        that hold its output open.)"""
        now_s = asyncio.get_running_loop().time
        until_s = now_s() + seconds
        waiting = asyncio.ensure_future(self._process.wait())  # deadline: `until_s`
        try:
            while (running := self._process.returncode is None or _any_runs(others)) and now_s() < until_s:
                await asyncio.wait({waiting}, timeout=0.05)
                if waiting.done() and others:
                    await asyncio.sleep(0.02)
        finally:
            waiting.cancel()
        return not running

    def _release(self) -> None:
        """Close our ends of the streams: somebody may hold the others."""
        transport: asyncio.SubprocessTransport = self._process._transport  # type: ignore[attr-defined]
        with contextlib.suppress(ProcessLookupError, PermissionError):
            transport.close()


def _send_signal(pid: int, others: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to the group of a process that leads one, and to these; not to another user's."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
    for each in others:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(each, number)


def _find_descendants(pid: int) -> set[int]:
    """Find the processes that a process started, and those that they started, in groups of their own or not
    (as Linux tells it)."""
    names = os.listdir("/proc") if os.path.isdir("/proc") else ()
    parents = {int(n): int(stat[1]) for n in names if n.isdigit() and (stat := _read_stat(n))}
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def _any_runs(pids: Iterable[int]) -> bool:
    """Tell whether one of these processes runs; one that has ended and was not waited for does not."""
    return any((stat := _read_stat(pid)) and stat[0] != b"Z" for pid in pids)


def _read_stat(pid: int | str) -> list[bytes]:
    """Return what stands in /proc/PID/stat behind the program's name, which may hold anything: the state, the
    parent's number, and more; nothing of a process that is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()
    return []


async def start_local_shell(
    host: str, become: Become, root: str, environ: dict[str, str] | None = None, timeout_s: float = 60
) -> LocalChannel:
    """Start the shell. Raises DeviceError when `root` is no folder, AccessDenied when sudo says no,
    Unreachable when it says nothing."""
    if root and not os.path.isdir(root):  # noqa: ASYNC240 - a stat
        raise DeviceError(f"root: {root} is no folder", where=host, hint=f"mkdir -p {root}")
    # as who we are there is no process in between; sudo has one of ours before it, which we can end
    command = become.command if become.method else f"exec {become.command}"
    pipe, words = asyncio.subprocess.PIPE, ("/bin/sh", "-c", command)
    # in a session of its own: an interrupt at our terminal is for us, and what is in flight is finished
    start = asyncio.create_subprocess_exec(  # deadline: none is needed, the kernel starts it
        *words, stdin=pipe, stdout=pipe, stderr=pipe, env=environ, start_new_session=True
    )
    starting = asyncio.ensure_future(start)
    try:
        process = await asyncio.shield(starting)
    except asyncio.CancelledError:  # asyncio's own never ends when it is cancelled half way
        await LocalChannel(await starting, host, become).close(busy=True)
        raise
    channel = LocalChannel(process, host, become)
    async with contextlib.AsyncExitStack() as failing:
        failing.push_async_callback(channel.close, busy=True)
        await answer_password_prompt(channel, become, host, timeout_s)
        failing.pop_all()
    return channel
