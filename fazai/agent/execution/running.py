"""command.exec: runs one program of the allow-list and answers once nothing of what it started is left.

Runs in the process that `serving` is about. It is the reaper of all that the program starts, so that nothing
gets away; at the deadline, on SIGTERM (a cancel) and a moment after the program itself has ended,
whatever still lives is killed, and only then is there an answer. Output is drained to the end and kept up to
a bound; a pipe that somebody else holds open is not waited for.
"""

from __future__ import annotations

import codecs
import contextlib
import math
import os
import select
import signal
import time
from typing import TYPE_CHECKING

from fazai.agent.config.policy import ExecRequest, find_rule
from fazai.agent.errors import Refused
from fazai.agent.execution.launching import (
    Launch,
    StartedProgram,
    explain_failure,
    prepare_launch,
    start_program,
)
from fazai.agent.execution.limits import CgroupLeaf, make_leaf
from fazai.agent.execution.tree import kill_descendants, reap_children

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import FrameType

    from fazai.agent.config.settings import AgentConfig

#: From SIGTERM to SIGKILL at the deadline and on a cancel.
GRACE_S = 1.0
#: What a program leaves behind when it ends has this long to finish.
LINGER_S = 0.5
_KILL_EVERY_S = 0.002
_CHUNK = 64 * 1024
_PIPE_MAX = 1024 * 1024


def run_command(request: Mapping[str, object], config: AgentConfig, stop: StopRequests) -> dict[str, object]:
    """Run the program of a checked command.exec message; returns the answer's fields. Raises Refused."""
    timeout_ms = request["timeout"]
    assert isinstance(timeout_ms, (int, float))
    begun = time.monotonic()
    wanted = ExecRequest.from_message(request)
    with stop.raised_at(timeout_ms / 1000):
        rule = find_rule(wanted, config.programs)
    launch = prepare_launch(rule, wanted.args, wanted.env, wanted.cwd)
    stdin = _encode_stdin(wanted.stdin)
    timeout_s = min(timeout_ms / 1000, rule.timeout_s)
    run = _ProgramRun(stop, min(rule.output, config.limits.output), begun + timeout_s, timeout_s)
    return run.run(launch, stdin)


def _encode_stdin(text: str | None) -> bytes | None:
    try:
        return None if text is None else text.encode()
    except UnicodeEncodeError:
        raise Refused("bad_request", "`stdin` holds half of a surrogate pair") from None


class _Stopped(BaseException):
    """Leaves a match that may take for ever; never seen outside of this module."""


class StopRequests:
    """The signals that end a run: SIGTERM and its like, and while patterns are matched the deadline."""

    def __init__(self) -> None:
        self.cancelled = False
        self._raising = False
        self.wakeup = -1
        self._write = -1

    def __enter__(self) -> StopRequests:
        self.wakeup, self._write = os.pipe()
        os.set_blocking(self.wakeup, False)
        os.set_blocking(self._write, False)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGALRM):
            signal.signal(number, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM, signal.SIGCHLD, signal.SIGALRM])
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        os.close(self.wakeup)
        os.close(self._write)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGCHLD:
            return
        self.cancelled = self.cancelled or number != signal.SIGALRM
        if self._raising:
            self._raising = False
            raise _Stopped

    @contextlib.contextmanager
    def raised_at(self, timeout_s: float) -> Iterator[None]:
        """Leave the block when the time is over or a cancel comes, even in the midst of a match. Raises
        Refused."""
        try:
            try:
                self._raising = not self.cancelled
                if self.cancelled:
                    raise _Stopped
                signal.setitimer(signal.ITIMER_REAL, timeout_s)
                yield
            finally:
                self._raising = False
                signal.setitimer(signal.ITIMER_REAL, 0)
        except _Stopped:
            if self.cancelled:
                raise Refused("cancelled", "it was cancelled before the program began") from None
            raise Refused(
                "timeout",
                f"the allow-list could not be matched within {timeout_s:g} s; nothing was run",
                "a pattern of the agent's configuration repeats something that repeats itself",
            ) from None

    def clear(self) -> None:
        """Empty the pipe that wakes the loop."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.wakeup, 512):
                pass


class _KeptOutput:
    """The first bytes of a stream, up to a bound."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()
        self.truncated = False

    def add(self, data: bytes) -> None:
        room = self._limit - len(self._data)
        self._data += data[:room]
        self.truncated = self.truncated or len(data) > room

    def text(self) -> str:
        """Decode it; what is no UTF-8 becomes U+FFFD, a character that was cut at the bound is left out."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return decoder.decode(bytes(self._data), final=not self.truncated)


class _ProgramRun:
    """One program from its start until nothing of it is left."""

    def __init__(self, stop: StopRequests, output: int, deadline: float, timeout_s: float) -> None:
        self._stop = stop
        self._deadline = deadline
        self._timeout_s = timeout_s
        self._stdout = _KeptOutput(output)
        self._stderr = _KeptOutput(output)
        self._failure = _KeptOutput(_CHUNK)
        self._poll = select.poll()
        self._streams: dict[int, _KeptOutput | None] = {}
        self._stdin = memoryview(b"")
        self._leaf: CgroupLeaf | None = None
        self._status: int | None = None
        self._reason: str | None = None  # why it was ended: timeout or cancelled
        self._kill_at: float | None = None
        self._kills = 0

    def run(self, launch: Launch, stdin: bytes | None) -> dict[str, object]:
        """Start the program, wait until all of it has ended, and return the answer. Raises Refused."""
        self._leaf = make_leaf(launch.limits)
        try:
            started = start_program(launch, self._leaf, wants_stdin=stdin is not None)
            self._watch(started, stdin)
            while not self._reap(started.pid):
                self._end_in_time(started.pid)
                self._pass_data()
        finally:
            if self._leaf is not None:
                self._leaf.remove()
        self._drain()
        return self._answer(launch)

    def _watch(self, started: StartedProgram, stdin: bytes | None) -> None:
        self._streams = {started.stdout: self._stdout, started.stderr: self._stderr}
        for handle in self._streams:
            os.set_blocking(handle, False)
            self._poll.register(handle, select.POLLIN)
        os.set_blocking(started.status, False)
        self._streams[started.status] = self._failure  # is read in the end: who writes there ends
        self._poll.register(self._stop.wakeup, select.POLLIN)
        if started.stdin is not None:
            os.set_blocking(started.stdin, False)
            self._stdin = memoryview(stdin or b"")
            self._streams[started.stdin] = None
            self._poll.register(started.stdin, select.POLLOUT)

    def _reap(self, pid: int) -> bool:
        """Take leave of what ended; tells whether nothing is left."""
        try:
            for ended, status in reap_children():
                if ended == pid:
                    self._status = status
        except ChildProcessError:
            return self._leaf is None or self._leaf.is_empty()
        return False

    def _end_in_time(self, pid: int) -> None:
        """Ask the program to end once it is time for that, and kill what does not."""
        now = time.monotonic()
        if self._status is not None:  # it has ended; the rest has a moment to do so, too
            left = 0.0 if self._reason or self._stop.cancelled else LINGER_S
            self._kill_at = now + left if self._kill_at is None else min(self._kill_at, now + left)
        elif self._reason is None and (self._stop.cancelled or now >= self._deadline):
            self._reason = "cancelled" if self._stop.cancelled else "timeout"
            self._kill_at = now + GRACE_S
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGTERM)
        if self._kill_at is not None and now >= self._kill_at:
            self._kills += 1
            if self._leaf is not None:
                self._leaf.kill()
            kill_descendants()

    def _pause_s(self) -> float:
        """Return how long to wait for data or a signal before it may be time to end something."""
        if self._kills:
            return _KILL_EVERY_S if self._kills < 500 else 25 * _KILL_EVERY_S
        until = self._deadline if self._kill_at is None else self._kill_at
        return max(0.0, until - time.monotonic())

    def _pass_data(self) -> None:
        """Wait for data in either direction or for a signal, and move what there is."""
        for handle, _ in self._poll.poll(math.ceil(self._pause_s() * 1000)):
            if handle == self._stop.wakeup:
                self._stop.clear()
                continue
            kept = self._streams[handle]
            if kept is None:
                self._write(handle)
            else:
                self._read(handle, kept)

    def _read(self, handle: int, kept: _KeptOutput) -> bool:
        """Read what there is at once; tells whether there may be more."""
        try:
            data = os.read(handle, _CHUNK)
        except BlockingIOError:
            return False
        kept.add(data)
        if not data:
            self._close(handle)
        return bool(data)

    def _write(self, handle: int) -> None:
        try:
            self._stdin = self._stdin[os.write(handle, self._stdin[:_CHUNK]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # it does not read on
            self._stdin = self._stdin[:0]
        if not self._stdin:
            self._close(handle)

    def _close(self, handle: int) -> None:
        if self._streams.pop(handle) is not self._failure:
            self._poll.unregister(handle)
        os.close(handle)

    def _drain(self) -> None:
        """Read what is left in the pipes, at most what fits into one: somebody else may hold them open."""
        for handle, kept in list(self._streams.items()):
            for _ in range(0 if kept is None else _PIPE_MAX // _CHUNK):
                if kept is None or not self._read(handle, kept):
                    break
        for handle in list(self._streams):
            self._close(handle)

    def _answer(self, launch: Launch) -> dict[str, object]:
        if self._failure.text():
            raise explain_failure(launch, self._failure.text())
        truncated = self._stdout.truncated or self._stderr.truncated
        fields: dict[str, object] = {"stdout": self._stdout.text(), "stderr": self._stderr.text()}
        fields["truncated"] = truncated
        if self._reason == "timeout":
            text = f"{launch.path} did not end within {self._timeout_s:g} s; all of it was ended"
            raise Refused("timeout", text, fields=fields)
        if self._reason == "cancelled":
            raise Refused("cancelled", f"{launch.path} was cancelled; all of it was ended", fields=fields)
        assert self._status is not None
        code = os.waitstatus_to_exitcode(self._status)
        return {"exit_code": code if code >= 0 else 128 - code, **fields}
