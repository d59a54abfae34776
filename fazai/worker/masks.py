"""Constrained output: llguidance says which tokens a schema or grammar allows, beside the native loop.

The tokenizer of llguidance is made once (it walks the whole vocabulary); a compiled grammar is kept for its
text.
"""

from __future__ import annotations

import importlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from fazai.errors import FazaiError
from fazai.wire.base import WireError
from fazai.worker.bridge import Code, Engine, EngineError, MaskJob

__all__ = ["Masks"]

_KEPT_GRAMMARS = 32
_WAIT_MS = 500
# What is inside of a JSON string: masks for it are kept in one piece. llguidance's own three slices take
# twice the memory (107 MB beside 60) and give no faster masks on this vocabulary; without one they are 100
# times slower.
_SLICE = r'[^"\\\x00-\x1F\x7F]{1,30}'


class Masks:
    """The owner of the engine's masks. `start` runs its thread, `stop` ends it after `Engine.shutdown`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._tokenizer: Any = None
        self._compiled: OrderedDict[str, Any] = OrderedDict()
        self._matchers: dict[int, Any] = {}
        self._thread = threading.Thread(target=self._run, name="masks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.join()

    def warm(self) -> None:
        """Makes the tokenizer, about two seconds of work; otherwise the first grammar pays for it."""
        with self._lock:
            if self._tokenizer is None:
                vocabulary, tokenize = self._engine.addresses
                self._tokenizer = _llguidance().LLTokenizer.from_llamacpp(
                    tokens=self._engine.pieces(),
                    vocab_ptr=vocabulary,
                    tokenize_fptr=tokenize,
                    eos_token=self._engine.eos,
                    slices=[_SLICE],
                )
                self._engine.trim()

    def compile(self, *, schema: Mapping[str, Any] | None, grammar: str | None) -> Any:
        """A matcher at its start. Raises WireError(schema_unsupported) for what cannot be enforced."""
        self.warm()
        key = json.dumps(schema, sort_keys=True) if schema is not None else f"grammar:{grammar}"
        with self._lock:
            found = self._compiled.get(key)
            if found is None:
                found = self._new(
                    _text_of(schema, grammar), what="schema" if schema is not None else "grammar"
                )
                self._compiled[key] = found
                if len(self._compiled) > _KEPT_GRAMMARS:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(key)
            return found.deep_copy()

    def _new(self, text: str, *, what: str) -> Any:
        matcher_type = _llguidance().LLMatcher
        wrong, problems = matcher_type.validate_grammar_with_warnings(text, self._tokenizer)
        if wrong or problems:
            raise _unsupported(what, problems)
        matcher = matcher_type(self._tokenizer, text, log_level=0)
        if matcher.is_error():
            raise _unsupported(what, [matcher.get_error()])
        return matcher

    def attach(self, session: int, matcher: Any) -> None:
        """Before the session's constrained generation is submitted."""
        self._matchers[session] = matcher

    def detach(self, session: int) -> None:
        self._matchers.pop(session, None)

    def _run(self) -> None:
        while True:
            try:
                job = self._engine.mask_next(_WAIT_MS)
            except EngineError:
                return
            if job is not None:
                self._answer(job)

    def _answer(self, job: MaskJob) -> None:
        matcher = self._matchers.get(job.session)
        if matcher is None or (job.token >= 0 and not matcher.consume_token(job.token)):
            self._engine.mask_ready(job, Code.MASK)
            return
        forced = matcher.compute_ff_tokens()
        if forced and not matcher.consume_tokens(forced):
            self._engine.mask_ready(job, Code.MASK)
            return
        done = matcher.is_stopped() and not matcher.is_error()
        self._engine.mask_forced(job, forced, done=done)
        if not done:
            matcher.unsafe_compute_mask_ptr(job.address, job.size_bytes)
        self._engine.mask_ready(job, Code.MASK if matcher.is_error() else Code.OK)


def _llguidance() -> Any:
    try:
        return importlib.import_module("llguidance")
    except ModuleNotFoundError:
        raise FazaiError("llguidance is not installed", hint="pip install ./native '.[gemma]'") from None


def _text_of(schema: Mapping[str, Any] | None, grammar: str | None) -> str:
    """JSON without optional white space, so that all between the values is forced; GBNF or Lark as it is."""
    if schema is not None:
        options = {"whitespace_flexible": False}
        try:
            made: str = _llguidance().LLMatcher.grammar_from_json_schema(
                json.dumps(schema), overrides=options
            )
        except ValueError as error:
            raise _unsupported("schema", [str(error)]) from None
        return made
    gbnf = "::=" in (grammar or "")
    try:
        text: str = _llguidance().grammar_from("gbnf" if gbnf else "lark", grammar)
    except ValueError as error:
        raise _unsupported("grammar", [str(error)]) from None
    return text


def _unsupported(what: str, problems: list[str]) -> WireError:
    said = " ".join(problems[0].split())[:240] if problems else "it cannot be compiled"
    return WireError("schema_unsupported", f"the {what} cannot be enforced: {said}")
