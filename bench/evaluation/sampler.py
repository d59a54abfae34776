"""Draws a value that a JSON schema allows, each choice as likely as any other: a model that knows nothing but
the schema."""

from __future__ import annotations

import json
import random
import re
from typing import Any

_WORDS = (
    "edge", "branch", "fw-01", "web-01", "blocklist", "drift", "which firewall", "nothing", "/usr/bin/uptime",
    "192.0.2.7", "localhost", "443", "a_tool", "o-0a1b2c", "2026-01-01T00:00:00Z", "http://127.0.0.1/",
    "192.0.2.0/24",
)  # fmt: skip
_MOST_ITEMS = 3


def draw(schema: dict[str, Any], rng: random.Random) -> str:
    """Return a value of the schema as JSON."""
    return json.dumps(_draw(schema, schema.get("$defs", {}), rng))


def _draw(schema: dict[str, Any], defs: dict[str, Any], rng: random.Random) -> Any:
    if "$ref" in schema:
        return _draw(defs[schema["$ref"].rpartition("/")[2]], defs, rng)
    if "anyOf" in schema:
        return _draw(rng.choice(schema["anyOf"]), defs, rng)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return rng.choice(schema["enum"])
    match schema.get("type"):
        case "object":
            needed = schema.get("required", ())
            shown = {
                name: one
                for name, one in schema.get("properties", {}).items()
                if name in needed or rng.random() < 0.5
            }
            return {name: _draw(one, defs, rng) for name, one in shown.items()}
        case "array":
            least = schema.get("minItems", 0)
            count = rng.randint(least, max(least, min(schema["maxItems"], _MOST_ITEMS)))
            return [_draw(schema["items"], defs, rng) for _ in range(count)]
        case "integer":
            return rng.randint(schema["minimum"], schema["maximum"])
        case "boolean":
            return rng.random() < 0.5
        case "string":
            return _text(schema, rng)
    raise ValueError(f"nothing can be drawn for {schema}")


def _text(schema: dict[str, Any], rng: random.Random) -> str:
    most, least = schema.get("maxLength", 64), schema.get("minLength", 0)
    pattern = re.compile(schema.get("pattern", ""))
    words = [word for word in _WORDS if least <= len(word) <= most and pattern.search(word)]
    if not words:
        raise ValueError(f"no word is one of {schema}")
    return rng.choice(words)
