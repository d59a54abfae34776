"""Section 1 of SPEC.md: the worker's Unix socket, one JSON object a line."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from msgspec import Meta

from fazai.wire.base import (
    MAX_LINE_BYTES,
    AnswerMessage,
    Count,
    Family,
    Ident,
    Message,
    Milliseconds,
    RequestMessage,
)

Prompt = Annotated[str, Meta(max_length=2_000_000)]
StopText = Annotated[str, Meta(min_length=1, max_length=256)]
StopReason = Literal["eos", "length", "stop", "aborted", "timeout"]


class GenerateParams(RequestMessage, frozen=True, kw_only=True):
    """Parameters of one generation; what is not given is the session's, then the worker's default."""

    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0)] | None = None  # 0: always the likeliest token
    top_k: Count | None = None  # 0: off
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repeat_penalty: Annotated[float, Meta(gt=0)] | None = None
    seed: Annotated[int, Meta(ge=-1, le=4_294_967_295)] | None = None  # -1: a fresh one each time
    stop: Annotated[tuple[StopText, ...], Meta(max_length=16)] | None = None
    json_schema: dict[str, Any] | None = None
    grammar: Annotated[str, Meta(min_length=1, max_length=65_536)] | None = None
    timeout_ms: Milliseconds | None = None

    def __post_init__(self) -> None:
        if self.json_schema is not None and self.grammar is not None:
            raise ValueError("`json_schema` and `grammar` exclude each other")


class SessionParams(GenerateParams, frozen=True, kw_only=True):
    """The defaults of a session's generations, and its system prompt."""

    system: Prompt | None = None


_SHAPES = ("json_schema", "grammar")


def merge_params(own: GenerateParams | None, session: SessionParams) -> dict[str, Any]:
    """Return the parameters that are given for a generation, by name: its own, else the session's. A grammar
    of its own puts the session's schema aside, and the other way round."""
    merged: dict[str, Any] = {}
    for params in (session, own):
        names = GenerateParams.__struct_fields__ if params is not None else ()
        given = {name: value for name in names if (value := getattr(params, name)) is not None}
        if any(name in given for name in _SHAPES):
            merged = {name: value for name, value in merged.items() if name not in _SHAPES}
        merged |= given
    return merged


class CreateSession(RequestMessage, frozen=True, kw_only=True, tag_field="type", tag="create_session"):
    params: SessionParams


class Generate(RequestMessage, frozen=True, kw_only=True, tag_field="type", tag="generate"):
    session_id: Ident
    prompt: Prompt
    stream: bool = True
    params: GenerateParams | None = None


class GenerateStream(Generate, frozen=True, kw_only=True, tag="generate_stream"):
    """`generate` with `stream: true`, under the name that some clients use."""

    def __post_init__(self) -> None:
        if not self.stream:
            raise ValueError("`stream` cannot be false in generate_stream; use generate")


class Abort(RequestMessage, frozen=True, kw_only=True, tag_field="type", tag="abort"):
    session_id: Ident


class CloseSession(RequestMessage, frozen=True, kw_only=True, tag_field="type", tag="close_session"):
    session_id: Ident


class Status(RequestMessage, frozen=True, kw_only=True, tag_field="type", tag="status"):
    metrics: bool = False


WorkerRequest = CreateSession | Generate | GenerateStream | Abort | CloseSession | Status


class Usage(Message, frozen=True, kw_only=True, omit_defaults=False):
    """`cached_tokens` are those of the prompt that the session had already seen and did not pay for again."""

    prompt_tokens: Count
    cached_tokens: Count
    completion_tokens: Count


class GenerateAnswer(AnswerMessage, frozen=True, kw_only=True):
    """The answer to `generate` with `stream: false`."""

    text: str
    usage: Usage
    stop_reason: StopReason


class WorkerLimits(Message, frozen=True, kw_only=True):
    max_line_bytes: Count
    max_sessions: Count
    max_queue: Count
    max_timeout_ms: Count
    turn_tokens: Count | None = None
    credit_tokens: Count | None = None
    max_passes: Count | None = None


class StatusAnswer(AnswerMessage, frozen=True, kw_only=True):
    """The state of the worker and its limits; the handshake of the socket."""

    status: Literal["starting", "running", "stopping"]
    model: str | None
    sessions: Count
    slots: Count  # generations that can run at the same time
    contract: str | None = None
    version: str | None = None
    context_tokens: Count | None = None
    model_sha256: str | None = None  # of its file, once it was read through
    queued: Count | None = None
    limits: WorkerLimits | None = None
    logits_limit: Count | None = None  # allowed tokens up to which no other logits are computed; 0: all are
    logits_note: str | None = None  # why all are computed
    drafts_limit: Count | None = None  # tokens that are tried at once beside a session's own; 0: none
    drafts_note: str | None = None  # why none are
    metrics: str | None = None  # Prometheus text, when it was asked for


class TokenText(Message, frozen=True, kw_only=True, tag_field="type", tag="token"):
    text: str


class StopEvent(Message, frozen=True, kw_only=True, tag_field="type", tag="stop"):
    reason: StopReason
    usage: Usage | None = None


class WorkerErrorEvent(Message, frozen=True, kw_only=True, tag_field="type", tag="error"):
    """The end of a stream that failed."""

    message: str
    code: str | None = None


WorkerEvent = TokenText | StopEvent | WorkerErrorEvent

# The worker's code list has no `too_large`: a line over the limit is a bad request.
_REQUESTS: Family[WorkerRequest] = Family(
    WorkerRequest,
    tag="type",
    unknown="unknown_type",
    limit_bytes=MAX_LINE_BYTES,
    too_large="bad_request",
    unique_names=True,
)
_EVENTS: Family[WorkerEvent] = Family(
    WorkerEvent, tag="type", unknown="unknown_type", limit_bytes=MAX_LINE_BYTES, too_large="bad_request"
)


_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def _mend_surrogates(line: bytes) -> bytes:
    """Read half of a character that JSON writes in two escapes as U+FFFD: clients cut text in the middle of
    one, and the other half is not coming."""
    if _SURROGATE.search(line) is None:
        return line
    return _ESCAPE.sub(lambda found: b"\\ufffd" if found[1] else found[0], line)


def decode_worker_request(line: bytes | str) -> WorkerRequest:
    """Read one line that a client sent. Raises WireError: bad_json, bad_request, unknown_type."""
    raw = line.encode(errors="surrogatepass") if isinstance(line, str) else line
    return _REQUESTS.decode(_mend_surrogates(raw))


def decode_worker_event(line: bytes | str) -> WorkerEvent:
    """Read one line of a stream that a worker sent. Raises WireError: bad_json, bad_request, unknown_type."""
    return _EVENTS.decode(line)
