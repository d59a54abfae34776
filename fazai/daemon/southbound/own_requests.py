"""Requests that the daemon makes by itself of an agent that is connected: what became of actions that have no
outcome, and which CAs to trust."""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from fazai.daemon.southbound.messages import Head, read_unknown, write_question, write_trust
from fazai.daemon.southbound.registry import AgentRegistry, RemoteAgent
from fazai.daemon.southbound.trust import AgentTrust, TrustOffer
from fazai.errors import StateError
from fazai.ids import ulid
from fazai.store.daemon import AgentAction

_Answered = Callable[[Head, bytes], Awaitable[None]]
_PROBLEM_CHARS = 300


class Carrier(Protocol):
    """The connection to the agent; `certificate` is the agent's (DER)."""

    certificate: bytes | None

    def send(self, message: bytes) -> None: ...


class OwnRequests:
    """The requests of one connection; no client waits for them, and what has no answer is asked again when
    the agent connects the next time."""

    def __init__(
        self,
        registry: AgentRegistry,
        trust: AgentTrust,
        link: Carrier,
        agent: RemoteAgent,
        serves: Callable[[str], bool],
    ) -> None:
        self._registry = registry
        self._trust = trust
        self._link = link
        self._agent = agent
        self._serves = serves
        self._open: dict[str, _Answered] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._offered: TrustOffer | None = None
        self._is_refused = False  # that offer

    def stop(self) -> None:
        """Ask nothing more: the connection has ended."""
        self._open.clear()
        self._offered = None  # an answer that is being recorded is not followed by another offer
        for task in self._tasks:
            task.cancel()

    def is_open(self, action_id: str | None) -> bool:
        """Return whether an answer is one to such a request."""
        return action_id in self._open

    async def take_answer(self, head: Head, message: bytes) -> None:
        """Take the answer to a request that is open. Raises WireError."""
        assert head.action_id is not None
        try:
            await self._open.pop(head.action_id)(head, message)
        except StateError as error:
            self._registry.outcomes.report(f"an answer of {self._agent.agent_id}: {error}")

    def _request(self, answered: _Answered) -> str:
        """Return the id of a new request."""
        action_id = ulid(int(time.time() * 1000), os.urandom(10))
        self._open[action_id] = answered
        return action_id

    # -- actions of before that have no outcome

    def ask_outcomes(self) -> None:
        """Ask what became of actions that were recorded, and whose outcome is not: the agent delivers what it
        has, and says which of them never reached it. One that can neither be asked nor deliver anything is
        not waited for."""
        if not self._serves("outcomes") and self._serves("result"):
            return  # it may deliver them at any time
        work = self._ask_outcomes if self._serves("outcomes") else self._give_up_outcomes
        task = asyncio.get_running_loop().create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _find_unsettled(self) -> dict[str, AgentAction]:
        try:
            found = await self._registry.outcomes.find_open(self._agent.agent_id)
        except StateError:
            return {}
        return {one.action_id: one for one in found if not self._agent.queue.is_open(one.action_id)}

    async def _ask_outcomes(self) -> None:
        unsettled = await self._find_unsettled()
        if unsettled:
            action_id = self._request(functools.partial(self._settle, unsettled))
            self._link.send(write_question(action_id, tuple(unsettled)))

    async def _give_up_outcomes(self) -> None:
        """Record that nobody knows what became of those actions, so that an operator sees them."""
        try:
            while unsettled := await self._find_unsettled():
                for action in unsettled.values():
                    if not self._agent.queue.is_open(action.action_id):  # it was asked for again meanwhile
                        await self._registry.outcomes.settle_unknown(action)
        except StateError as error:
            self._registry.outcomes.report(f"what is open of {self._agent.agent_id}: {error}")

    async def _settle(self, asked: dict[str, AgentAction], head: Head, message: bytes) -> None:
        """Record which actions the agent does not know; an id that is asked for again has an outcome of its
        own."""
        if not head.ok:
            return
        for action_id in read_unknown(message) & asked.keys():
            if not self._agent.queue.is_open(action_id):
                await self._registry.outcomes.settle_unsent(asked[action_id])

    # -- the CAs

    def offer_trust(self) -> None:
        """Tell the agent which CAs to trust, where it does not know; once, and again what it refused where
        the files are others: the listener's certificate is, perhaps, by which it proves the offer."""
        if not self._serves("trust"):
            return
        offer = self._trust.find_offer(self._agent.agent_id, self._link.certificate)
        before = self._offered
        if offer is not None and (
            before is None or offer.mark != before.mark or (self._is_refused and offer.files != before.files)
        ):
            self._offered, self._is_refused = offer, False
            action_id = self._request(functools.partial(self._take_trust, offer))
            self._link.send(write_trust(action_id, offer.pem, offer.endorsements, renew=offer.renew))

    async def _take_trust(self, offer: TrustOffer, head: Head, message: bytes) -> None:
        name = self._agent.agent_id
        problem = "" if head.ok else (head.error or head.code or "it does not say why")[:_PROBLEM_CHARS]
        if problem:
            text = f"{name} does not trust the CAs that it was told of: {problem}"
            self._registry.announce_notice(name, text, "warning")
        await asyncio.to_thread(self._trust.note_trust, name, offer.mark, problem)
        if problem and offer is self._offered:
            self._is_refused = True
            self.offer_trust()  # where the files changed while it looked at them
