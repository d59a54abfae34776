"""Arguments of tools: a schema that bounds everything, and calls that are read strictly."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta, Struct

from fazai.daemon.tools.table import TABLE
from fazai.loop.argschema import MOST_CHOICES, args_schema, find_unbounded, lists_of, read_args
from fazai.loop.tools import AnyTool, FirewallName, HostName, ToolArgs
from fazai.wire.base import Ident, Label, Timestamp, WireError
from fazai.wire.tools import dotless_name

NAMES = {"firewalls": ("fw-01", "fw-02"), "hosts": ("web-1",)}


class Port(Struct, frozen=True, forbid_unknown_fields=True):
    number: Annotated[int, Meta(ge=1, le=65535)]
    title: Label | None = None


class Args(ToolArgs, frozen=True, kw_only=True):
    """What is looked at."""

    firewall: FirewallName
    hosts: Annotated[tuple[HostName, ...], Meta(max_length=4)] = ()
    since: Timestamp | None = None
    near: HostName | None = None
    port: Port | None = None
    run: Ident | None = None
    level: Literal["info", "error"] = "info"


def schema_of(names: Any = NAMES, *, notes: bool = True) -> Any:
    return args_schema(Args, names, notes=notes)


@pytest.mark.parametrize("tool", TABLE, ids=lambda tool: tool.name)
def test_every_argument_of_every_tool_is_bounded(tool: AnyTool) -> None:
    assert list(find_unbounded(args_schema(tool.args))) == []
    assert list(find_unbounded(args_schema(tool.args, {}, notes=True))) == []


def test_names_of_tools_are_still_different_where_no_dot_is_allowed() -> None:
    names = [tool.name for tool in TABLE]
    assert len({dotless_name(name) for name in names} | set(names)) == len(names) + sum(
        "." in n for n in names
    )


@pytest.mark.parametrize(
    ("schema", "places"),
    [
        ({"type": "string"}, ["."]),
        ({"type": "string", "maxLength": 5}, []),
        ({"type": "integer", "minimum": 0}, ["."]),
        ({"type": "number", "minimum": 0, "maximum": 1}, ["."]),
        ({}, ["."]),
        ({"type": "array", "items": {"type": "boolean"}}, ["."]),
        ({"type": "array", "maxItems": 3, "items": {"type": "string"}}, ["[]"]),
        ({"type": "array", "maxItems": 3}, ["."]),
        ({"type": "object", "properties": {}}, ["."]),
        (
            {
                "type": "object",
                "additionalProperties": False,
                "properties": {"a": {"anyOf": [{"type": "string"}]}},
            },
            [".a"],
        ),
    ],
)
def test_what_nothing_bounds_is_found(schema: Any, places: list[str]) -> None:
    assert list(find_unbounded(schema)) == places


def test_names_of_the_fleet_are_written_out() -> None:
    properties = schema_of()["properties"]
    assert properties["firewall"] == {"type": "string", "enum": ["fw-01", "fw-02"]}
    assert properties["hosts"]["items"] == {"type": "string", "enum": ["web-1"]}
    assert properties["near"] == {"type": "string", "enum": ["web-1"]}
    assert schema_of()["description"] == "What is looked at."
    assert lists_of(Args) == {"firewalls"}
    assert lists_of(Args, required=False) == {"firewalls", "hosts"}


def test_a_list_that_is_empty_or_long_is_a_bounded_text() -> None:
    many = tuple(f"web-{number}" for number in range(MOST_CHOICES + 1))
    properties = schema_of({"hosts": many})["properties"]
    assert properties["firewall"] == {
        "type": "string",
        "minLength": 1,
        "maxLength": 256,
        "description": "one of the firewalls; none is known now",
    }
    assert properties["near"]["maxLength"] == 256
    assert properties["near"]["description"].startswith("one of the 257 hosts, such as web-0, web-1")


def test_without_names_there_are_references() -> None:
    assert schema_of(None, notes=False)["properties"]["firewall"] == {"$ref": "#/$defs/firewalls"}


def test_nothing_refers_to_elsewhere_and_nothing_is_null() -> None:
    properties = schema_of()["properties"]
    assert properties["port"]["properties"] == {
        "number": {"type": "integer", "minimum": 1, "maximum": 65535},
        "title": {"type": "string", "minLength": 1, "maxLength": 256},
    }
    assert properties["since"] == {"type": "string", "format": "date-time", "maxLength": 64}
    assert properties["run"]["pattern"] == "^[!-~]+$"
    assert "null" not in str(schema_of())
    assert list(find_unbounded(schema_of())) == []


def test_good_arguments_are_read() -> None:
    found = read_args(
        Args, {"firewall": "fw-02", "hosts": ["web-1"], "near": None, "port": {"number": 22}}, NAMES
    )
    assert found == Args(firewall="fw-02", hosts=("web-1",), port=Port(22))


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "`args`: expected an object"),
        ({"fire_wall": "fw-01"}, '`fire_wall` is no argument of it (did you mean "firewall"?)'),
        (
            {"firewall": "fw-01", "read_only": True},
            "`read_only` is no argument of it (one of: firewall, hosts, level, near, port, …)",
        ),
        ({}, "object missing required field `firewall`"),
        ({"firewall": "fw-1"}, "`firewall`: 'fw-1' is none of the firewalls (did you mean \"fw-01\"?)"),
        ({"firewall": "*"}, "`firewall`: '*' is none of the firewalls (one of: fw-01, fw-02)"),
        (
            {"firewall": "fw-01", "hosts": ["web-1", "x"]},
            "`hosts[1]`: 'x' is none of the hosts (one of: web-1)",
        ),
        (
            {"firewall": "fw-01", "near": "web-2"},
            "`near`: 'web-2' is none of the hosts (did you mean \"web-1\"?)",
        ),
        ({"firewall": 1}, "`firewall`: expected `str`, got `int`"),
        ({"firewall": "fw-01", "port": {"number": 22, "x": 1}}, "`port`: object contains unknown field `x`"),
        ({"firewall": "fw-01", "hosts": ["web-1"] * 5}, "`hosts`: expected `array` of length <= 4"),
    ],
)
def test_other_arguments_are_refused_by_their_name(args: Any, said: str) -> None:
    with pytest.raises(WireError) as caught:
        read_args(Args, args, NAMES)
    assert caught.value.code == "bad_request"
    assert str(caught.value) == said


def test_a_name_of_an_empty_list_is_refused() -> None:
    with pytest.raises(WireError, match=r"'fw-01' is none of the firewalls \(there is none\)"):
        read_args(Args, {"firewall": "fw-01"}, {})
