"""Makes a journal's entry of what a tool found: bounded, marked, and known again (requirements B7, B8,
B10)."""

from __future__ import annotations

import hashlib
import secrets

import msgspec

from fazai.daemon.events.announcer import AUDIT, log_event
from fazai.daemon.loop.session import now
from fazai.loop.journal import Observed, SessionState
from fazai.loop.progress import is_repetition
from fazai.loop.tools import Observation
from fazai.timestamps import utc_now
from fazai.wire.events import LogEvent, ObserveEvent

_MOST_CHARS = 2000


def observed_entry(
    state: SessionState, action_id: str, found: Observation, *, taints: bool = False, most: int = _MOST_CHARS
) -> tuple[Observed, bytes | None]:
    """Return the entry of an observation, and the whole of it where the model is shown a part."""
    whole = msgspec.json.encode(found.data) if found.data is not None else b""
    digest = hashlib.sha256(found.same_as.encode() or found.note.encode() + b"\0" + whole).hexdigest()
    repeated = is_repetition(state, digest)
    text = whole.decode()
    cut = len(text) > most
    shown = "" if repeated else text[:most] + ("…" if cut else "")
    entry = Observed(
        at=now(),
        action_id=action_id,
        note=found.note,
        text=shown,
        digest=digest,
        size_bytes=len(whole),
        mark=_mark_for(found.note + text) if taints else "",
        failed=found.failed,
        taints=taints,
        repeated=repeated,
        output_id=f"o-{secrets.token_hex(6)}" if cut and not repeated else None,
    )
    return entry, whole if entry.output_id is not None else None


def observe_event(action_id: str, note: str) -> ObserveEvent:
    """Return the event by which a stream says what an action showed, in one sentence."""
    return ObserveEvent(timestamp=utc_now(), note=note, action_id=action_id)


def decision_event(
    by: str, decision: str, action_id: str, plan_hash: str, reason: str | None = None
) -> LogEvent:
    """Return the event by which a stream says who decided on an effect, and how."""
    text = f"{by} {decision} {plan_hash[:12]}{f': {reason}' if reason else ''}"
    return log_event("info", text, AUDIT, action_id=action_id)


def _mark_for(text: str) -> str:
    """Return a mark that is not in the text."""
    while (mark := secrets.token_hex(4)) in text:
        pass
    return mark
