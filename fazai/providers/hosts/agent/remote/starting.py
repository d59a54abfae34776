"""The file that starts the remote agent, and takes an update back that does not prove itself.

It runs as the agent, under whatever keeps the agent running; neither a timer nor the controller is needed.
While the trial of an update is open, it runs the new program as its child until the new program has removed
the mark, which it does when its hello was accepted. One that ends, hangs or is refused until the time is over
is ended, the mark says so, and the files before (FILE.old) are run from then on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fazai.providers.hosts.agent.remote.places import REMOTE, STARTER, TRIAL
from fazai.providers.hosts.shell.quoting import quote

#: Sets fz_python to a Python that can run the agent, else to nothing.
FIND_PYTHON: Final = r"""fz_python=
for fz_p in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9; do
for fz_q in "$(command -v $fz_p 2>/dev/null)" /usr/local/bin/$fz_p /usr/libexec/platform-python; do
[ -x "$fz_q" ] && "$fz_q" -I -c 'import sys, ssl; sys.exit(sys.version_info < (3, 9))' 2>/dev/null || continue
fz_python=$fz_q; break 2
done; done"""

_START: Final = r"""#!/bin/sh
# Written by fazai (host.agent): starts the remote agent. During an update what it replaced stands by.
program=PROGRAM settings=SETTINGS state=STATE mark=MARK self=STARTER
# by its whole path, by which this process is known, also where it was started by another one
[ "$0" = "$self" ] || [ ! -x "$self" ] || exec /bin/sh "$self"
PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin
umask 077
FIND_PYTHON
[ -n "$fz_python" ] || { echo 'fazai-agent: no Python 3.9 or newer with ssl is there' >&2; exit 3; }
run() { set -- "$program$1" run --config "$settings$1"; exec "$fz_python" -I "$@"; }
printf 'pid=%s\n' $$ >"$state/.pid" && mv -f "$state/.pid" "$state/pid"
trial=$(head -c 1024 "$mark" 2>/dev/null)
case $trial in
failed*) [ ! -e "$program.old" ] || run .old; run '';;
open*) ;;
*) run '';;
esac
FAZAI_AGENT_TRIAL=$mark
export FAZAI_AGENT_TRIAL
[ -e "$program.old" ] || run ''
# Where the unit's cgroup was given to the agent, it is divided, and then no process may be in it itself:
# in the one below it the agent has the place that it has without a guard.
group=$(sed -n 's/^0:://p' /proc/self/cgroup 2>/dev/null)
case $group in */fazai-agent.service) {
group=/sys/fs/cgroup$group/fazai-agent
mkdir -p "$group" && echo $$ >"$group/cgroup.procs"
} 2>/dev/null;; esac
child= why= stopped=
# Before there is a child: one that is told to end in between would leave it behind.
trap 'stopped=1; [ -z "$child" ] || kill -TERM $child 2>/dev/null' TERM INT HUP
(run '') &
child=$!
[ -z "$stopped" ] || kill -TERM $child 2>/dev/null
left=${trial#open }
case $left in '' | *[!0-9]*) left=60;; esac
left=$((left * 5))
while [ -e "$mark" ] && [ -z "$stopped" ]; do
kill -0 $child 2>/dev/null || { wait $child; why="ended with code $?"; break; }
[ $left -gt 0 ] || { why="was not accepted in time"; break; }
if sleep 0.2 2>/dev/null; then left=$((left - 1)); else sleep 1; left=$((left - 5)); fi
done
unset FAZAI_AGENT_TRIAL
# accepted; or told to end: then the trial goes on at the next start
if [ -z "$why" ] || [ -n "$stopped" ]; then
while :; do
wait $child; code=$?
kill -0 $child 2>/dev/null || exit $code
done
fi
said=$(sed -n 's/^last_error=\(.*\)/: \1/p' "$state/status" 2>/dev/null | head -n 1 | head -c 300)
kill -TERM $child 2>/dev/null
left=50
while [ $left -gt 0 ] && kill -0 $child 2>/dev/null; do
if sleep 0.2 2>/dev/null; then left=$((left - 1)); else sleep 1; left=$((left - 5)); fi
done
kill -KILL $child 2>/dev/null
wait $child 2>/dev/null
trap - TERM INT HUP
printf 'failed: it %s%s\n' "$why" "$said" >"$state/.trial" && mv -f "$state/.trial" "$mark"
echo "fazai-agent: the new program $why$said; the one before runs again" >&2
run .old
"""


def start_file(at: Callable[[str], str]) -> bytes:
    """Return the file that starts the agent. `at` maps a path to the host's."""
    words = {"PROGRAM": REMOTE.program, "SETTINGS": REMOTE.settings, "STATE": REMOTE.state, "MARK": TRIAL}
    words["STARTER"] = STARTER
    text = _START.replace("FIND_PYTHON", FIND_PYTHON)
    for name, path in words.items():
        text = text.replace(f"={name}", f"={quote(at(path))}")
    return text.encode()
