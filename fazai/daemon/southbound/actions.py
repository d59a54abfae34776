"""The actions of one agent: one in flight, the others wait in their order.

An action with an effect is recorded before it is sent, and its outcome before it is acknowledged.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from fazai.daemon.southbound.messages import Head, write_cancel
from fazai.daemon.southbound.outcomes import Outcomes, recorded_answer
from fazai.errors import StateError
from fazai.store.daemon import AgentAction
from fazai.wire.base import WireError

#: Is told the answer as it came, or why there is none.
Waiter = Callable[["bytes | WireError"], object]

QUEUED = 64
_QUEUED_S = 3600.0  # that one waits for its turn: as long as the longest action may take
GRACE_S = 15.0  # past its timeout, for the agent to end a tree of processes and to say so
#: Of methods that name no timeout.
_TIMEOUTS_S = {
    "file.diff": 60.0,
    "file.apply": 60.0,
    "file.read": 60.0,
    "file.list": 60.0,
    "state.close": 30.0,
}
_RETRY_S = 0.25  # after an agent said that another action runs
_TRIES = int(_QUEUED_S / _RETRY_S)
_BUSY = "another action runs"  # as the contract has it
_CANCELLED = 64  # whose late `not_found` is no lie


class AgentPort(Protocol):
    """The agent as long as it is connected."""

    agent_id: str

    def send_message(self, action_id: str, message: bytes) -> None:
        """Send a request, in parts where it is long. Raises WireError(too_large)."""
        ...

    def serves(self, method: str) -> bool: ...

    def acknowledge(self, action_id: str) -> None:
        """Tell the agent that an outcome is durable."""
        ...

    def end(self, error: WireError) -> None:
        """Close the connection with a reason."""
        ...


@dataclass(slots=True, eq=False)
class Action:
    """A request of a client. `waiters` are who wants the answer, by client."""

    action_id: str
    method: str
    message: bytes
    timeout_s: float
    client: str
    digest: str
    has_effect: bool
    waiters: dict[object, Waiter] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None
    sent_s: float | None = None
    tries: int = 0  # that the agent was busy
    begun_s: float = 0.0  # the same by a finer clock

    @classmethod
    def of(cls, head: Head, message: bytes, *, client: str, digest: str, effect: bool) -> Action:
        """Return the action of a request whose head was checked."""
        assert head.method is not None
        assert head.action_id is not None
        timeout_s = _TIMEOUTS_S.get(head.method, (head.timeout or 30_000) / 1000)
        return cls(head.action_id, head.method, message, timeout_s, client, digest, effect)

    def tell(self, answer: bytes | WireError) -> None:
        """Give the answer to all who wait for it."""
        waiters, self.waiters = self.waiters, {}
        for waiter in waiters.values():
            waiter(answer)


class ActionQueue:
    """The actions of one agent, connected or not. `busy` is told when one with an effect begins and when it
    has ended, `answered` the answer of one without; `grace_s` returns how long an answer may take past its
    timeout."""

    def __init__(
        self,
        agent_id: str,
        outcomes: Outcomes,
        busy: Callable[[bool, Head | None], object],
        answered: Callable[[Head], object],
        grace_s: Callable[[], float] = lambda: GRACE_S,
    ) -> None:
        self._grace_s = grace_s
        self.agent_id = agent_id
        self._outcomes = outcomes
        self._busy = busy
        self._answered = answered
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Action] = deque()
        self._running: Action | None = None
        self._dangling: Action | None = None  # was sent on an earlier connection, and may still run
        self._retry: asyncio.TimerHandle | None = None
        self._port: AgentPort | None = None
        self._has_answered = False  # an action of this process of the daemon
        self._cancelled: deque[str] = deque(maxlen=_CANCELLED)
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._waiting) + (self._running is not None)

    @property
    def running(self) -> Action | None:
        """The action in flight."""
        return self._running

    # -- clients

    def submit(self, action: Action, client: object, waiter: Waiter) -> None:
        """Take an action; the `waiter` of a client is told its answer. Raises WireError: agent_offline,
        overloaded, conflict."""
        if self._port is None:
            raise WireError("agent_offline", f"{self.agent_id} is not connected")
        known = self._find(action.action_id)
        if known is not None:
            if known.digest != action.digest or known.method != action.method:
                raise WireError("conflict", f"{action.action_id} is another action that is not finished")
            known.waiters[client] = waiter
            return
        if len(self._waiting) >= QUEUED:
            raise WireError("overloaded", f"{QUEUED} actions wait for {self.agent_id} already")
        action.waiters[client] = waiter
        action.timer = self._loop.call_later(_QUEUED_S, self._time_out_queued, action)
        self._waiting.append(action)
        self._next()

    def cancel(self, action_id: str) -> bool:
        """End an action; its own answer tells. Return whether it is known here."""
        action = self._find(action_id)
        if action is None:
            return False
        if action is not self._running:
            self._waiting.remove(action)
            self._stop_timer(action)
            action.tell(WireError("cancelled", "it was cancelled before it was sent"))
        elif action.sent_s is not None and self._port is not None and self._port.serves("cancel"):
            self._cancelled.append(action_id)
            self._port.send_message(action_id, write_cancel(action_id))
        return True

    def drop_client(self, client: object) -> None:
        """Forget a client that went away: what only it wanted is not sent any more, and a program that runs
        for it alone is ended."""
        for action in [*self._waiting]:
            if action.waiters.pop(client, None) is not None and not action.waiters:
                self._waiting.remove(action)
                self._stop_timer(action)
        running = self._running
        gone = running is not None and running.waiters.pop(client, None) is not None
        if running is not None and gone and not running.waiters and running.method == "command.exec":
            self.cancel(running.action_id)

    def is_open(self, action_id: str) -> bool:
        """Return whether an action waits, or was sent on this connection and has no answer."""
        return self._find(action_id) is not None

    def _find(self, action_id: str) -> Action | None:
        found: Iterable[Action] = self._waiting
        if self._running is not None:
            found = (self._running, *found)
        return next((one for one in found if one.action_id == action_id), None)

    # -- the connection

    def connect(self, port: AgentPort) -> None:
        """Go on with this connection of the agent."""
        self._port = port
        self._next()

    def disconnect(self, reason: str) -> None:
        """The connection ended: what was sent is unsure, what was not is refused."""
        self._port = None
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        running, self._running = self._running, None
        if running is not None:
            self._stop_timer(running)
            if running.sent_s is not None:
                self._leave_dangling(running)
                why = f"the connection to {self.agent_id} ended while it ran: {reason}"
                running.tell(WireError("agent_lost", why, hint="what became of it is not known"))
            else:
                running.tell(WireError("agent_offline", f"{self.agent_id} went away before it was sent"))
            if running.has_effect:
                self._busy(False, None)
        waiting, self._waiting = self._waiting, deque()
        for action in waiting:
            self._stop_timer(action)
            action.tell(WireError("agent_offline", f"{self.agent_id} went away before it was sent"))

    def _leave_dangling(self, action: Action) -> None:
        """Remember an action that may still run on the agent: until its result comes, or it can no longer
        run, the next one waits."""
        assert action.sent_s is not None
        self._dangling = action
        left_s = action.sent_s + action.timeout_s + self._grace_s() - self._loop.time()
        action.timer = self._loop.call_later(max(0.0, left_s), self.settle, action.action_id)

    def settle(self, action_id: str) -> None:
        """Note that an action of an earlier connection does not run any more."""
        if self._dangling is not None and self._dangling.action_id == action_id:
            self._forget_dangling()
            self._next()

    def restart(self) -> None:
        """Note that the agent's process is another one: nothing of before runs any more."""
        if self._dangling is not None:
            self.settle(self._dangling.action_id)

    # -- one after the other

    def _next(self) -> None:
        if self._port is None or self._running is not None or self._retry is not None:
            return
        action = self._choose()
        if action is None:
            return
        self._running = action
        self._waiting.remove(action)
        self._stop_timer(action)
        if not action.has_effect:
            self._send(action)
            return
        self._busy(True, None)
        task = self._loop.create_task(self._record_and_send(action))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _choose(self) -> Action | None:
        """Return the action that may be sent now. Where one of an earlier connection may still run, it is
        that one, asked for again: the agent answers it once it is done. The others wait for its `result`; one
        without an effect has none, so that they are tried."""
        dangling = self._dangling
        if dangling is not None:
            again = next((one for one in self._waiting if one.action_id == dangling.action_id), None)
            if again is not None:
                self._forget_dangling()
                return again
            if dangling.has_effect:
                return None
        return self._waiting[0] if self._waiting else None

    def _forget_dangling(self) -> None:
        if self._dangling is not None:
            self._stop_timer(self._dangling)
            self._dangling = None

    def _try_again(self, action: Action) -> None:
        """Have an action sent again that the agent did not begin, as another one still runs there."""
        self._stop_timer(action)
        self._running, action.sent_s = None, None
        action.tries += 1
        action.timer = self._loop.call_later(_QUEUED_S, self._time_out_queued, action)
        self._waiting.appendleft(action)
        self._retry = self._loop.call_later(_RETRY_S, self._go_on)

    def _go_on(self) -> None:
        self._retry = None
        self._next()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._outcomes.report(f"an action of {self.agent_id}: {error!r}")

    async def _record_and_send(self, action: Action) -> None:
        port = self._port
        record = AgentAction(
            self.agent_id, action.action_id, action.method, action.digest, action.client, time.time()
        )
        try:
            found = await self._outcomes.begin(record)
        except StateError as error:
            self._finish(action, WireError("unavailable", f"it could not be recorded: {error.message}"))
            return
        if self._running is not action or self._port is not port:
            # the connection ended, and whoever asked was told
            if found is None and not self.is_open(action.action_id):
                await self._outcomes.settle_unsent(record)
            return
        answer = recorded_answer(action.action_id, action.digest, found)
        if answer is not None:
            self._finish(action, answer)
        elif not self._send(action) and found is None and not self.is_open(action.action_id):
            await self._outcomes.settle_unsent(record)

    def _send(self, action: Action) -> bool:
        """Send it, and return whether that could be; whoever asked is told where not."""
        assert self._port is not None
        try:
            self._port.send_message(action.action_id, action.message)
        except WireError as error:
            self._finish(action, error)
            return False
        self._outcomes.fault("action.sent")
        action.sent_s, action.begun_s = self._loop.time(), time.perf_counter()
        action.timer = self._loop.call_later(action.timeout_s + self._grace_s(), self._time_out, action)
        return True

    def _finish(self, action: Action, answer: bytes | WireError, head: Head | None = None) -> None:
        """End the action in flight."""
        self._stop_timer(action)
        self._running = None
        action.tell(answer)
        if action.has_effect:
            self._busy(False, head)
        elif head is not None:
            self._answered(head)
        self._next()

    def take_answer(self, head: Head, answer: bytes, *, may_omit_id: bool) -> None:
        """Take an answer of the agent. Raises WireError(bad_request) where nothing is open that it could be
        of."""
        action = self._running
        is_open = action is not None and action.sent_s is not None
        if head.action_id is None and not (may_omit_id and is_open):
            raise WireError("bad_request", "an answer has no `action_id`")
        if not is_open or (head.action_id is not None and head.action_id != action.action_id):  # type: ignore[union-attr]
            if head.code == "not_found" and head.action_id in self._cancelled:
                return  # it was cancelled when it had just ended
            raise WireError("bad_request", f"an answer to {head.action_id}, which is not open")
        assert action is not None
        assert action.sent_s is not None
        if self._is_busy(head) and action.tries < _TRIES:
            self._try_again(action)
            return
        self._forget_dangling()  # nothing else can run there
        self._has_answered = True
        self._outcomes.count(action.method, head, time.perf_counter() - action.begun_s)
        if action.has_effect:
            self.store_outcome(action.method, action.action_id, head, answer, action)
        self._finish(action, answer, head)

    def _is_busy(self, head: Head) -> bool:
        """Return whether an answer says that an action of an earlier connection runs still; after a start of
        the daemon that may be one which is not known here."""
        of_before = not self._has_answered and (head.error or "").startswith(_BUSY)
        return head.code == "conflict" and (self._dangling is not None or of_before)

    def store_outcome(
        self, method: str, action_id: str, head: Head, answer: bytes, action: Action | None = None
    ) -> None:
        """Have an outcome recorded, and acknowledge it then."""
        digest, client = (action.digest, action.client) if action is not None else ("", "")
        record = AgentAction(self.agent_id, action_id, method, digest, client, None, time.time(), answer)
        task = self._loop.create_task(self._store(record, head))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def _store(self, record: AgentAction, head: Head) -> None:
        try:
            await self._outcomes.finish(record, head)
        except StateError as error:  # the agent keeps it, and delivers it again
            self._outcomes.report(f"the outcome of {record.action_id} is not stored: {error}")
            return
        if self._port is not None:
            self._port.acknowledge(record.action_id)
            self._outcomes.fault("outcome.acknowledged")

    # -- time

    def _time_out_queued(self, action: Action) -> None:
        self._waiting.remove(action)
        action.tell(WireError("timeout", f"it waited {_QUEUED_S:g} s for its turn, and was not sent"))

    def _time_out(self, action: Action) -> None:
        port = self._port
        after = f"{self.agent_id} did not answer within {action.timeout_s + self._grace_s():g} s"
        error = WireError("timeout", after, hint="what became of it is not known")
        action.tell(error)
        if port is not None:
            port.end(error)

    def _stop_timer(self, action: Action) -> None:
        if action.timer is not None:
            action.timer.cancel()
            action.timer = None
