"""The schema of the one action that a model may write: what the worker's decoder enforces (requirement B9).

Every text has a longest length, every list too, every number a range, and targets, tools and playbooks are
those that there are. So the longest action is known, and no answer ends by its length.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from fazai.loop.argschema import FleetNames, args_schema, lists_of
from fazai.loop.tools import AnyTool, FleetList, ToolArgs

#: As much as SPEC.md, 1, lets a schema have, with room for what is around the names.
_MOST_BYTES = 110_000
_NAME_PATTERN = "^[A-Za-z0-9._:-]{1,64}$"
_RESULT, _QUESTION, _OPTION, _STEP, _QUERY, _TITLE, _SNIPPET, _TAG, _WORD = (
    400,
    200,
    60,
    80,
    80,
    80,
    300,
    30,
    60,
)
_STEPS, _OPTIONS, _QUERIES, _TAGS, _WORDS = 6, 4, 3, 4, 12
#: More tokens than the longest action has characters.
MAX_ACTION_TOKENS = 1200


def build_action_schema(
    tools: Sequence[AnyTool], names: FleetNames, specs: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the schema of an action over these tools. `names`: the live fleet by list; lists too long for a
    schema go by a pattern, and what does not exist is refused when the tool is called. `specs`: the tools
    that were made by `tool_spec` and approved, with the schema of their arguments."""
    used: set[str] = set()
    variants = []
    for tool in tools:
        needed, schema, refs = _parts_of(tool.args)
        if any(not names.get(name) for name in needed):
            continue  # there is nothing that it could be called for
        used |= refs
        variants.append(_variant("use_tool", {"name": {"const": tool.name}, "args": schema}))
    for name, schema in (specs or {}).items():
        used |= _refs(schema)
        variants.append(_variant("use_tool", {"name": {"const": name}, "args": schema}))
    if names.get("targets"):
        used.add("targets")
        argv = {"type": "array", "items": _text(_WORD), "minItems": 1, "maxItems": _WORDS}
        host = {"$ref": "#/$defs/targets"}
        variants.append(_variant("shell", {"target": host, "argv": argv}))
        named: dict[str, Any] = {"type": "string", "pattern": "^[a-z][a-z0-9_]{2,30}$", "maxLength": 31}
        described: dict[str, Any] = {"name": named, "argv": argv}
        variants.append(_variant("tool_spec", {**described, "description": _text(_QUESTION)}))
    variants += _plain_variants()
    return {"anyOf": variants, "$defs": {name: _enum(names.get(name, ())) for name in sorted(used)}}


@functools.lru_cache(maxsize=512)
def _parts_of(args: type[ToolArgs]) -> tuple[frozenset[FleetList], dict[str, Any], frozenset[str]]:
    """Return the lists that arguments need, their schema, and the lists that it names; they are the same in
    every iteration, and took most of its time."""
    schema = args_schema(args)
    return lists_of(args), schema, frozenset(_refs(schema))


def _plain_variants() -> list[dict[str, Any]]:
    def texts(length: int, most: int, least: int = 0) -> dict[str, Any]:
        return {"type": "array", "items": _text(length), "minItems": least, "maxItems": most}

    note = {"title": _text(_TITLE), "snippet": _text(_SNIPPET)}
    return [
        _variant("research", {"queries": texts(_QUERY, _QUERIES, 1)}),
        _variant("commit_kb", {**note, "tags": texts(_TAG, _TAGS)}),
        _variant("plan", {"steps": texts(_STEP, _STEPS, 1)}),
        _variant("ask", {"question": _text(_QUESTION), "options": texts(_OPTION, _OPTIONS)}),
        _variant("observe", {"summary": _text(_QUESTION)}),
        _variant("done", {"result": _text(_RESULT)}),
    ]


def _variant(action: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    properties = {"action": {"const": action}, **fields}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _text(length: int) -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "maxLength": length}


def _enum(names: Sequence[str]) -> dict[str, Any]:
    shown = list(names)
    if not shown or len(msgspec.json.encode(shown)) > _MOST_BYTES // 3:
        return {"type": "string", "pattern": _NAME_PATTERN, "maxLength": 64}
    return {"type": "string", "enum": shown}


def _refs(schema: Any) -> set[str]:
    if isinstance(schema, dict):
        own = {schema["$ref"].rpartition("/")[2]} if "$ref" in schema else set()
        return own.union(*(_refs(each) for each in schema.values()))
    return set().union(*(_refs(each) for each in schema)) if isinstance(schema, list) else set()
