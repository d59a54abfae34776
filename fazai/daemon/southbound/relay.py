"""Clients that ask agents through the daemon: the command line and its providers, over the local socket
`agents.sock` or with a token over the port for agents.

A frame is `{"id": N, "agent": NAME, "message": {…}}`; its answer `{"id": N, "answer": {…}}`, or `{"id": N,
"error": …, "code": …}` where the agent could not be asked.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
from dataclasses import dataclass

from websockets.datastructures import MultipleValuesError
from websockets.http11 import Request

from fazai.daemon.agent_states import agent_row
from fazai.daemon.events.announcer import AUDIT
from fazai.daemon.http.auth import Guard, Principal, local_principal
from fazai.daemon.http.refusal import Refusal
from fazai.daemon.http.server import peer_credentials
from fazai.daemon.ingest.admission import Admission
from fazai.daemon.southbound.actions import Action
from fazai.daemon.southbound.messages import (
    MAX_FRAME_BYTES,
    AskedFor,
    Envelope,
    Frame,
    Head,
    answer_frame,
    check_for_1_0,
    check_request,
    error_frame,
    has_effect,
    list_answer,
    read_frame,
)
from fazai.daemon.southbound.outcomes import recorded_answer
from fazai.daemon.southbound.registry import AgentRegistry, RemoteAgent
from fazai.daemon.southbound.transport.websocket import WebSocketConnection, Work
from fazai.errors import StateError
from fazai.service.log import Log
from fazai.store.daemon import UNKNOWN
from fazai.wire.base import WireError
from fazai.wire.daemon import HTTP_STATUS

_OPEN = 2048  # requests of one client that have no answer yet; then it is not read
_UNSENT_BYTES = 2 * MAX_FRAME_BYTES  # answers that a client does not take; then it is cut off
_CLIENTS = 256
_IN_THREAD_BYTES = 256 << 10  # a frame from this size on
_PROTOCOL_ERROR = 1008
#: With these nothing was sent: what an earlier request of the same id came to is still told.
_NOT_SENT = frozenset({"agent_offline", "unknown_method"})


@dataclass(frozen=True, slots=True)
class RelayParts:
    """The parts that the connections of all clients use; `path` is that of the local socket."""

    registry: AgentRegistry
    guard: Guard
    log: Log
    buffers: Admission  # of requests that wait or run
    clients: set[RelayClient]
    path: str


class RelayClient:
    """The connection of one client; `local`: by the local socket."""

    def __init__(self, parts: RelayParts, *, local: bool) -> None:
        self._parts = parts
        self._local = local
        self._loop = asyncio.get_running_loop()
        self._open: dict[int, tuple[RemoteAgent, int]] = {}  # with the bytes of the request
        self._numbers = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_held = False
        self.connection: WebSocketConnection | None = None
        self.who: Principal | None = None

    # -- the connection

    async def open(self, request: Request) -> tuple[int, str] | None:
        """Let a client in that may ask agents."""
        connection = self._connected()
        address = str((connection.transport_info("peername") or ("",))[0]) or "the local socket"
        try:
            await self._parts.guard.refresh()
            who = self._identify(request, address)
            if who is None or not who.has_role("operator"):
                self._refuse(who)
            if len(self._parts.clients) >= _CLIENTS:
                raise Refusal("overloaded", f"{_CLIENTS} clients are connected already")
        except StateError:
            return 503, "unavailable: the store cannot be read now"
        except WireError as error:
            text = f"refused: {request.path} from {address}: {error.code}: {error.message}"
            self._parts.log.say("warning", text, logger=AUDIT)
            return HTTP_STATUS.get(error.code, 500), f"{error.code}: {error}"
        self.who = who
        self._parts.clients.add(self)
        connection.on_drained = self._go_on
        return None

    def _refuse(self, who: Principal | None) -> None:
        hint = "from: fazai token create NAME --role operator"
        if who is None or who.role is None:
            raise Refusal("unauthorized", "a token is needed", hint=hint)
        raise Refusal("forbidden", f"{who.name} is {who.role}, this needs operator", hint=hint)

    def _identify(self, request: Request, address: str) -> Principal | None:
        connection = self._connected()
        if self._local:
            peer = peer_credentials(connection.transport_info("socket"))
            return local_principal(peer, self._parts.path)
        try:
            header = request.headers.get("Authorization")
        except MultipleValuesError:
            raise Refusal("bad_request", "there are two Authorization headers") from None
        return self._parts.guard.identify_bearer(header, address)

    def _connected(self) -> WebSocketConnection:
        assert self.connection is not None
        return self.connection

    def lose(self, reason: str) -> None:
        """Forget the client: what only it waits for is not sent any more."""
        self._parts.clients.discard(self)
        for number, (agent, size) in list(self._open.items()):
            agent.queue.drop_client((self, number))
            self._close_request(number, size)

    def fail(self, error: BaseException) -> None:
        """Note a defect of ours."""
        self._parts.log.say("error", f"the relay to agents: {error!r}", logger="fazai.daemon.agents")

    # -- requests

    def receive(self, message: bytes) -> Work | None:
        """Take a frame; a long one is read in a thread, as agents must not wait for that."""
        if len(message) > _IN_THREAD_BYTES:
            return self._take_long(message)
        try:
            self._take(read_frame(message))
        except WireError as error:
            self._refuse_frame(error)
        return None

    async def _take_long(self, message: bytes) -> None:
        try:
            frame = await asyncio.to_thread(read_frame, message)
            if self._connected().is_open:
                self._take(frame)
        except WireError as error:
            self._refuse_frame(error)

    def _refuse_frame(self, error: WireError) -> None:
        self._connected().close(_PROTOCOL_ERROR, f"{error.code}: {error.message}")

    def _take(self, frame: Frame) -> None:
        envelope, request = frame
        try:
            if isinstance(request, WireError):
                raise request
            if request is None:
                rows = map(agent_row, self._parts.registry.rows())
                self._send(answer_frame(envelope.id, list_answer(rows)))
            elif request.head.method == "cancel":
                self._cancel(envelope, request.head)
            else:
                self._ask(envelope.id, self._find(envelope.agent or ""), request)
        except WireError as error:
            self._send(error_frame(envelope.id, error))

    def _find(self, agent_id: str) -> RemoteAgent:
        agent = self._parts.registry.find(agent_id)
        if agent is None:
            hint = "those that were enrolled: fazai pki list"
            raise WireError("agent_unknown", f"there is no agent {agent_id[:64]!r}", hint=hint)
        return agent

    def _cancel(self, envelope: Envelope, head: Head) -> None:
        assert envelope.agent is not None
        if head.action_id is None:
            raise WireError("bad_request", "`action_id` is missing")
        if not self._find(envelope.agent).queue.cancel(head.action_id):
            raise WireError("not_found", f"{head.action_id} is not open")
        self._send(answer_frame(envelope.id, b'{"ok":true}'))

    def _ask(self, id_: int, agent: RemoteAgent, request: AskedFor) -> None:
        head, message, digest = request
        check_request(head)
        assert head.method is not None
        effect = has_effect(head.method)
        who = self.who.name if self.who is not None else ""
        action = Action.of(head, message, client=who, digest=digest, effect=effect)
        size = len(message)
        self._parts.buffers.hold("", size)
        number = next(self._numbers)
        waiter = functools.partial(self._answer, id_, number, agent.agent_id, action)
        self._open[number] = agent, size
        try:
            _check_served(agent, head.method, message)
            agent.queue.submit(action, (self, number), waiter)
        except WireError as error:
            why = agent.entry.row.last_error
            if error.code == "agent_offline" and why:
                error = WireError(error.code, f"{error.message}: {why}")
            waiter(error)
            return
        if effect:
            text = f"{who} asked {agent.agent_id} for {head.method}"
            ids = {"agent_id": agent.agent_id, "action_id": head.action_id, "target": agent.agent_id}
            self._parts.log.say("info", text, logger=AUDIT, **ids)
        self._hold_back()

    # -- answers

    def _answer(
        self, id_: int, number: int, agent_id: str, action: Action, answer: bytes | WireError
    ) -> None:
        if isinstance(answer, WireError) and answer.code in _NOT_SENT and action.has_effect:
            task = self._loop.create_task(self._answer_recorded(id_, number, agent_id, action, answer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._tell(id_, number, answer)

    async def _answer_recorded(
        self, id_: int, number: int, agent_id: str, action: Action, refused: WireError
    ) -> None:
        """Answer an action that cannot be sent now with what became of it when it was asked for before."""
        try:
            found = await self._parts.registry.outcomes.find(agent_id, action.action_id)
        except StateError:
            found = None
        answer = recorded_answer(action.action_id, action.digest, found)
        if answer is None and found is not None and (found.done is None or found.answer == UNKNOWN):
            text = f"{action.action_id} was sent before, and its outcome has not come: {refused.message}"
            answer = WireError("agent_lost", text, hint="what became of it is not known yet")
        if number in self._open:
            self._tell(id_, number, answer or refused)

    def _tell(self, id_: int, number: int, answer: bytes | WireError) -> None:
        if number in self._open:
            self._close_request(number, self._open[number][1])
        if isinstance(answer, WireError):
            self._send(error_frame(id_, answer))
        else:
            self._send(answer_frame(id_, answer))
        self._go_on()

    def _close_request(self, number: int, size: int) -> None:
        if self._open.pop(number, None) is not None:
            self._parts.buffers.release("", size)

    def _send(self, frame: bytes) -> None:
        connection = self._connected()
        connection.send(frame)
        if connection.unsent_bytes > _UNSENT_BYTES:
            connection.abort("it takes no answers")
        self._hold_back()

    def _hold_back(self) -> None:
        """Read nothing more of a client that has asked for much, or takes no answers."""
        connection = self._connected()
        if not self._is_held and (connection.is_full or len(self._open) >= _OPEN):
            self._is_held = True
            connection.hold()

    def _go_on(self) -> None:
        connection = self._connected()
        if self._is_held and not connection.is_full and len(self._open) < _OPEN // 2:
            self._is_held = False
            connection.let_go()

    def end(self, reason: str) -> None:
        """Close the connection with a reason."""
        self._connected().close(_PROTOCOL_ERROR, reason)


def _check_served(agent: RemoteAgent, method: str, message: bytes) -> None:
    """Refuse what the agent that is connected does not know. Raises WireError(unknown_method)."""
    connection = agent.connection
    if connection is not None and not connection.serves(method):
        text = f"{agent.agent_id} does not serve {method}"
        raise WireError("unknown_method", text, hint="its policy or its version does not have it")
    if connection is not None and not connection.knows_1_1:
        check_for_1_0(agent.agent_id, method, message)


def make_relay(parts: RelayParts, *, local: bool) -> WebSocketConnection:
    """Return the protocol of a client's connection."""
    client = RelayClient(parts, local=local)
    connection = WebSocketConnection(asyncio.get_running_loop(), client, MAX_FRAME_BYTES)
    client.connection = connection
    return connection
