"""One event as one line for people: `fazai tail`. Events come from machines: nothing in them reaches the
terminal that it would obey."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fazai.model import Change, Verb
from fazai.report.lines import SIGNS, change_details, change_title, escape_controls

_BAD = ("failed", "unreachable", "refused", "locked", "stale", "interrupted", "closing")
#: The style of an event with this status or state.
_STYLES = {
    **dict.fromkeys(_BAD, "red"),
    **dict.fromkeys(("changed", "done"), "green"),
    **dict.fromkeys(("pending", "planned", "skipped", "left", "undone"), "yellow"),
}
_LEVELS = {"critical": "red", "error": "red", "warning": "yellow", "debug": "dim"}
_IDS = {"id", "type", "timestamp", "target", "hostname", "sequence", "reported_by"}
_IDS |= {"run_id", "session_id", "agent_id", "action_id"}


def event_host(event: Mapping[str, Any]) -> str:
    """Return whom the event is about: a target, a host, an agent, or nobody ("")."""
    for name in ("target", "hostname", "agent_id"):
        if event.get(name):
            return str(event[name])
    return ""


def event_style(event: Mapping[str, Any]) -> str:
    """Return the event's style: red, yellow, green, dim, or "" for plain."""
    type_ = event.get("type")
    failed_run = type_ == "run" and event.get("exit_code") not in (None, 0, 2)
    if type_ == "error" or event.get("error") or failed_run:
        return "red"
    if type_ == "gap":
        return "yellow"
    if type_ == "log":
        return _LEVELS.get(str(event.get("level")), "")
    state = str(event.get("status") or event.get("state") or "")
    return _STYLES.get(state, "dim" if type_ in ("telemetry", "target", "play") else "")


def event_line(event: Mapping[str, Any]) -> str:
    """Describe the event in one line, without time, host and type."""
    known = _TEXTS.get(str(event.get("type")))
    text = known(event) if known is not None else _other_fields(event)
    return escape_controls(text)


def _other_fields(event: Mapping[str, Any]) -> str:
    return "  ".join(
        f"{name}={_shortened(event[name])}" for name in event if name not in _IDS and event[name]
    )


def _shortened(value: object) -> str:
    text = str(value)
    return text if len(text) <= 120 else text[:119] + "…"


def _log_text(event: Mapping[str, Any]) -> str:
    level = str(event.get("level", ""))
    prefix = f"{level}: " if level in ("warning", "error", "critical") else ""
    return prefix + str(event.get("message", ""))


def _change_text(event: Mapping[str, Any]) -> str:
    try:
        change = Change(
            target=str(event.get("target", "")),
            kind=str(event["kind"]),
            identity=str(event["identity"]),
            verb=Verb(str(event["verb"])),
            before=dict(event["before"]),
            after=dict(event["after"]),
            ref=str(event.get("ref", "")),
            note=str(event.get("note") or ""),
        )
    except (KeyError, ValueError, TypeError):
        return _other_fields(event)
    details = change_details(change)
    status = str(event.get("status", ""))
    told = "" if status == "done" else f"  [{status}]"
    error = f"  {event['error']}" if event.get("error") else ""
    return f"{SIGNS[change.verb]} {change_title(change)}{'  ' + details if details else ''}{told}{error}"


def _outcome_text(event: Mapping[str, Any]) -> str:
    counts = [f"{event[name]} {name}" for name in ("changed", "pending", "unchanged") if event.get(name)]
    took = f" in {event['duration_s']} s" if event.get("duration_s") else ""
    said = [*map(str, event.get("errors") or ()), *map(str, event.get("notes") or ())]
    detail = f" ({', '.join(counts)})" if counts else ""
    return f"{event.get('status')}{detail}{took}{': ' + '; '.join(said) if said else ''}"


def _run_text(event: Mapping[str, Any]) -> str:
    words = [str(event.get("command") or "run"), str(event.get("run_id", ""))[-6:], str(event.get("state"))]
    if event.get("exit_code") is not None:
        words.append(f"exit {event['exit_code']}")
    totals = event.get("totals")
    if isinstance(totals, Mapping) and any(totals.values()):
        words[-1] += f": {', '.join(f'{count} {name}' for name, count in totals.items() if count)}"
    return " ".join(words)


def _gap_text(event: Mapping[str, Any]) -> str:
    why = "they are no longer kept" if event.get("reason") == "trimmed" else "this reader was too slow"
    return f"events {event.get('lost_from')} to {event.get('lost_to')} are missing: {why}"


def _telemetry_text(event: Mapping[str, Any]) -> str:
    load = event.get("load") or ()
    return "load " + " ".join(f"{value:.2f}" for value in load) if load else "reported"


_TEXTS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "log": _log_text,
    "change": _change_text,
    "outcome": _outcome_text,
    "run": _run_text,
    "gap": _gap_text,
    "telemetry": _telemetry_text,
    "agent": lambda event: (
        f"{event.get('state')}{': ' + str(event['reason']) if event.get('reason') else ''}"
    ),
    "play": lambda event: f"{event.get('name')} on {event.get('targets')} targets",
    "activate": lambda event: f"{event.get('service')} took effect",
    "undo": lambda event: f"{event.get('undone')} changes taken back, {event.get('kept')} could not be",
    "token": lambda event: str(event.get("text", "")),
    "error": lambda event: str(event.get("message", "")),
    "observe": lambda event: str(event.get("note", "")),
    "exec_log": lambda event: str(event.get("chunk", "")).rstrip(),
}
