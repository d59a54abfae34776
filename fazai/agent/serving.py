"""Serves the daemon's requests: hello, heartbeat, actions, and outcomes that are delivered until they are
acknowledged.

The `Agent` outlives connections; a `Conversation` is one connection from hello to its end.
"""

from __future__ import annotations

import itertools
import time

from fazai import __version__
from fazai.agent.actions import ANSWER_S, Action, Policy
from fazai.agent.errors import Refused
from fazai.agent.link.errors import LinkError
from fazai.agent.messages import (
    CONTRACT,
    EFFECTS,
    MAX_PAYLOAD_BYTES,
    PartCollector,
    check_request,
    digest_request,
    encode,
    find_action_id,
    is_answer,
    is_newer,
    read_message,
    refuse,
    split_message,
)
from fazai.errors import FazaiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, Protocol

    from fazai.agent.actions import Actions
    from fazai.agent.link.connection import Link
    from fazai.agent.loop import Loop, Timer

    Message = dict[str, Any]
    Log = Callable[..., None]

    class Journal(Protocol):
        """The record of actions with effect (fazai/agent/journal)."""

        def begin(self, action_id: str, digest: str, method: str) -> Message | None: ...
        def finish(self, action_id: str, answer: Message) -> bool: ...
        def unacknowledged(self) -> Iterator[tuple[str, str, Message]]: ...
        def acknowledge(self, action_ids: Iterable[str]) -> None: ...
        def knows(self, action_id: str) -> bool: ...
        def acknowledged(self, action_ids: Iterable[str]) -> Iterator[tuple[str, str, Message]]: ...


HELLO_S = 10.0
_SAID_CHARS = 500  # of what the daemon says, in a sentence of ours
MISSED_HEARTBEATS = 3
#: Outcomes of earlier connections that are on their way at once.
_RESULTS = 8
_CAPABILITIES = ("time", "result", "renew", "telemetry.push", "part", "ack", "cancel", "outcomes", "trust")
_METHODS = (
    *("command.exec", "file.diff", "file.apply", "file.read", "file.list"),
    *("state.observe", "state.apply", "state.close"),
)
#: What in the policy has an agent serve more.
_POLICY_HINTS = {"state": "`reconcile` in agent.yml", "file": "`read: true` of `files` in agent.yml"}


class _Asked:
    """A request of ours that waits for its answer."""

    def __init__(self, on_answer: Callable[[Message], None], timer: Timer) -> None:
        self.on_answer = on_answer
        self.timer = timer


class Conversation:
    """One connection, from hello to its end."""

    def __init__(
        self,
        agent: Agent,
        link: Link,
        *,
        on_ready: Callable[[], None],
        on_lost: Callable[[LinkError], None],
    ) -> None:
        self._agent = agent
        self._loop = agent.loop
        self._link = link
        self._on_ready = on_ready
        self._on_lost: Callable[[LinkError], None] | None = on_lost
        self.policy: Policy | None = None
        self.is_current = False  # the daemon speaks 1.1
        self._collector: PartCollector | None = None
        self._asked: dict[str, _Asked] = {}
        self._results: Iterator[tuple[str, str, Message]] | None = None
        self._under_way = 0
        self._is_telling = False  # what the daemon asked for
        self._held: Message | None = None
        self._life_at = self._loop.clock()
        self._timers: dict[str, Timer] = {"hello": self._loop.later(HELLO_S, self._no_hello)}
        link.on_message = self._receive
        link.on_life = self._live
        link.on_lost = self.lose
        self._send(agent.hello())

    @property
    def is_open(self) -> bool:
        """Return whether requests can still be sent."""
        return self._on_lost is not None

    # -- the connection ---------------------------------------------------------------------------------

    def lose(self, error: LinkError) -> None:
        """The connection ended; who waits for it is told once."""
        on_lost, self._on_lost = self._on_lost, None
        for timer in [*self._timers.values(), *(asked.timer for asked in self._asked.values())]:
            timer.cancel()
        self._timers.clear()
        self._asked.clear()
        self._results = None
        if on_lost is not None:
            on_lost(error)

    def close(self, error: LinkError, code: int = 1000) -> None:
        """End the connection for a reason of ours."""
        if self._on_lost is not None:
            self._link.close(code, f"{error.code}: {error.message}" if code == 1008 else error.message)
            self.lose(error)

    def _live(self) -> None:
        self._life_at = self._loop.clock()

    def _no_hello(self) -> None:
        self.close(LinkError("timeout", f"the daemon did not answer hello within {HELLO_S:.0f} s"), 1001)

    def _beat(self) -> None:
        assert self.policy is not None
        self._link.ping()
        self._timers["beat"] = self._loop.later(self.policy.heartbeat_s, self._beat)

    def _watch(self) -> None:
        """End the connection once the daemon was silent for three heartbeats."""
        assert self.policy is not None
        limit_s = MISSED_HEARTBEATS * self.policy.heartbeat_s
        left_s = self._life_at + limit_s - self._loop.clock()
        if left_s <= 0:
            self.close(LinkError("closed", f"the daemon was silent for {limit_s:g} s"), 1001)
            return
        self._timers["watch"] = self._loop.later(left_s, self._watch)

    # -- messages ---------------------------------------------------------------------------------------

    def _send(self, message: Message) -> None:
        self._link.send(encode(message))

    def send(self, message: Message, on_sent: Callable[[], None] | None = None) -> None:
        """Send a message of any length that the contract allows."""
        assert self.policy is not None
        raw = encode(message)
        if len(raw) > self.policy.max_payload and self.is_current:
            parts = split_message(raw, message["action_id"], self.policy.max_payload)
            self._link.send_parts(parts, on_sent or _nothing)
            return
        self._link.send(raw)
        if on_sent is not None:
            on_sent()

    def request(
        self, message: Message, on_answer: Callable[[Message], None], timeout_s: float = ANSWER_S
    ) -> None:
        """Send a request of ours; its answer is called back, or the connection ends where none comes."""
        name = message["action_id"]
        late = LinkError("timeout", f"the daemon did not answer {message['method']} within {timeout_s:g} s")
        self._asked[name] = _Asked(on_answer, self._loop.later(timeout_s, lambda: self.close(late, 1001)))
        self.send(message)

    def _receive(self, raw: bytes) -> None:
        limit = MAX_PAYLOAD_BYTES if self.policy is None else self.policy.max_payload
        self._read(raw, limit)

    def _read(self, raw: bytes, limit_bytes: int, joined: str | None = None) -> None:
        """Take one message; `joined` is the id of the parts that it came in."""
        try:
            message = read_message(raw, limit_bytes=limit_bytes)
        except Refused as refused:
            self._refuse(refused, joined)
            return
        if joined is not None and (find_action_id(message) != joined or message.get("method") == "part"):
            self._refuse(Refused("bad_request", "the message in these parts has another `action_id`"), joined)
        elif is_answer(message):
            self._take_answer(message)
        elif self.policy is None:
            self.close(LinkError("protocol", "the daemon sent a request before it answered hello"), 1008)
        else:
            self._take_request(message)

    def _refuse(self, refused: Refused, action_id: str | None) -> None:
        if self.policy is None:
            self.close(LinkError("protocol", f"the daemon's first message: {refused.message}"), 1008)
            return
        self._send(refuse(refused, action_id))

    def _take_answer(self, message: Message) -> None:
        if self.policy is None:
            self._begin(message)
            return
        asked = self._asked.pop(find_action_id(message) or "", None)
        if asked is None:
            self.close(LinkError("bad_request", "the daemon answered what nobody asked"), 1008)
            return
        asked.timer.cancel()
        asked.on_answer(message)

    def _begin(self, answer: Message) -> None:
        """Take the answer to hello."""
        if not answer["ok"]:
            code, text = answer.get("code"), answer.get("error")
            self._agent.hello_refused(str(code))
            self.close(LinkError(str(code)[:64], f"the daemon refused this agent: {text}"[:_SAID_CHARS]))
            return
        try:
            self.policy = Policy(answer)
        except LinkError as error:
            self.close(error, 1008)
            return
        self._timers.pop("hello").cancel()
        self.is_current = is_newer(answer.get("contract"))
        self._collector = PartCollector(self.policy.max_message)
        self._link.expect(max(self.policy.max_payload, MAX_PAYLOAD_BYTES), self.policy.heartbeat_s)
        self._beat()
        self._watch()
        self._on_ready()
        if self.is_current:
            self._results = self._agent.journal.unacknowledged()
            self._deliver()

    # -- outcomes of earlier connections -----------------------------------------------------------------

    def _deliver(self) -> None:
        """Send the outcomes that were not acknowledged, oldest first; requests wait until then."""
        while self._results is not None and self._under_way < _RESULTS:
            found = self._next_result(self._results)
            if found is None:
                if self._under_way:
                    return
                self._results, self._is_telling = None, False
                break
            self._under_way += 1
            self.deliver(*found, on_done=self._delivered)
        held, self._held = self._held, None
        if self._results is None and held is not None:
            self._agent.take(held, self)

    def _next_result(self, results: Iterator[tuple[str, str, Message]]) -> tuple[str, str, Message] | None:
        """Return the next outcome; one that cannot be read any more keeps nobody from the others."""
        try:
            return next(results, None)
        except (OSError, FazaiError) as error:
            self._agent.log("error", f"outcomes cannot be read: {error}")
            return None

    def _delivered(self) -> None:
        self._under_way -= 1
        self._deliver()

    def deliver(
        self, action_id: str, method: str, answer: Message, on_done: Callable[[], None] | None = None
    ) -> None:
        """Send an outcome as `result`. One that the daemon will never take is not offered again."""

        def answered(said: Message) -> None:
            self._agent.fault("ack.received")
            code = said.get("code")
            if said["ok"] or code in ("not_found", "bad_request", "too_large", "conflict", "unknown_method"):
                if not said["ok"]:
                    self._agent.log("warning", f"the daemon refused an outcome: {code}", action_id=action_id)
                self._agent.journal.acknowledge([action_id])
            if on_done is not None:
                on_done()

        self.request({"method": "result", "action_id": action_id, "of": method, "answer": answer}, answered)
        self._agent.fault("result.sent")

    # -- the daemon's requests --------------------------------------------------------------------------

    def _take_request(self, message: Message) -> None:
        try:
            request = check_request(message)
        except Refused as refused:
            self._refuse(refused, find_action_id(message))
            return
        method = request["method"]
        if method == "part":
            self._take_part(request)
        elif method == "ack":
            self._agent.fault("ack.received")
            self._agent.journal.acknowledge(request["action_ids"])
        elif method == "cancel":
            self._cancel(request["action_id"])
        elif method == "trust":
            self._agent.take_trust(request, self)
        elif method == "outcomes":
            self._tell_outcomes(request["action_id"], request["action_ids"])
        elif self._results is None:
            self._agent.take(request, self)
        elif self._held is None:
            self._held = request
        else:
            self._refuse(Refused("conflict", "another action runs"), request["action_id"])

    def _take_part(self, part: Message) -> None:
        assert self._collector is not None
        assert self.policy is not None
        try:
            whole = self._collector.add(part)
        except Refused as refused:
            self._refuse(refused, part["action_id"])
            return
        if whole is not None:
            self._read(whole, self.policy.max_message, part["action_id"])

    def _tell_outcomes(self, action_id: str, asked: list[str]) -> None:
        """Say which actions never came, and deliver again those that the daemon had: one question at once."""
        if self._is_telling:
            self._refuse(Refused("conflict", "an earlier question is being answered"), action_id)
            return
        held, journal = self._held and self._held["action_id"], self._agent.journal
        known = {each for each in asked if each == held or journal.knows(each)}
        self.send({"ok": True, "action_id": action_id, "unknown": [one for one in asked if one not in known]})
        self._is_telling = True
        self._results = itertools.chain(self._results or (), journal.acknowledged(known))
        self._deliver()

    def _cancel(self, action_id: str) -> None:
        if self._held is not None and self._held["action_id"] == action_id:
            self._held = None
            self._refuse(Refused("cancelled", "it was ended before it began"), action_id)
        elif not self._agent.actions.cancel(action_id):
            self._refuse(Refused("not_found", "no such action runs here"), action_id)


def _nothing() -> None:
    return


class Agent:
    """The agent, beyond its connections: configuration, journal, and the action that runs."""

    def __init__(
        self,
        loop: Loop,
        config: Any,
        journal: Journal,
        actions: Actions,
        *,
        log: Log,
        instance: str,
        platform: str | None = None,
        now: Callable[[], float] = time.time,
        fault: Callable[[str], None],
    ) -> None:
        self.loop = loop
        self.config = config
        self.journal = journal
        self.actions = actions
        self.log = log
        self.fault = fault
        self._instance = instance
        self._platform = platform
        self._now = now
        self._plain_hello = False  # the daemon did not know the fields of 1.1
        self.conversation: Conversation | None = None
        #: Takes the authorities that the daemon offers; of whoever connects.
        self.take_trust: Callable[[Message, Conversation], None]
        #: The conversation in which the action that runs was asked for, last.
        self._asked_in: Conversation | None = None
        self._on_idle: Callable[[], None] | None = None

    def stop(self, on_idle: Callable[[], None]) -> None:
        """Take no more requests, end the action that runs, and call back once its outcome is told."""
        self._on_idle = on_idle
        running = self.actions.running
        if running is None:
            on_idle()
        else:
            self.actions.cancel(running.action_id, code="interrupted")

    def hello(self) -> Message:
        """Return the first message of a connection."""
        methods = [method for method in _METHODS if self._may_serve(method)]
        message = {
            "method": "hello",
            "agent_id": self.config.agent_id,
            "name": self.config.name or self.config.agent_id,
            "version": __version__,
            "capabilities": [*methods, *_CAPABILITIES],
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._now())),
        }
        if not self._plain_hello:
            message["contract"] = CONTRACT
            message["instance"] = self._instance
            message["reconcile"] = self.config.reconcile.mode
            if self._platform:
                message["platform"] = self._platform
        return message

    def hello_refused(self, code: str) -> None:
        """A daemon of 1.0 refuses fields that it does not know: the next hello has none of them."""
        self._plain_hello = code == "bad_request" and not self._plain_hello

    def _may_serve(self, method: str) -> bool:
        if method.startswith("state.") and self.config.reconcile.mode == "no":
            return False
        if method in ("file.read", "file.list") and not any(root.read for root in self.config.files):
            return False
        return self.actions.serves(method)

    def take(self, request: Message, asked_in: Conversation) -> None:
        """Carry out a request, or answer why not."""
        action_id, method = request["action_id"], request["method"]
        self.fault("request.received")
        try:
            digest = digest_request(request)
            if self._on_idle is not None:
                raise Refused("agent_offline", "the agent is about to end")
            running = self.actions.running
            if running is not None:
                if running.action_id != action_id:
                    raise Refused("conflict", "another action runs", "one at a time")
                if running.digest != digest:
                    raise Refused("conflict", "this `action_id` stands for another action, which runs")
                self._asked_in = asked_in  # asked again on a new connection: it gets the answer
                return
            if not self._may_serve(method):
                hint = _POLICY_HINTS.get(method.partition(".")[0])
                raise Refused("not_allowed", f"this agent does not serve {method}", hint)
            recorded = self.journal.begin(action_id, digest, method) if method in EFFECTS else None
        except FazaiError as error:
            asked_in.send(refuse(error, action_id))
            return
        except OSError as error:
            unreadable = Refused("unavailable", f"the journal cannot be read: {error.strerror}")
            asked_in.send(refuse(unreadable, action_id))
            return
        if recorded is not None:
            asked_in.send({**recorded, "action_id": action_id})
            return
        self._begin(request, digest, asked_in)

    def _begin(self, request: Message, digest: str, asked_in: Conversation) -> None:
        assert asked_in.policy is not None
        limits = asked_in.policy.limits(request)
        if "timeout" in request:
            request = {**request, "timeout": max(1, int(limits.timeout_s * 1000))}
        self._asked_in = asked_in
        self.log("info", f"{request['method']} began", action_id=request["action_id"])
        self.actions.start(Action(request, digest, self._done), self.config, limits)

    def _done(self, action: Action, answer: Message) -> None:
        """Keep the outcome of an action, then tell it."""
        self.fault("answer.received")
        how = "is done" if answer["ok"] else f"failed: {answer.get('code')}"
        self.log("info", f"{action.method} {how}", action_id=action.action_id)
        has_effect = action.method in EFFECTS
        if has_effect:
            self._keep(action.action_id, answer)
        asked_in, self._asked_in = self._asked_in, None
        self._tell(action, answer, asked_in)
        if self._on_idle is not None:
            self._on_idle()

    def _keep(self, action_id: str, answer: Message) -> None:
        """Write an outcome down. Where that cannot be, it is told all the same: the daemon knowing it is
        worth more than nobody knowing; the journal keeps it in memory, and tries again."""
        try:
            kept = self.journal.finish(action_id, answer)
        except OSError:
            kept = False
        if not kept:
            self.log("error", "the outcome is not on the disk yet", action_id=action_id)

    def _tell(self, action: Action, answer: Message, asked_in: Conversation | None) -> None:
        """Tell an outcome where it was asked for, else as one of an earlier connection."""
        has_effect, current = action.method in EFFECTS, self.conversation
        if current is None:
            return
        if current is asked_in:
            current.send(answer, lambda: self._sent(action, current))
        elif has_effect and current.is_current:
            current.deliver(action.action_id, action.method, answer)

    def _sent(self, action: Action, conversation: Conversation) -> None:
        """An answer left. A daemon that acknowledges nothing has it now, as far as anybody will ever know."""
        self.fault("answer.sent")
        assert conversation.policy is not None
        if action.method in EFFECTS and not conversation.policy.acknowledges:
            self.journal.acknowledge([action.action_id])
