"""fazai agents list: the remote agents that the daemon knows, however they were installed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, Final

from fazai.cli.agents.known import Row
from fazai.cli.agents.status import CONNECTED, align_lines, format_age, or_dash
from fazai.errors import InputError, spelling_hint

#: The states in which an agent is not connected.
_AWAY: Final = ("registration", "closing")
_LIFE: Final = ("registration", "handshake", "execution", "observation", "closing")
STATES: Final = ("connected", "away", *_LIFE, "removed")
_HEADINGS: Final = ("agent", "state", "since", "version", "last seen", "latency", "last outcome", "")


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
            hint = spelling_hint(pattern, names) or "removed ones: --all; who was enrolled: fazai pki list"
            raise InputError(f"no agent is called {pattern!r}", hint=hint)
    wanted = [word for word in patterns if not word.startswith("!")] or ["*"]
    unwanted = [word[1:] for word in patterns if word.startswith("!")]
    found = []
    for name, row in sorted(zip(names, known, strict=True), key=lambda item: item[0]):
        state = "removed" if row.get("removed_at") else row.get("state")
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
                "removed" if row.get("removed_at") else or_dash(row.get("state")),
                _age(row.get("removed_at") or row.get("since"), now_s),
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
