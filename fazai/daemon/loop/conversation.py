"""A session's conversation with the worker, or with an endpoint: what was said stays there, and is not sent
again."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from fazai.errors import FazaiError
from fazai.providers.gemma.client import GemmaClient, GemmaSession
from fazai.wire.base import WireError
from fazai.wire.worker import GenerateParams, SessionParams

#: Characters of JSON and names in a token of Gemma, at the least: digits are tokens of their own.
_CHARS_PER_TOKEN = 2
#: An endpoint may say too little of what it used: no token has more characters than this, on the average.
_CHARS_AT_MOST = 4
_ANSWER_CHARS = 131_072  # twice what is read of an answer
_CONTEXT_TOKENS = 8192  # of an endpoint, which does not say


class ConversationLost(Exception):
    """The conversation is gone, or too long: it begins anew with a turn that has all of it."""


class ModelAnswer(NamedTuple):
    """An answer, where it came from, and what it cost."""

    text: str
    reason: str
    source: str
    model: str
    model_hash: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


class Conversation:
    """The turns of one objective. `params` are the session's own; `answer_tokens` is kept free for an
    answer."""

    def __init__(self, client: GemmaClient, params: SessionParams, answer_tokens: int) -> None:
        self._client = client
        self._params = params
        self._answer_tokens = answer_tokens
        self._session: GemmaSession | None = None
        self._used_tokens = self._chars = self._system_chars = self._turns = 0
        self._model, self._model_hash, self._context = "", "", _CONTEXT_TOKENS

    @property
    def is_open(self) -> bool:
        return self._session is not None

    @property
    def turn_chars(self) -> int:
        """Characters that a first turn may have."""
        room = (self._context - self._answer_tokens) * _CHARS_PER_TOKEN - self._system_chars
        return max(1000, room)

    async def open(self, system: str) -> None:
        """Begin a conversation. Raises Unreachable, WireError."""
        await self.close()
        params = SessionParams(**{**_given(self._params), "system": system})
        session = self._client.session(params)
        await session.__aenter__()
        self._session, self._turns = session, 0
        self._chars = self._system_chars = len(system)
        self._used_tokens = len(system) // _CHARS_PER_TOKEN
        if session.session_id is not None:
            status = await self._client.status()
            self._model = status.model or ""
            self._model_hash = status.model_sha256 or ""
            self._context = status.context_tokens or _CONTEXT_TOKENS

    async def ask(
        self, turn: str, params: GenerateParams, show: Callable[[str], Awaitable[None]]
    ) -> ModelAnswer:
        """Say a turn and return the answer, whose text is shown as it comes. Raises ConversationLost,
        Unreachable, WireError."""
        session = self._session
        if session is None:
            raise ConversationLost
        expected = self._used_tokens + len(turn) // _CHARS_PER_TOKEN + self._answer_tokens
        if expected > self._context and self._turns:
            raise ConversationLost
        text: list[str] = []
        stream = session.stream(turn, params)
        try:
            async with stream, contextlib.aclosing(stream.batches()) as pieces:
                async for piece in pieces:  # deadline: the generation's
                    text.append(piece)
                    await show(piece)
                    if sum(map(len, text)) > _ANSWER_CHARS:
                        break  # no action is that long, and an endpoint may never end
        except WireError as error:
            if error.code in ("context_full", "unknown_session"):
                self._session = None
                raise ConversationLost from None
            raise
        usage = stream.usage
        prompt, cached, completion = (
            (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens) if usage else (0, 0, 0)
        )
        self._turns += 1
        self._chars += len(turn) + sum(map(len, text))
        self._used_tokens = max(prompt + completion, self._chars // _CHARS_AT_MOST)
        source = "worker" if session.session_id is not None else session.endpoint_url
        return ModelAnswer(
            *("".join(text), stream.reason or "length", source, self._model, self._model_hash),
            *(prompt, cached, completion),
        )

    async def close(self) -> None:
        """End the conversation; a worker that is gone has none to end."""
        session, self._session = self._session, None
        if session is not None:
            with contextlib.suppress(FazaiError):
                await session.close()


def _given(params: SessionParams) -> dict[str, Any]:
    return {
        name: value
        for name in SessionParams.__struct_fields__
        if (value := getattr(params, name)) is not None
    }
