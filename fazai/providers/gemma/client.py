"""Speaks to the worker's socket (SPEC.md, section 1), or to endpoints when the worker does not answer.

Every request has a connection of its own, so a worker that was started again is simply found again; leaving a
stream early closes its connection, and that aborts the generation.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import Self, TypeVar

from fazai.compat.timeouts import deadline, deadline_at
from fazai.errors import FazaiError, Unreachable
from fazai.providers.gemma.endpoint import MAX_ANSWER_BYTES, FallbackConversation, FallbackEndpoint
from fazai.wire import worker as wire
from fazai.wire.base import (
    MAX_LINE_BYTES,
    ErrorAnswer,
    Message,
    OkAnswer,
    RequestMessage,
    SessionAnswer,
    WireError,
    decode_answer,
    encode,
)

_ANSWER_S = 5.0
_GRACE_S = 10.0  # past the worker's own deadline
_TIMEOUT_MS = 120_000
_RETRY_S = 0.1
_POLL_S = 0.1
_SHOWN_CHARS = 500  # of an error's text

M = TypeVar("M", bound=Message)


class GemmaClient:
    """Talks to the worker at `socket`.

    `endpoints` are asked in their order when nobody answers there within `connect_timeout_s`.

    Raises Unreachable when none of them answers either, WireError for what the worker refuses.
    """

    def __init__(
        self, socket: Path, *, connect_timeout_s: float = 2.0, endpoints: Sequence[FallbackEndpoint] = ()
    ) -> None:
        self.socket = socket
        self.endpoints = tuple(endpoints)
        self._connect_timeout_s = connect_timeout_s

    async def status(self, *, patient: bool = True) -> wire.StatusAnswer:
        return await self.ask(wire.Status(), wire.StatusAnswer, patient=patient)

    async def wait_running(self, timeout_s: float) -> wire.StatusAnswer:
        """Wait until a worker that starts has loaded its model.

        Raises Unreachable: nobody answers, it is stopping, or the time was over.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        while True:
            found = await self.status()
            if found.status == "running":
                return found
            if found.status == "stopping":
                raise self.gone("answer", "it is stopping")
            if loop.time() + _POLL_S >= until:
                raise self.gone(
                    "answer", f"it still loads its model after {timeout_s:g} s", "ask again later"
                )
            await asyncio.sleep(_POLL_S)

    async def abort(self, session_id: str) -> None:
        await self.ask(wire.Abort(session_id=session_id), OkAnswer)

    def session(self, params: wire.SessionParams | None = None) -> GemmaSession:
        return GemmaSession(self, params or wire.SessionParams())

    async def ask(self, request: RequestMessage, of: type[M], *, patient: bool = True) -> M:
        """Send one request and return its answer. Raises Unreachable, WireError."""
        reader, writer = await self.connect(patient=patient)  # deadline: its own
        try:
            writer.write(encode(request) + b"\n")
            async with deadline(_ANSWER_S):
                await writer.drain()
                line = await reader.readline()
        except (TimeoutError, OSError, ValueError) as error:
            raise self.gone("answer", type(error).__name__) from None
        finally:
            writer.close()
        if not line.endswith(b"\n"):
            raise self.gone("answer", "the connection ended")
        return _read_answer(line, of)

    async def connect(self, *, patient: bool = True) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect; wait for a worker that is being started again, up to the limit. Raises Unreachable."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._connect_timeout_s
        while True:
            try:
                async with deadline_at(until):
                    return await asyncio.open_unix_connection(str(self.socket), limit=MAX_LINE_BYTES + 1)
            except PermissionError:
                hint = "the socket is open to the group of the worker's user"
                raise self.gone("connect", "permission denied", hint) from None
            except (OSError, TimeoutError) as error:
                if not patient or loop.time() + _RETRY_S >= until:
                    why = error.strerror if isinstance(error, OSError) else None
                    raise self.gone("connect", why or str(error) or "it took too long") from None
            await asyncio.sleep(_RETRY_S)

    def gone(self, stage: str, why: str, hint: str | None = None) -> Unreachable:
        return Unreachable(
            f"the Gemma worker does not answer: {why}",
            stage=stage,
            where=str(self.socket),
            hint=hint or "is it running? fazai worker --model FILE.gguf",
        )


class GemmaSession:
    """A conversation; `async with` opens and closes it."""

    def __init__(self, client: GemmaClient, params: wire.SessionParams) -> None:
        self._client = client
        self._params = params
        self._session_id: str | None = None
        self._elsewhere: FallbackConversation | None = None

    async def __aenter__(self) -> Self:
        try:
            answer = await self._client.ask(wire.CreateSession(params=self._params), SessionAnswer)
            self._session_id = answer.session_id
        except Unreachable:
            if not self._client.endpoints:
                raise
            self._elsewhere = FallbackConversation(self._client.endpoints, self._params)
        return self

    async def __aexit__(self, *raised: object) -> None:
        with contextlib.suppress(FazaiError):  # a worker that is gone has no session to close
            await self.close()

    async def close(self) -> None:
        """End what runs and forget the conversation. Raises Unreachable, WireError."""
        if self._session_id is not None:
            await self._client.ask(wire.CloseSession(session_id=self._session_id), OkAnswer, patient=False)

    @property
    def session_id(self) -> str | None:
        """The worker's id of the session, for an abort from elsewhere; None with an endpoint."""
        return self._session_id

    @property
    def endpoint_url(self) -> str:
        """The endpoint that answers in the worker's place, or answered last; empty: the worker does."""
        return self._elsewhere.url if self._elsewhere is not None else ""

    def stream(self, prompt: str, params: wire.GenerateParams | None = None) -> GenerationStream:
        """Return pieces of text as they come: `async with session.stream("…") as s: async for piece in s`."""
        return GenerationStream(self, prompt, params)

    async def generate(self, prompt: str, params: wire.GenerateParams | None = None) -> str:
        async with self.stream(prompt, params) as pieces:  # deadline: the generation's, `pieces`
            return "".join([piece async for piece in pieces])

    async def pieces(self, stream: GenerationStream) -> AsyncGenerator[str, None]:
        """Yield the pieces of a stream; fill in its reason and usage at the end."""
        if self._elsewhere is None:
            found = self._from_worker(stream)
        else:
            found = self._from_endpoint(self._elsewhere, stream)
        async with contextlib.aclosing(found):
            async for piece in found:
                yield piece

    def _timeout_s(self, params: wire.GenerateParams | None) -> float:
        own = params.timeout_ms if params is not None else None
        return (own or self._params.timeout_ms or _TIMEOUT_MS) / 1000 + _GRACE_S

    async def _from_endpoint(
        self, elsewhere: FallbackConversation, stream: GenerationStream
    ) -> AsyncGenerator[str, None]:
        timeout_s = self._timeout_s(stream.params)
        async with contextlib.aclosing(
            elsewhere.say(stream.prompt, stream.params, timeout_s=timeout_s)
        ) as found:
            async for said in found:
                stream.reason = said.reason or stream.reason
                stream.usage = said.usage or stream.usage
                if said.text:
                    yield said.text

    async def _from_worker(self, stream: GenerationStream) -> AsyncGenerator[str, None]:
        assert self._session_id is not None, "a session is entered before it is used"
        client = self._client
        request = wire.Generate(session_id=self._session_id, prompt=stream.prompt, params=stream.params)
        until = asyncio.get_running_loop().time() + self._timeout_s(stream.params)
        reader, writer = await client.connect()  # deadline: its own
        try:
            writer.write(encode(request) + b"\n")
            left = MAX_ANSWER_BYTES
            while True:
                line = await self._line(reader, until)
                left -= len(line)
                if left < 0:
                    raise WireError("too_large", "the Gemma worker's answer does not end")
                event = _decode_worker_line(line)
                if isinstance(event, wire.TokenText):
                    # Reading what is there already suspends nobody: others have their turn, and a cancel.
                    await asyncio.sleep(0)
                    yield event.text
                elif isinstance(event, wire.StopEvent):
                    stream.reason, stream.usage = event.reason, event.usage
                    return
                elif event is not None:
                    raise WireError(event.code or "internal", event.message[:_SHOWN_CHARS])
                else:
                    await asyncio.sleep(0)  # a flood of what is skipped must not hold up others
        finally:
            writer.close()

    async def _line(self, reader: asyncio.StreamReader, until: float) -> bytes:
        """Read a line; each is waited for on its own, so that the reader's own time is not counted."""
        client = self._client
        try:
            async with deadline_at(until):
                line = await reader.readline()
        except TimeoutError:
            raise client.gone("answer", "it took too long") from None
        except (ConnectionError, ValueError) as error:
            raise client.gone("answer", str(error)) from None
        if not line.endswith(b"\n"):
            raise client.gone("answer", "the connection ended within the answer", "ask again")
        return line


def _decode_worker_line(line: bytes) -> wire.WorkerEvent | None:
    """Return an event, None for one of a later version. Raises WireError, also for a refusal."""
    try:
        return wire.decode_worker_event(line)
    except WireError as error:
        if error.code == "unknown_type":
            return None
        _read_answer(line, OkAnswer)
        raise


def _read_answer(line: bytes, of: type[M]) -> M:
    """Return an answer. Raises WireError, also where it is a refusal."""
    answer = decode_answer(line, of)
    if isinstance(answer, ErrorAnswer):
        raise WireError(answer.code or "internal", answer.error[:_SHOWN_CHARS])
    return answer


class GenerationStream:
    """One answer as it comes. `reason` and `usage` are there when it ended."""

    def __init__(self, session: GemmaSession, prompt: str, params: wire.GenerateParams | None) -> None:
        self.prompt = prompt
        self.params = params
        self.reason = ""
        self.usage: wire.Usage | None = None
        self._pieces = session.pieces(self)

    async def __aenter__(self) -> Self:
        return self

    def __aiter__(self) -> AsyncIterator[str]:
        return self._pieces

    async def batches(self, gather_s: float = 0.05) -> AsyncGenerator[str, None]:
        """Yield what comes within `gather_s` seconds as one text; the first piece goes out at once."""
        loop = asyncio.get_running_loop()
        parts: list[str] = []
        since = float("-inf")
        async for piece in self:  # deadline: `pieces`
            parts.append(piece)
            if loop.time() - since >= gather_s:
                yield "".join(parts)
                parts, since = [], loop.time()
        if parts:
            yield "".join(parts)

    async def __aexit__(self, *raised: object) -> None:
        await self._pieces.aclose()  # deadline: none is needed, no goodbye is waited for
