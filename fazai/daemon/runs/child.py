"""Runs as child processes: command line and environment, waiting for their end, and ending them.

It has a session and a process group of its own. SIGTERM asks the engine to stop cleanly between two
actions, a second one at once; what is killed in the middle finds its journal at the next run.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fazai.compat.timeouts import deadline
from fazai.daemon.runs.config import Job
from fazai.daemon.settings import DaemonSettings
from fazai.store.daemon import RunRecord

_TAIL_BYTES = 8 * 1024
_STDERR_BYTES = 16 * 1024 * 1024
#: What a run inherits beside FAZAI_*: nothing of systemd's, nothing of another service's secrets.
_PASSED = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR"),
    *("XDG_CONFIG_HOME", "XDG_STATE_HOME"),
    *("FAZAI_LAB", "FAZAI_FORKS", "FAZAI_VAULT_PASSWORD_FILE", "ANSIBLE_VAULT_PASSWORD_FILE"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "PYTHONPATH", "VIRTUAL_ENV"),
)
_REPORT_S = 10  # nobody waits at a terminal, and what the daemon learns late is learnt with the next run
_SPECIAL = re.compile(r"([.\-])")
#: Variables whose values are paths or lists of them: relative ones are the daemon's folder's, which the run
#: does not see.
_PATHS = frozenset({"FAZAI_LAB", "SSL_CERT_FILE", "SSL_CERT_DIR", "PYTHONPATH", "TMPDIR", "VIRTUAL_ENV"})
_VAULT = frozenset({"FAZAI_VAULT_PASSWORD_FILE", "ANSIBLE_VAULT_PASSWORD_FILE"})  # a path, or label@path
#: A run works in the root folder: it neither imports nor reads what lies where the daemon was started.
_IN_ROOT = ("/bin/sh", "-c", 'cd / && exec "$@"', "fazai")


@dataclass(frozen=True, slots=True)
class StopTimeouts:
    """The steps after a run's timeout: SIGTERM, then `clean_s`; SIGTERM again, then `now_s`; SIGKILL, and
    `killed_s` at most until it is given up: a process that hangs in the kernel (a dead NFS server) ends when
    that lets it go."""

    clean_s: float = 60.0
    now_s: float = 30.0
    killed_s: float = 30.0


@dataclass(frozen=True, slots=True)
class ChildResult:
    """The end of a run. `stderr_tail` is the end of what it wrote to standard error; the exit code of a
    signal is 128 and its number."""

    exit_code: int
    stderr_tail: str
    timed_out: bool = False


def command_line(
    job: Job, record: RunRecord, plan: Path, approved: str | None = None, entries: Path | None = None
) -> list[str]:
    """Return `fazai …` for a run; `plan` is the file that a check writes, or that is applied where its hash
    is the `approved` one; `entries` the one of what event rules want in aliases."""
    program = [*_IN_ROOT, sys.executable, "-P", "-m", "fazai"]  # -P: no module of the working folder
    if record.applies is not None:
        words = ["--plan", str(plan), "--plan-hash", approved or "none"]
        return [*program, "apply", *words, "--quiet", "--color", "never"]
    words = [*job.inventory]
    for playbook in job.playbooks:
        words += ["--playbook", playbook]
    for pattern in job.limit:
        words += ["--limit", pattern]
    if record.limit:  # of the job's targets, those alone
        words += _limit_options(job, record.limit)
    if entries is not None:
        words += ["--entries", str(entries)]
    words += ["--quiet", "--color", "never"]
    if record.mode == "check":
        return [*program, "plan", *words, "--out", str(plan)]
    return [*program, "apply", *words, *(["--yes"] if job.deletes else [])]


def entries_path(state: Path, job: str) -> Path:
    """Return the file of what event rules want in the aliases of a job."""
    return state / "entries" / f"{job}.json"


def _limit_options(job: Job, names: Sequence[str]) -> list[str]:
    """Return the options that choose these names of the job's targets. Without a limit of the job each name
    stands for itself, and one that there is not is refused. A pattern must have no colon: it would be split
    there."""
    if not job.limit:
        return [word for name in names for word in ("--limit", name)]
    escaped = "|".join(_SPECIAL.sub(r"\\\1", name) for name in names)
    return ["--limit", rf"&~({escaped})\Z"]


def child_environment(
    job: Job, run_id: str, settings: DaemonSettings, environ: Mapping[str, str]
) -> dict[str, str]:
    """Return the child's whole environment."""
    names = [*_PASSED, *(name for name in environ if name.startswith("LC_")), *job.environment]
    found = {name: environ[name] for name in names if name in environ}
    for name in _PATHS & set(found):
        parts = filter(None, found[name].split(os.pathsep))
        found[name] = os.pathsep.join(map(os.path.abspath, parts))
    for name in _VAULT & set(found):
        label, at, path = found[name].rpartition("@") if not found[name].startswith("/") else ("", "", "")
        found[name] = f"{label}{at}{os.path.abspath(path)}" if path else found[name]
    found |= {
        "FAZAI_STATE_DIR": str(settings.state.absolute()),
        "FAZAI_SECRETS": str(settings.secrets.absolute()),
        "FAZAI_RUN_ID": run_id,
        "FAZAI_REPORT_S": str(_REPORT_S),
        "FAZAI_KEEP_RUNS": str(settings.config.retention.ledger),
        "FAZAI_KEEP_TARGETS_DAYS": str(math.ceil(settings.config.retention.targets_s / 86400)),
    }
    if settings.socket is not None:
        found["FAZAI_URL"] = f"unix:{settings.socket.absolute()}"
    return found


async def wait_for_pid(pid: int, timeout_s: float, timeouts: StopTimeouts) -> bool:
    """Wait until a run that another daemon began has ended; after its timeout it is ended as `Child.wait`
    does it. Return whether it was."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(handle, over.set)

    async def wait_within(seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with deadline(seconds):
                await over.wait()
        return over.is_set()

    def interrupt() -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(handle, signal.SIGTERM)

    try:
        return await _end_in_time(pid, timeout_s, timeouts, wait_within, interrupt)
    finally:
        loop.remove_reader(handle)
        os.close(handle)


async def _end_in_time(
    pid: int,
    timeout_s: float,
    timeouts: StopTimeouts,
    wait_within: Callable[[float], Awaitable[bool]],
    interrupt: Callable[[], None],
) -> bool:
    """Wait for the end of a run, which comes after the timeout at the latest: politely, firmly, and for the
    whole group. Return whether it was ended. `wait_within` returns whether the end came in so many
    seconds."""
    if await wait_within(timeout_s):
        return False
    for wait_s in (timeouts.clean_s, timeouts.now_s):
        interrupt()
        if await wait_within(wait_s):
            return True
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    await wait_within(timeouts.killed_s)
    return True


class Child:
    """A process that runs. It is no `subprocess.Popen`, and no pipe leads to it: when the daemon goes away it
    can go on as if nothing had happened."""

    def __init__(
        self,
        words: Sequence[str],
        environ: Mapping[str, str],
        stderr_file: Path,
        *,
        most_bytes: int = _STDERR_BYTES,
        check_s: float = 1.0,
    ) -> None:
        """Start it; what it writes to standard error goes to `stderr_file`, which is cut when it has more
        than `most_bytes`. Raises OSError."""
        stderr_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._stderr_file, self._most_bytes, self._check_s = stderr_file, most_bytes, check_s
        self._kept = b""
        self.cut = 0  # how often
        wanted = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        self.pid = os.posix_spawn(
            words[0],
            list(words),
            dict(environ),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, str(stderr_file), wanted, 0o600),
            ],
            setsid=True,
        )
        self._code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._handle = os.pidfd_open(self.pid)
        asyncio.get_running_loop().add_reader(self._handle, self._reap)

    def _reap(self) -> None:
        self.leave()
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._code.set_result(code if code >= 0 else 128 - code)

    @property
    def ended(self) -> bool:
        """True once the process has ended and was reaped."""
        return self._code.done()

    def leave(self) -> None:
        """Stop watching the process."""
        if self._handle >= 0:
            asyncio.get_running_loop().remove_reader(self._handle)
            os.close(self._handle)
            self._handle = -1

    def interrupt(self) -> None:
        """Ask the run to stop. The engine finishes what is in flight; asked again, it stops at once."""
        if not self.ended:
            os.kill(self.pid, signal.SIGTERM)

    async def wait(self, timeout_s: float, timeouts: StopTimeouts) -> ChildResult:
        """Wait for the end, which comes after the timeout at the latest."""
        timed_out = await _end_in_time(self.pid, timeout_s, timeouts, self._wait_within, self.interrupt)
        if not self.ended:
            return ChildResult(128 + signal.SIGKILL, "it was killed, and has not ended", timed_out)
        return ChildResult(self._code.result(), self._take_tail(), timed_out)

    async def _wait_within(self, seconds: float) -> bool:
        """Wait for the end at most so long; return whether it came."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + seconds
        while not self.ended and (left_s := until_s - loop.time()) > 0:
            await asyncio.wait([self._code], timeout=min(left_s, self._check_s))
            self._trim_stderr()
        return self.ended

    def _trim_stderr(self) -> None:
        """Keep the end of standard error and drop the rest, where that is too much."""
        with contextlib.suppress(OSError):
            if self._stderr_file.stat().st_size > self._most_bytes:
                self._kept = self._read_end()
                os.truncate(self._stderr_file, 0)
                self.cut += 1

    def _read_end(self) -> bytes:
        with self._stderr_file.open("rb") as file:
            file.seek(max(0, self._stderr_file.stat().st_size - _TAIL_BYTES))
            return (self._kept + file.read())[-_TAIL_BYTES:]

    def _take_tail(self) -> str:
        """Return the end of standard error, and remove its file."""
        try:
            text = self._read_end().decode("utf-8", "replace").strip()
            self._stderr_file.unlink()
        except OSError:
            return ""
        return text
