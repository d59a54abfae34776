"""Reads the daemon's streams of events: `fazai tail`, `fazai ask`."""

from __future__ import annotations

import contextlib
import json
import re
import select
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fazai.errors import InputError, Refused

if TYPE_CHECKING:
    import httpx

    from fazai.cli.clients import DaemonAddress

#: Three heartbeats of GET /events.
SILENCE_S = 45.0
START_HINT = "is it running? fazai daemon"


class StreamLost(Exception):
    """The stream ended, or never began; `hint` is for the latter case."""

    def __init__(self, text: str, hint: str = START_HINT) -> None:
        super().__init__(text)
        self.hint = hint


def read_events(
    client: httpx.Client,
    place: DaemonAddress,
    query: Mapping[str, str],
    last: str | None,
    opened: Callable[[], None],
) -> Generator[dict[str, Any]]:
    """Yield the events of one connection to GET /events, after the id `last`; `opened` is called once it is
    there. Raises StreamLost, Refused, InputError, and BrokenPipeError where nobody reads standard output."""
    headers = {"Last-Event-ID": last} if last is not None else {}
    with (
        explaining_losses(place),
        client.stream("GET", "/events", params=query, headers=headers) as answer,
    ):
        if answer.status_code != 200:
            answer.read()
            raise_refusal(answer, place)
        opened()
        yield from parse_events(answer.iter_lines(), _check_reader)


def parse_events(
    lines: Iterator[str], heartbeat: Callable[[], None] = lambda: None
) -> Iterator[dict[str, Any]]:
    """Yield the events of a stream, and what has an id alone: where the stream begins."""
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            heartbeat()
        elif line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        else:
            number = {"id": int(fields["id"])} if fields.get("id", "").isdigit() else {}
            event = {**number, **json.loads(fields.get("data", "{}"))}
            if event:
                yield event
            fields = {}


@contextlib.contextmanager
def explaining_losses(place: DaemonAddress) -> Iterator[None]:
    """Make a StreamLost of an error of the connection, inside."""
    import httpx

    try:
        yield
    except httpx.RemoteProtocolError:
        plain = place.socket is None and place.url.startswith("http:")
        raise StreamLost("the connection ended", "is it https:// there?" if plain else START_HINT) from None
    except httpx.HTTPError as error:
        raise _stream_lost(error) from None


def raise_refusal(answer: httpx.Response, place: DaemonAddress) -> None:
    """Raise what an answer that is none means: StreamLost, Refused or InputError."""
    from fazai.cli.clients import refusal_reason

    text = refusal_reason(answer.content, f"HTTP {answer.status_code}")
    if answer.status_code in (429, 500, 502, 503, 504):
        raise StreamLost(text)
    if answer.status_code in (401, 403):
        hint = None if place.token else "FAZAI_TOKEN_FILE names a file of mode 0600 that holds one"
        raise Refused(text.partition(" (Authorization")[0], where=place.name, hint=hint)
    raise InputError(text, where=place.name)


def _stream_lost(error: httpx.HTTPError) -> StreamLost:
    """Explain a lost connection, without the error numbers and source places of system and TLS."""
    from fazai.cli.clients import CLOSED_SOCKET

    text = re.sub(r"\[Errno -?\d+\] | \(_ssl\.c:\d+\)", "", str(error)) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in text:
        reason = text.rpartition("verify failed: ")[2]
        hint = "FAZAI_CA_FILE names the authority that signed it"
        return StreamLost(f"its certificate is not trusted: {reason}", hint)
    if "WRONG_VERSION_NUMBER" in text:
        return StreamLost("it does not speak TLS there", "is it http:// there, or another port?")
    return StreamLost(text, CLOSED_SOCKET if "Permission denied" in text else START_HINT)


def _check_reader() -> None:
    """Look whether somebody still reads standard output: without a write nobody would notice. Raises
    BrokenPipeError."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        if any(seen & select.POLLERR for _, seen in poll.poll(0)):
            raise BrokenPipeError
    except ValueError:
        return  # no real file


def write_json_line(event: Mapping[str, Any]) -> None:
    """Write the event as one object in a line, `id` first."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def match_ids(text: str, ids: Sequence[str]) -> list[str]:
    """Return the ids of which the text is the whole, or else those that begin or end with it."""
    part = text.rstrip("…")
    return [one for one in ids if one == part] or [
        one for one in ids if one.startswith(part) or one.endswith(part)
    ]
