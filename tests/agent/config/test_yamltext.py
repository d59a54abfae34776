"""The agent's own reader of YAML: what it accepts means the same to PyYAML, what it refuses has its line."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fazai.agent.config.yamltext import MAX_BYTES, MAX_DEPTH, Node, plain_value, read_yaml
from fazai.agent.errors import ConfigError
from tests.campaign import with_examples

ACCEPTED = [
    "",
    "# only a comment\n\n",
    "a: 1",
    "a: 1\r\nb: two\r\n",
    "\ufeffa: 1\n",
    "a:\nb: ~\nc: null\n",
    "a:\n- 1\n- 2\nb: 3\n",
    "a:\n  - 1\n  - 2\n",
    "- a: 1\n  b: 2\n- c\n-\n- d\n",
    "-\n  a: 1\n  b:\n    - 1\n    -\n      c: 2\n",
    "-   a: 1\n    b: 2\n",
    "mode: no\nother: Yes\n",
    'a: [1, two, \'three\', "fo\\"ur", {a: b, c: [d]}, ]  # why\n',
    "a: {b: 1, c: {d: e}, f: [], g: {},}\n",
    "path: C:/x#y\nurl: wss://fazai.example:3121\naddress: 10.0.0.1\nminus: -h\n",
    "a: 'it''s # no comment'  # a comment\nb: \"\\x41\\u00e9\\t\\\\\"\n",
    "a: -1\nb: 0\nc: 1.5\nd: -0.25\n",
    "a: b c  d\n",
    "'quoted key': 1\n\"other\": 2\n",
    'args: ["-h", {pattern: "/[a-z/]*"}]\nenv: {LANG: "C|C\\\\.UTF-8", TZ: "[A-Za-z/]+"}\n',
    "just a text",
    "[1, 2]",
]


@pytest.mark.parametrize("text", ACCEPTED)
def test_what_is_accepted_means_the_same_to_pyyaml(text: str) -> None:
    assert plain_value(read_yaml(text.encode(), "agent.yml")) == yaml.safe_load(text.encode())


REFUSED = [
    ("a: &x 1", 1, "anchors are not read here"),
    ("a: *x", 1, "aliases are not read here"),
    ("a: !!str 1", 1, "tags are not read here"),
    ("a: |\n  text\n", 1, "texts over several lines are not read here"),
    ("a: >\n  text\n", 1, "texts over several lines are not read here"),
    ("---\na: 1", 1, "document marks are not read here"),
    ("a: 1\n...\n", 2, "document marks are not read here"),
    ("%YAML 1.1", 1, "directives are not read here"),
    ("? a\n: b", 1, r"begins with \? stands in quotes"),
    ("<<: {a: 1}", 1, "may be read as a number, a date or a merge"),
    ("a: 0755", 1, "may be read as a number"),
    ("a: 1_000", 1, "may be read as a number"),
    ("a: 12:30", 1, "may be read as a number"),
    ("a: 0x1f", 1, "may be read as a number"),
    ("a: 2026-01-01", 1, "a date"),
    ("a: +1", 1, "may be read as a number"),
    ("a: .5", 1, "may be read as a number"),
    ("a: 1.5e+3", 1, "may be read as a number"),
    ("b: 1\na: .inf", 2, "may be read as a number"),
    ("a: 1\na: 2", 2, '"a" stands here twice .the first is in line 1'),
    ("a: {b: 1, b: 2}", 1, '"b" stands here twice'),
    ("no: 1", 1, "a key is a text, and `no` is none to YAML"),
    ("1: a", 1, "a key is a text, and `1` is none to YAML"),
    ("a:\n\tb: 1", 2, "a tab is not allowed"),
    ("a: \x07", 1, r"the character U\+0007 is not allowed"),
    ("a: 'x", 1, "the quotes are not closed"),
    ('a: "x\\q"', 1, r"\\q is not known in double quotes"),
    ('a: "\\ud800"', 1, r"\\u is not known in double quotes"),
    ("a: [1, 2", 1, "] is missing"),
    ("a: {b: 1", 1, "} is missing"),
    ("a: [1 2, {]", 1, '"a key|a text that begins with ] stands in quotes'),
    ("a: {b}", 1, 'a colon is missing after "b"'),
    ("a: {b: }", 1, '"b" has no value'),
    ("a: [b: c]", 1, "a comma or ] is missing"),
    ("a: b: c", 1, "what follows the value is not understood"),
    ("a: 'b' c", 1, "what follows the value is not understood"),
    ("a: b\n  c: d", 2, "this line belongs to nothing: line 1 has its value"),
    ("a: b\n  c\n", 2, "this line belongs to nothing"),
    ("a:\n   b: 1\n  c: 2", 3, "indented less than the first|indented more than the keys"),
    ("a: 1\n b: 2", 2, "this line belongs to nothing"),
    ("a\nb: 1", 2, "indented less than the first one|belongs to nothing"),
    ("- a\nb: 1", 2, "indented less than the first one"),
    ("a: 1\n- b", 2, "a list begins here among the keys"),
    ("- - a", 1, "a list in a list stands in brackets"),
    ("a: - b", 1, "begins with - stands in quotes"),
]


@pytest.mark.parametrize(("text", "line", "words"), REFUSED)
def test_what_is_refused_has_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as found:
        read_yaml(text.encode(), "agent.yml")
    assert found.value.where == f"agent.yml:{line}"


def test_size_depth_and_encoding_are_bounded() -> None:
    with pytest.raises(ConfigError, match=f"{MAX_BYTES} are allowed"):
        read_yaml(b"#" * (MAX_BYTES + 1), "agent.yml")
    for text in (
        "[" * 10_000,
        "a: " + "{a: " * 10_000,
        "\n".join(" " * depth + "a:" for depth in range(MAX_DEPTH * 2)),
        "\n".join(" " * depth + "-" for depth in range(MAX_DEPTH * 2)) + "\n",
    ):
        with pytest.raises(ConfigError, match=f"nested more than {MAX_DEPTH} deep"):
            read_yaml(text.encode(), "agent.yml")
    with pytest.raises(ConfigError, match="this is not UTF-8") as found:
        read_yaml(b"a: 1\nb: \xff\n", "agent.yml")
    assert found.value.where == "agent.yml:2"


def test_places_are_those_of_the_values() -> None:
    node = read_yaml(b"# one\na: 1\nb:\n\n  - x: 1\n    y: [2]\n", "agent.yml")
    assert isinstance(node.value, dict)
    assert (node.value["a"].line, node.value["b"].key_line, node.value["b"].line) == (2, 3, 5)
    items = node.value["b"].value
    assert isinstance(items, list)
    item = items[0]
    assert isinstance(item, Node)
    assert isinstance(item.value, dict)
    assert item.value["y"].line == 6


#: Pieces that YAML gives a meaning to; texts are made of them.
SIGNS = "-?:,[]{}#&*!|>'\"%@` \n=~<.\\/0179abnoyesx_+é"
WORDS = (
    "yes",
    "null",
    "<<",
    "0x",
    "1.5",
    "1e3",
    "--",
    "---",
    "...",
    "2026-01-02",
    ".inf",
    "12:30:01",
    "''",
    '""',
)
STARTS = ("- ", ": ", " #", "\n  ", "\n- ", "\n    - ", "a: ", "\nb: ", "{a: ", ", ")
PIECES = st.sampled_from((*SIGNS, *WORDS, *STARTS))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**17), 10**17),
    st.text(st.sampled_from("abc:# '\"\\{}[],-?*&!|>%@`~=0123.é \t\n"), max_size=12),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(st.sampled_from("ab _-1é"), max_size=5), inner, max_size=4),
    ),
    max_leaves=12,
)


@with_examples(150, 800)
def test_any_text_is_refused_or_means_the_same_to_pyyaml(count: int) -> None:
    @settings(max_examples=count, deadline=None)
    @given(st.lists(PIECES, max_size=30).map("".join))
    def holds(text: str) -> None:
        try:
            mine = plain_value(read_yaml(text.encode(), "agent.yml"))
        except ConfigError as error:
            place = str(error.where)
        else:
            place = ""
        if place:
            assert re.fullmatch(r"agent\.yml:\d+", place)
            return
        theirs = yaml.safe_load(text)
        assert mine == theirs
        assert repr(mine) == repr(theirs)  # 1 is not True, nor 1.0

    holds()


def write_scalar(value: object) -> str:
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
        return f'"{escaped}"'
    if isinstance(value, bool):
        return "yes" if value else "off"
    return "null" if value is None else str(value)


def write_flow(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(write_flow, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{write_scalar(k)}: {write_flow(v)}" for k, v in value.items()) + "}"
    return write_scalar(value)


def write_block(value: object, indent: int) -> str:
    """As people write it: blocks by indentation, lists in the second half of them in brackets."""
    space = " " * indent
    if isinstance(value, dict) and value:
        lines = []
        for key, inner in value.items():
            nested = isinstance(inner, dict | list) and inner and len(key) % 2 == 0
            text = f"\n{write_block(inner, indent + 2)}" if nested else f" {write_flow(inner)}\n"
            lines.append(f"{space}{write_scalar(key)}:{text}")
        return "".join(lines)
    if isinstance(value, list) and value:
        lines = []
        for inner in value:
            if isinstance(inner, dict) and inner:
                lines.append(f"{space}- {write_block(inner, indent + 2).lstrip(' ')}")
            else:
                lines.append(f"{space}- {write_flow(inner)}\n")
        return "".join(lines)
    return f"{space}{write_flow(value)}\n"


@with_examples(60, 200)
def test_what_people_write_is_accepted(count: int) -> None:
    @settings(max_examples=count, deadline=None)
    @given(VALUES)
    def holds(value: object) -> None:
        text = write_block(value, 0)
        assert yaml.safe_load(text) == value
        assert plain_value(read_yaml(text.encode(), "agent.yml")) == value

    holds()
