"""Requests to the daemon, and its refusals as errors: `fazai ask`, `fazai session`, `fazai kb`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from fazai.cli.event_stream import START_HINT, StreamLost, explaining_losses, match_ids
from fazai.errors import FazaiError, InputError, PlanStale, Refused, Unreachable

if TYPE_CHECKING:
    import httpx

    from fazai.cli.clients import DaemonAddress
    from fazai.wire.base import AnswerMessage, Message
    from fazai.wire.sessions import SessionRow

    A = TypeVar("A", bound=AnswerMessage)

_ANSWER_S = 60.0
_AWAY = (429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class DaemonApi:
    """The daemon at an address. `url` is what was given with --url, for commands that are printed."""

    place: DaemonAddress
    client: httpx.Client
    url: str | None

    def ask(
        self,
        method: str,
        path: str,
        of: type[A],
        body: Message | None = None,
        params: Mapping[str, str] | None = None,
    ) -> A:
        """Send a request and return its answer. Raises Unreachable, Refused, PlanStale, InputError,
        FazaiError."""
        from fazai.wire.base import ErrorAnswer, decode_answer, encode

        content = encode(body) if body is not None else None
        answer = self.request(method, path, content=content, params=params, headers=_head(body))
        found = decode_answer(answer.content, of)
        if isinstance(found, ErrorAnswer):
            raise FazaiError(found.error, where=self.place.name)
        return found

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Send a request, with `more` as httpx takes it, and return its answer of 200. Raises as `ask`."""
        with self.explaining():
            answer = self.client.request(method, path, **more)
        if answer.status_code != 200:
            raise refusal(answer, self.place)
        return answer

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Make Unreachable of an error of the connection, inside."""
        try:
            with explaining_losses(self.place):
                yield
        except StreamLost as gone:
            text = f"the daemon does not answer: {gone}"
            raise Unreachable(text, stage="connect", where=self.place.name, hint=gone.hint) from None

    def session(self, text: str) -> SessionRow:
        """Return the session of which `text` is the id, or either end of it. Raises InputError, and as `ask`
        does."""
        from fazai.wire.sessions import LoopSessionsAnswer

        rows = self.ask("GET", "/agent/sessions", LoopSessionsAnswer).sessions
        ids = [row.session_id for row in rows]
        found = (match_ids(text, ids) or match_ids(f"s-{text}", ids)) if text else []
        if len(found) != 1:
            why = "several sessions begin or end with" if found else "no session begins or ends with"
            raise InputError(f"{why} {text!r}", where=self.place.name, hint="see: fazai session list")
        return next(row for row in rows if row.session_id == found[0])

    def command(self, *words: str) -> str:
        """Return a command line of fazai as it is typed, for the same daemon."""
        import shlex

        return shlex.join(["fazai", *words, *(["--url", self.url] if self.url else [])])


def _head(body: Message | None) -> dict[str, str]:
    return {"Content-Type": "application/json"} if body is not None else {}


def refusal(answer: httpx.Response, place: DaemonAddress) -> FazaiError:
    """Return the error that an answer means which is none; the answer was read."""
    import json

    try:
        said = json.loads(answer.content)
        text, code = str(said["error"]), str(said.get("code"))
    except (ValueError, KeyError, TypeError, AttributeError):
        text, code = f"HTTP {answer.status_code}", ""
    if answer.status_code in _AWAY:
        return Unreachable(text, stage="answer", where=place.name, hint="ask again later")
    if answer.status_code in (401, 403):
        hint = (
            "FAZAI_TOKEN_FILE names a file with a token of the role that it needs"
            if place.token
            else "FAZAI_TOKEN_FILE names a file of mode 0600 that holds one"
        )
        return Refused(text.partition(" (Authorization")[0], where=place.name, hint=hint)
    if code == "plan_mismatch":
        return PlanStale(text, where=place.name)
    if answer.status_code == 409:
        return FazaiError(text, where=place.name)
    return InputError(text, where=place.name)


@contextmanager
def daemon_api(url: str | None) -> Iterator[DaemonApi]:
    """Return the daemon at `url`, else the one that is found here, while inside. Raises Unreachable where
    there is none, Refused, InputError, SecretError."""
    from fazai.cli.clients import require_daemon

    place = require_daemon(os.environ, url)
    if place.socket is not None and not place.socket.exists():  # httpx would leave one of its own open
        text = "the daemon does not answer: there is no such socket"
        raise Unreachable(text, stage="connect", where=place.name, hint=START_HINT)
    with place.client(timeout_s=_ANSWER_S) as client:
        yield DaemonApi(place, client, url)
