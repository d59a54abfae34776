"""fazai agents list: the remote agents that the daemon knows, however they were installed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from fazai.cli.commands.agent_status import CONNECTED, align_lines, format_age, or_dash
from fazai.errors import FazaiError, InputError, Refused, Unreachable, spelling_hint

if TYPE_CHECKING:
    from fazai.cli.clients import DaemonAddress

Row = Mapping[str, Any]
#: The states in which an agent is not connected.
_AWAY: Final = ("registration", "closing")
STATES: Final = ("connected", "away", "registration", "handshake", "execution", "observation", "closing")
_HEADINGS: Final = ("agent", "state", "since", "version", "last seen", "latency", "last outcome", "")
_NO_DAEMON: Final = "start one with: fazai daemon; or FAZAI_URL names one, with FAZAI_TOKEN_FILE"


@dataclass(frozen=True, slots=True)
class KnownAgents:
    """The daemon's registry. `port`: on which it hears remote agents; None: it hears none."""

    rows: list[Row]
    port: int | None


def fetch_agents(place: DaemonAddress | None = None, timeout_s: float = 20.0) -> KnownAgents:
    """Ask a daemon for its registry; without `place` the one that is known here. Raises Unreachable, Refused,
    InputError."""
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
            answer = client.get("/agents")
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
    return KnownAgents(rows, port if isinstance(port, int) else None)


def choose_agents(
    rows: Sequence[Row], patterns: Sequence[str], states: Sequence[str], *, all_sorts: bool
) -> list[dict[str, Any]]:
    """Return the rows of remote agents that fit, by name: of these patterns (`edge-*`; `!edge-3` leaves one
    out; none: all), in one of these states; `all_sorts`: also what is no remote agent. Raises InputError for
    a pattern that nobody fits."""
    known = [row for row in rows if all_sorts or row.get("contract") or row.get("protocol") == "websocket"]
    names = [str(row.get("agent_id")) for row in known]
    for pattern in (word.removeprefix("!") for word in patterns):
        if not any(fnmatchcase(name, pattern) for name in names):
            hint = spelling_hint(pattern, names) or "who was enrolled: fazai pki list"
            raise InputError(f"no agent is called {pattern!r}", hint=hint)
    wanted = [word for word in patterns if not word.startswith("!")] or ["*"]
    unwanted = [word[1:] for word in patterns if word.startswith("!")]
    found = []
    for name, row in sorted(zip(names, known, strict=True), key=lambda item: item[0]):
        state = row.get("state")
        word = "connected" if state in CONNECTED else "away" if state in _AWAY else None
        if _fits(name, wanted) and not _fits(name, unwanted) and (not states or {state, word} & set(states)):
            found.append({**row, "connected": state in CONNECTED})
    return found


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def list_table(rows: Sequence[Row], now_s: float) -> list[str]:
    """Return the lines of the table, with ages as of `now_s`."""
    lines: list[Sequence[str]] = [_HEADINGS]
    for row in rows:
        latency = row.get("latency_ms")
        lines.append(
            (
                str(row.get("agent_id")),
                or_dash(row.get("state")),
                _age(row.get("since"), now_s),
                or_dash(row.get("version")),
                _age(row.get("last_seen"), now_s),
                "-" if not isinstance(latency, int | float) else f"{latency:.1f} ms",
                or_dash(row.get("last_outcome")),
                "" if row["connected"] else str(row.get("last_error") or ""),
            )
        )
    return align_lines(lines)


def _age(moment: object, now_s: float) -> str:
    try:
        return format_age(max(0, round(now_s - datetime.fromisoformat(str(moment)).timestamp())))
    except ValueError:
        return "-"
