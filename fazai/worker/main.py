"""The worker as a process: load, listen, serve, drain."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from fazai.errors import InputError
from fazai.service import systemd
from fazai.service.log import Log
from fazai.worker.bridge import Code, EngineError, NativeEngine, Options, Reason, Sampling
from fazai.worker.chat import ChatFormat, chat_of
from fazai.worker.digest import ModelDigest, identify_model
from fazai.worker.grammars.masks import Masks
from fazai.worker.metrics import Metrics, serve_metrics
from fazai.worker.server import ClientConnection, Worker
from fazai.worker.sessions import WorkerSessions
from fazai.worker.stats import Stats

_DRAIN_S = 30.0
_ABORT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """The settings of `fazai worker`."""

    model: Path
    socket: Path
    options: Options
    metrics_port: int | None = None
    log_file: Path | None = None
    log_text: bool = False
    session_idle_s: float = 1800.0


def serve(settings: WorkerSettings, ready: Callable[[], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT. `ready` is called when the first request would be answered. Raises
    InputError (socket, model) and EngineError."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)  # the masks' thread must not wait 5 ms for the event loop's
    log = Log(settings.log_file, text=settings.log_text, logger="fazai.worker")
    try:
        whole = asyncio.run(_WorkerProcess(settings, log).run(ready))
    finally:
        sys.setswitchinterval(before)
        log.close()
    if not whole:
        # Neither can be stopped, and an orderly exit would free what they still use.
        sys.stdout.flush()
        os._exit(0)


class _WorkerProcess:
    """One worker process, from its start to its end."""

    def __init__(self, settings: WorkerSettings, log: Log) -> None:
        self._settings = settings
        self._log = log
        self._worker = Worker(settings.options, Metrics())
        self._engine: NativeEngine | None = None
        self._masks: Masks | None = None
        self._digest: ModelDigest | None = None
        self._stop = asyncio.Event()
        self._signals = 0
        self._started_s = time.monotonic()
        self._socket_identity: tuple[int, int] | None = None

    async def run(self, ready: Callable[[], None] | None) -> bool:
        """Serve, and return whether all of it has ended; False: a thread still loads the model, or compiles a
        grammar."""
        settings = self._settings
        inherited = systemd.inherited_unix_socket(os.environ, os.getpid())
        self._listening = inherited or systemd.listen(settings.socket)
        self._socket_identity = systemd.file_identity(settings.socket) if inherited is None else None
        try:
            self._on_signals()
            worker = self._worker
            async with _serving_metrics(settings.metrics_port, lambda: worker.metrics.text(worker.stats())):
                server = await asyncio.get_running_loop().create_unix_server(
                    lambda: ClientConnection(self._worker), sock=self._listening, backlog=systemd.BACKLOG
                )
                try:
                    return await self._serve(server, ready)
                finally:
                    self._close(server)
        finally:
            self._listening.close()
            self._unlink()
            if self._digest is not None:
                self._digest.stop()
            self._close_engine()

    async def _serve(self, server: asyncio.Server, ready: Callable[[], None] | None) -> bool:
        systemd.notify(os.environ, "STATUS=loading the model")
        model = identify_model(self._settings.model)
        loaded = await self._load_unless_stopped()
        if loaded is None:
            systemd.notify(os.environ, "STOPPING=1")
            self._log.say("info", "stopped while the model was being loaded")
            return False
        self._start_sessions(*loaded)
        systemd.notify(os.environ, "READY=1\nSTATUS=running")
        self._log.say("info", f"{self._worker.model} answers at {self._settings.socket}")
        if ready is not None:
            ready()
        if model is not None:
            self._digest = self._begin_digest(model)
        await self._stop.wait()  # deadline: none, it serves until it is told to stop
        return await self._drain(server)

    def _begin_digest(self, model: tuple[int, ...]) -> ModelDigest:
        """Compute the model's digest in the background; `status` has it once it is known."""
        loop = asyncio.get_running_loop()

        def done(digest: str) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(setattr, self._worker, "model_sha256", digest)

        return ModelDigest(self._settings.model, model, done)

    def _close(self, server: asyncio.Server) -> None:
        """Accept no more connections, so that the next worker may listen there."""
        self._unlink()
        server.close()

    def _unlink(self) -> None:
        if self._socket_identity is not None:
            systemd.remove_socket_file(self._settings.socket, self._socket_identity)
            self._socket_identity = None

    def _on_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._request_stop)
        loop.add_signal_handler(signal.SIGHUP, self._reopen)

    def _reopen(self) -> None:
        try:
            self._log.reopen()
        except InputError as error:
            self._log.say("error", str(error))  # to where it went so far

    def _request_stop(self) -> None:
        self._signals += 1
        self._stop.set()
        if self._signals > 1 and self._worker.sessions is not None:
            self._worker.sessions.stop_all()

    async def _load_unless_stopped(self) -> tuple[NativeEngine, ChatFormat] | None:
        """Return the model and its turns; None: the worker was stopped before. Raises InputError,
        EngineError."""
        settings, loop = self._settings, asyncio.get_running_loop()
        thread = concurrent.futures.ThreadPoolExecutor(1, "load")  # asyncio would wait for one of its own
        loading = loop.run_in_executor(thread, _load_model, settings.model, settings.options)
        stopping = asyncio.ensure_future(self._stop.wait())  # deadline: none, a signal
        # deadline: none, loading ends by itself or at a signal
        await asyncio.wait((loading, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        thread.shutdown(wait=False)
        return loading.result() if loading.done() else None

    def _start_sessions(self, engine: NativeEngine, chat: ChatFormat) -> None:
        settings = self._settings
        self._engine = engine
        masks = self._masks = Masks(engine)
        masks.start()
        stats = engine.stats()
        sessions = WorkerSessions(
            engine,
            masks,
            chat,
            self._worker.metrics,
            idle_s=settings.session_idle_s,
            clock=time.monotonic,
            log=self._log,
        )
        asyncio.get_running_loop().add_reader(engine.fileno(), sessions.on_ready)
        worker = self._worker
        worker.model = engine.meta("general.name") or settings.model.stem
        worker.context_tokens = stats.context_tokens
        worker.stats = engine.stats
        worker.sessions = sessions
        took_s = time.monotonic() - self._started_s
        cost = ", ".join(f"{1000 * s:.1f}" for s in stats.batch_cost_s)
        self._log.say(
            "info",
            f"loaded {settings.model} in {took_s:.1f} s: llama.cpp {engine.release}, "
            f"{stats.threads} threads, {stats.context_tokens} tokens of context; chat template: {chat.kind}; "
            f"a decode of 1, 2, … sequences costs {cost} ms",
        )

    async def _drain(self, server: asyncio.Server) -> bool:
        """Take no new work and wait for what runs, up to a limit. Return False where the engine is still in
        use."""
        self._close(server)
        systemd.notify(os.environ, "STOPPING=1")  # whoever was told so finds nobody who listens
        sessions = self._worker.loaded_sessions()
        sessions.draining = True
        self._log.say("info", f"stopping: {sessions.busy} generations may end")
        await sessions.wait_idle(_DRAIN_S)
        sessions.stop_all()
        await sessions.wait_idle(_ABORT_S)
        if not sessions.preparing:
            return True
        self._engine = None  # it goes with the process
        return False

    def _close_engine(self) -> None:
        if self._engine is None:
            return
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop().remove_reader(self._engine.fileno())
        self._engine.shutdown()
        if self._masks is not None:
            self._masks.stop()
        self._engine.close()


def _load_model(model: Path, options: Options) -> tuple[NativeEngine, ChatFormat]:
    """Read the file, which takes long, and its chat template. Raises InputError, EngineError."""
    engine = NativeEngine(model, options)
    try:
        return engine, chat_of(engine)
    except InputError:
        engine.close()
        raise


@contextlib.asynccontextmanager
async def _serving_metrics(port: int | None, body: Callable[[], str]) -> AsyncIterator[None]:
    """Serve metrics on a port, if one is given, while the block runs. Raises InputError."""
    try:
        server = await serve_metrics(port, body) if port is not None else None
    except OSError as error:
        hint = "another port; under systemd: deploy/fazai-gemma-worker-metrics.conf"
        raise InputError(
            f"the metrics port cannot be opened: {os.strerror(error.errno or 0)}",
            where=f"--metrics-port {port}",
            hint=hint,
        ) from None
    try:
        yield
    finally:
        if server is not None:
            server.close()


def logits_way(stats: Stats) -> str:
    """Say which logits a decode computes."""
    if stats.rows_limit:
        kernel = "the bridge's own kernel" if stats.whole_rows else "llama.cpp"
        return f"up to {stats.rows_limit} allowed tokens: only of these; of all: by {kernel}"
    return f"always of all tokens: {stats.rows_why}"


def drafts_way(stats: Stats) -> str:
    """Say whether tokens that probably follow are decoded with a session's own."""
    if stats.drafts_limit:
        return f"up to {stats.drafts_limit} tokens beside a session's own"
    return f"none: {stats.drafts_why}"


def check_model(settings: WorkerSettings, say: Callable[[str], None]) -> None:
    """Load the model, generate eight tokens and say how quickly. Raises InputError, EngineError."""
    import select

    started = time.monotonic()
    engine, chat = _load_model(settings.model, settings.options)
    try:
        say(
            f"loaded {settings.model.name} in {time.monotonic() - started:.1f} s (llama.cpp {engine.release})"
        )
        session = engine.open_session()
        sampling = Sampling(max_tokens=8, timeout_ms=120_000)
        say(f"chat template: {chat.kind}")
        prompt = "The capital of Portugal is" if chat.completes else "Say hello."
        engine.submit(session, chat.first_tokens(engine, None, prompt), sampling)
        text = ""
        while True:
            select.select([engine], [], [], 1)
            engine.ready()
            more, progress = engine.take(session) or ("", None)
            text += more
            if progress is None or (progress.reason is not Reason.RUNNING and not progress.more):
                break
        if progress is None or progress.reason is Reason.FAILED:
            why = progress.message if progress is not None else "its session is gone"
            raise EngineError(Code.DECODE, f"the model does not generate: {why}")
        stats = engine.stats()
        cost = stats.batch_cost_s[0] if stats.batch_cost_s else 0.0
        rate = f"{1 / cost:.1f} tokens/s" if cost else "unmeasured"
        say(f"{prompt!r}: {progress.completion_tokens} tokens: {text!r}")
        say(f"one stream: {rate}; batches for 1, 2, … sessions: {', '.join(map(str, stats.plan))}")
        say(
            f"model {stats.model_bytes / 2**20:.0f} MiB, {stats.context_tokens} tokens of context, "
            f"{stats.threads} threads"
        )
        say(f"logits: {logits_way(stats)}")
        say(f"drafts: {drafts_way(stats)}")
    finally:
        engine.shutdown()
        engine.close()
