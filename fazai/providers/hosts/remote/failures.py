"""Errors of a host as data, and back: a closed list of classes, each with its fields.

A place in the controller's files does not travel: an error names the resource, whose place the controller
knows (`Places`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fazai.errors import (
    AccessDenied,
    DeviceError,
    FazaiError,
    Mark,
    Moved,
    NotAvailable,
    Refused,
    Unreachable,
    Unsure,
    VerifyError,
)
from fazai.model import Resource
from fazai.providers.hosts.remote.values import Malformed, decode_text, encode_value
from fazai.providers.hosts.shell.answers import ReplacedMeanwhile
from fazai.providers.hosts.shell.questions import AnswerTooLong

#: The classes that a session on a host raises, the special ones first.
_CLASSES: Final[Mapping[str, type[FazaiError]]] = {
    class_.__name__: class_
    for class_ in (
        Moved,
        AccessDenied,
        NotAvailable,
        AnswerTooLong,
        ReplacedMeanwhile,
        Refused,
        Unreachable,
        Unsure,
        VerifyError,
        DeviceError,
    )
}
#: What such a class has beside message, place and hint.
_MORE: Final[Mapping[str, str]] = {"Moved": "path", "Unreachable": "stage"}
_STAGES: Final = ("resolve", "connect", "tls", "write", "read", "answer")
#: A longer message is cut: what a host says of itself is for people.
_MOST_CHARS: Final = 16 * 1024


class Places:
    """The places of resources in the controller's files, by kind and identity. `name`: that of the target."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._marks: dict[tuple[str, str], Mark | str] = {}

    def note(self, resource: Resource) -> None:
        """Remember where a resource is declared."""
        self._marks[resource.kind, resource.identity] = resource.mark or resource.identity

    def named_in(self, text: str) -> Mark | str | None:
        """Return the place of the resource with whose name a sentence begins; None: with that of none."""
        found = (
            mark for (kind, identity), mark in self._marks.items() if text.startswith(f"{kind} {identity}: ")
        )
        return next(found, None)

    def find(self, kind: str, identity: str) -> Mark | str:
        """Return the place of a resource. Raises Malformed for one that was never sent."""
        if (kind, identity) not in self._marks:
            raise Malformed("a resource that nobody sent")
        return self._marks[kind, identity]


def resource_mark(kind: str, identity: str) -> Mark:
    """Return the mark that stands for a resource's place on the agent's side."""
    return Mark(f"{kind}\0{identity}", 0, 0)


def encode_error(error: FazaiError, host: str) -> dict[str, Any]:
    """Return an error of a host as data. `host`: the name that the agent gives itself."""
    name = next((name for name, class_ in _CLASSES.items() if type(error) is class_), "DeviceError")
    found: dict[str, Any] = {"class": name, "message": encode_value(error.message[:_MOST_CHARS])}
    if isinstance(error.where, Mark):
        found["where"] = {"of": [encode_value(part) for part in error.where.file.split("\0", 1)]}
    elif error.where == host:
        found["where"] = 0
    elif error.where is not None and error.where.startswith(f"{host}/"):
        found["where"] = {"below": encode_value(error.where[len(host) :])}
    elif error.where is not None:
        found["where"] = encode_value(error.where)
    if error.hint is not None:
        found["hint"] = encode_value(error.hint)
    more = _MORE.get(name)
    if more is not None:
        found[more] = encode_value(getattr(error, more))
    return {"$error": found}


def is_error(data: object) -> bool:
    """Tell whether data stands for an error."""
    return isinstance(data, dict) and data.keys() == {"$error"}


def decode_error(data: object, places: Places) -> FazaiError:
    """Return the error that `encode_error` made this of. Raises Malformed."""
    body = data.get("$error") if isinstance(data, dict) and len(data) == 1 else None
    if not isinstance(body, dict) or not isinstance(body.get("class"), str):
        raise Malformed("no error")
    name = body["class"]
    class_, more = _CLASSES.get(name), _MORE.get(name)
    needed = {"class", "message", *((more,) if more else ())}
    if class_ is None or not needed <= body.keys() <= needed | {"where", "hint"}:
        raise Malformed("an error of no class that a host has")
    extra = {more: decode_text(body[more])} if more else {}
    if extra.get("stage", "answer") not in _STAGES:
        raise Malformed("an error at no stage")
    where: Mark | str | None = None
    if "where" in body:
        where = _decode_place(body["where"], places)
    hint = decode_text(body["hint"])[:_MOST_CHARS] if "hint" in body else None
    return class_(decode_text(body["message"])[:_MOST_CHARS], where=where, hint=hint, **extra)


def _decode_place(data: object, places: Places) -> Mark | str:
    if data == 0:
        return places.name
    of = data.get("of") if isinstance(data, dict) and data.keys() == {"of"} else None
    if isinstance(of, list) and len(of) == 2:
        return places.find(decode_text(of[0]), decode_text(of[1]))
    if isinstance(data, dict) and data.keys() == {"below"}:
        return f"{places.name}{decode_text(data['below'])[:_MOST_CHARS]}"
    return decode_text(data)[:_MOST_CHARS]
