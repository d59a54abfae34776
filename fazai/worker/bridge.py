"""The native engine as a Python object; native/gemma_bridge.h documents its functions.

Nothing else imports `fazai_gemma`.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from fazai.errors import FazaiError, InputError
from fazai.worker.stats import Stats, read_stats

_INSTALL = "pip install ./native '.[gemma]' (it compiles llama.cpp, which takes minutes)"
_TEXT_BYTES = 32_768
_READY = 256
MAX_FORCED = 4096  # tokens that `mask_forced` takes at once (FZ_MAX_FF)


class Code(IntEnum):
    """Error codes of the engine (enum fz_code)."""

    OK = 0
    INVALID = -1
    MEMORY = -2
    MODEL = -3
    UNKNOWN = -4
    BUSY = -5
    CONTEXT = -6
    OVERLOADED = -7
    CLOSED = -8
    DECODE = -9
    MASK = -10


class Reason(IntEnum):
    """Reasons why a generation ended (enum fz_reason)."""

    RUNNING = 0
    EOS = 1
    LENGTH = 2
    STOP = 3
    ABORTED = 4
    TIMEOUT = 5
    FAILED = 6


class EngineError(FazaiError):
    """The engine refused; `code` says why."""

    def __init__(self, code: Code, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class Drafts(IntEnum):
    """Choice of when tokens that probably follow are decoded with a session's own (enum fz_draft_mode)."""

    EXACT = 0
    OFF = 1
    ALWAYS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of the engine (fz_options); 0 leaves a choice to it."""

    context_tokens: int = 0
    threads: int = 0
    slots: int = 4
    sessions: int = 64
    queue: int = 32
    gpu_layers: int = 0
    full_logits: bool = False  # compute all tokens' logits, also where a grammar allows few
    drafts: Drafts = Drafts.EXACT
    calibrate: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Parameters of one generation (fz_params): when it ends, and how it samples; by default it takes always
    the likeliest token."""

    max_tokens: int
    timeout_ms: int
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    constrained: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of a generation that `take` returns beside the text; the times are zero until the end."""

    reason: Reason
    code: Code
    message: str
    more: bool
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    forced_tokens: int
    queued_s: float
    prefill_s: float
    first_token_s: float


@dataclass(frozen=True, slots=True)
class MaskJob:
    """A session that waits for the mask after `token` (-1: at the start); `address` takes `size_bytes`."""

    session: int
    serial: int
    token: int
    address: int
    size_bytes: int


def import_native() -> Any:
    """Return the native module. Raises InputError where it is absent, or does not fit."""
    # libgomp reads it when it is loaded. Its own default spins for milliseconds at every barrier: on a
    # machine that has anything else to do, a decode then takes a hundred times as long.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    try:
        native = importlib.import_module("fazai_gemma")
    except ModuleNotFoundError as error:
        if error.name != "fazai_gemma":
            raise
        raise InputError("the Gemma worker is not installed", hint=_INSTALL) from None
    except ImportError as error:
        raise InputError(
            f"the Gemma worker does not fit the llama.cpp that is installed: {error}", hint=_INSTALL
        ) from None
    if not hasattr(native.lib, "FZ_TURN"):  # what came last
        raise InputError("the Gemma worker's native part is of an older fazai", hint=_INSTALL)
    return native


def list_devices(native: Any) -> tuple[str, ...]:
    """Return the devices that llama.cpp knows on this machine, each as its name and its description."""
    room = native.lib.fz_devices(native.ffi.NULL, 0) + 1
    text = native.ffi.new("char[]", room)
    native.lib.fz_devices(text, room)
    lines = bytes(native.ffi.string(text)).decode(errors="replace").splitlines()
    return tuple(" ".join(line.replace("\t", ": ", 1).split()) for line in lines)


def _require_gpu(native: Any, layers: int) -> None:
    if layers and not native.lib.fz_gpu():
        raise InputError(
            f"the installed llama.cpp has no GPU here, only {', '.join(list_devices(native)) or 'no device'}",
            where=f"--gpu-layers {layers}",
            hint='leave it out, or build llama.cpp for the GPU: docs/worker.md, "GPU builds"',
        )


def _remove_runs(tokens: list[int], sign: list[int]) -> list[int]:
    """Return the tokens without each run of `sign`."""
    found: list[int] = []
    at, n = 0, len(sign)
    while at < len(tokens):
        if tokens[at] == sign[0] and tokens[at : at + n] == sign:
            at += n
        else:
            found.append(tokens[at])
            at += 1
    return found


class NativeEngine:
    """A loaded model. Raises InputError when the native module is absent, EngineError when the model cannot
    be loaded. All methods may be called from any thread; `close` when no other runs."""

    def __init__(self, path: Path, options: Options) -> None:
        native = import_native()
        self._ffi, self._lib = native.ffi, native.lib
        if not path.is_file():
            raise InputError(
                "there is no such model file", where=str(path), hint="a GGUF file, or --demo-model"
            )
        _require_gpu(native, options.gpu_layers)
        self._err = self._ffi.new("char[512]")
        engine = self._ffi.new("fz_engine **")
        code = self._lib.fz_open(str(path).encode(), self._options(options), engine, self._err, 512)
        if code != Code.OK:
            hint = "fazai worker --inspect FILE says what it is" if code == Code.MODEL else None
            raise EngineError(Code(code), self._text_of(self._err), hint=hint)
        self._engine = engine[0]
        self._text = self._ffi.new("char[]", _TEXT_BYTES)
        self._progress = self._ffi.new("fz_progress *")
        self._ids = self._ffi.new("uint64_t[]", _READY)
        self._job = self._ffi.new("fz_mask_job *")
        self.vocabulary = int(self.stats_raw().n_vocab)
        self._marks = self._find_marks()

    def _options(self, options: Options) -> Any:
        return self._ffi.new(
            "fz_options *",
            {
                "n_ctx": options.context_tokens,
                "n_threads": options.threads,
                "n_slots": options.slots,
                "n_sessions": options.sessions,
                "n_queue": options.queue,
                "n_gpu_layers": options.gpu_layers,
                "calibrate": int(options.calibrate),
                "full_logits": int(options.full_logits),
                "drafts": int(options.drafts),
            },
        )

    def _text_of(self, raw: Any) -> str:
        return bytes(self._ffi.string(raw)).decode(errors="replace")

    @property
    def release(self) -> str:
        """The release of llama.cpp."""
        return self._text_of(self._lib.fz_loaded())

    def shutdown(self) -> None:
        """Refuse everything from now on, end all generations, and wake those who wait for a mask."""
        self._lib.fz_shutdown(self._engine)

    def close(self) -> None:
        """Free the engine and its model."""
        if self._engine is not None:
            self._lib.fz_close(self._engine)
            self._engine = None

    def fileno(self) -> int:
        """Return the eventfd, which is readable when `ready` has something."""
        return int(self._lib.fz_eventfd(self._engine))

    def tokenize(self, text: str, *, special: bool = False, bos: bool = False) -> list[int]:
        """Return the tokens of a text. `special`: marks of the vocabulary are read as what they stand for;
        `bos`: the model's first token goes before. Raises EngineError."""
        raw = text.encode()
        room = len(raw) + 2
        tokens = self._ffi.new("int32_t[]", room)
        n = self._lib.fz_tokenize(self._engine, raw, len(raw), special, bos, tokens, room)
        if n < 0:
            raise EngineError(Code(n), "the text cannot be tokenized")
        return list(self._ffi.unpack(tokens, n)) if n else []

    def tokenize_plain(self, text: str) -> list[int]:
        """Tokenize so that no token stands for more than its text: where llama.cpp takes one of the
        vocabulary's marks for what somebody wrote, a character that is not in the text parts the mark, and
        its tokens are taken out again. (Each call of llama.cpp looks for all marks: one for each part would
        take half a millisecond.) Raises EngineError."""
        tokens = self.tokenize(text)
        found = self._marks.keys() & set(tokens)
        if not found:
            return tokens
        private = (*range(0xE000, 0xF900), *range(0xF0000, 0xFFFFE))
        parting = next((char for char in map(chr, private) if char not in text), None)
        if parting is None:
            raise EngineError(
                Code.INVALID, "the text has all characters of private use and cannot be tokenized"
            )
        sign = self.tokenize(parting)
        while found:
            marks = [self._marks[token] for token in found]
            # Behind the first character of each.
            cuts = "|".join(f"(?<={re.escape(mark[0])})(?={re.escape(mark[1:])})" for mark in marks)
            text = re.sub(cuts, parting, text)
            tokens = self.tokenize(text)
            found = self._marks.keys() & set(tokens)
        return _remove_runs(tokens, sign)

    def _find_marks(self) -> dict[int, str]:
        """Return the tokens that mean something to the model, by number: control tokens, and those of the
        user's that are more than white space."""
        room = 65_536
        while True:
            tokens = self._ffi.new("int32_t[]", room)
            n = self._lib.fz_marks(self._engine, tokens, room)
            if n <= room:
                break
            room = n
        texts = {t: self.piece(t, special=True).decode(errors="replace") for t in self._ffi.unpack(tokens, n)}
        return {token: text for token, text in texts.items() if text.strip() and len(text) > 1}

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return the bytes of a token; with `special` those of control tokens, too."""
        buffer = self._ffi.new("char[]", 512)
        n = self._lib.fz_piece(self._engine, token, special, buffer, 512)
        if n > 512:
            buffer = self._ffi.new("char[]", n)
            self._lib.fz_piece(self._engine, token, special, buffer, n)
        return bytes(self._ffi.buffer(buffer, max(0, n)))

    def pieces(self) -> list[bytes]:
        """Return all tokens' bytes as llguidance wants them: control tokens by name, after a byte 0xff."""
        lib, engine, buffer = self._lib, self._engine, self._ffi.new("char[]", 16_384)
        view = self._ffi.buffer(buffer)
        found = []
        for token in range(self.vocabulary):
            n = lib.fz_piece(engine, token, 1, buffer, 16_384)
            piece = bytes(view[: min(n, 16_384)])
            found.append(b"\xff" + piece if lib.fz_token_kind(engine, token) & 1 else piece)
        return found

    def kind(self, token: int) -> int:
        """Return 1 for a control token, 2 for one that ends a generation, 3 for both, 0 for neither."""
        return int(self._lib.fz_token_kind(self._engine, token))

    @property
    def bos(self) -> int:
        return int(self._lib.fz_token_bos(self._engine))

    @property
    def eos(self) -> int:
        return int(self._lib.fz_token_eos(self._engine))

    @property
    def addresses(self) -> tuple[int, int]:
        """The addresses of llama.cpp's vocabulary and of llama_tokenize, for llguidance's tokenizer."""
        return int(self._lib.fz_vocab_address(self._engine)), int(self._lib.fz_tokenize_address())

    def trim(self) -> None:
        """Give memory that was freed back to the system."""
        self._lib.fz_memory_trim()

    def meta(self, key: str) -> str | None:
        """Return a value of the file's metadata, as text; None when the file does not have it."""
        room = 4096
        while True:
            buffer = self._ffi.new("char[]", room)
            n = self._lib.fz_meta(self._engine, key.encode(), buffer, room)
            if n < room:
                return None if n < 0 else self._text_of(buffer)
            room = n + 1

    def open_session(self) -> int:
        """Open a session and return its number. Raises EngineError(OVERLOADED)."""
        session = self._ffi.new("uint64_t *")
        code = self._lib.fz_session_open(self._engine, session)
        if code != Code.OK:
            raise EngineError(Code(code), "as many sessions are open as are allowed")
        return int(session[0])

    def close_session(self, session: int) -> None:
        self._lib.fz_session_close(self._engine, session)

    def session_tokens(self, session: int) -> int:
        """Return how long the conversation is, in tokens; below zero: a Code."""
        return int(self._lib.fz_session_tokens(self._engine, session))

    def submit(
        self, session: int, tokens: Sequence[int], sampling: Sampling, client: tuple[int, int] = (0, 0)
    ) -> None:
        """Begin a generation for a client: the number of a user, and of a process. Raises EngineError: BUSY,
        CONTEXT, OVERLOADED, UNKNOWN, CLOSED."""
        stops = [self._ffi.new("char[]", text.encode()) for text in sampling.stop]
        params = self._ffi.new("fz_params *")
        for name in ("max_tokens", "temperature", "top_k", "top_p", "min_p", "repeat_penalty", "seed"):
            setattr(params, name, getattr(sampling, name))
        params.timeout_ms = sampling.timeout_ms
        params.user, params.client = client
        params.constrained = int(sampling.constrained)
        params.n_stop = len(stops)
        for index, stop in enumerate(stops):
            params.stop[index], params.stop_len[index] = stop, len(stop) - 1
        code = self._lib.fz_submit(self._engine, session, list(tokens), len(tokens), params, self._err, 512)
        if code != Code.OK:
            raise EngineError(Code(code), self._text_of(self._err))

    def abort(self, session: int) -> None:
        self._lib.fz_abort(self._engine, session)

    def ready(self) -> Iterable[int]:
        """Return the sessions that have something for `take`."""
        n = self._lib.fz_ready(self._engine, self._ids, _READY)
        return list(self._ffi.unpack(self._ids, n)) if n else ()

    def take(self, session: int) -> tuple[str, Progress] | None:
        """Return the new text of a session and how far it is; None: there is no such session. One thread at a
        time."""
        p = self._progress
        n = self._lib.fz_take(self._engine, session, self._text, _TEXT_BYTES, p)
        if n < 0:
            return None
        text = str(self._ffi.buffer(self._text, n)[:], "utf-8") if n else ""
        message = self._text_of(p.message) if p.reason == Reason.FAILED else ""
        counts = (p.prompt_tokens, p.cached_tokens, p.completion_tokens, p.forced_tokens)
        times_s = (us / 1e6 for us in (p.queued_us, p.prefill_us, p.first_token_us))
        return text, Progress(Reason(p.reason), Code(p.code), message, bool(p.more), *counts, *times_s)

    def mask_next(self, timeout_ms: int) -> MaskJob | None:
        """Wait for a session that needs a mask; None when there was none. One thread. Raises
        EngineError(CLOSED)."""
        job = self._job
        code = self._lib.fz_mask_next(self._engine, timeout_ms, job)
        if code < 0:
            raise EngineError(Code(code), "the engine is being closed")
        if code == 1:
            return None
        address = int(self._ffi.cast("uintptr_t", job.bits))
        return MaskJob(job.session, job.serial, job.token, address, job.n_words * 4)

    def mask_forced(self, job: MaskJob, tokens: Sequence[int], *, done: bool) -> bool:
        """Append at most MAX_FORCED tokens that a grammar forces. Return False where nobody waits for them,
        or they cannot be taken."""
        tokens = list(tokens)
        code = self._lib.fz_mask_ff(self._engine, job.session, job.serial, tokens, len(tokens), int(done))
        return bool(code == Code.OK)

    def mask_ready(self, job: MaskJob, code: Code = Code.OK) -> None:
        """Hand the mask of a job over, or the code of what failed."""
        self._lib.fz_mask_ready(self._engine, job.session, job.serial, int(code))

    def stats_raw(self) -> Any:
        stats = self._ffi.new("fz_stats *")
        self._lib.fz_stats_get(self._engine, stats)
        return stats

    def stats(self) -> Stats:
        """Return the engine's counters and measurements."""
        return read_stats(self.stats_raw(), self._text_of)
