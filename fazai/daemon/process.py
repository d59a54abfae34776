"""The daemon as a process: open the store, listen, serve, stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fazai import __version__
from fazai.compat.timeouts import deadline
from fazai.config import is_loopback
from fazai.daemon.agent_states import AgentStates
from fazai.daemon.background import background_tasks
from fazai.daemon.drift import Drift
from fazai.daemon.events.announcer import Announcer, log_event, row_of
from fazai.daemon.events.broadcaster import Broadcaster
from fazai.daemon.events.replay import catch_up
from fazai.daemon.events.reports import Reports
from fazai.daemon.firewalls.poller import Firewalls
from fazai.daemon.gemma.sessions import AgentSessions
from fazai.daemon.http.app import App
from fazai.daemon.http.auth import Guard
from fazai.daemon.http.server import HttpListener, HttpServer
from fazai.daemon.http.tls import files_fingerprint, server_context
from fazai.daemon.ingest.admission import Admission
from fazai.daemon.ingest.deadman import WatchRules
from fazai.daemon.ingest.pipeline import Ingest, IngestRules
from fazai.daemon.kb.secrets import known_secrets
from fazai.daemon.kb.service import KnowledgeBase
from fazai.daemon.loop.registry import LoopSessions
from fazai.daemon.notify.notifier import Notifier
from fazai.daemon.policy.book import PolicyBook
from fazai.daemon.policy.words import read_known_words
from fazai.daemon.probing.targets import ProbeTargets
from fazai.daemon.routes import TABLE
from fazai.daemon.rules.building import SessionStarter, build_event_rules
from fazai.daemon.runs.queue import RunQueue
from fazai.daemon.runs.scheduler import Scheduler
from fazai.daemon.services import Services
from fazai.daemon.settings import DaemonSettings
from fazai.daemon.southbound import routes as southbound_routes
from fazai.daemon.southbound.service import Southbound
from fazai.daemon.southbound.transport.listener import AgentListener
from fazai.daemon.southbound.trust import AgentTrust
from fazai.daemon.tools.table import TABLE as TOOLS
from fazai.errors import FazaiError, InputError, StateError
from fazai.providers.gemma.client import GemmaClient
from fazai.service import systemd
from fazai.service.log import Log
from fazai.store.daemon import DaemonStore, StoredEvent
from fazai.store.factory import describe_openness

_LOOK_AT_TLS_S = 30.0
_AGENT_REQUESTS = 2048  # connections on the port for agents that are no WebSocket


def serve(
    settings: DaemonSettings, store: Callable[[Path], DaemonStore], trust: AgentTrust | None = None
) -> None:
    """Serve until SIGTERM or SIGINT. Raises InputError, UsageError, StateError before it serves."""
    import uvloop

    log = Log(settings.log_file, text=settings.log_text, logger="fazai.daemon")
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(Daemon(settings, log, trust).run(store, signals=True))
    finally:
        log.close()


class Daemon:
    """One daemon, from its start to its end. `addresses` holds what it listens on, once `ready` was
    called."""

    def __init__(self, settings: DaemonSettings, log: Log, trust: AgentTrust | None = None) -> None:
        """`trust`: whom the port for agents trusts; None: there is no such port."""
        self._settings = settings
        self._trust = trust
        self._log = log
        self._stop = asyncio.Event()
        self._failed: FazaiError | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._tls = files_fingerprint(settings)
        self.addresses: list[tuple[str, int]] = []
        self.agent_addresses: list[tuple[str, int]] = []
        self.agent_listener: AgentListener | None = None
        self.services: Services | None = None
        self._server: HttpServer | None = None

    def stop(self) -> None:
        """Stop serving. To be called on the daemon's loop."""
        self._stop.set()

    async def run(
        self,
        store: Callable[[Path], DaemonStore],
        *,
        signals: bool = False,
        ready: Callable[[], None] | None = None,
    ) -> None:
        """Serve until `stop`. Raises FazaiError when one of its tasks ended with an error."""
        settings = self._settings
        _raise_file_limit()
        with contextlib.closing(store(settings.state)) as opened:
            if (warning := describe_openness(settings.state)) is not None:
                self._log.say("warning", warning)
            services = self._build_services(opened)
            await _load_state(services)
            app = App(services, TABLE)
            server = self._server = HttpServer(app, settings.limits, self._log, app.openers)
            async with _open_listeners(settings) as listeners:
                tcp = [one.address for one in listeners if not one.unix]
                for warning in services.guard.check_bind(tcp):
                    self._log.say("warning", warning)
                for one in listeners:
                    await server.listen(one)
                self.addresses = [(one.address, one.port) for one in listeners if not one.unix]
                services.probe_targets.own_ports |= {port for _, port in self.addresses}
                if signals:
                    self._on_signals(server)
                try:
                    async with self._listen_for_agents(services):
                        await self._serve(services, server, ready)
                finally:
                    await self._shut_down(services, server)
        if self._failed is not None:
            raise self._failed

    def _build_services(self, store: DaemonStore) -> Services:
        settings = self._settings
        guard = Guard(settings, store, self._log)
        broadcaster = Broadcaster(settings.limits, store.event_range()[1])
        loop = asyncio.get_running_loop()

        def published(events: list[StoredEvent]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop ended before the store's last commit
                loop.call_soon_threadsafe(broadcaster.publish, events)

        store.on_published(published)
        loop.set_exception_handler(self._loop_error)
        rules = IngestRules(signed=settings.ingest == "signed")
        watch = WatchRules(forget_s=settings.config.retention.hosts_s)
        announcer = Announcer(store, self._log)
        ingest = Ingest.create(store, settings.secrets, rules, watch, announcer)
        broadcaster.catch_up = lambda stream: catch_up(stream, broadcaster, store)
        drift, agents = Drift(store), AgentStates(announcer)
        gemma = GemmaClient(settings.gemma_socket, connect_timeout_s=0.5, endpoints=settings.endpoints)
        run_queue = RunQueue(settings, store, self._log)
        firewalls = Firewalls(settings, store, self._log)
        scheduler = Scheduler(run_queue, store, self._log)
        southbound = self._build_southbound(store, announcer, ingest, guard)
        policy = self._build_policy(store, announcer)
        event_rules = build_event_rules(settings, store, announcer, run_queue, policy, firewalls)
        ingest.on_record = event_rules.note_sample
        mine = (broadcaster, guard, drift, agents, run_queue, firewalls, southbound, policy, event_rules)
        for source in mine:
            if source is not None:
                ingest.exposition.add(source.families)
        self.services = Services(
            settings=settings,
            store=store,
            broadcaster=broadcaster,
            guard=guard,
            log=self._log,
            ingest=ingest,
            reports=Reports(store, announcer),
            sessions=AgentSessions(gemma, settings.config.gemma.sessions, settings.config.gemma.idle_s),
            run_queue=run_queue,
            scheduler=scheduler,
            firewalls=firewalls,
            drift=drift,
            agent_states=agents,
            probe_targets=ProbeTargets(settings, firewalls, self._log),
            notifier=Notifier(settings.config.notify, store, run_queue, announcer, self._log),
            kb=KnowledgeBase(store.notes, partial(_known_secrets, settings, firewalls)),
            southbound=southbound,
            announcer=announcer,
            policy=policy,
            rules=event_rules,
            bodies=Admission(settings.limits.bodies_bytes, random.random),
            tools=TOOLS,
        )
        self.services.loop = LoopSessions(self.services)
        event_rules.starter = SessionStarter(self.services.loop)
        return self.services

    def _build_policy(self, store: DaemonStore, announcer: Announcer) -> PolicyBook:
        settings = self._settings
        return PolicyBook(
            settings.policy,
            store.rules,
            announcer,
            known=read_known_words,
            protected=(settings.state, settings.secrets),
            required=settings.policy_required,
        )

    def _build_southbound(
        self, store: DaemonStore, announcer: Announcer, ingest: Ingest, guard: Guard
    ) -> Southbound | None:
        if self._trust is None:
            return None
        settings = self._settings
        config = settings.config.agents
        if config.socket is None and settings.socket is not None:
            config = replace(config, socket=settings.socket.with_name("agents.sock"))
        return Southbound(config, store, announcer, ingest, guard, self._trust, self._log)

    @contextlib.asynccontextmanager
    async def _listen_for_agents(self, services: Services) -> AsyncIterator[None]:
        """Open the port for agents, and the local socket for those who ask them. Raises InputError where the
        port was asked for and cannot be had."""
        south = services.southbound
        if south is None:
            yield
            return
        await south.load()
        limits = replace(self._settings.limits, connections=_AGENT_REQUESTS)
        server = HttpServer(App(services, southbound_routes.ROUTES), limits, self._log, {})
        listener = self.agent_listener = AgentListener(south, server.make_connection)
        try:
            self.agent_addresses = listener.open(south.config)
            south.port = self.agent_addresses[0][1]
            services.probe_targets.own_ports |= {south.port}
        except InputError as error:
            if south.config.configured:
                raise
            self._log.say("error", f"agents cannot connect: {error}")
        south.start()
        try:
            yield
        finally:
            listener.close()
            await south.stop("the daemon stops; connect again")
            await server.stop()

    async def _serve(self, services: Services, server: HttpServer, ready: Callable[[], None] | None) -> None:
        running = background_tasks(services)
        for coroutine in (*running, self._watch_tls_files(server), self._feed_watchdog()):
            task = asyncio.ensure_future(coroutine)
            task.add_done_callback(self._task_ended)
            self._tasks.append(task)
        where = ", ".join([*(_url_of(one, self._settings) for one in server.listeners), *self._agent_urls()])
        await self._announce(services, f"fazai {__version__} listens on {where}")
        services.ready = True
        systemd.notify(os.environ, f"READY=1\nSTATUS=listens on {where}")
        if ready is not None:
            ready()
        await self._stop.wait()  # deadline: none, it serves until it is told to stop

    def _agent_urls(self) -> list[str]:
        """Return where agents connect, and those who ask them."""
        if not self.agent_addresses or self.services is None or self.services.southbound is None:
            return []
        addresses = [_url_at("wss", *one) for one in self.agent_addresses]
        path = self.services.southbound.config.socket
        return [*addresses, *([str(path)] if path is not None else [])]

    async def _shut_down(self, services: Services, server: HttpServer) -> None:
        systemd.notify(os.environ, "STOPPING=1")
        services.stopping = True
        services.agent_states.daemon.enter("closing")
        for task in self._tasks:
            task.cancel()
        text = f"fazai {__version__} stops; connect again"
        with contextlib.suppress(StateError):
            await self._announce(services, f"fazai {__version__} stops")
        await services.loop.close()
        services.broadcaster.end_all(text)
        await server.stop()
        with contextlib.suppress(TimeoutError):
            async with deadline(0.2):  # the worker forgets what is left by itself
                await services.sessions.close_all()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _announce(self, services: Services, text: str) -> None:
        """Write a text to the log, and publish it as an event."""
        event = log_event("info", text, "fazai.daemon")
        services.announcer.write_log("info", event, "fazai.daemon")
        ids = await services.store.publish([row_of(event)])
        await services.broadcaster.wait_for_event(ids[-1])

    # -- what happens meanwhile

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._log.say("critical", f"a part of the daemon ended: {error!r}")
            self._failed = FazaiError(f"a part of the daemon ended: {error!r}")
            self._stop.set()

    def _loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log a failure that nobody handled. TLS handshakes that fail are the clients' affair; everything
        else is a defect."""
        error = context.get("exception")
        if isinstance(error, OSError):  # ssl.SSLError is one
            return
        self._log.say("error", f"{context.get('message')}: {error!r}")

    def _on_signals(self, server: HttpServer) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(
            signal.SIGHUP, lambda: self._tasks.append(loop.create_task(self._on_hangup(server)))
        )

    async def _on_hangup(self, server: HttpServer) -> None:
        try:
            self._log.reopen()
        except InputError as error:
            self._log.say("error", str(error))
        await self._renew_tls(server)

    async def _watch_tls_files(self, server: HttpServer) -> None:
        while self._settings.tls_cert is not None:
            await asyncio.sleep(_LOOK_AT_TLS_S)
            if files_fingerprint(self._settings) != self._tls:
                await self._renew_tls(server)

    async def _renew_tls(self, server: HttpServer) -> None:
        """Use the files as they are now for new connections; when those are not good, the ones before."""
        if self._settings.tls_cert is None:
            return
        seen = files_fingerprint(self._settings)
        try:
            await server.renew()
        except InputError as error:
            self._log.say("error", f"the TLS files are not used: {error}")
            return
        self._tls = seen
        self._log.say("info", "the TLS files were read again")

    async def _feed_watchdog(self) -> None:
        text = os.environ.get("WATCHDOG_USEC", "")
        while text.isdigit() and int(text) > 0:
            systemd.notify(os.environ, "WATCHDOG=1")
            await asyncio.sleep(int(text) / 3e6)


def _known_secrets(settings: DaemonSettings, firewalls: Firewalls) -> Iterator[str]:
    """Yield what the knowledge base must not hold."""
    options = [one.firewall.target.options for one in firewalls.all()]
    fallback = settings.fallback.api_key if settings.fallback is not None else None
    hooks = [hook.secret_file for hook in settings.config.hooks]
    return known_secrets(settings.secrets, os.environ, options, [fallback], hooks)


async def _load_state(services: Services) -> None:
    """Read what the services knew when the daemon before ended. Raises StateError."""
    await services.guard.refresh()
    await services.run_queue.load()
    await services.scheduler.load()
    await services.firewalls.load()
    await services.loop.load()
    services.policy.load()
    await services.rules.load()


@contextlib.asynccontextmanager
async def _open_listeners(settings: DaemonSettings) -> AsyncIterator[list[HttpListener]]:
    """Open the sockets: systemd's, or our own. Raises InputError."""
    tls = (lambda: server_context(settings)) if settings.tls_cert is not None else None
    if tls is not None:
        tls()  # wrong files are said before anything listens
    handed = systemd.inherited_sockets(os.environ, os.getpid())
    sockets = handed or systemd.bind(settings.host, settings.port, "--host and --port")
    path = settings.socket if not handed else None
    if path is not None:
        sockets.append(systemd.listen(path, "daemon"))
    try:
        yield [HttpListener(one, None if one.family == socket.AF_UNIX else tls) for one in sockets]
    finally:
        for one in sockets:
            one.close()
        if path is not None:
            path.unlink(missing_ok=True)


def _url_of(listener: HttpListener, settings: DaemonSettings) -> str:
    if listener.unix:
        return str(listener.sock.getsockname())
    scheme = "https" if listener.tls is not None else "http"
    return _url_at(scheme, listener.address, listener.port)


def _url_at(scheme: str, address: str, port: int) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"{scheme}://{host}:{port}{'' if is_loopback(address) else ' (public)'}"


def _raise_file_limit() -> None:
    """Raise the soft limit of open files: a stream is a file, and that limit is for programs that use
    select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
