"""A connection of one agent: the handshake, and what the agent sends after it. The same over a WebSocket and
over signed HTTP."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import msgspec

from fazai import __version__
from fazai.daemon.http.refusal import Refusal
from fazai.daemon.ingest.admission import Admission
from fazai.daemon.ingest.pipeline import Ingest
from fazai.daemon.runs.config import AgentsConfig
from fazai.daemon.southbound.messages import (
    MAX_MESSAGE_BYTES,
    Head,
    PartData,
    PartReader,
    PushData,
    ResultData,
    check_text,
    read_head,
    read_part,
    read_request,
    refusal,
    split_message,
    write_ack,
)
from fazai.daemon.southbound.own_requests import OwnRequests
from fazai.daemon.southbound.registry import AgentRegistry, RemoteAgent
from fazai.daemon.southbound.transport.websocket import Work
from fazai.daemon.southbound.trust import AgentTrust, Announce, wire_error
from fazai.errors import FazaiError, StateError
from fazai.store.daemon import AgentAction
from fazai.timestamps import utc_now
from fazai.wire.base import CONTRACT, MAX_PAYLOAD_BYTES, WireError, encode
from fazai.wire.events import Level
from fazai.wire.signature import MAX_SKEW_S
from fazai.wire.southbound import (
    ActionAnswer,
    Hello,
    HelloAnswer,
    Part,
    Policy,
    Renew,
    RenewAnswer,
    TimeAnswer,
    TimeRequest,
    decode_hello,
    decode_southbound_request,
)

POLICY_VIOLATION = 1008
_CLOSE_CODES = {"unavailable": 1012, "overloaded": 1013}  # come again soon, or later
#: What an agent that breaks the contract is told.
_LIES = frozenset({"bad_request", "bad_json", "too_large", "unknown_method", "hello_required"})
_ACKS = 1024
_TIMEOUTS = {
    "exec": 3_600_000,
    "observe": 3_600_000,
    "apply": 3_600_000,
    "diff": 60_000,
    "read": 60_000,
    "list": 60_000,
    "push": 30_000,
}


class Link(Protocol):
    """A carrier of the messages of a session."""

    protocol: Literal["websocket", "http"]
    address: str
    #: The client's certificate (DER); None without one. Over signed HTTP nobody asks for it.
    certificate: bytes | None
    #: The name that a signature proved; None: the certificate has to.
    signed_by: str | None

    @property
    def silent_since_s(self) -> float | None:
        """The loop's time of what came last; None while nothing can be heard."""
        ...

    def send(self, message: bytes) -> None:
        """Send a request to the agent."""
        ...

    def reply(self, message: bytes) -> None:
        """Answer the message that is being taken."""
        ...

    async def answers_ping(self, timeout_s: float) -> float | None: ...

    def close(self, code: int, reason: str) -> None: ...

    def abort(self, reason: str) -> None: ...


@dataclass(frozen=True, slots=True)
class SessionParts:
    """The parts that the sessions of all agents use."""

    config: AgentsConfig
    registry: AgentRegistry
    trust: AgentTrust
    ingest: Ingest
    buffers: Admission  # of messages that are put together of parts
    announce: Announce


class AgentSession:
    """A connection of an agent, from its first message on."""

    def __init__(self, parts: SessionParts, link: Link) -> None:
        self._parts = parts
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._reader = PartReader()
        self._held_bytes = 0
        self._acks: list[str] = []
        self._agent: RemoteAgent | None = None
        self._knows_1_1 = False
        self._capabilities: frozenset[str] = frozenset()
        self._ended = False
        self._own: OwnRequests | None = None
        self.agent_id = ""
        self.instance: str | None = None
        self.protocol = link.protocol
        self.address = link.address
        self.expires: float | None = None  # of the certificate

    @property
    def is_greeted(self) -> bool:
        """True once hello was accepted."""
        return self._agent is not None

    @property
    def link(self) -> Link:
        return self._link

    # -- what comes

    def receive(self, message: bytes) -> Work | None:
        """Take a message of the agent."""
        try:
            return self._receive(message)
        except WireError as error:
            self.end(error)
            return None

    def _receive(self, message: bytes) -> Work | None:
        check_text(message)
        head = read_head(message)
        if self._agent is None:
            return self._receive_first(head, message)
        if head.method is None:
            _check_answer(head)
            if self._own is not None and self._own.is_open(head.action_id):
                return self._take_own(self._own, head, message)
            self._agent.queue.take_answer(head, message, may_omit_id=not self._knows_1_1)
            return None
        if head.method == "part":
            return self._take_part(read_part(message))
        return self._take_request(read_request(message, head), head)

    async def _take_own(self, own: OwnRequests, head: Head, message: bytes) -> None:
        try:
            await own.take_answer(head, message)
        except WireError as error:
            self.end(error)

    def _receive_first(self, head: Head, message: bytes) -> Work | None:
        if head.method == "time":
            decode_southbound_request(message)
            self._link.reply(encode(TimeAnswer(time=utc_now())))
            return None
        if head.method is None:
            _check_answer(head)
            raise WireError("hello_required", "an answer came before hello", hint="send hello first")
        return self._greet(decode_hello(message))

    def _take_part(self, part: PartData | Part) -> Work | None:
        before = self._reader.bytes
        whole = self._reader.add(part)
        if whole is None:
            more = self._reader.bytes - before
            self._parts.buffers.hold("", more)
            self._held_bytes += more
            return None
        self._release_parts()
        check_text(whole)
        head = read_head(whole)
        if head.action_id != part.action_id:
            raise WireError("bad_request", f"the parts of {part.action_id} hold another action")
        assert self._agent is not None
        if head.method is None:
            _check_answer(head)
            self._agent.queue.take_answer(head, whole, may_omit_id=False)
            return None
        if head.method == "part":
            raise WireError("bad_request", "part is nothing that comes in parts")
        return self._take_request(read_request(whole, head), head)

    def _release_parts(self) -> None:
        if self._held_bytes:
            self._parts.buffers.release("", self._held_bytes)
            self._held_bytes = 0

    def _take_request(self, request: object, head: Head) -> Work | None:
        if isinstance(request, TimeRequest):
            self._link.reply(encode(TimeAnswer(time=utc_now())))
            return None
        if isinstance(request, PushData):
            return self._answering(request.action_id, functools.partial(self._push, request))
        if isinstance(request, ResultData):
            return self._answering(request.action_id, functools.partial(self._take_result, request))
        if isinstance(request, Renew):
            return self._answering(request.action_id, functools.partial(self._renew, request))
        raise WireError("bad_request", f"{head.method} is nothing that an agent sends after hello")

    async def _answering(self, action_id: str, work: Callable[[], Awaitable[bytes]]) -> None:
        """Send what the work returns, or its refusal."""
        try:
            answer = await work()
        except WireError as error:
            answer = refusal(error, action_id)
        except StateError:
            answer = refusal(WireError("unavailable", "the store cannot take it now"), action_id)
        self._link.reply(answer)

    # -- the handshake

    async def _greet(self, hello: Hello) -> None:
        try:
            self._check(hello)
            self.agent_id, self.instance = hello.agent_id, hello.instance
            self._capabilities = frozenset(hello.capabilities)
            self._knows_1_1 = _version_of(hello) >= (1, 1)
            agent = await self._parts.registry.admit(self, hello)
        except WireError as error:
            self._refuse(error, hello)
            return
        if self._ended:  # the connection went away meanwhile
            self._parts.registry.end(agent, self, "the connection ended")
            return
        self._agent = agent
        self._link.reply(encode(self._hello_answer()))
        self._parts.registry.ready(agent, self)
        serves = self.serves if self._knows_1_1 else _serves_nothing
        self._own = OwnRequests(self._parts.registry, self._parts.trust, self._link, agent, serves)
        self._own.ask_outcomes()
        self._own.offer_trust()

    def _check(self, hello: Hello) -> None:
        """Check who says hello, its clock and its version. Raises WireError."""
        now = time.time()
        if self._link.signed_by is None:
            try:
                self._parts.trust.check_peer(self._link.certificate, hello.agent_id, now)
            except FazaiError as error:
                raise wire_error(error) from None
            assert self._link.certificate is not None
            self.expires = self._parts.trust.expires(self._link.certificate)
        elif self._link.signed_by != hello.agent_id:
            text = f"the request is signed by {self._link.signed_by}, and says that it is {hello.agent_id}"
            raise WireError("bad_signature", text)
        else:
            try:
                self._parts.trust.check_name(hello.agent_id)
            except FazaiError as error:
                raise wire_error(error) from None
        skew_s = abs(now - hello.timestamp.timestamp())
        if skew_s > MAX_SKEW_S:
            text = f"the clocks differ by {skew_s:.0f} s, {MAX_SKEW_S} s are allowed"
            raise WireError("bad_clock", text, hint="set the clock")
        if _version_of(hello)[0] != 1:
            text = f"the agent speaks contract {hello.contract}, and this daemon {CONTRACT}"
            raise WireError("bad_version", text, hint=f"fazai {__version__} has the agent that fits")

    def _hello_answer(self) -> HelloAnswer:
        config = self._parts.config
        new: dict[str, Any] = {"max_message": MAX_MESSAGE_BYTES, "ack": True} if self._knows_1_1 else {}
        policy = Policy(
            timeouts=_TIMEOUTS,
            max_payload=MAX_PAYLOAD_BYTES,
            max_output=config.output_bytes,
            heartbeat_ms=int(config.heartbeat_s * 1000),
            **new,
        )
        return HelloAnswer(policy=policy, contract=CONTRACT if self._knows_1_1 else "1.0")

    def _refuse(self, error: WireError, hello: Hello) -> None:
        registry = self._parts.registry
        registry.refusals[error.code] += 1
        registry.note_refusal(hello.agent_id, self.address, error)
        self._link.reply(refusal(error))
        self._close(error)

    # -- requests of the agent

    async def _push(self, request: PushData) -> bytes:
        """Store a record of telemetry; durable when it returns. Raises WireError, StateError."""
        try:
            reply = await self._parts.ingest.accept(bytes(request.payload), signer=self.agent_id)
        except Refusal as error:
            raise WireError(error.code, error.message, hint=error.hint) from None
        if reply.status != 200:
            found = msgspec.json.decode(reply.body)
            raise WireError("bad_request", str(found["errors"][0]["error"])[:300])
        return encode(ActionAnswer(action_id=request.action_id))

    async def _take_result(self, request: ResultData) -> bytes:
        """Store an outcome that was not acknowledged. Raises WireError, StateError."""
        answer = bytes(request.answer)
        head = read_head(answer)
        if head.action_id != request.action_id or head.ok is None:
            raise WireError("bad_request", "`answer` is no answer of this action")
        outcomes = self._parts.registry.outcomes
        found = await outcomes.find(self.agent_id, request.action_id)
        note = "" if found is not None else " (it is not known here who asked for it)"
        digest, client = (found.digest, found.client) if found is not None else ("", "")
        record = AgentAction(
            *(self.agent_id, request.action_id, request.of, digest, client, None, time.time(), answer)
        )
        new = await outcomes.finish(record, head, note)
        if new:
            outcomes.count_late(request.of, head)
        if new and self._agent is not None:
            self._agent.note_outcome(head)
        if self._agent is not None:
            self._agent.queue.settle(request.action_id)
        return encode(ActionAnswer(action_id=request.action_id))

    async def _renew(self, request: Renew) -> bytes:
        """Issue the next certificate. Raises WireError, StateError."""
        certificate = self._link.certificate
        if certificate is None:
            raise WireError("bad_certificate", "there is no certificate to renew", hint="enrol the agent")
        assert self._agent is not None
        self._agent.count_renewal()
        try:
            issued = await asyncio.to_thread(
                self._parts.trust.renew, certificate, request.csr, self._parts.announce
            )
        except StateError:
            raise
        except FazaiError as error:
            raise wire_error(error) from None
        return encode(RenewAnswer(action_id=request.action_id, certificate=issued.pem))

    # -- what is sent

    def send_message(self, action_id: str, message: bytes) -> None:
        """Send a request, in parts where it is long. Raises WireError(too_large)."""
        if len(message) <= MAX_PAYLOAD_BYTES:
            self._link.send(message)
            return
        if not self.serves("part"):
            text = f"the message has {len(message)} bytes, and {self.agent_id} takes {MAX_PAYLOAD_BYTES}"
            raise WireError("too_large", text)
        if len(message) > MAX_MESSAGE_BYTES:
            text = f"the message has {len(message)} bytes, the limit is {MAX_MESSAGE_BYTES}"
            raise WireError("too_large", text)
        for part in split_message(action_id, message, MAX_PAYLOAD_BYTES):
            self._link.send(part)

    def serves(self, method: str) -> bool:
        """Return whether the agent said that it serves a method, of the contract that it speaks."""
        return method in self._capabilities

    @property
    def knows_1_1(self) -> bool:
        """True when the agent speaks contract 1.1."""
        return self._knows_1_1

    def acknowledge(self, action_id: str) -> None:
        """Tell the agent that an outcome is durable; several at once where they come together."""
        if not self._knows_1_1 or not self.serves("ack"):
            return
        if not self._acks:
            self._loop.call_soon(self._send_acks)
        self._acks.append(action_id)

    def _send_acks(self) -> None:
        acks, self._acks = self._acks, []
        for place in range(0, len(acks), _ACKS):
            self._link.send(write_ack(tuple(acks[place : place + _ACKS])))

    def offer_trust(self) -> None:
        """Tell the agent which CAs to trust, where it does not know."""
        if self._own is not None and not self._ended:
            self._own.offer_trust()

    async def answers_ping(self, timeout_s: float) -> float | None:
        """Return how long the agent took to answer a ping; None where it does not."""
        return await self._link.answers_ping(timeout_s)

    @property
    def silent_s(self) -> float:
        """The seconds since something was heard of the agent."""
        since_s = self._link.silent_since_s
        return self._loop.time() - since_s if since_s is not None else 0.0

    def check_alive(self, now_s: float, limit_s: float, polled_s: float) -> None:
        """Drop a connection that was silent for `limit_s`, or `polled_s` where it is signed HTTP."""
        since_s = self._link.silent_since_s
        if since_s is None or not self.is_greeted:
            return
        silent_s = now_s - since_s
        if silent_s > (limit_s if self.protocol == "websocket" else polled_s):
            self.drop(f"no heartbeat for {silent_s:.3g} s")

    # -- the end

    def end(self, error: WireError) -> None:
        """Close the connection with a reason; an agent that breaks the contract is announced."""
        registry = self._parts.registry
        registry.refusals[error.code] += 1
        if self._agent is None:
            self._link.reply(refusal(error))
            registry.note_refusal(None, self.address, error)
        self._close(error)

    def _close(self, error: WireError) -> None:
        reason = f"{error.code}: {error.message}"
        self._link.close(_CLOSE_CODES.get(error.code, POLICY_VIOLATION), reason)
        self.lose(reason)

    def drop(self, reason: str) -> None:
        """Cut the connection off without a word."""
        self._link.abort(reason)
        self.lose(reason)

    def lose(self, reason: str) -> None:
        """Note that the connection has ended."""
        if self._ended:
            return
        level: Level = "error" if reason.partition(":")[0] in _LIES else "warning"
        self._ended = True
        if self._own is not None:
            self._own.stop()
        self._reader.clear()
        self._release_parts()
        if self._agent is not None:
            self._parts.registry.end(self._agent, self, reason, level)


def _check_answer(head: Head) -> None:
    """Refuse a message that is neither a request nor an answer. Raises WireError."""
    if head.ok is None:
        raise WireError("bad_request", "a message has neither `method` nor `ok`")


def _serves_nothing(method: str) -> bool:
    """Tell of an agent of 1.0 that it takes no request of the daemon's own."""
    return False


def _version_of(hello: Hello) -> tuple[int, int]:
    major, _, minor = (hello.contract or "1.0").partition(".")
    return int(major), int(minor)
