"""The schema of an action is bounded everywhere, and its longest action fits (requirement B9)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from fazai.daemon.tools.table import TABLE
from fazai.loop.schema import MAX_ACTION_TOKENS, build_action_schema

NAMES = {
    "firewalls": ("fw-01", "fw-02"),
    "hosts": ("web-1",),
    "targets": ("fw-01", "fw-02", "web-1"),
    "playbooks": ("edge",),
    "sessions": (),
}


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from _nodes(value)
    elif isinstance(node, list):
        for value in node:
            yield from _nodes(value)


def test_everything_is_bounded() -> None:
    for node in _nodes(build_action_schema(TABLE, NAMES)):
        match node.get("type"):
            case "string":
                assert "enum" in node or "maxLength" in node, node
            case "array":
                assert "maxItems" in node, node
            case "integer":
                assert {"minimum", "maximum"} <= set(node), node
            case "object":
                assert node["additionalProperties"] is False, node
            case "number":
                raise AssertionError(f"a free number: {node}")


def _longest(node: dict[str, Any], schema: dict[str, Any]) -> int:
    """Characters of the longest JSON of a schema's node, without escapes."""
    if "$ref" in node:
        return _longest(schema["$defs"][node["$ref"].rpartition("/")[2]], schema)
    if "const" in node:
        return len(json.dumps(node["const"]))
    if "enum" in node:
        return max(len(json.dumps(one)) for one in node["enum"])
    if "anyOf" in node:
        return max(_longest(one, schema) for one in node["anyOf"])
    match node["type"]:
        case "string":
            return 2 + int(node.get("maxLength", 64))
        case "integer":
            return max(len(str(node["minimum"])), len(str(node["maximum"])))
        case "boolean":
            return 5
        case "array":
            return 2 + int(node["maxItems"]) * (1 + _longest(node["items"], schema))
        case "object":
            return 2 + sum(len(name) + 4 + _longest(one, schema) for name, one in node["properties"].items())
    raise AssertionError(node)


def test_the_longest_action_ends_before_the_tokens_do() -> None:
    schema = build_action_schema(TABLE, NAMES)
    assert _longest(schema, schema) <= MAX_ACTION_TOKENS


def test_a_tool_for_which_there_is_nothing_is_left_out() -> None:
    text = json.dumps(build_action_schema(TABLE, {**NAMES, "playbooks": (), "targets": ()}))
    assert "reconcile.plan" not in text
    assert '"shell"' not in text
    assert "fleet.list" in text


@pytest.mark.parametrize("count", [100, 5_000, 20_000])
def test_a_large_fleet_still_fits(count: int) -> None:
    names = tuple(f"firewall-{number:05d}.branch.example.net" for number in range(count))
    schema = build_action_schema(TABLE, {**NAMES, "targets": names, "firewalls": names, "hosts": names})
    assert len(json.dumps(schema)) <= 131_072
    text = json.dumps(schema["$defs"])
    assert (names[0] in text) is (count == 100)
    assert ("{1,64}" in text) is (count != 100)


def test_arguments_are_described_once() -> None:
    """What no fleet changes is not made anew in every iteration."""
    one, other = build_action_schema(TABLE, NAMES), build_action_schema(TABLE, {**NAMES, "hosts": ("db-1",)})
    pairs = [
        (a["properties"]["args"], b["properties"]["args"])
        for a, b in zip(one["anyOf"], other["anyOf"], strict=True)
        if "args" in a["properties"]
    ]
    assert len(pairs) >= len(TABLE) - 2
    assert all(a is b for a, b in pairs)
