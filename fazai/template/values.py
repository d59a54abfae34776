"""What kind of value something is, in words."""

from __future__ import annotations

from typing import Any

__all__ = ["named"]


def named(value: Any) -> str:
    """What kind of value it is, for an error."""
    names = {
        "dict": "a mapping",
        "list": "a list",
        "str": "text",
        "NoneType": "nothing",
        "Secret": "a secret",
    }
    kind = "dict" if isinstance(value, dict) else "list" if isinstance(value, list) else type(value).__name__
    return names.get(kind, f"a value of type {kind}")
