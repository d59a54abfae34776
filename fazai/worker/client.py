"""An async client of the worker's socket, with an OpenAI-compatible endpoint to fall back to.

Every request has a connection of its own, so a worker that was started again is simply found again; leaving a
stream early closes its connection, and that aborts the generation.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from fazai.errors import FazaiError, Unreachable
from fazai.wire.base import (
    MAX_LINE_BYTES,
    ErrorAnswer,
    Message,
    OkAnswer,
    Request,
    SessionAnswer,
    WireError,
    decode_answer,
    encode,
)
from fazai.wire.worker import (
    Abort,
    CloseSession,
    CreateSession,
    Generate,
    GenerateParams,
    SessionParams,
    Status,
    StatusAnswer,
    StopEvent,
    TokenText,
    Usage,
    decode_worker_event,
)

__all__ = ["Endpoint", "GemmaClient", "GemmaSession", "Stream"]

_ANSWER_S = 5.0
_GRACE_S = 10.0  # past the worker's own deadline
_TIMEOUT_MS = 120_000
_RETRY_S = 0.1

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible server: `url` ends before `/chat/completions`."""

    url: str
    model: str
    api_key: str | None = field(default=None, repr=False)


class GemmaClient:
    """Talks to the worker at `socket`. Raises Unreachable when nobody answers within `connect_timeout_s` and
    there is no `fallback`, WireError for what the worker refuses."""

    def __init__(
        self, socket: Path, *, connect_timeout_s: float = 2.0, fallback: Endpoint | None = None
    ) -> None:
        self.socket = socket
        self.fallback = fallback
        self._connect_timeout_s = connect_timeout_s

    async def status(self) -> StatusAnswer:
        return await self.ask(Status(), StatusAnswer)

    async def abort(self, session_id: str) -> None:
        await self.ask(Abort(session_id=session_id), OkAnswer)

    def session(self, params: SessionParams | None = None) -> GemmaSession:
        return GemmaSession(self, params or SessionParams())

    async def ask(self, request: Request, of: type[M]) -> M:
        """One request with one answer. Raises Unreachable, WireError."""
        reader, writer = await self.connect()
        try:
            line = await self._exchange(reader, writer, request)
        finally:
            writer.close()
        answer = decode_answer(line, of)
        if isinstance(answer, ErrorAnswer):
            raise WireError(answer.code or "internal", answer.error)
        return answer

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request
    ) -> bytes:
        try:
            writer.write(encode(request) + b"\n")
            async with asyncio.timeout(_ANSWER_S):
                await writer.drain()
                line = await reader.readline()
        except (TimeoutError, OSError, ValueError) as error:
            raise self.gone("answer", type(error).__name__) from None
        if not line.endswith(b"\n"):
            raise self.gone("answer", "the connection ended")
        return line

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A worker that is being started again is waited for, up to the limit."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._connect_timeout_s
        while True:
            try:
                async with asyncio.timeout_at(until):
                    return await asyncio.open_unix_connection(str(self.socket), limit=MAX_LINE_BYTES + 1)
            except (OSError, TimeoutError) as error:
                if loop.time() + _RETRY_S >= until:
                    raise self.gone("connect", str(error) or "it took too long") from None
            await asyncio.sleep(_RETRY_S)

    def gone(self, stage: str, why: str) -> Unreachable:
        return Unreachable(
            f"the Gemma worker does not answer: {why}",
            stage=stage,
            where=str(self.socket),
            hint="is it running? fazai worker --model FILE.gguf",
        )


class GemmaSession:
    """A conversation; `async with` opens and closes it."""

    def __init__(self, client: GemmaClient, params: SessionParams) -> None:
        self._client = client
        self._params = params
        self._session_id: str | None = None
        self._turns: list[dict[str, str]] = []  # of the fallback, which keeps no conversation itself

    async def __aenter__(self) -> Self:
        try:
            answer = await self._client.ask(CreateSession(params=self._params), SessionAnswer)
            self._session_id = answer.session_id
        except Unreachable:
            if self._client.fallback is None:
                raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session_id is not None:
            with contextlib.suppress(FazaiError):  # a worker that is gone has no session to close
                await self._client.ask(CloseSession(session_id=self._session_id), OkAnswer)

    @property
    def session_id(self) -> str | None:
        """For an abort from elsewhere; None with the fallback."""
        return self._session_id

    def stream(self, prompt: str, params: GenerateParams | None = None) -> Stream:
        """Pieces of text as they come: `async with session.stream("…") as s: async for piece in s`."""
        return Stream(self, prompt, params)

    async def generate(self, prompt: str, params: GenerateParams | None = None) -> str:
        async with self.stream(prompt, params) as pieces:
            return "".join([piece async for piece in pieces])

    def timeout_s(self, params: GenerateParams | None) -> float:
        own = params.timeout_ms if params is not None else None
        return (own or self._params.timeout_ms or _TIMEOUT_MS) / 1000 + _GRACE_S

    async def pieces(self, stream: Stream) -> AsyncIterator[str]:
        if self._session_id is None:
            async for piece in self._from_endpoint(stream):
                yield piece
            return
        client = self._client
        reader, writer = await client.connect()
        try:
            async with asyncio.timeout(self.timeout_s(stream.params)):
                request = Generate(session_id=self._session_id, prompt=stream.prompt, params=stream.params)
                writer.write(encode(request) + b"\n")
                while True:
                    line = await reader.readline()
                    if not line.endswith(b"\n"):
                        raise client.gone("answer", "the connection ended within the answer")
                    event = decode_worker_event(line)
                    if isinstance(event, TokenText):
                        yield event.text
                    elif isinstance(event, StopEvent):
                        stream.reason, stream.usage = event.reason, event.usage
                        return
                    else:
                        raise WireError(event.code or "internal", event.message)
        except TimeoutError:
            raise client.gone("answer", "it took too long") from None
        except (ConnectionError, ValueError) as error:
            raise client.gone("answer", str(error)) from None
        finally:
            writer.close()

    async def _from_endpoint(self, stream: Stream) -> AsyncIterator[str]:
        import httpx

        endpoint = self._client.fallback
        assert endpoint is not None
        if not self._turns and self._params.system:
            self._turns.append({"role": "system", "content": self._params.system})
        turns = [*self._turns, {"role": "user", "content": stream.prompt}]
        headers = {"Authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {}
        body = {"model": endpoint.model, "messages": turns, "stream": True, **self._asked(stream.params)}
        said: list[str] = []
        try:
            async with (
                httpx.AsyncClient(timeout=self.timeout_s(stream.params)) as http,
                http.stream(
                    "POST", f"{endpoint.url.rstrip('/')}/chat/completions", json=body, headers=headers
                ) as got,
            ):
                if got.status_code != 200:
                    raise FazaiError(
                        f"{endpoint.url} answered {got.status_code}", hint="the fallback of the worker"
                    )
                async for line in got.aiter_lines():
                    piece, ended = _event(line)
                    stream.reason = ended or stream.reason
                    if piece:
                        said.append(piece)
                        yield piece
        except httpx.HTTPError as error:
            raise Unreachable(
                f"neither the Gemma worker nor {endpoint.url} answers: {type(error).__name__}",
                stage="connect",
            ) from None
        self._turns = [*turns, {"role": "assistant", "content": "".join(said)}]

    def _asked(self, params: GenerateParams | None) -> dict[str, Any]:
        """The parameters that such endpoints know. Raises WireError for a grammar: they would ignore it."""
        asked: dict[str, Any] = {}
        for source in (self._params, params):
            for name in ("max_tokens", "temperature", "top_p", "seed", "stop", "json_schema", "grammar"):
                value = getattr(source, name, None)
                if value is not None:
                    asked[name] = value
        if asked.pop("grammar", None) is not None:
            raise WireError("schema_unsupported", "the fallback endpoint takes no grammar")
        schema = asked.pop("json_schema", None)
        if schema is not None:
            shape = {"name": "answer", "strict": True, "schema": schema}
            asked["response_format"] = {"type": "json_schema", "json_schema": shape}
        return asked


class Stream:
    """One answer. `reason` and `usage` are there when it ended."""

    def __init__(self, session: GemmaSession, prompt: str, params: GenerateParams | None) -> None:
        self.prompt = prompt
        self.params = params
        self.reason = ""
        self.usage: Usage | None = None
        self._pieces = session.pieces(self)

    async def __aenter__(self) -> Self:
        return self

    def __aiter__(self) -> AsyncIterator[str]:
        return self._pieces

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        close = getattr(self._pieces, "aclose", None)
        if close is not None:
            await close()


_REASONS = {"stop": "eos", "length": "length"}


def _event(line: str) -> tuple[str, str]:
    """A line of an endpoint's stream: its text, and why it ended."""
    if not line.startswith("data:") or line == "data: [DONE]":
        return "", ""
    try:
        choice = json.loads(line[5:])["choices"][0]
        text = choice.get("delta", {}).get("content") or ""
        return str(text), _REASONS.get(choice.get("finish_reason") or "", "")
    except (ValueError, LookupError, AttributeError):
        return "", ""
