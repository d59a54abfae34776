"""Reads the one action out of what a model wrote (requirement B6).

A worker's grammar lets nothing else through; an endpoint, or a model without it, may write anything. What is
read is strict: the text is one JSON object, or begins with one. Nothing is searched for inside of other text.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import msgspec

from fazai.wire.actions import PLAIN_ACTIONS, ProposedAction, decode_proposal
from fazai.wire.base import WireError

_MOST_CHARS = 65_536
_FENCE = re.compile(r"\A```(?:json)?[ \t]*\n(.*)\n```\Z", re.DOTALL)
_SHOWN = 300
_MOST_LEVELS = 64


class Reading(NamedTuple):
    """Result of reading: an action, or the problem. `ignored`: there was more behind the action, which is
    left out; before an action that may have an effect that is a problem."""

    action: ProposedAction | None
    problem: str | None = None
    ignored: bool = False


def read_proposal(output: str) -> Reading:
    """Return the action of an answer, or why there is none."""
    text = output.strip()
    if (fenced := _FENCE.match(text)) is not None:
        text = fenced[1].strip()
    if not text.startswith("{"):
        return Reading(None, "the answer is not one JSON object: write the action and nothing else")
    if len(text) > _MOST_CHARS:
        return Reading(None, f"the answer has more than {_MOST_CHARS} characters")
    try:
        found, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError) as error:
        return Reading(None, f"the answer is not JSON: {str(error)[:_SHOWN]}")
    if _is_deeper(found, _MOST_LEVELS):  # whoever reads the journal and the events has to bear it
        return Reading(None, f"the answer is nested more than {_MOST_LEVELS} levels deep")
    rest = text[end:].strip()
    try:
        action = decode_proposal(_with_action(text[:end]))
    except WireError as error:
        hint = f" ({error.hint})" if error.hint else ""
        return Reading(None, f"{error.message}{hint}"[:_SHOWN], bool(rest))
    if rest and not isinstance(action, PLAIN_ACTIONS):
        return Reading(None, "the answer has more than one action: write exactly one", True)
    return Reading(action, ignored=bool(rest))


def _is_deeper(value: Any, most: int) -> bool:
    """Return whether JSON has more levels of lists and objects than this."""
    level = [value]
    for _ in range(most + 1):
        nested = [one for one in level if isinstance(one, list | dict)]
        level = [each for one in nested for each in (one.values() if isinstance(one, dict) else one)]
        if not nested:
            return False
    return True


def _with_action(text: str) -> str:
    """Return the object with `action` where an old worker said `type`."""
    found = json.loads(text)
    if "action" in found or not isinstance(found.get("type"), str) or found["type"] == "action":
        return text
    pairs = json.loads(text, object_pairs_hook=list)  # a name that occurs twice stays so, and is refused
    named = [("action" if name == "type" else name, value) for name, value in pairs]
    if len({name for name, _ in named}) != len(named):
        return text
    return msgspec.json.encode(
        {"action": found["type"], **{n: found[n] for n in found if n != "type"}}
    ).decode()
