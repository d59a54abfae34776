"""Requests and answers as values, between the HTTP server and the firewall behind it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import msgspec

_ENCODE = msgspec.json.Encoder().encode

JSON_TYPE = "application/json; charset=UTF-8"
ERROR_TYPE = "application/json;charset=utf-8"  # what the web server's own error handler sends
NO_CACHE = "no-store, no-cache, must-revalidate"


@dataclass(slots=True)
class LabRequest:
    """One request as it came in; header names are lower-case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def query(self) -> dict[str, Any]:
        """Parse the query string; `a[b]=c` becomes `{"a": {"b": "c"}}`, as PHP reads it."""
        text = self.target.partition("?")[2]
        return parse_form(text) if text else {}


@dataclass(slots=True)
class LabReply:
    """One answer. `session` says whether the PHP session cookie goes with it."""

    status: int
    body: bytes
    content_type: str = JSON_TYPE
    headers: list[tuple[str, str]] = field(default_factory=list)
    session: bool = True
    delay_s: float = 0.0


def make_json_reply(value: Any, status: int = 200, **more: Any) -> LabReply:
    """Return an answer with a JSON body."""
    return LabReply(status, _ENCODE(value), **more)


def parse_form(text: str) -> dict[str, Any]:
    """Parse form encoding with PHP's brackets: `alias[name]=x` becomes `{"alias": {"name": "x"}}`."""
    found: dict[str, Any] = {}
    for key, value in parse_qsl(text, keep_blank_values=True):
        *parents, last = key.replace("]", "").split("[")
        node = found
        for part in parents:
            child = node.get(part)
            if not isinstance(child, dict):
                child = node[part] = {}
            node = child
        node[last or str(len(node))] = value
    return found
