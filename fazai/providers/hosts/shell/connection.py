"""The connection to one host: a shell that is started when it is first needed, and ended when it hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from fazai.compat.timeouts import deadline
from fazai.errors import FazaiError, Unreachable
from fazai.model import Target
from fazai.providers.hosts.shell.channel import (
    BlockForm,
    BlockResult,
    BlockRunner,
    OutputListener,
    ShellChannel,
    ShellEnded,
)

#: How long a host may take to accept connections again after its handlers ran, and how often to try.
_PROBE_S, _PROBE_PAUSE_S = 20.0, 0.5
#: How long to connect, log in and end what runs may take.
_END_S: Final = 10.0
#: Ends a shell and all that it started, in whatever process group, first with SIGTERM, a second later with
#: SIGKILL; what has become a child of somebody else is a daemon, and stays. Prints what does not end within
#: another two seconds. Linux tells of processes in /proc, also where there is no `ps`; FreeBSD has its `ps`.
_END: Final = r"""
fz_ps() {
if [ -r /proc/self/status ]; then cat /proc/[0-9]*/status 2>/dev/null |
awk '$1 == "State:" { s = $2 } $1 == "Pid:" { p = $2 } $1 == "PPid:" { print p, $2, s }'
else ps -A -o pid= -o ppid= -o stat=; fi
}
fz_tree() {
fz_ps | awk -v all="$*" '{ up[$1] = $2; state[$1] = $3 }
END { n = split(all, ids, " "); for (i = 1; i <= n; i++) ours[ids[i]] = 1
do { more = 0; for (p in up) if (!(p in ours) && (up[p] in ours)) { ours[p] = 1; more = 1 } } while (more)
for (p in ours) if ((p in state) && state[p] !~ /^[ZX]/) printf "%s ", p }'
}
fz_k=$(fz_tree $fz_k) fz_c=0
[ -z "$fz_k" ] || kill -TERM $fz_k 2>/dev/null
while [ -n "$fz_k" ]; do
[ $fz_c -lt 30 ] || { echo $fz_k; exit 1; }
[ $fz_c -lt 10 ] || kill -KILL $fz_k 2>/dev/null
if sleep 0.1 2>/dev/null; then fz_c=$((fz_c + 1)); else sleep 1; fz_c=$((fz_c + 10)); fi
fz_k=$(fz_tree $fz_k)
done
"""


class ShellConnection:
    """One shell of a target for a whole session. `start` opens a channel; it is called once when the shell is
    first needed, and again where something takes a second connection."""

    def __init__(
        self, target: Target, start: Callable[[], Awaitable[ShellChannel]], *, timeout_s: float, root: str
    ) -> None:
        self.timeout_s = timeout_s  # for a block that has no other
        self._target, self._start, self._root = target, start, root
        self._open: tuple[ShellChannel, BlockRunner] | None = None

    @property
    def is_open(self) -> bool:
        return self._open is not None

    @property
    def blocks(self) -> int:
        """The number of blocks that were sent so far."""
        return 0 if self._open is None else self._open[1].blocks

    @property
    def nonce(self) -> str:
        """The word that begins each frame of an open shell: 128 random bits that no name or content can
        hold."""
        assert self._open is not None
        return self._open[1].nonce

    async def run(
        self,
        script: str | Iterable[bytes],
        *,
        setup: str = "fz_tmp= fz_all=",
        timeout_s: float | None = None,
        listener: OutputListener | None = None,
        form: BlockForm = "act",
        limit: int | None = None,
    ) -> BlockResult:
        """Run one block (`BlockRunner.run`). Raises Unreachable when the host does not answer in time or the
        connection is cut, and what the channel says when the shell ends; the connection is closed then."""
        if self._open is None:
            channel = await self._start()
            self._open = channel, BlockRunner(channel, self._target.name, self._root)
        channel, runner = self._open
        seconds = timeout_s or self.timeout_s
        try:
            return await runner.run(
                script, timeout_s=seconds, setup=setup, listener=listener, form=form, limit=limit
            )
        except TimeoutError:
            why = await self._end(channel, runner)
            text = f"{self._target.name}: no answer within {seconds:g} s"
            if why:
                text += f", and what runs there was not ended and may go on: {why}"
            where = self._target.where("timeout")
            raise Unreachable(text, stage="answer", where=where, hint="a larger timeout:") from None
        except Unreachable:  # where the next block begins is not known any more
            await channel.close(busy=True)
            raise
        except ShellEnded as ended:
            raise await channel.refusal(ended.err.decode("utf-8", "replace").strip()) from None

    async def close(self, *, busy: bool = False) -> None:
        """Close the connection. `busy`: its shell may still run something, which is ended."""
        if self._open is None:
            return
        channel, runner = self._open
        self._open = None
        if busy:
            await self._end(channel, runner)
        else:
            await channel.close()

    async def prove(self) -> None:
        """Start and close another shell. Raises Unreachable when that does not work for a while."""
        now_s = asyncio.get_running_loop().time
        until_s = now_s() + _PROBE_S
        while True:
            try:
                channel = await self._start()
            except Unreachable:
                if now_s() > until_s:
                    raise
                await asyncio.sleep(_PROBE_PAUSE_S)
            else:
                await channel.close()
                return

    async def _end(self, channel: ShellChannel, runner: BlockRunner) -> str:
        """Close the connection of a shell that still runs something, which is ended; where that takes another
        connection, through one. Returns why it may go on all the same."""
        why = ""
        if runner.pid is not None and not channel.ends_all:
            why = await self._end_from_outside(runner.pid)
        await channel.close(busy=True)
        return why

    async def _end_from_outside(self, pid: int) -> str:
        """End a shell of the same user on the host, with what it runs, from another one. Returns why
        something of it may go on there; an empty text: nothing does."""
        try:
            async with deadline(_END_S):
                channel = await self._start()
                try:
                    runner = BlockRunner(channel, self._target.name)
                    result = await runner.run(f"fz_k={pid}\n{_END}", timeout_s=_END_S, form="act")
                finally:
                    await channel.close()
        except TimeoutError:
            return f"a second connection did not answer within {_END_S:g} s"
        except (FazaiError, ShellEnded) as error:
            return f"a second connection failed: {error.message if isinstance(error, FazaiError) else error}"
        left = result.out.decode("utf-8", "replace").split()
        return f"it does not end (process {' '.join(left)})" if result.exit else ""
