"""An engine without a model, for the tests of the protocol.

It has the methods of bridge.NativeEngine, a thread that makes a token a step, the same bounded queue and the
same pause when its text is not taken. A prompt's words come back in upper case, then numbers: an answer shows
whose it is.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fazai.wire.base import WireError
from fazai.worker.bridge import Code, EngineError, Options, Progress, Reason, Sampling
from fazai.worker.stats import Stats

PAUSE_BYTES = 4096
CONTEXT = 1_000_000


@dataclass
class _Session:
    tokens: int = 0
    words: deque[str] = field(default_factory=deque)
    sampling: Sampling | None = None
    out: str = ""
    made: int = 0
    prompt: int = 0
    cached: int = 0
    reason: Reason = Reason.RUNNING
    state: str = "idle"
    limit: int = 0


class FakeEngine:
    bos = -1

    def __init__(self, options: Options, *, step_s: float = 0.0005) -> None:
        self._options = options
        self._step_s = step_s
        self._lock = threading.Condition()
        self._fd = os.eventfd(0, os.EFD_NONBLOCK)
        self._sessions: dict[int, _Session] = {}
        self._order: deque[int] = deque()
        self._noted: set[int] = set()
        self._next = 1
        self._closed = False
        self.most_running = 0
        self.clients: list[tuple[int, int]] = []  # of the generations that were submitted
        self.aborts = 0
        self.most_sessions = 0
        self.longest = 0
        self._limit = 1 << 60
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    release = "fake"

    def shutdown(self) -> None:
        with self._lock:
            self._closed = True
            self._lock.notify_all()

    def meta(self, key: str) -> str | None:
        return None

    def stats(self) -> Stats:
        sessions = list(self._sessions.values())
        running = sum(s.state == "running" for s in sessions)
        tokens = sum(s.made for s in sessions)
        return Stats(
            *(len(sessions), running, len(self._order), CONTEXT, 1, tokens, 0.0, 0, 0, tokens, 0, 0),
            *(0.0, 0, 0, 0, 0),
            batch_cost_s=(),
            plan=(),
            short_cost_s=(),
            short_decodes=0,
            rows=0,
            whole_decodes=0,
            whole_rows=0,
            rows_limit=0,
            rows_why="the fake has none",
            drafted_tokens=0,
            draft_accepted_tokens=0,
            drafts_limit=0,
            drafts_why="the fake has none",
            turn_tokens=64,
            credit_tokens=512,
            most_passes=16,
        )

    def mask_next(self, timeout_ms: int) -> None:
        with self._lock:
            self._lock.wait_for(lambda: self._closed, timeout_ms / 1000)
            if self._closed:
                raise EngineError(Code.CLOSED, "the engine is being closed")

    def close(self) -> None:
        self.shutdown()
        self._thread.join()
        os.close(self._fd)

    def limit(self, tokens: int) -> None:
        """Generations that begin from now on end after so many."""
        self._limit = tokens

    def fileno(self) -> int:
        return self._fd

    def tokenize(self, text: str, *, special: bool = False, bos: bool = False) -> list[int]:
        return [ord(char) for char in text]

    def tokenize_plain(self, text: str) -> list[int]:
        return self.tokenize(text)

    def open_session(self) -> int:
        with self._lock:
            if len(self._sessions) >= self._options.sessions:
                raise EngineError(Code.OVERLOADED, "full")
            self._next += 1
            self._sessions[self._next] = _Session()
            self.most_sessions = max(self.most_sessions, len(self._sessions))
            return self._next

    def close_session(self, session: int) -> None:
        with self._lock:
            self._sessions.pop(session, None)

    def session_tokens(self, session: int) -> int:
        return self._sessions[session].tokens

    def submit(
        self, session: int, tokens: Sequence[int], sampling: Sampling, client: tuple[int, int] = (0, 0)
    ) -> None:
        self.clients.append(client)
        with self._lock:
            running = sum(s.state == "running" for s in self._sessions.values())
            if running + len(self._order) >= self._options.slots + self._options.queue:
                raise EngineError(Code.OVERLOADED, f"{len(self._order)} generations wait already")
            s = self._sessions[session]
            if s.tokens + len(tokens) >= CONTEXT:
                raise EngineError(Code.CONTEXT, f"the conversation has {s.tokens} of {CONTEXT} tokens")
            s.cached, s.tokens = s.tokens, s.tokens + len(tokens)
            self.longest = max(self.longest, s.tokens)
            s.prompt, s.made, s.out, s.reason = s.tokens, 0, "", Reason.RUNNING
            s.words = deque("".join(map(chr, tokens)).upper().split())
            s.sampling, s.state, s.limit = sampling, "queued", min(sampling.max_tokens, self._limit)
            self._order.append(session)
            self._lock.notify_all()

    def abort(self, session: int) -> None:
        with self._lock:
            s = self._sessions.get(session)
            if s is not None and s.state != "idle":
                self.aborts += 1
                self._finish(session, s, Reason.ABORTED)

    def _finish(self, session: int, s: _Session, reason: Reason) -> None:
        if s.state == "queued":
            self._order.remove(session)
        s.state, s.reason = "idle", reason
        self._note(session)

    def _note(self, session: int) -> None:
        self._noted.add(session)
        os.eventfd_write(self._fd, 1)

    def ready(self) -> list[int]:
        with self._lock:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._fd)
            found, self._noted = list(self._noted), set()
            return found

    def take(self, session: int) -> tuple[str, Progress] | None:
        with self._lock:
            s = self._sessions.get(session)
            if s is None:
                return None
            text, s.out = s.out, ""
            self._lock.notify_all()
            progress = Progress(
                s.reason, Code.OK, "", False, s.prompt, s.cached, s.made, 0, 0.0, 0.001, 0.001
            )
            return text, progress

    def _run(self) -> None:
        with self._lock:
            while not self._closed:
                running = [(i, s) for i, s in self._sessions.items() if s.state == "running"]
                while self._order and len(running) < self._options.slots:
                    index = self._order.popleft()
                    self._sessions[index].state = "running"
                    running.append((index, self._sessions[index]))
                self.most_running = max(self.most_running, len(running))
                for index, s in running:
                    self._token(index, s)
                self._lock.wait(self._step_s if running else None)

    def _token(self, index: int, s: _Session) -> None:
        assert s.sampling is not None
        if len(s.out) > PAUSE_BYTES:
            return
        word = s.words.popleft() if s.words else str(s.made)
        stops = [stop for stop in s.sampling.stop if stop in word]
        if not stops:
            s.out += word + " "
        s.made += 1
        s.tokens += 1
        self._note(index)
        if stops:
            self._finish(index, s, Reason.STOP)
        elif s.made >= s.limit:
            self._finish(index, s, Reason.LENGTH)


class FakeMasks:
    """Refuses schemas that say so, as the real one those that cannot be enforced. `gate` holds it up."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.compiled = 0

    def find_compiled(self, schema: Any, grammar: str | None) -> None:
        """Nothing was compiled before."""

    def compile(self, *, schema: Any, grammar: str | None) -> object:
        self.gate.wait(60)
        self.compiled += 1
        if schema is not None and "nonsense" in schema:
            raise WireError("schema_unsupported", "the schema cannot be enforced: nonsense")
        if schema is not None and "broken" in schema:
            raise RuntimeError("a defect")
        return object()

    def failure(self, session: int) -> None:
        """None failed on its way."""

    def attach(self, session: int, matcher: object) -> None:
        pass

    def detach(self, session: int) -> None:
        pass
