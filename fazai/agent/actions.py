"""Carries out one action at a time: in a forked child of its own, or by a worker, a child that goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import socket

from fazai.agent.children import KILL_AFTER_S, Child, Unpacker, describe_end, fork, pack
from fazai.agent.errors import Refused
from fazai.agent.link.errors import LinkError
from fazai.agent.loop import READ, WRITE
from fazai.agent.messages import EFFECTS, MAX_MESSAGE_BYTES, MAX_PAYLOAD_BYTES, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from fazai.agent.children import LifePipe
    from fazai.agent.loop import Loop, Timer

    Handler = Callable[[dict[str, Any], Any], dict[str, Any]]
    #: Serves requests on a socket until it is closed: with a configuration, and the faults of a test.
    Server = Callable[[int, Any, Callable[[str], None]], None]
    Answer = dict[str, Any]
    Message = dict[str, Any]

#: What a handler may take beyond an action's timeout, to end all that the action started.
GRACE_S = 5.0
#: What reconciles may take to end one request.
CANCEL_S = 10.0


DEFAULT_HEARTBEAT_S = 15.0
#: The longest heartbeat that is kept to, whatever the daemon asks for.
_SLOWEST_BEAT_MS = 3_600_000
#: How long an action may take of which neither side says it.
ANSWER_S = 30.0


class Limits:
    """The limits that the daemon's policy sets an action; `timeout_s` None: as the request says."""

    def __init__(self, timeout_s: float, max_output: int | None, max_message: int) -> None:
        self.timeout_s = timeout_s
        self.max_output = max_output
        self.max_message = max_message


class Policy:
    """The limits that the daemon set in its answer to hello."""

    def __init__(self, answer: Message) -> None:
        """Read the answer. Raises LinkError where it has no policy, or a wrong one."""
        found = answer.get("policy")
        if not isinstance(found, dict) or not isinstance(found.get("timeouts"), dict):
            raise LinkError("protocol", "the daemon's answer to hello has no policy")
        self.timeouts_ms: dict[str, int] = {
            name: value for name, value in found["timeouts"].items() if _is_count(value) and value > 0
        }
        self.max_payload = _number(
            found, "max_payload", MAX_PAYLOAD_BYTES, least=1024, most=MAX_MESSAGE_BYTES
        )
        self.max_output = _number(found, "max_output", -1, least=0)
        self.heartbeat_s = (
            _number(found, "heartbeat_ms", int(DEFAULT_HEARTBEAT_S * 1000), least=1, most=_SLOWEST_BEAT_MS)
            / 1000
        )
        self.max_message = _number(
            found, "max_message", MAX_MESSAGE_BYTES, least=self.max_payload, most=MAX_MESSAGE_BYTES
        )
        self.acknowledges = found.get("ack") is True

    def limits(self, request: Message) -> Limits:
        """Return the limits of one action."""
        name = request["method"].rpartition(".")[2]
        allowed_ms = self.timeouts_ms.get(name)
        if "timeout" in request:
            timeout_ms = min(request["timeout"], allowed_ms or request["timeout"])
        else:
            timeout_ms = allowed_ms or int(ANSWER_S * 1000)
        return Limits(timeout_ms / 1000, self.max_output if self.max_output >= 0 else None, self.max_message)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(found: Message, name: str, default: int, *, least: int, most: int = 2**63) -> int:
    value = found.get(name)
    if value is None:
        return default
    if not _is_count(value) or value < least:
        raise LinkError("protocol", f"the daemon's policy has an unusable `{name}`")
    return min(int(value), most)


class Action:
    """The action that runs, or the one before it."""

    def __init__(
        self, request: dict[str, Any], digest: str, on_done: Callable[[Action, Answer], None]
    ) -> None:
        self.request = request
        self.action_id: str = request["action_id"]
        self.method: str = request["method"]
        self.digest = digest
        self.on_done = on_done
        #: Why it was told to end, as a code of the contract: `cancelled` or `interrupted`.
        self.ended_as: str | None = None


def _server_of(method: str) -> str:
    """Return the name of the server that a method would have: `state` of all `state.*`, else its own."""
    return "state" if method.startswith("state.") else method


class Actions:
    """Runs one action at a time. `handlers` are functions of a request and the configuration, by method;
    `servers`, by method (`state` for `state.*`), serve requests on a socket in a process that goes on;
    `end_leftovers` ends what a process that died had started."""

    def __init__(
        self,
        loop: Loop,
        life: LifePipe,
        handlers: Mapping[str, Callable[[], Handler]],
        servers: Mapping[str, Callable[[], Server]],
        *,
        fault: Callable[[str], None],
        end_leftovers: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = loop
        self._life = life
        self._end_leftovers = end_leftovers
        self._handlers = handlers
        self._servers = servers
        self._fault = fault
        self.running: Action | None = None
        self._child: Child | None = None
        self._workers: dict[str, Worker] = {}
        self._asked: Worker | None = None

    def serves(self, method: str) -> bool:
        """Return whether there is somebody for a method."""
        return method in self._handlers or _server_of(method) in self._servers

    def load(self, method: str) -> None:
        """Load what serves a method."""
        self._servers[_server_of(method)]()

    def prepare(self, method: str, config: Any) -> None:
        """Start the process that serves a method, so that the first action need not wait for that. Where it
        cannot be made, the action will say so."""
        with contextlib.suppress(OSError):
            self._find_worker(_server_of(method), config)

    def start(self, action: Action, config: Any, limits: Limits) -> None:
        """Begin an action; its `on_done` is called with the answer, later."""
        self.running = action
        server = _server_of(action.method)
        if server in self._servers:
            self._ask_worker(server, action, config, limits)
            return
        handler = self._handlers[action.method]()  # loaded here, so that the next child has it already
        fault = self._fault

        def run() -> Answer:
            fault("effect.started")
            answer = {"ok": True, **handler(action.request, config)}
            fault("effect.done")
            return bound_answer(answer, limits)

        def ended(answer: Answer | None, reason: str) -> None:
            self._child = None
            self._finish(action, answer, reason, overdue=child.overdue)

        child = self._child = Child(self._loop, self._life, run, ended, deadline_s=limits.timeout_s + GRACE_S)
        fault("action.forked")

    def cancel(self, action_id: str, *, code: str = "cancelled") -> bool:
        """Tell an action to end; returns False where it does not run. Its answer comes as any other."""
        if self.running is None or self.running.action_id != action_id:
            return False
        self.running.ended_as = self.running.ended_as or code
        if self._child is not None:
            self._child.end()
        elif self._asked is not None and self.running.method.startswith("state."):
            self._asked.cancel(action_id)
        elif self._asked is not None:
            self._asked.end()  # it ends what it started, answers, and is gone
        return True

    def forget_workers(self) -> None:
        """End the processes that go on, each once it is idle: their configuration is an old one."""
        for worker in self._workers.values():
            worker.retire()

    def close(self) -> None:
        """End what runs."""
        if self._child is not None:
            self._child.end()
        self.forget_workers()

    def _find_worker(self, server: str, config: Any) -> Worker:
        """Return the process that serves, or a new one. Raises OSError where none can be made."""
        worker = self._workers.get(server)
        if worker is None or worker.is_retired:
            serve = self._servers[server]()
            worker = Worker(self._loop, self._life, lambda fd: serve(fd, config, self._fault))
            self._workers[server] = worker
        return worker

    def _ask_worker(self, server: str, action: Action, config: Any, limits: Limits) -> None:
        known = self._workers.get(server)
        if action.method == "state.close" and (known is None or known.is_retired):
            self._loop.later(0, lambda: self._finish(action, {"ok": True}, ""))
            return
        try:
            worker = self._find_worker(server, config)
        except OSError as error:
            text = f"no process could be made for it: {error.strerror}"
            answer = {"ok": False, "code": "unavailable", "error": text}
            self._loop.later(0, lambda: self._finish(action, answer, ""))
            return
        self._fault("action.forked")

        def ended(answer: Answer | None, reason: str) -> None:
            self._asked = None
            if answer is None and action.method == "command.exec":
                self._end_leftovers()
            elif answer is not None:
                answer = bound_answer(answer, limits)
            self._finish(action, answer, reason, overdue=worker.overdue)

        self._asked = worker
        worker.ask(action.request, limits.timeout_s + GRACE_S, ended)

    def _finish(self, action: Action, answer: Answer | None, reason: str, *, overdue: bool = False) -> None:
        self.running = None
        action.on_done(action, {**judge_end(action, answer, reason, overdue), "action_id": action.action_id})


def judge_end(action: Action, answer: Answer | None, reason: str, overdue: bool) -> Answer:
    """Return the answer of an action that ended: its own, or what its end without one means."""
    if answer is not None:
        if answer.get("code") == "cancelled" and (overdue or action.ended_as == "interrupted"):
            code = "timeout" if overdue else "interrupted"
            return {**answer, "code": code, "error": _SENTENCES[code]}
        return answer
    ended_as = "timeout" if overdue else action.ended_as
    if ended_as is not None:
        return {"ok": False, "code": ended_as, "error": _SENTENCES[ended_as]}
    if action.method in EFFECTS:
        return {"ok": False, "code": "interrupted", "error": f"{reason}; what became of it is not known"}
    return {"ok": False, "code": "internal", "error": f"{reason}; the agent's log may have more"}


_SENTENCES = {
    "timeout": "it was not done in its time and was ended",
    "cancelled": "it was ended because the daemon asked for that",
    "interrupted": "the agent was stopped while it ran, and ended it; what became of it is not known",
}


def bound_answer(answer: Answer, limits: Limits) -> Answer:
    """Return an answer within the policy's limits: outputs are cut, and one that is too long even so is
    replaced."""
    if limits.max_output is not None:
        for name in ("stdout", "stderr"):
            raw = str(answer.get(name, "")).encode("utf-8", "replace")
            if len(raw) > limits.max_output:
                cut = raw[: limits.max_output].decode("utf-8", "ignore")
                answer = {**answer, name: cut, "truncated": True}
    size = len(encode(answer))
    if size <= limits.max_message - 1024:
        return answer
    text = f"the answer has {size} bytes, the daemon takes {limits.max_message}"
    return {"ok": False, "code": "too_large", "error": text}


class Worker:
    """A process that serves one request after another, and the one that it works on."""

    def __init__(self, loop: Loop, life: LifePipe, serve: Callable[[int], None]) -> None:
        """Start the process. Raises OSError where none can be made."""
        self._loop = loop
        self._life = life
        ours, theirs = socket.socketpair()
        self._socket = ours
        try:
            self._number = fork(life, lambda: serve(theirs.detach()), keep=(theirs.fileno(),))
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self._out = b""
        self._is_full = False  # and waits until there is room for the rest
        self._unpacker = Unpacker()
        self._on_answer: Callable[[Answer | None, str], None] | None = None
        self._deadline: Timer | None = None
        self._kill: Timer | None = None
        self.overdue = False
        self._is_cancelled = False
        self.is_gone = False
        self.is_retired = False
        loop.watch(ours.fileno(), READ, self._on_ready)

    def ask(
        self, request: dict[str, Any], deadline_s: float, on_answer: Callable[[Answer | None, str], None]
    ) -> None:
        """Send a request; the answer is called back."""
        self._on_answer = on_answer
        self._is_cancelled = False
        self._out = pack(request)
        self._deadline = self._loop.later(deadline_s, self._time_out)
        self._on_ready(WRITE)

    def end(self) -> None:
        """End the process: it ends what it does first, and is killed where it does not."""
        self.is_retired = True
        if not self.is_gone and self._kill is None:
            self._send_signal(signal.SIGTERM)
            self._kill = self._loop.later(KILL_AFTER_S, lambda: self._send_signal(signal.SIGKILL))

    def cancel(self, action_id: str) -> None:
        """Ask the process to end what it does. Only where it does not, it is ended as a whole: it knows what
        other sessions did. Who asks again gives it no more time."""
        if self._is_cancelled:
            return
        self._is_cancelled = True
        self._out += pack({"method": "cancel", "action_id": action_id})
        self._on_ready(WRITE)
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._loop.later(CANCEL_S, self.end)

    def retire(self) -> None:
        """End the process once it is idle."""
        self.is_retired = True
        if self._on_answer is None:
            self._hang_up()

    def _time_out(self) -> None:
        self._deadline = None
        self.overdue = True
        self.end()

    def _send_signal(self, name: int) -> None:
        if not self.is_gone:
            os.kill(self._number, name)

    def _on_ready(self, events: int) -> None:
        try:
            if self._out:
                sent = self._socket.send(self._out)
                self._out = self._out[sent:]
            data = self._socket.recv(65_536) if events & READ else None
            found = self._unpacker.feed(data) if data else []
        except BlockingIOError:
            data, found = None, []
        except (OSError, Refused):
            data, found = b"", []
        if data == b"":
            self._hang_up()
            return
        if bool(self._out) is not self._is_full:
            self._is_full = not self._is_full
            self._loop.watch(self._socket.fileno(), READ | (WRITE if self._out else 0), self._on_ready)
        if found:
            self._tell(found[0], "")
            if self.is_retired:
                self._hang_up()

    def _hang_up(self) -> None:
        """Close the socket, whose end is the process's end, and take that."""
        self.is_retired = True
        if self._socket.fileno() >= 0:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
        self._reap()

    def _reap(self) -> None:
        if self.is_gone:
            return
        number, status = os.waitpid(self._number, os.WNOHANG)
        if not number:
            if self._kill is None:
                self._kill = self._loop.later(KILL_AFTER_S * 6, lambda: self._send_signal(signal.SIGKILL))
            self._loop.later(0.02, self._reap)
            return
        self.is_gone = True
        self._life.release(self._number)
        if self._kill is not None:
            self._kill.cancel()
        self._tell(None, describe_end(status))

    def _tell(self, answer: Answer | None, reason: str) -> None:
        on_answer, self._on_answer = self._on_answer, None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if on_answer is not None:
            on_answer(answer, reason)
