"""Checks the keywords of a schema before it is compiled: llguidance leaves one alone that it does not know,
so what was meant as a limit (`maxLenght`) would not be one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fazai.errors import spelling_hint

#: They say something to people and limit nothing; so do names that begin with `x-`.
ANNOTATIONS = frozenset(
    (
        *("title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly"),
        *("$comment", "$schema", "$id", "id", "$anchor", "$vocabulary"),
        *("contentEncoding", "contentMediaType", "contentSchema"),  # as JSON Schema itself says
        "nullable",  # OpenAPI's: what it would allow besides is not written, so the output conforms
    )
)
_ONE = (
    *("items", "additionalItems", "additionalProperties", "unevaluatedItems", "unevaluatedProperties"),
    *("contains", "propertyNames", "not", "if", "then", "else"),
)
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_NAMED = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")
_VALUES = (
    *("type", "enum", "const", "format", "pattern", "minLength", "maxLength"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("minItems", "maxItems", "uniqueItems", "minContains", "maxContains"),
    *("required", "minProperties", "maxProperties", "dependentRequired", "dependencies"),
    *("$ref", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor"),
)
#: What llguidance enforces, or refuses by itself.
_KNOWN = frozenset((*_ONE, *_LISTS, *_NAMED, *_VALUES)) | ANNOTATIONS


def unknown_keyword(schema: Mapping[str, Any]) -> str | None:
    """Return a sentence about the first keyword that nobody knows; None when there is none."""
    todo: list[tuple[str, Any]] = [("", schema)]
    while todo:
        place, part = todo.pop()
        if not isinstance(part, dict):
            continue
        for name in part:
            if name not in _KNOWN and not name.startswith("x-"):
                nearest = spelling_hint(name, _KNOWN)
                where = f" at {place}" if place else ""
                return f"it has no keyword {name!r}{where}" + (f": {nearest}" if nearest else "")
        todo += _subschemas(place, part)
    return None


def _subschemas(place: str, schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the schemas within one. The contents of `enum`, `const`, `default` and `examples` are values."""
    for name in _ONE:
        yield f"{place}/{name}", schema.get(name)
    for name in _LISTS:
        if isinstance(found := schema.get(name), list):
            yield from ((f"{place}/{name}/{n}", part) for n, part in enumerate(found))
    for name in _NAMED:
        if isinstance(found := schema.get(name), dict):
            yield from ((f"{place}/{name}/{key}", part) for key, part in found.items())
