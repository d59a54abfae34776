"""The error that rendering tells apart from all others, and the words for values in messages."""

from __future__ import annotations

from typing import Any

from fazai.errors import TemplateError


class UndefinedName(TemplateError):
    """An undefined name: the only error that `default` and `is defined` accept."""


def describe_type(value: Any) -> str:
    """Return the words for the type of a value, such as "a mapping"."""
    names = {
        "dict": "a mapping",
        "list": "a list",
        "str": "text",
        "NoneType": "nothing",
        "Secret": "a secret",
    }
    kind = "dict" if isinstance(value, dict) else "list" if isinstance(value, list) else type(value).__name__
    return names.get(kind, f"a value of type {kind}")
