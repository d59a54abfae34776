"""JSON schemas of tools' arguments, bounded everywhere, with the live fleet's names as enums (B9), and the
reading of arguments against them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from fazai.errors import did_you_mean
from fazai.loop.tools import FleetList, ToolArgs
from fazai.wire.base import WireError, convert_to
from fazai.wire.schema import to_ecma_patterns

#: Names of the live fleet, by list (`tools.FleetList`).
FleetNames = Mapping[Any, Sequence[str]]
_NOTES = ("title", "description", "default")  # which a decoder needs not
#: A longer list is not written into a schema for people's assistants: its names are looked up in the call.
MOST_CHOICES = 256
_TIME_CHARS = 64
_SHOWN = 5
_COMPARED = 2000  # names that a wrong one is compared with: some milliseconds


def args_schema(
    args: type[ToolArgs], names: FleetNames | None = None, *, notes: bool = False
) -> dict[str, Any]:
    """Return the schema of arguments. With `names`, each `enumOf` becomes the enum itself, or a text of
    bounded length where that list is empty or long; without, a `$ref` to `#/$defs/LIST`. `notes`: with
    descriptions and defaults."""
    found: dict[str, Any] = _resolve(_bare_schema(args), names, notes)
    return found


def lists_of(args: type[ToolArgs], *, required: bool = True) -> frozenset[FleetList]:
    """Return the lists from which arguments are chosen; `required`: only arguments that must be there, so
    that without a name in one of the lists nobody can call the tool."""
    schema = _bare_schema(args)
    if required:
        wanted = schema.get("required", ())
        schema = {"properties": {name: schema["properties"][name] for name in wanted}}
    found: set[FleetList] = set()
    _visit_lists(schema, found.add)
    return frozenset(found)


def read_args(args: type[ToolArgs], values: Any, names: FleetNames) -> ToolArgs:
    """Read the arguments of a call: every field is known and of its type, and every name that has to be one
    of a list is. Raises WireError(bad_request), which names the field and what was probably meant."""
    if not isinstance(values, dict):
        raise WireError("bad_request", "`args`: expected an object")
    known = set(args.__struct_encode_fields__)
    unknown = [name for name in values if name not in known]
    if unknown:
        raise _unknown(f"`{unknown[0][:64]}` is no argument of it", unknown[0], sorted(known))
    found = convert_to(values, args)
    for path, name, value in _choices(_bare_schema(args), values, ""):
        there = names.get(name, ())
        if value not in there:
            raise _unknown(f"`{path}`: {value[:64]!r} is none of the {name}", value, there)
    return found


def find_unbounded(schema: Any, path: str = "") -> Iterator[str]:
    """Yield the place of each value in a schema of arguments that nothing bounds."""
    if {"enum", "const", "$ref"} & set(schema) or schema.get("type") in ("boolean", "null"):
        return
    if "anyOf" in schema:
        for one in schema["anyOf"]:
            yield from find_unbounded(one, path)
        return
    match schema.get("type"):
        case "string":
            bounded = "maxLength" in schema
        case "integer":
            bounded = {"minimum", "maximum"} <= set(schema)
        case "array":
            bounded = "maxItems" in schema and "items" in schema
            yield from find_unbounded(schema.get("items", {"enum": []}), f"{path}[]")
        case "object":
            bounded = schema.get("additionalProperties") is False
            for name, one in schema.get("properties", {}).items():
                yield from find_unbounded(one, f"{path}.{name}")
        case _:  # a free number has no longest text, and neither has what may be anything
            bounded = False
    if not bounded:
        yield path or "."


@functools.lru_cache(maxsize=256)  # types of tools of one's own are made anew when these change
def _bare_schema(args: type[ToolArgs]) -> Any:
    """Return msgspec's schema without references, titles and null, which an argument never needs."""
    _, components = msgspec.json.schema_components((args,))
    schema = _inline(components[args.__name__], components, ())
    to_ecma_patterns(schema)
    return schema


def _inline(node: Any, components: Mapping[str, Any], above: tuple[str, ...]) -> Any:
    if isinstance(node, list):
        return [_inline(each, components, above) for each in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        assert name not in above, f"the arguments contain themselves: {name}"
        more = {key: value for key, value in node.items() if key != "$ref"}
        return {**_inline(components[name], components, (*above, name)), **more}
    others = [each for each in node.get("anyOf", ()) if each != {"type": "null"}]
    if others and len(others) < len(node["anyOf"]):
        rest = {key: value for key, value in node.items() if key not in ("anyOf", "default")}
        node = {**others[0], **rest} if len(others) == 1 else {**rest, "anyOf": others}
        return _inline(node, components, above)
    found = {
        key: {name: _inline(each, components, above) for name, each in value.items()}
        if key == "properties"  # whose names are fields, not keywords
        else _inline(value, components, above)
        for key, value in node.items()
        if key != "title"
    }
    if found.get("format") == "date-time":
        found["maxLength"] = _TIME_CHARS
    return found


def _resolve(node: Any, names: FleetNames | None, notes: bool) -> Any:
    if isinstance(node, list):
        return [_resolve(each, names, notes) for each in node]
    if not isinstance(node, dict):
        return node
    found = {}
    for key, value in node.items():
        if key == "properties":
            found[key] = {name: _resolve(each, names, notes) for name, each in value.items()}
        elif notes or key not in _NOTES:
            found[key] = _resolve(value, names, notes)
    return _choose(found, names, notes) if "enumOf" in found else found


def _choose(node: dict[str, Any], names: FleetNames | None, notes: bool) -> dict[str, Any]:
    """Return the schema of a text that is one of a list."""
    name = node.pop("enumOf")
    if names is None:
        return {"$ref": f"#/$defs/{name}"}
    there = names.get(name, ())
    if 0 < len(there) <= MOST_CHOICES:
        rest = {key: value for key, value in node.items() if key in _NOTES}
        return {"type": "string", "enum": list(there), **rest}
    if notes:
        text = f"one of the {len(there)} {name}, such as {', '.join(there[:_SHOWN])}"
        node["description"] = text if there else f"one of the {name}; none is known now"
    return node


def _visit_lists(node: Any, visit: Callable[[FleetList], None]) -> None:
    if isinstance(node, list):
        for each in node:
            _visit_lists(each, visit)
    elif isinstance(node, dict):
        if isinstance(node.get("enumOf"), str):
            visit(node["enumOf"])
        for each in node.values():
            _visit_lists(each, visit)


def _choices(schema: Any, value: Any, path: str) -> Iterator[tuple[str, FleetList, str]]:
    """Yield place, list and name for each name in a value that has to be one of a list."""
    if isinstance(value, str) and "enumOf" in schema:
        yield path, schema["enumOf"], value
    for one in schema.get("anyOf", ()):
        yield from _choices(one, value, path)
    if isinstance(value, dict):
        for name, one in schema.get("properties", {}).items():
            if name in value:
                yield from _choices(one, value[name], f"{path}.{name}".lstrip("."))
    elif isinstance(value, list) and "items" in schema:
        for number, one in enumerate(value):
            yield from _choices(schema["items"], one, f"{path}[{number}]")


def _unknown(message: str, word: str, known: Sequence[str]) -> WireError:
    near = did_you_mean(word[:64], known[:_COMPARED])
    if near is None and known:
        near_ones = ", ".join(known[:_SHOWN]) + (", …" if len(known) > _SHOWN else "")
        return WireError("bad_request", message, hint=f"one of: {near_ones}")
    return WireError("bad_request", message, hint=f'did you mean "{near}"?' if near else "there is none")
