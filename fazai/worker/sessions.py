"""Sessions and their generations, between the protocol and the engine; all of it runs on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from fazai.compat.timeouts import deadline
from fazai.service.log import Log
from fazai.wire.base import WireError
from fazai.wire.worker import GenerateParams, SessionParams, Usage, merge_params
from fazai.worker.bridge import Code, EngineError, NativeEngine, Progress, Reason, Sampling
from fazai.worker.chat import ChatFormat
from fazai.worker.clients import Client, Place, find_place
from fazai.worker.grammars.masks import CompiledGrammar, Masks, deep_stack, schema_text
from fazai.worker.metrics import Metrics

MAX_TIMEOUT_MS = 3_600_000
_LONG_PROMPT = 50_000  # characters; tokenizing more would hold up the event loop
_CODES = {
    Code.INVALID: "bad_request",  # within the contract, but not as a 32-bit number
    Code.UNKNOWN: "unknown_session",
    Code.BUSY: "session_busy",
    Code.CONTEXT: "context_full",
    Code.OVERLOADED: "overloaded",
    Code.CLOSED: "overloaded",
}
_INT32 = 2**31 - 1
_LEAST_P = 1e-6  # less is the likeliest token alone, and might be 0 as a 32-bit number

T = TypeVar("T")


class Sink(Protocol):
    """The receiver of a generation's events. `ready` returns whether it takes more now."""

    client: Client

    def ready(self) -> bool: ...
    def text(self, generation: Generation, text: str) -> None: ...
    def ended(self, generation: Generation, reason: str, usage: Usage) -> None: ...
    def failed(self, generation: Generation, error: WireError) -> None: ...


@dataclass(slots=True, eq=False)
class WorkerSession:
    """A client's session, and its session of the engine (`handle`)."""

    session_id: str
    handle: int
    params: SessionParams
    client: Client  # that opened it
    used_s: float
    generation: Generation | None = None


@dataclass(slots=True, eq=False)
class Generation:
    """One `generate` request. `sink` is None once its client is gone. One that is `over` has ended, and its
    client is told next."""

    session: WorkerSession
    sink: Sink | None
    deadline_s: float
    client: Client
    begun_s: float
    aborted: asyncio.Event = field(default_factory=asyncio.Event)
    submitted: bool = False
    over: bool = False
    tokens: int = 0
    last_s: float = 0.0
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class WorkerSessions:
    """All sessions of the worker, and their generations."""

    def __init__(
        self,
        engine: NativeEngine,
        masks: Masks,
        chat: ChatFormat,
        metrics: Metrics,
        *,
        idle_s: float,
        clock: Callable[[], float],
        log: Log,
    ) -> None:
        self._engine = engine
        self._masks = masks
        self._chat = chat
        self._metrics = metrics
        self._idle_s = idle_s
        self._clock = clock
        self._log = log
        self._by_id: dict[str, WorkerSession] = {}
        self._by_handle: dict[int, WorkerSession] = {}
        self.draining = False
        self._idle = asyncio.Event()
        self._grammars = ThreadPoolExecutor(1, "grammars")  # not asyncio's threads: one can take seconds
        with deep_stack():
            self._grammars.submit(int)  # its thread is started now
        self._under_way: set[asyncio.Future[Any]] = set()

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def busy(self) -> int:
        """The number of sessions that generate."""
        return sum(session.generation is not None for session in self._by_id.values())

    def create(self, params: SessionParams, client: Client) -> str:
        """Open a session and return its id. Raises WireError: overloaded; schema_unsupported for a schema
        that is too large to be kept, others are refused by generate."""
        if self.draining:
            raise WireError("overloaded", "the worker is stopping")
        if params.json_schema is not None:
            schema_text(params.json_schema)
        self._expire()
        try:
            handle = self._open_handle(client)
        except EngineError as error:
            text = f"{self.busy} of {len(self)} sessions are generating, and none makes room"
            raise _wire_error(error, text) from None
        session = WorkerSession(f"s-{secrets.token_hex(8)}", handle, params, client, self._clock())
        self._by_id[session.session_id] = self._by_handle[handle] = session
        return session.session_id

    def _open_handle(self, client: Client) -> int:
        """Return a session of the engine, for which one of the client that has most makes room. Raises
        EngineError."""
        try:
            return self._engine.open_session()
        except EngineError as error:
            if error.code is not Code.OVERLOADED:
                raise
            if len(self._by_handle) > len(self._by_id):
                self._free_closed()
                return self._engine.open_session()
            if not self._by_id:
                raise
            found = find_place(map(_place_of, self._by_id.values()), client)
            if found is None:
                raise
            self._take_away(found)
            return self._engine.open_session()

    def _take_away(self, session: WorkerSession) -> None:
        """Close a session for the sake of another client; its generation ends with an error."""
        generation = session.generation
        del self._by_id[session.session_id]
        if generation is None:
            self._free_handle(session)
            return
        self.stop(generation)
        self._fail(generation, WireError("overloaded", "the session's place went to a client that has fewer"))

    def _expire(self) -> None:
        """Close sessions that were not used for long: some clients never close theirs."""
        oldest = self._clock() - self._idle_s
        for session in [s for s in self._by_id.values() if s.generation is None and s.used_s < oldest]:
            self.close(session.session_id)

    def _find(self, session_id: str) -> WorkerSession:
        found = self._by_id.get(session_id)
        if found is None:
            raise WireError("unknown_session", f"there is no session {session_id}", hint="create_session")
        return found

    def abort(self, session_id: str) -> None:
        """Abort the generation of a session. Raises WireError(unknown_session)."""
        generation = self._find(session_id).generation
        if generation is not None:
            self.stop(generation)

    def stop(self, generation: Generation) -> None:
        """Abort a generation, at whatever stage it is."""
        generation.aborted.set()
        if generation.submitted:
            self._engine.abort(generation.session.handle)

    def close(self, session_id: str) -> None:
        """Close a session. What it generates ends within a decode, also when its client reads nothing more.
        Raises WireError(unknown_session)."""
        session = self._find(session_id)
        del self._by_id[session_id]
        generation = session.generation
        if generation is None:
            self._free_handle(session)
        elif generation.submitted:
            self.stop(generation)
            self.pump(generation)
        else:
            self.stop(generation)
            self._end_unsubmitted(generation, "aborted")

    def _free_closed(self) -> None:
        """End what still generates for closed sessions, without its last tokens."""
        for session in [each for each in self._by_handle.values() if each.session_id not in self._by_id]:
            progress = self._take(session.generation) if session.generation is not None else None
            if session.generation is not None and progress is not None:
                self._end(session.generation, replace(progress, reason=Reason.ABORTED))

    def _free_handle(self, session: WorkerSession) -> None:
        self._engine.close_session(session.handle)
        self._masks.detach(session.handle)
        self._by_handle.pop(session.handle, None)

    @property
    def preparing(self) -> bool:
        """True while a thread still works with the engine, perhaps for nobody any more."""
        return bool(self._under_way)

    async def wait_idle(self, timeout_s: float) -> None:
        """Wait until nothing generates, or the time is over."""
        self._idle.clear()
        if self._generating():
            with contextlib.suppress(TimeoutError):
                async with deadline(timeout_s):
                    await self._idle.wait()

    def _generating(self) -> bool:
        return any(session.generation is not None for session in self._by_handle.values())

    def stop_all(self) -> None:
        """Abort all generations."""
        for session in list(self._by_handle.values()):
            if session.generation is not None:
                self.stop(session.generation)

    def generate(self, session_id: str, prompt: str, params: GenerateParams | None, sink: Sink) -> Generation:
        """Start a generation whose events go to `sink`. Raises WireError."""
        if self.draining:
            raise WireError("overloaded", "the worker is stopping")
        session = self._find(session_id)
        if session.generation is not None:
            raise WireError(
                "session_busy", "the session is generating", hint="abort it, or use another session"
            )
        session.used_s = self._clock()
        asked = {**_DEFAULTS, **merge_params(params, session.params)}
        until_s = session.used_s + asked["timeout_ms"] / 1000
        generation = Generation(session, sink, until_s, sink.client, session.used_s)
        if _is_constrained(asked) or len(prompt) + len(session.params.system or "") > _LONG_PROMPT:
            session.generation = generation
            generation.task = asyncio.get_running_loop().create_task(self._prepare(generation, prompt, asked))
        else:
            self._submit(generation, self._tokenize(session, prompt), asked)
            session.generation = generation
        return generation

    async def _prepare(self, generation: Generation, prompt: str, asked: Mapping[str, Any]) -> None:
        """Compile grammars and tokenize long prompts, which takes longer than the event loop may be held
        up."""
        session = generation.session
        try:
            compiled = await self._compile(generation, asked) if _is_constrained(asked) else None
            tokens = await self._run_while_wanted(generation, None, lambda: self._tokenize(session, prompt))
            if compiled is not None:
                self._masks.attach(session.handle, compiled)
            self._submit(generation, tokens, asked)
        except _TooLateError as error:
            self._end_unsubmitted(generation, error.reason)
        except WireError as error:
            self._fail(generation, error)
        except Exception as error:  # noqa: BLE001 - the border: one job's fault is not another's
            place = traceback.extract_tb(error.__traceback__)[-1]
            why = f"{type(error).__name__} at {place.name}:{place.lineno}"
            self._fail(generation, WireError("internal", f"the generation could not be prepared ({why})"))

    async def _compile(self, generation: Generation, asked: Mapping[str, Any]) -> CompiledGrammar:
        """Return the compiled grammar of a generation. Raises WireError, _TooLateError."""
        schema, grammar = asked.get("json_schema"), asked.get("grammar")
        known = self._masks.find_compiled(schema, grammar)
        if known is not None:
            return known

        def compile_it() -> CompiledGrammar | None:
            if generation.aborted.is_set() or self._clock() >= generation.deadline_s:
                return None  # nobody waits for it any more
            return self._masks.compile(schema=schema, grammar=grammar)

        found = await self._run_while_wanted(generation, self._grammars, compile_it)
        if found is None:
            raise _TooLateError("aborted" if generation.aborted.is_set() else "timeout")
        return found

    async def _run_while_wanted(
        self, generation: Generation, executor: Executor | None, job: Callable[[], T]
    ) -> T:
        """Return the job's result, while somebody waits for it. Raises _TooLateError; the job then ends
        unheard."""
        working = asyncio.get_running_loop().run_in_executor(executor, job)
        self._under_way.add(working)
        working.add_done_callback(self._forget_job)
        aborted = asyncio.ensure_future(generation.aborted.wait())  # deadline: `left_s`
        left_s = max(0.0, generation.deadline_s - self._clock())
        await asyncio.wait((working, aborted), timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        aborted.cancel()
        if generation.aborted.is_set():
            raise _TooLateError("aborted")
        if not working.done():
            raise _TooLateError("timeout")
        return working.result()

    def _forget_job(self, working: asyncio.Future[Any]) -> None:
        self._under_way.discard(working)
        if not working.cancelled():
            working.exception()  # of a job that nobody waits for: it is not said

    def _tokenize(self, session: WorkerSession, prompt: str) -> list[int]:
        try:
            if self._engine.session_tokens(session.handle) > 0:
                return self._chat.next_tokens(self._engine, prompt)
            return self._chat.first_tokens(self._engine, session.params.system, prompt)
        except EngineError as error:
            raise _wire_error(error, error.message) from None

    def _submit(self, generation: Generation, tokens: list[int], asked: Mapping[str, Any]) -> None:
        try:
            left_ms = max(1, int((generation.deadline_s - self._clock()) * 1000))
            sampling = _sampling_of(asked, left_ms)
            self._engine.submit(generation.session.handle, tokens, sampling, generation.client)
        except EngineError as error:
            raise _wire_error(error, error.message) from None
        generation.submitted = True

    def on_ready(self) -> None:
        """Pass on what the engine has. To be called when its eventfd is readable."""
        for handle in self._engine.ready():
            session = self._by_handle.get(handle)
            if session is not None and session.generation is not None:
                self.pump(session.generation)

    def pump(self, generation: Generation) -> None:
        """Pass text on, as long as the client takes it; the rest stays in the engine, which pauses. Nothing
        stays of a closed session."""
        if not generation.submitted or generation.over:
            return  # what the engine has is the end of the one before, or of none
        closed = generation.session.session_id not in self._by_id
        while closed or generation.sink is None or generation.sink.ready():
            progress = self._take(generation)
            if progress is not None and progress.more:
                continue
            if progress is not None and progress.reason is not Reason.RUNNING:
                self._end(generation, progress)
            return

    def _take(self, generation: Generation) -> Progress | None:
        """Pass on the text that the engine has, and return how far it is; None: the generation failed."""
        found = self._engine.take(generation.session.handle)
        if found is None:
            self._fail(generation, WireError("unknown_session", "the session was closed"))
            return None
        text, progress = found
        if text and generation.sink is not None:
            generation.sink.text(generation, text)
        self._measure(generation, progress)
        return progress

    def _measure(self, generation: Generation, progress: Progress) -> None:
        fresh = progress.completion_tokens - generation.tokens
        if fresh <= 0:
            return
        now = self._clock()
        if generation.last_s:
            self._metrics.token.observe((now - generation.last_s) / fresh, fresh)
        generation.tokens, generation.last_s = progress.completion_tokens, now

    def _end(self, generation: Generation, progress: Progress) -> None:
        self._metrics.count_ended(progress)
        if progress.reason is Reason.FAILED:
            error = self._masks.failure(generation.session.handle) if progress.code is Code.MASK else None
            self._fail(
                generation, error or WireError(_CODES.get(progress.code, "internal"), progress.message)
            )
            return
        usage = Usage(
            prompt_tokens=progress.prompt_tokens,
            cached_tokens=progress.cached_tokens,
            completion_tokens=progress.completion_tokens,
        )
        self._finish(generation, progress.reason.name.lower(), usage)

    def _end_unsubmitted(self, generation: Generation, reason: str) -> None:
        if not generation.over:
            self._metrics.ended[reason] += 1
            self._finish(generation, reason, Usage(prompt_tokens=0, cached_tokens=0, completion_tokens=0))

    def _finish(self, generation: Generation, reason: str, usage: Usage) -> None:
        self._release(generation, lambda sink: sink.ended(generation, reason, usage))

    def _fail(self, generation: Generation, error: WireError) -> None:
        if error.code == "internal":
            self._log.say("error", error.message, session_id=generation.session.session_id)
        self._release(generation, lambda sink: sink.failed(generation, error))

    def _release(self, generation: Generation, tell: Callable[[Sink], None]) -> None:
        """End a generation and free its session, if that was closed. Its client is told afterwards: it may
        ask for more at once, and would take what was freed for another."""
        if generation.over:
            return  # it was being prepared when its session went
        generation.over = True
        session = generation.session
        session.generation = None
        session.used_s = self._clock()
        if session.session_id not in self._by_id:
            self._free_handle(session)
        asyncio.get_running_loop().call_soon(_tell_sink, generation, tell)
        if not self._generating():
            self._idle.set()


class _TooLateError(Exception):
    """A generation ended before it was submitted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _tell_sink(generation: Generation, tell: Callable[[Sink], None]) -> None:
    if generation.sink is not None:
        tell(generation.sink)


#: The worker's own choice of what neither a request nor its session says.
_DEFAULTS: Mapping[str, Any] = {
    "max_tokens": 1024,
    "temperature": 1.0,
    "top_k": 64,
    "top_p": 0.95,
    "min_p": 0.0,
    "repeat_penalty": 1.0,
    "seed": -1,
    "stop": (),
    "timeout_ms": 120_000,
}


def _place_of(session: WorkerSession) -> Place[WorkerSession]:
    generation = session.generation
    since_s = session.used_s if generation is None else generation.begun_s
    return Place(session, session.client, generation is None, since_s)


def _is_constrained(asked: Mapping[str, Any]) -> bool:
    return "json_schema" in asked or "grammar" in asked


def _sampling_of(asked: Mapping[str, Any], timeout_ms: int) -> Sampling:
    values = {name: asked[name] for name in _DEFAULTS}
    values |= {name: min(asked[name], _INT32) for name in ("max_tokens", "top_k")}
    values["top_p"] = max(asked["top_p"], _LEAST_P)
    if asked["seed"] < 0:
        values["seed"] = int.from_bytes(os.urandom(4), "little")
    values["timeout_ms"] = timeout_ms
    return Sampling(**values, constrained=_is_constrained(asked))


def _wire_error(error: EngineError, message: str) -> WireError:
    return WireError(_CODES.get(error.code, "internal"), message)
