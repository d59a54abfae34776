"""Judges whether an objective gets anywhere (requirement B7)."""

from __future__ import annotations

import json

from fazai.loop.journal import SessionState, action_digest

_SAME = 2  # observations of one action in a row that did not differ: a third would not either
_TEXT_ONLY = 4  # plans and remarks in a row
_UNREADABLE = 3  # answers in a row from which no action could be read


def stuck_reason(state: SessionState) -> str | None:
    """Return why the action that was just proposed leads nowhere; None: it may be carried out."""
    if state.action is None:
        if state.unreadable >= _UNREADABLE:
            return f"{state.unreadable} answers in a row were no action"
        return None
    seen = state.seen.get(action_digest(state.action))
    if seen is not None and seen.same >= _SAME:
        return f"the same action showed the same {seen.same} times"
    if state.text_only >= _TEXT_ONLY and state.action.get("action") in ("plan", "observe"):
        return f"{state.text_only} actions in a row looked at nothing"
    return None


def exhausted_tools(state: SessionState) -> frozenset[str]:
    """Return the tools that a call of would end the objective, as it showed the same again and again: a
    decoder need not offer them."""
    found = set()
    for digest, seen in state.seen.items():
        action = json.loads(digest)
        if seen.same >= _SAME and action.get("action") == "use_tool":
            found.add(str(action["name"]))
    return frozenset(found)


def is_repetition(state: SessionState, digest: str) -> bool:
    """Return whether the latest action was proposed before and shows what it showed then."""
    if state.action is None:
        return False
    seen = state.seen.get(action_digest(state.action))
    return seen is not None and seen.digest == digest
