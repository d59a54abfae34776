"""The record of a change, in JSON types: what reports, answers of the API and the page of operators share.

An event of the type `change` has the same fields beside those of all events (`events.ChangeEvent`);
tests/wire/test_wire.py holds the two together.
"""

from __future__ import annotations

from typing import Any

from msgspec import field

from fazai.model import Verb
from fazai.outcome import ActionStatus
from fazai.wire.base import Label, Message


class ActionRecord(Message, frozen=True, kw_only=True):
    """An item, what is done to it, and how that ended; `error` says why it failed or was refused."""

    kind: Label
    identity: str
    verb: Verb
    status: ActionStatus
    error: str | None = None


class ChangeRecord(ActionRecord, frozen=True, kw_only=True):
    """One difference, and what became of it. `before` and `after` hold the fields that differ, secrets as
    `***`; `options` are declared fields that say how it is written; `note` is for people; `adopts`: an item
    that fazai did not make is its own from now on."""

    before: dict[str, Any]
    after: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    note: str | None = None
    adopts: bool = False
