"""Remote agents as one service of the daemon: what its parts share, and what has to be looked at now and
then."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Sequence

from fazai.daemon.events.announcer import Announcer
from fazai.daemon.http.auth import Guard
from fazai.daemon.ingest.admission import Admission
from fazai.daemon.ingest.pipeline import Ingest
from fazai.daemon.runs.config import AgentsConfig
from fazai.daemon.southbound.outcomes import LOGGER, Outcomes
from fazai.daemon.southbound.registry import AgentRegistry
from fazai.daemon.southbound.relay import RelayClient, RelayParts
from fazai.daemon.southbound.session import AgentSession, SessionParts
from fazai.daemon.southbound.transport.polling import PolledLink
from fazai.daemon.southbound.trust import AgentTrust, wire_error
from fazai.errors import FazaiError
from fazai.faults import no_fault
from fazai.pki import PkiNotice
from fazai.service.log import Log
from fazai.service.prometheus import Family, Metric
from fazai.store.daemon import DaemonStore
from fazai.wire.base import WireError

_CLIENTS = Metric("fazai_agent_clients", "gauge", "Clients that ask agents through the daemon.")
_BUFFER_BYTES = 256 << 20
_LOOK_AT_TRUST_S = 0.25
_NOTE_AGAIN_S = 3600.0
_SWEEPS = 20  # in one heartbeat
_LEAST_S, _MOST_S = 0.02, 1.0  # between two sweeps
_LATENCY_S = 60.0  # between two looks at how long an agent takes to answer
_POLLED_S = 90.0  # that an agent which polls may be quiet, at least


class Southbound:
    """Remote agents of one daemon."""

    def __init__(
        self,
        config: AgentsConfig,
        store: DaemonStore,
        announcer: Announcer,
        ingest: Ingest,
        guard: Guard,
        trust: AgentTrust,
        log: Log,
        fault: Callable[[str], None] = no_fault,
    ) -> None:
        self.config = config
        self.trust = trust
        self._log = log
        buffers = Admission(_BUFFER_BYTES, random.random)
        self.registry = AgentRegistry(store, announcer, Outcomes(store, announcer, self.report, fault))
        self.sessions: set[AgentSession] = set()
        self.polled: dict[str, PolledLink] = {}  # the latest of each agent that came by signed HTTP
        self.session_parts = SessionParts(config, self.registry, trust, ingest, buffers, self.announce)
        clients: set[RelayClient] = set()
        path = str(config.socket) if config.socket is not None else ""
        self.relay_parts = RelayParts(self.registry, guard, log, buffers, clients, path)
        self._guard = guard
        self.port: int | None = None  # once it is open
        self._loop = asyncio.get_running_loop()
        self._tasks: list[asyncio.Task[None]] = []
        self._trust_problem: str | None = None
        self._noted_s = 0.0

    def report(self, text: str) -> None:
        """Write a failure to the log."""
        self._log.say("error", text, logger=LOGGER)

    def families(self) -> Iterable[Family]:
        """Return the metrics of agents, of their actions, and of who asks for these."""
        yield from self.registry.families()
        yield _CLIENTS.single(len(self.relay_parts.clients))

    async def load(self) -> None:
        """Read what was known before, and the certificates. Raises FazaiError."""
        await self.registry.load()
        await asyncio.to_thread(self.trust.refresh)
        self._note_agents()

    def _note_agents(self) -> None:
        self.registry.note_names(self.trust.names())
        self.registry.note_removals(self.trust.find_removal)
        self._noted_s = self._loop.time()

    def announce(self, notice: PkiNotice) -> None:
        """Publish what the authority has to say; from any thread."""
        self._loop.call_soon_threadsafe(
            self.registry.announce_notice, notice.agent_id, notice.message, notice.level
        )

    # -- while it runs

    def start(self) -> None:
        """Begin to look at connections, certificates and revocations."""
        loop = asyncio.get_running_loop()
        for work in (self._sweep, self._watch_trust, self._measure):
            self._tasks.append(loop.create_task(self._keep_running(work)))

    async def stop(self, text: str) -> None:
        """End all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for session in list(self.sessions):
            session.end(WireError("unavailable", text))
        for client in list(self.relay_parts.clients):
            client.end(f"unavailable: {text}")
        await self.registry.flush()

    async def _keep_running(self, work: Callable[[], object]) -> None:
        """Do the work again and again; a failure of it is no failure of the daemon."""
        while True:
            task = asyncio.ensure_future(work())  # type: ignore[call-overload]
            try:
                await asyncio.wait([task], timeout=None)  # deadline: the work's own
            finally:
                task.cancel()
            if not task.cancelled() and (error := task.exception()) is not None:
                self.report(f"a part of the port for agents ended, and begins again: {error!r}")
            await asyncio.sleep(_MOST_S)

    async def _sweep(self) -> None:
        """Drop the connections that are silent, and those whose right to be there has ended."""
        beat_s = self.config.heartbeat_s
        pause_s = min(_MOST_S, max(_LEAST_S, beat_s / _SWEEPS))
        while True:
            await asyncio.sleep(pause_s)
            loop_s, now = asyncio.get_running_loop().time(), time.time()
            for session in list(self.sessions):
                session.check_alive(loop_s + pause_s, 3 * beat_s, max(3 * beat_s, _POLLED_S))
                if session.expires is not None and session.expires < now:
                    session.end(WireError("bad_certificate", "the certificate has expired"))
            for client in list(self.relay_parts.clients):
                if client.who is not None and not self._guard.is_still_valid(client.who):
                    client.end("unauthorized: the token was revoked, or has expired")

    async def _watch_trust(self) -> None:
        """Read revocations and files again when they change, and end what is not trusted any more."""
        while True:
            await asyncio.sleep(_LOOK_AT_TRUST_S)
            changed = False
            try:
                changed = await asyncio.to_thread(self.trust.refresh)
                problem = self.trust.problem
            except FazaiError as error:
                problem = str(error)
            if problem is not None and problem != self._trust_problem:
                self.report(f"the certificates of agents: {problem}")
            self._trust_problem = problem
            if changed:
                self.apply_trust(list(self.sessions))
            elif self._loop.time() - self._noted_s > _NOTE_AGAIN_S:  # what was removed long ago goes
                self._note_agents()

    def apply_trust(self, sessions: Sequence[AgentSession]) -> None:
        """End the sessions whose certificate is not good any more."""
        for session in sessions:
            if not session.is_greeted:
                continue
            try:
                if session.link.signed_by is not None:
                    self.trust.check_name(session.agent_id)
                else:
                    self.trust.check_peer(session.link.certificate, session.agent_id, time.time())
            except FazaiError as error:
                session.end(wire_error(error))
        self._note_agents()
        for session in sessions:
            session.offer_trust()

    async def _measure(self) -> None:
        """Ask each agent now and then how long it takes to answer."""
        while True:
            agents = self.registry.connected()
            pause_s = _LATENCY_S / max(1, len(agents))
            for agent in agents:
                connection = agent.connection
                if connection is not None and connection.protocol == "websocket":
                    seconds = await connection.answers_ping(min(5.0, self.config.heartbeat_s))
                    if seconds is not None:
                        agent.note_latency(seconds)
                await asyncio.sleep(pause_s)
            await asyncio.sleep(1.0)
