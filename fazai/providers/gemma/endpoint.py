"""OpenAI-compatible servers (`POST …/chat/completions`, streamed), to fall back to."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from fazai.compat.timeouts import deadline_at
from fazai.config import is_loopback
from fazai.errors import FazaiError, InputError, Unreachable
from fazai.masking import make_mask
from fazai.providers.gemma.marks import break_marks
from fazai.wire.base import MAX_LINE_BYTES, WireError
from fazai.wire.worker import GenerateParams, SessionParams, StopReason, Usage, merge_params

if TYPE_CHECKING:
    import httpx

_KNOWN = ("max_tokens", "temperature", "top_p", "seed", "stop", "json_schema", "grammar")
_SHOWN_CHARS = 200
_CONNECT_S = 10.0
_REFUSAL_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 64 * 1024 * 1024  # of a whole answer, of the worker and of an endpoint


@dataclass(frozen=True, slots=True)
class FallbackEndpoint:
    """An OpenAI-compatible server: `url` ends before `/chat/completions`."""

    url: str
    model: str
    api_key: str | None = field(default=None, repr=False)

    @classmethod
    def from_environ(
        cls, environ: Mapping[str, str], read_key: Callable[[Path], str]
    ) -> FallbackEndpoint | None:
        """Read FAZAI_GEMMA_FALLBACK_URL, …_MODEL and, for a key, …_KEY_FILE; None when no URL is set.

        Raises InputError, SecretError.
        """
        url, model = environ.get("FAZAI_GEMMA_FALLBACK_URL"), environ.get("FAZAI_GEMMA_FALLBACK_MODEL")
        if not url:
            return None
        file = environ.get("FAZAI_GEMMA_FALLBACK_KEY_FILE")
        _check_endpoint_url(url, "FAZAI_GEMMA_FALLBACK_URL", has_key=bool(file))
        if not model:
            hint = "set FAZAI_GEMMA_FALLBACK_MODEL"
            raise InputError("the fallback's model is not named", where="FAZAI_GEMMA_FALLBACK_URL", hint=hint)
        return cls(url, model, read_key(Path(file)) if file else None)

    @classmethod
    def checked(cls, url: str, model: str, key: str | None, where: str) -> FallbackEndpoint:
        """Return an endpoint after a check of its URL.

        Raises InputError for what is no address, and for one to which the key would go in the clear.
        """
        _check_endpoint_url(url, where, has_key=key is not None)
        return cls(url, model, key)

    @property
    def is_here(self) -> bool:
        """Return whether it is on this machine: then no proxy stands before it."""
        return is_loopback(urlsplit(self.url).hostname or "")


def _check_endpoint_url(url: str, where: str, *, has_key: bool) -> None:
    """Check a URL; the error does not show it, as a password may stand in it. Raises InputError."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        more = bool(parts.query or parts.fragment)
    except ValueError:
        sound = more = False
    hint = "for instance http://127.0.0.1:8080/v1"
    if not sound or not url.isascii() or not url.isprintable() or " " in url:
        why = "it is no URL of the form http://HOST or https://HOST"
    elif more:
        why = "the URL ends with its path"
    elif parts.username is not None or parts.password is not None:
        why, hint = "no user and no password stand in the URL", "a key has a file of its own"
    elif has_key and parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        why, hint = "the key would go there in the clear", "use https://"
    else:
        return
    raise InputError(why, where=where, hint=hint)


@dataclass(frozen=True, slots=True)
class AnswerPiece:
    """A part of an answer: text, and at its end why it ended and what it cost."""

    text: str = ""
    reason: StopReason | None = None
    usage: Usage | None = None


class FallbackConversation:
    """The turns of a conversation with endpoints, which themselves keep none. They are tried in their order,
    from the one that answered last on: the next one where one cannot be reached or has no time now (429,
    5xx), and never once there is a token of an answer."""

    def __init__(self, endpoints: Sequence[FallbackEndpoint], session: SessionParams) -> None:
        assert endpoints
        self._endpoints = tuple(endpoints)
        self._session = session
        self._turns: list[dict[str, str]] = []
        if session.system:
            self._turns.append({"role": "system", "content": break_marks(session.system)})

    @property
    def url(self) -> str:
        """The address of the endpoint that answered last, or is to be asked first."""
        return self._endpoints[0].url

    async def say(
        self, prompt: str, params: GenerateParams | None, *, timeout_s: float
    ) -> AsyncGenerator[AnswerPiece, None]:
        """Yield the answer as it comes, in `timeout_s` for all endpoints together; a turn that did not end is
        not kept.

        Raises WireError (a grammar, an answer that breaks the format), FazaiError (refused), Unreachable.
        """
        turns = [*self._turns, {"role": "user", "content": break_marks(prompt)}]
        away: list[Unreachable] = []
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        for number, endpoint in enumerate(self._endpoints):
            text: list[str] = []
            found = self._ask(endpoint, turns, params, until)
            try:
                async with contextlib.aclosing(found):
                    async for said in found:
                        text.append(said.text)
                        yield said
            except Unreachable as error:
                away.append(error)
                if any(text):
                    raise
                if loop.time() >= until:
                    break
                continue
            self._endpoints = (*self._endpoints[number:], *self._endpoints[:number])
            self._turns = [*turns, {"role": "assistant", "content": break_marks("".join(text))}]
            return
        raise _none_answers(away)

    async def _ask(
        self,
        endpoint: FallbackEndpoint,
        turns: list[dict[str, str]],
        params: GenerateParams | None,
        until: float,
    ) -> AsyncGenerator[AnswerPiece, None]:
        """Yield the answer of one endpoint, of which all is there by `until`, in seconds of the loop. Raises
        as `say` does."""
        import httpx

        begun, ended, here = False, False, endpoint.is_here
        secure = not here or not endpoint.url.startswith("http:")  # loading the authorities takes 20 ms
        timeout_s = max(0.001, until - asyncio.get_running_loop().time())
        waits = httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_S))
        try:
            async with contextlib.AsyncExitStack() as stack:
                client = await stack.enter_async_context(
                    httpx.AsyncClient(timeout=waits, trust_env=not here, verify=secure)
                )
                async with deadline_at(until):  # httpx waits for each byte of the head anew
                    got = await stack.enter_async_context(self._post(endpoint, client, turns, params))
                await _check_answer(endpoint, got, until)
                async for line in _with_deadline(until, _read_lines(got.aiter_raw())):
                    said = _parse_stream_line(line)
                    if said is not None:
                        begun, ended = True, ended or said.reason is not None
                        yield said
        except (httpx.HTTPError, TimeoutError) as error:
            raise Unreachable(
                f"neither the Gemma worker nor its fallback answers: {type(error).__name__}",
                stage="answer" if begun else "connect",
                where=endpoint.url,
            ) from None
        if not ended:
            raise Unreachable(
                "the fallback's answer broke off", stage="answer", where=endpoint.url, hint="ask again"
            )

    def _post(
        self,
        endpoint: FallbackEndpoint,
        client: httpx.AsyncClient,
        turns: list[dict[str, str]],
        params: GenerateParams | None,
    ) -> AbstractAsyncContextManager[httpx.Response]:
        body = {
            "model": endpoint.model,
            "messages": turns,
            "stream": True,
            "stream_options": {"include_usage": True},
            **_request_params(self._session, params),
        }
        headers = {"Accept-Encoding": "identity"}  # what is packed has no bound until it is unpacked
        if endpoint.api_key:
            headers["Authorization"] = f"Bearer {endpoint.api_key}"
        url = f"{endpoint.url.rstrip('/')}/chat/completions"
        return client.stream("POST", url, json=body, headers=headers)


def _none_answers(away: Sequence[Unreachable]) -> Unreachable:
    """Return the error of endpoints of which none answers: the one's own, or a summary of all."""
    if len(away) == 1:
        return away[0]
    each = "; ".join(f"{error.where}: {error.message}" for error in away)
    text = f"neither the Gemma worker nor any of its {len(away)} endpoints answers: {each}"
    return Unreachable(text, stage=away[-1].stage, hint="ask again later")


async def _check_answer(endpoint: FallbackEndpoint, got: httpx.Response, until: float) -> None:
    """Refuse an answer that is no stream of this endpoint's. Raises FazaiError, WireError, TimeoutError."""
    if got.status_code != 200:
        raise _refusal_error(endpoint, got.status_code, await _read_beginning(got.aiter_raw(), until))
    if got.headers.get("content-encoding", "identity") != "identity":
        raise WireError("internal", "the fallback endpoint packs its answer")


async def _read_beginning(chunks: AsyncIterator[bytes], until: float) -> bytes:
    """Return what is shown of a refusal, however long it is. Raises TimeoutError."""
    found = b""
    async with deadline_at(until):
        async for chunk in chunks:
            found += chunk
            if len(found) > _REFUSAL_BYTES:
                break
    return found[:_REFUSAL_BYTES]


async def _read_lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[str, None]:
    """Yield the lines of an answer. Raises WireError for a line, and for a whole, that has no end."""
    rest, total = bytearray(), 0
    async for chunk in chunks:  # deadline: the caller's, `_with_deadline`
        total += len(chunk)
        if b"\n" in chunk:
            *lines, tail = (bytes(rest) + chunk).split(b"\n")
            rest = bytearray(tail)
            for line in lines:
                yield line.decode("utf-8", "replace").removesuffix("\r")
        else:
            rest += chunk
        if len(rest) > MAX_LINE_BYTES or total > MAX_ANSWER_BYTES:
            raise WireError("too_large", "the fallback endpoint's answer does not end")
    if rest:
        yield rest.decode("utf-8", "replace")


async def _with_deadline(until: float, lines: AsyncIterator[str]) -> AsyncGenerator[str, None]:
    """Yield each line, waited for on its own: the reader's own time is not counted. Raises TimeoutError."""
    while True:
        try:
            async with deadline_at(until):
                line = await anext(lines)
        except StopAsyncIteration:
            return
        yield line


def _request_params(session: SessionParams, params: GenerateParams | None) -> dict[str, Any]:
    """Return the parameters that such endpoints know. Raises WireError for a grammar."""
    asked = {name: value for name, value in merge_params(params, session).items() if name in _KNOWN}
    if asked.pop("grammar", None) is not None:
        raise WireError("schema_unsupported", "the fallback endpoint takes no grammar")
    if asked.get("seed") == -1:
        del asked["seed"]
    schema = asked.pop("json_schema", None)
    if schema is not None:
        shape = {"name": "answer", "strict": True, "schema": schema}
        asked["response_format"] = {"type": "json_schema", "json_schema": shape}
    return asked


def _refusal_error(endpoint: FallbackEndpoint, status: int, body: bytes) -> FazaiError:
    """Return the error with what the endpoint says; what was sent (the key) is not in it."""
    try:
        said = json.loads(body)["error"]
        text = str(said["message"] if isinstance(said, dict) else said)
    except (ValueError, LookupError, TypeError, RecursionError):
        text = ""
    text = " ".join(make_mask([endpoint.api_key or ""])(text).split())[:_SHOWN_CHARS]
    message = f"the fallback of the Gemma worker answered {status}" + (f": {text}" if text else "")
    if status == 429 or status >= 500:
        return Unreachable(message, stage="answer", where=endpoint.url, hint="ask again later")
    hint = "see FAZAI_GEMMA_FALLBACK_KEY_FILE" if status in (401, 403) else None
    return FazaiError(message, where=endpoint.url, hint=hint)


_REASONS: dict[str, Literal["eos", "length"]] = {"stop": "eos", "length": "length"}


def _parse_stream_line(line: str) -> AnswerPiece | None:
    """Parse a line of the stream; None where it says nothing. Raises WireError for an error event, and for
    what is no such stream."""
    if not line.startswith("data:") or line[5:].strip() == "[DONE]":
        return None
    try:
        event = json.loads(line[5:])
        if "error" in event:
            raise WireError("internal", "the fallback endpoint failed within its answer")
        found = _parse_choice(event["choices"][0]) if event.get("choices") else None
        if used := event.get("usage"):
            found = replace(found or AnswerPiece(), usage=_parse_usage(used))
    except (ValueError, LookupError, AttributeError, TypeError, OverflowError, RecursionError):
        raise WireError("internal", "the fallback endpoint's answer is no stream of completions") from None
    return found


def _parse_choice(choice: dict[str, Any]) -> AnswerPiece:
    ended = choice.get("finish_reason")
    text = (choice.get("delta") or {}).get("content") or ""
    whole = str(text).encode("utf-8", "replace").decode()  # half a character is none, and cannot be written
    return AnswerPiece(whole, _REASONS.get(ended, "stop") if ended else None)


def _parse_usage(used: dict[str, Any]) -> Usage:
    cached = (used.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return Usage(
        prompt_tokens=_count(used["prompt_tokens"]),
        cached_tokens=_count(cached),
        completion_tokens=_count(used["completion_tokens"]),
    )


def _count(value: Any) -> int:
    """Return a number of tokens; one below zero would give a budget back."""
    return min(max(0, int(value)), 2**31)
