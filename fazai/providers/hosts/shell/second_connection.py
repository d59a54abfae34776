"""Uses of a second connection: to prove that one still works, and to end what the first one still runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from fazai.errors import FazaiError, Unreachable
from fazai.providers.hosts.shell.channel import Channel, Ended, Shell

__all__ = ["end_shell", "prove_connection"]

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


async def prove_connection(start: Callable[[], Awaitable[Channel]]) -> None:
    """Start and close another shell. Raises Unreachable when that does not work for a while."""
    now_s = asyncio.get_running_loop().time
    until_s = now_s() + _PROBE_S
    while True:
        try:
            channel = await start()
        except Unreachable:
            if now_s() > until_s:
                raise
            await asyncio.sleep(_PROBE_PAUSE_S)
        else:
            await channel.close()
            return


async def end_shell(start: Callable[[], Awaitable[Channel]], pid: int, host: str) -> str:
    """End a shell of the same user on the host, with what it runs, from another one. Returns why something of
    it may go on there; an empty text: nothing does."""
    try:
        async with asyncio.timeout(_END_S):
            channel = await start()
            try:
                result = await Shell(channel, host).run(f"fz_k={pid}\n{_END}", timeout_s=_END_S, form="act")
            finally:
                await channel.close()
    except TimeoutError:
        return f"a second connection did not answer within {_END_S:g} s"
    except (FazaiError, Ended) as error:
        return f"a second connection failed: {error.message if isinstance(error, FazaiError) else error}"
    left = result.out.decode("utf-8", "replace").split()
    return f"it does not end (process {' '.join(left)})" if result.exit else ""
