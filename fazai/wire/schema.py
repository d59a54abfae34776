"""JSON schemas of messages, as readers other than msgspec understand them."""

from __future__ import annotations

import re
from typing import Any


def to_ecma_patterns(schema: Any) -> None:
    """Rewrite the patterns of a schema, in place, as the regular expressions that JSON Schema means; ours are
    Python's, with a comment in them."""
    if isinstance(schema, list):
        for one in schema:
            to_ecma_patterns(one)
    elif isinstance(schema, dict):
        pattern = schema.get("pattern")
        if isinstance(pattern, str):
            text = re.sub(r"\(\?#[^)]*\)", "", pattern)
            schema["pattern"] = text.replace(r"\A", "^").replace(r"\Z", "$")
        for one in schema.values():
            to_ecma_patterns(one)
