"""The daemon's registry of agents, as one request brings it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fazai.errors import FazaiError, Refused, Unreachable

if TYPE_CHECKING:
    from fazai.cli.clients import DaemonAddress

Row = Mapping[str, Any]
_NO_DAEMON: Final = "start one with: fazai daemon; or FAZAI_URL names one, with FAZAI_TOKEN_FILE"


@dataclass(frozen=True, slots=True)
class KnownAgents:
    """The daemon's registry. `port`: on which it hears remote agents; None: it hears none. `ca`: the
    fingerprint of its CA, `state`: the mark of its state folder; None: it does not say."""

    rows: list[Row]
    port: int | None
    ca: str | None = None
    state: str | None = None


def fetch_agents(
    place: DaemonAddress | None = None, timeout_s: float = 20.0, *, removed: bool = False
) -> KnownAgents:
    """Ask a daemon for its registry, with `removed` also for the agents that were; without `place` the one
    that is known here. Raises Unreachable, Refused, InputError."""
    import httpx

    from fazai.cli.clients import find_daemon, refusal_reason

    place = place or find_daemon(os.environ, root=os.geteuid() == 0)
    if place is None:
        raise Unreachable("no daemon is known here", stage="connect", hint=_NO_DAEMON)
    if place.socket is not None and not place.socket.exists():
        text = "the daemon does not answer: there is no such socket"
        raise Unreachable(text, stage="connect", where=place.name, hint=_NO_DAEMON)
    try:
        with place.client(timeout_s) as client:
            answer = client.get("/agents", params={"removed": "true"} if removed else {})
        if answer.status_code == 200:
            return _read_answer(answer.json())
    except httpx.HTTPError as error:
        text = f"the daemon does not answer: {error or type(error).__name__}"
        raise Unreachable(text, stage="connect", where=place.name, hint=_NO_DAEMON) from None
    except (ValueError, KeyError, TypeError):
        text = "what answers there is no daemon of fazai"
        raise Unreachable(text, stage="answer", where=place.name, hint=_NO_DAEMON) from None
    text = refusal_reason(answer.content, f"status {answer.status_code}")
    if answer.status_code in (401, 403):
        hint = "FAZAI_TOKEN_FILE names a file with a token of the role viewer"
        raise Refused(text.partition(" (Authorization")[0], where=place.name, hint=hint)
    raise FazaiError(f"the daemon does not list its agents: {text}", where=place.name)


def _read_answer(answer: Any) -> KnownAgents:
    """Read the daemon's answer. Raises KeyError, TypeError for one that is none."""
    rows, port = answer["agents"], answer.get("port")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise TypeError
    marks = (str(one) if one else None for one in (answer.get("ca"), answer.get("state")))
    return KnownAgents(rows, port if isinstance(port, int) else None, *marks)
