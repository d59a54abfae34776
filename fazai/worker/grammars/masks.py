"""Constrained output: computes which tokens a schema or grammar allows (llguidance), beside the native loop.

The tokenizer of llguidance is made once (it walks the whole vocabulary); a compiled grammar is kept for its
text. What a stranger wrote is compiled in a process of its own first (precheck.py).
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import signal
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fazai.errors import FazaiError
from fazai.wire.base import WireError
from fazai.worker.bridge import MAX_FORCED, Code, EngineError, MaskJob, NativeEngine
from fazai.worker.grammars import precheck
from fazai.worker.grammars.keywords import unknown_keyword
from fazai.worker.grammars.numbers import NumberEnds, number_token_bits

#: As JSON. Text that a schema forces is tokenized in one piece, while which no other client is heard.
MAX_SCHEMA_BYTES = 131_072
_KEPT_GRAMMARS = 16
#: States of one grammar's lexer, which all its generations share: 1 to 2 kB each. Few need a thousand.
_MAX_STATES = 65_536
_WAIT_MS = 500
_PRECHECK_S = 60.0  # of the clock, on a machine that has no time; of a processor it has far less
_STACK_BYTES = 64 << 20
# What is inside of a JSON string: masks for it are kept in one piece. llguidance's own three slices take
# twice the memory (107 MB beside 60) and give no faster masks on this vocabulary; without one they are 100
# times slower.
_SLICE = r'[^"\\\x00-\x1F\x7F]{1,30}'


@dataclass(frozen=True, slots=True, eq=False)
class CompiledGrammar:
    """A compiled grammar at its start; generations follow copies of its matcher."""

    key: str
    what: str
    matcher: Any


@dataclass(slots=True, eq=False)
class _Following:
    """The grammar of a session, and how far its generation has followed it."""

    compiled: CompiledGrammar
    matcher: Any = None
    numbers: NumberEnds | None = None
    failure: str | None = None


class Masks:
    """Computes the masks of constrained generations in a thread of its own. `start` begins it; `stop` waits
    for its end, after `NativeEngine.shutdown`."""

    def __init__(self, engine: NativeEngine) -> None:
        self._engine = engine
        self._making = threading.Lock()  # one at a time
        self._lock = threading.Lock()  # of what is kept
        self._tokenizer: Any = None
        self._pieces: list[bytes] = []
        self._number_tokens = 0  # a bit for each token that goes on with a number
        self._kept: OrderedDict[str, CompiledGrammar | str] = OrderedDict()
        self._followed: dict[int, _Following] = {}  # by session
        self._thread = threading.Thread(target=self._serve_masks, name="masks", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        with deep_stack():
            self._thread.start()

    def stop(self) -> None:
        """Wait for the thread's end."""
        self._thread.join()

    def _make_tokenizer(self) -> None:
        """Make the tokenizer for the first grammar, which takes about two seconds."""
        if self._tokenizer is None:
            vocabulary, tokenize = self._engine.addresses
            self._pieces = self._engine.pieces()
            self._number_tokens = number_token_bits(self._pieces)
            self._tokenizer = _llguidance().LLTokenizer.from_llamacpp(
                tokens=self._pieces,
                vocab_ptr=vocabulary,
                tokenize_fptr=tokenize,
                eos_token=self._engine.eos,
                slices=[_SLICE],
            )
            self._engine.trim()

    def find_compiled(self, schema: Mapping[str, Any] | None, grammar: str | None) -> CompiledGrammar | None:
        """Return what was compiled before; None when it was not. Raises WireError(schema_unsupported)."""
        what, key = _cache_key(schema, grammar)
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
        if isinstance(found, str):
            raise _unsupported(what, found)
        return found

    def compile(self, *, schema: Mapping[str, Any] | None, grammar: str | None) -> CompiledGrammar:
        """Compile a schema or grammar, which takes seconds; to be called in a thread with a `deep_stack`.
        Raises WireError: schema_unsupported for what cannot be enforced, overloaded when the machine had no
        time for it."""
        with self._making:
            found = self.find_compiled(schema, grammar)  # another may have compiled it meanwhile
            if found is not None:
                return found
            what, key = _cache_key(schema, grammar)
            made = self._build(what, key, {"schema": schema} if schema is not None else {"grammar": grammar})
            with self._lock:
                self._kept[key] = made
                if len(self._kept) > _KEPT_GRAMMARS:
                    self._kept.popitem(last=False)
        if isinstance(made, str):
            raise _unsupported(what, made)
        return made

    def _build(self, what: str, key: str, asked: Mapping[str, Any]) -> CompiledGrammar | str:
        """Return the compiled grammar, or why it cannot be enforced. Raises WireError(overloaded)."""
        unknown = unknown_keyword(asked["schema"]) if "schema" in asked else None
        if unknown is not None:
            return unknown
        answer = _run_precheck(asked)
        if "text" not in answer:
            return answer["problem"]
        self._make_tokenizer()
        guidance = _llguidance()
        limits = guidance.LLParserLimits(max_lexer_states=_MAX_STATES, verbose_errors=False)
        matcher = guidance.LLMatcher(self._tokenizer, answer["text"], log_level=0, limits=limits)
        problem = self._first_problem(matcher)
        return problem or CompiledGrammar(key, what, matcher)

    def _first_problem(self, matcher: Any) -> str | None:
        """Return what would fail at the first token: a schema that nothing fits, or one that is endless."""
        trial = matcher.deep_copy()
        forced = trial.compute_ff_tokens()[:MAX_FORCED]
        if forced:
            trial.consume_tokens(forced)
        if not trial.is_error() and not trial.is_stopped():
            size_bytes = (self._engine.vocabulary + 31) // 32 * 4
            mask = ctypes.create_string_buffer(size_bytes)
            trial.unsafe_compute_mask_ptr(ctypes.addressof(mask), size_bytes)
        return _first_line(trial.get_error()) if trial.is_error() else None

    def attach(self, session: int, compiled: CompiledGrammar) -> None:
        """Choose the grammar of a session, before its constrained generation is submitted."""
        self._followed[session] = _Following(compiled)

    def detach(self, session: int) -> None:
        """Forget the grammar of a session."""
        self._followed.pop(session, None)

    def failure(self, session: int) -> WireError | None:
        """Return why the session's grammar could not be followed to its end; None when that is not known."""
        found = self._followed.get(session)
        if found is None or found.failure is None:
            return None
        why, found.failure = found.failure, None
        return _unsupported(found.compiled.what, why)

    def _serve_masks(self) -> None:
        while True:
            try:
                job = self._engine.mask_next(_WAIT_MS)
            except EngineError:
                return
            if job is not None:
                self._engine.mask_ready(job, Code.OK if self._fill_mask(job) else Code.MASK)

    def _fill_mask(self, job: MaskJob) -> bool:
        """Pass on forced tokens, and write the mask. Return False where the grammar cannot be followed any
        further."""
        found = self._followed.get(job.session)
        if found is None:
            return False
        if job.token < 0:
            # A copy for each start: what an ended generation has under way never touches the next one's.
            found.matcher = found.compiled.matcher.deep_copy()
            if found.compiled.what == "schema":
                found.numbers = NumberEnds(self._pieces, self._number_tokens)
        matcher, numbers = found.matcher, found.numbers
        if matcher is None or (job.token >= 0 and not matcher.consume_token(job.token)):
            return self._note_failure(found)
        forced = matcher.compute_ff_tokens()[:MAX_FORCED]  # the rest is forced with the next token
        if forced and not matcher.consume_tokens(forced):
            return self._note_failure(found)
        done = matcher.is_stopped() and not matcher.is_error()
        if not self._engine.mask_forced(job, forced, done=done):
            return False
        if numbers is not None:
            numbers.feed(forced if job.token < 0 else (job.token, *forced))
        if not done:
            matcher.unsafe_compute_mask_ptr(job.address, job.size_bytes)
            if numbers is not None and not matcher.is_error():
                numbers.apply(job.address, job.size_bytes)
        return not matcher.is_error() or self._note_failure(found)

    def _note_failure(self, found: _Following) -> bool:
        if found.matcher is not None and found.matcher.is_error():
            found.failure = _first_line(found.matcher.get_error())
            with self._lock:  # its lexer may be full of others' states: the next one has a new one
                if self._kept.get(found.compiled.key) is found.compiled:
                    del self._kept[found.compiled.key]
        return False


@contextlib.contextmanager
def deep_stack() -> Iterator[None]:
    """Give threads that are started within room for what is nested deeply: more than it had when precheck.py
    tried it."""
    before = threading.stack_size(_STACK_BYTES)
    try:
        yield
    finally:
        threading.stack_size(before)


def _cache_key(schema: Mapping[str, Any] | None, grammar: str | None) -> tuple[str, str]:
    """Return what is compiled (schema or grammar), and its text. The order of names counts: properties are
    written in it. Raises WireError(schema_unsupported)."""
    if schema is None:
        return "grammar", f"grammar:{grammar}"
    return "schema", schema_text(schema)


def schema_text(schema: Mapping[str, Any]) -> str:
    """Return the schema as JSON. Raises WireError(schema_unsupported) for one that is too large."""
    try:
        text = json.dumps(schema, ensure_ascii=False)
    except RecursionError:
        raise _unsupported("schema", "it is nested too deeply") from None
    if len(text.encode()) > MAX_SCHEMA_BYTES:
        raise _unsupported("schema", f"it has more than {MAX_SCHEMA_BYTES} bytes")
    return text


def _run_precheck(asked: Mapping[str, Any]) -> dict[str, str]:
    """Compile in the process of precheck.py, and return its answer. Raises WireError(overloaded), FazaiError
    when llguidance is not installed."""
    _llguidance()
    command = [sys.executable, "-I", str(Path(precheck.__file__))]
    try:
        done = subprocess.run(
            command, input=json.dumps(asked).encode(), capture_output=True, timeout=_PRECHECK_S
        )
    except (OSError, subprocess.TimeoutExpired):
        raise WireError("overloaded", "the machine has no time to compile the grammar") from None
    if done.returncode == 0 and done.stdout:
        answer: dict[str, str] = json.loads(done.stdout)
        return answer
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return {"problem": f"it takes more than {precheck.CPU_S} s to compile"}
    return {"problem": "it is too large, or nested too deeply"}


def _llguidance() -> Any:
    try:
        return importlib.import_module("llguidance")
    except ModuleNotFoundError:
        raise FazaiError("llguidance is not installed", hint="pip install ./native '.[gemma]'") from None


def _first_line(problem: str) -> str:
    """Return the first line of a problem: those that follow show llguidance's state."""
    first = problem.strip().partition("\n")[0]
    return "nothing can satisfy it" if first in ("", "NoExtension", "NoExtensionBias") else first


def _unsupported(what: str, problem: str) -> WireError:
    said = " ".join(problem.split())[:240]
    return WireError("schema_unsupported", f"the {what} cannot be enforced: {said}")
