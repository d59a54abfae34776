"""Forked children: each runs one function and answers once, with a deadline, so that the agent never waits.

The answer is one JSON object behind its length (4 bytes, big endian). A child ends with the agent, also when
that is killed: it holds the reading end of a pipe whose writing end only the agent has, and the kernel tells
its end.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import signal
import sys

from fazai.agent.errors import Refused
from fazai.agent.loop import READ
from fazai.agent.messages import refuse, write_json
from fazai.errors import FazaiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from fazai.agent.loop import Loop, Timer

HEADER_BYTES = 4
#: What a child may answer at most; an action's answer is at most one message.
MAX_ANSWER_BYTES = 64 * 1024 * 1024
#: From the polite signal to the one that cannot be ignored: a child ends all that it started in between.
KILL_AFTER_S = 5.0
_READ_BYTES = 65_536


def pack(message: dict[str, Any]) -> bytes:
    """Return the message as it goes through a pipe."""
    raw = write_json(message).encode(
        "utf-8", "surrogatepass"
    )  # whoever serves it says what half of a pair means
    return len(raw).to_bytes(HEADER_BYTES, "big") + raw


class Unpacker:
    """Collects the bytes of a pipe into messages."""

    def __init__(self, limit_bytes: int = MAX_ANSWER_BYTES) -> None:
        self._limit = limit_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Return the messages that are whole now. Raises Refused for one that is too long or none at all."""
        self._buffer += data
        found = []
        while len(self._buffer) >= HEADER_BYTES:
            size = int.from_bytes(self._buffer[:HEADER_BYTES], "big")
            if size > self._limit:
                raise Refused("too_large", f"the answer has {size} bytes, the limit is {self._limit}")
            if len(self._buffer) < HEADER_BYTES + size:
                break
            raw = bytes(self._buffer[HEADER_BYTES : HEADER_BYTES + size])
            del self._buffer[: HEADER_BYTES + size]
            found.append(_parse(raw))
        return found


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        message = json.loads(raw.decode("utf-8", "surrogatepass"))
    except ValueError:
        message = None
    if not isinstance(message, dict):
        raise Refused("internal", "the action's process answered with something that is no JSON object")
    return message


class LifePipe:
    """A pipe to each child, of which the agent has the writing end alone: its end, by whatever, is the
    child's."""

    def __init__(self) -> None:
        self._ends: dict[int, int] = {}

    def keep(self, number: int, end: int) -> None:
        """Keep a child's pipe open, in the agent, for as long as the child lives."""
        self._ends[number] = end

    def release(self, number: int) -> None:
        """A child has ended."""
        end = self._ends.pop(number, None)
        if end is not None:
            os.close(end)

    def close(self) -> None:
        """Let go of all: children that still run are ended."""
        for number in list(self._ends):
            self.release(number)


def _end_with_agent(read: int) -> None:
    """Have the kernel send SIGTERM to this child when nobody has the writing end any more."""
    fcntl.fcntl(read, fcntl.F_SETOWN, os.getpid())
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(read, fcntl.F_SETSIG, signal.SIGTERM)
    else:  # FreeBSD signals with SIGIO alone
        signal.signal(signal.SIGIO, _pass_on)
    flags = fcntl.fcntl(read, fcntl.F_GETFL)
    fcntl.fcntl(read, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)
    if _is_at_end(read):  # the agent died before we could ask
        os._exit(1)


def _pass_on(number: int, frame: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _is_at_end(fd: int) -> bool:
    try:
        return os.read(fd, 1) == b""
    except BlockingIOError:
        return False


def fork(life: LifePipe, run: Callable[[], None], *, keep: tuple[int, ...] = ()) -> int:
    """Run a function in a forked child, which ends with it, and with the agent. Of the agent's files it keeps
    `keep` alone. Returns the child's number, for `life.release`. Raises OSError where none can be made."""
    sys.stderr.flush()
    before = sys.exc_info()[1]  # what the agent was dealing with when it forked is no fault of the child
    read, end = os.pipe()
    try:
        number = os.fork()
    except OSError:
        os.close(read)
        os.close(end)
        raise
    if number:
        os.close(read)
        life.keep(number, end)
        return number
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(name, signal.SIG_DFL)
        close_files({*keep, read})
        _end_with_agent(read)
        run()
        status = 0
    finally:  # no way leads out of a child but its end; a fault of ours is said in the log
        if sys.exc_info()[1] is not before:
            sys.excepthook(*sys.exc_info())
        os._exit(status)


def close_files(keep: set[int]) -> None:
    """Close all files but the three standard ones and `keep`: a child that held the connection would keep it
    open after the agent is gone."""
    try:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        import resource

        numbers = list(range(min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 4096)))
    for number in numbers:
        if number > 2 and number not in keep:
            try:
                os.close(number)
            except OSError:  # the one that listed the folder is closed already
                continue


class Child:
    """One forked child with a deadline. `on_end` is called once: with its answer, or with None and the reason
    why there is none."""

    def __init__(
        self,
        loop: Loop,
        life: LifePipe,
        run: Callable[[], dict[str, Any]],
        on_end: Callable[[dict[str, Any] | None, str], None],
        *,
        deadline_s: float,
    ) -> None:
        self._loop = loop
        self._life = life
        self._on_end: Callable[[dict[str, Any] | None, str], None] | None = on_end
        self._unpacker = Unpacker()
        self.overdue = False
        self._patience_s = 0.005
        self.number = 0
        self._kill_timer: Timer | None = None
        self._deadline: Timer | None = loop.later(deadline_s, self._time_out)
        self._read, self._open = -1, False
        try:
            self._start(run)
        except OSError as error:
            reason = f"no process could be made for it: {error.strerror}"
            loop.later(0, lambda: self._finish({"ok": False, "code": "unavailable", "error": reason}, ""))

    def _start(self, run: Callable[[], dict[str, Any]]) -> None:
        read, write = os.pipe()
        try:
            self.number = fork(self._life, lambda: _answer(write, run), keep=(write,))
        except OSError:
            os.close(read)
            raise
        finally:
            os.close(write)
        os.set_blocking(read, False)
        self._read, self._open = read, True
        self._loop.watch(read, READ, self._on_ready)

    def end(self) -> None:
        """Ask the child to end; it is killed where it does not."""
        if self.number and self._kill_timer is None:
            _signal(self.number, signal.SIGTERM)
            self._kill_timer = self._loop.later(KILL_AFTER_S, self._kill)

    def _time_out(self) -> None:
        self._deadline = None
        self.overdue = True
        self.end()

    def _kill(self) -> None:
        if self.number:
            _signal(self.number, signal.SIGKILL)
            self._close()
            self._finish(None, "it did not end and was killed")
            self._reap()

    def _on_ready(self, events: int) -> None:
        try:
            data = os.read(self._read, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        try:
            found = self._unpacker.feed(data)
        except Refused as refused:
            self._finish(refuse(refused, None), "")
            self.end()
            return
        if found or not data:
            self._close()
            if found:
                self._finish(found[0], "")
            self._reap()

    def _close(self) -> None:
        if self._open:
            self._open = False
            self._loop.forget(self._read)
            os.close(self._read)

    def _finish(self, answer: dict[str, Any] | None, reason: str) -> None:
        on_end, self._on_end = self._on_end, None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if on_end is not None:
            on_end(answer, reason)

    def _reap(self) -> None:
        """Take the end of the child; it is looked for again where it is still about to end."""
        number, status = os.waitpid(self.number, os.WNOHANG) if self.number else (0, 0)
        if self.number and not number:
            self._loop.later(self._patience_s, self._reap)
            self._patience_s = min(
                2 * self._patience_s, 1.0
            )  # the kernel may keep it for as long as it likes
            if self._kill_timer is None:
                self._kill_timer = self._loop.later(KILL_AFTER_S, self._kill)
            return
        self._life.release(self.number)
        self.number = 0
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        self._finish(None, describe_end(status))


def _signal(number: int, name: int) -> None:
    try:
        os.kill(number, name)
    except ProcessLookupError:
        return


def describe_end(status: int) -> str:
    """Return how a process ended that gave no answer."""
    if os.WIFSIGNALED(status):
        return f"its process was ended by signal {os.WTERMSIG(status)}"
    return f"its process ended with {os.WEXITSTATUS(status)} and no answer"


def _answer(fd: int, run: Callable[[], dict[str, Any]]) -> None:
    gc.disable()  # it lives for moments, and a collection writes to pages that it shares with the agent
    try:
        answer = run()
    except FazaiError as error:
        answer = refuse(error, None)
    with contextlib.suppress(BrokenPipeError):  # the agent is gone, and so is whoever asked
        write_all(fd, pack(answer))


def write_all(fd: int, data: bytes) -> None:
    """Write everything, however often that takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
