"""YAML as we read it: values as Ansible's loader gives them, places, and every refusal."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fazai.errors import Errors, FazaiError, Mark, YamlError
from fazai.model import SecretRef
from fazai.yamltext import UnsafeText, YamlLimits, YamlList, YamlMap, load_yaml, loads_yaml, parse_yaml_value
from tests.campaign import with_examples

STEADY = settings(deadline=None, derandomize=True)


def one(text: str | bytes, key: str = "a") -> Any:
    document = loads_yaml(text, "f.yml")
    assert isinstance(document, YamlMap)
    return document[key]


def errors_of(text: str | bytes, **options: Any) -> list[FazaiError]:
    with pytest.raises((YamlError, Errors)) as caught:
        loads_yaml(text, "f.yml", **options)
    error = caught.value
    assert error.exit_code == 3
    return list(error.errors) if isinstance(error, Errors) else [error]


# -- values ------------------------------------------------------------------------------------------------

# fmt: off
SCALARS = [
    "yes", "no", "on", "off", "true", "False", "TRUE", "null", "Null", "~", "y", "n", "Yes", "YES", "nO",
    "0", "-0", "+0", "1", "-1", "+12", "010", "0o10", "0b101", "-0b1", "0x1F", "0xfg", "1_000", "_1", "1_",
    "0_", "1:30", "22:22", "-1:30", "1:60", "0:30", "1:2:3", "52:54:10:20:30:40", "1.5", "-1.5", "1.",
    ".5", "-.5", "1e3", "1.5e3", "1.5e+3", "1.5E-3", ".inf", "-.INF", ".NaN", ".nan", "1:30.5",
    "192.0.2.1", "2001:db8::1", "10.0.0.0/8", "08", "09", "0789", "00", "1,000", "12e03", "-1.e+3", "+.5",
    "a", "0.0.0.0", ".", "+-", "1-2", "0xDEAD_beef",
]
# fmt: on


@pytest.mark.parametrize("text", SCALARS)
def test_a_plain_scalar_is_what_ansibles_loader_makes_of_it(text: str) -> None:
    assert repr(one(f"a: {text}\n")) == repr(yaml.safe_load(f"a: {text}\n")["a"])


@STEADY
@given(st.text(alphabet="0123456789_:.+-eExXbBoOaFinfNAyYtTrRuU", min_size=1, max_size=9))
def test_any_plain_scalar_is_what_ansibles_loader_makes_of_it(text: str) -> None:
    document = f"- {text}\n"
    try:
        expected = yaml.safe_load(document)
    except (yaml.YAMLError, ValueError):
        return  # PyYAML fails on it, with a bare ValueError at times; what we do is in the fuzz test
    if isinstance(expected, list) and not isinstance(expected[0], datetime.date | dict | list):
        assert repr(loads_yaml(document, "f")) == repr(expected)


@pytest.mark.parametrize("text", ["2001-12-14", "2001-12-14t21:59:43.10-05:00", "2001-12-14 21:59:43"])
def test_dates_stay_text(text: str) -> None:
    assert one(f"a: {text}") == text


VALUES = [
    ("a: {x: [1, two, 'yes']}", {"x": [1, "two", "yes"]}),
    ("a:", None),
    ("a: !!str 5", "5"),
    ('a: !!int "5"', 5),
    ("a: !!float 5", 5.0),
    ("a: !!bool 'yes'", True),
    ("a: !!null ''", None),
    ("a: !!map {x: 1}", {"x": 1}),
    ("a: !!seq [x]", ["x"]),
    ("a: ! 5", 5),
    ("a: |\n  one\n  two\n", "one\ntwo\n"),
    ("a: 'tab\there'", "tab\there"),
    ("a:\t[x]  # \t in a comment\n", ["x"]),
    ("b: &b {x: 1, y: 2}\na:\n  y: 3\n  <<: *b", {"x": 1, "y": 3}),
    ("b: &b {x: 1}\na:\n  <<: [*b, {x: 7, z: 9}]", {"x": 1, "z": 9}),
    ('a: {"<<": 1}', {"<<": 1}),
    ("b: &b [1, 2]\na: [*b, *b]", [[1, 2], [1, 2]]),
    ('{"a": "\\ud83d\\ude00 \\/"}', "😀 /"),
    ('{"a": 1e3}', 1000.0),
    ("{a: 1e3}", "1e3"),
    ('{\n\t"a":"x"\n}', "x"),
    ("\ufeffa: 1", 1),
]


@pytest.mark.parametrize(("text", "value"), VALUES)
def test_values(text: str, value: Any) -> None:
    assert one(text) == value
    assert type(one(text)) is type(value) or isinstance(one(text), YamlMap | YamlList)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null\n"])
def test_an_empty_document_is_none(text: str) -> None:
    assert loads_yaml(text, "f.yml") is None


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@with_examples(25, 100)
def test_json_is_read_as_json(count: int) -> None:
    @settings(STEADY, max_examples=count)
    @given(st.dictionaries(st.text(max_size=8), JSON), st.sampled_from([None, 2, "\t"]))
    def holds(value: dict[str, Any], indent: Any) -> None:
        assert loads_yaml(json.dumps(value, indent=indent), "f.json") == value

    holds()


def test_secrets_by_reference() -> None:
    text = (
        "a: !env API_KEY\nb: !file keys/fw.json\nc: !cmd [sops, -d, fw.yml]\n"
        "d: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  33\n"
    )
    document = loads_yaml(text, "inv.yml")
    assert document == {
        "a": SecretRef("env", "API_KEY", Mark("inv.yml", 1, 4)),
        "b": SecretRef("file", "keys/fw.json", Mark("inv.yml", 2, 4)),
        "c": SecretRef("cmd", ("sops", "-d", "fw.yml"), Mark("inv.yml", 3, 4)),
        "d": SecretRef("vault", "$ANSIBLE_VAULT;1.1;AES256\n33\n", Mark("inv.yml", 4, 4)),
    }


def test_unsafe_text_is_marked_at_every_depth() -> None:
    value = one("a: !unsafe {x: '{{ y }}', z: [w, 5]}")
    assert type(value["x"]) is UnsafeText
    assert type(value["z"][0]) is UnsafeText
    assert value["z"][1] == 5
    assert type(one("a: !unsafe '{{ x }}'\n")) is UnsafeText
    assert type(one("a: x\nb: !unsafe x\n", "b")) is UnsafeText
    assert type(one("a: !unsafe x\nb: x\n", "b")) is str


# -- places ------------------------------------------------------------------------------------------------


def test_everything_knows_where_it_stands() -> None:
    text = "all:\n  hosts:\n    fw-01: {a: 1,  b: [x, yy]}\n  long:\n    - p\n    - q\n"
    document = loads_yaml(text, "inv.yml")
    assert isinstance(document, YamlMap)
    host = document["all"]["hosts"]["fw-01"]
    assert document.mark() == Mark("inv.yml", 1, 1)
    assert document["all"].mark("long") == Mark("inv.yml", 4, 3)  # the value is on the next line: the key
    assert document["all"]["long"].mark() == Mark("inv.yml", 5, 5)
    assert document["all"]["long"].mark(1) == Mark("inv.yml", 6, 7)
    assert document["all"]["long"].mark(-1) == Mark("inv.yml", 6, 7)
    assert host.mark("b") == Mark("inv.yml", 3, 23)
    assert host.key_mark("b") == Mark("inv.yml", 3, 20)
    assert host["b"].mark(1) == Mark("inv.yml", 3, 27)
    assert host.excerpt("b") == "    fw-01: {a: 1,  b: [x, yy]}"


def test_merged_entries_keep_their_places() -> None:
    document = loads_yaml("b: &b\n  x: 1\n  y: 2\na:\n  y: 3\n  <<: *b\n", "f")
    assert isinstance(document, YamlMap)
    assert document["a"].mark("x") == Mark("f", 2, 6)
    assert document["a"].mark("y") == Mark("f", 5, 6)


# -- refusals ----------------------------------------------------------------------------------------------

# text, then for each error: line, column, a part of the message, a part of the hint
REFUSED: list[tuple[str | bytes, list[tuple[int, int, str, str]]]] = [
    ("a: 1\nb: 2\na: 3\n", [(3, 1, 'the key "a" stands twice, first in line 1', "keep one")]),
    ("a: {x: 1, 'x': 2}", [(1, 11, '"x" stands twice', "")]),
    ("a: 1\n\tb: 2\n", [(2, 1, "a tab stands where YAML takes spaces only", "spaces")]),
    ("all:\n\thosts:\n", [(2, 1, "a tab stands where YAML takes spaces only", "spaces")]),
    ("5: x", [(1, 1, "the key 5 is no text but a number", 'write "5"')]),
    ("1.5: x", [(1, 1, "the key 1.5 is no text", 'write "1.5"')]),
    ("'5': x\n5: y\n", [(2, 1, "the key 5 is no text", 'write "5"')]),
    ("yes: x", [(1, 1, "the key yes is no text but a truth value", 'write "yes"')]),
    ("~: x", [(1, 1, "a key that is no text", "")]),
    ("? [a]\n: b", [(1, 3, "a list stands where a key is expected", "")]),
    ("a: {{ x }}", [(1, 5, "a mapping stands where a key is expected", "{{")]),
    ("a: {{ x }}/24\n", [(1, 5, "a mapping stands where a key is expected", "{{")]),
    ("a:\n  - \tx\n", [(2, 5, "a tab", "spaces")]),
    ("a: !enf X", [(1, 4, "unknown tag !enf", 'did you mean "!env"?')]),
    ("a: !!python/object:os.system x", [(1, 4, "unknown tag !!python/object:os.system", "!env")]),
    ("a: !!binary aGk=", [(1, 4, "unknown tag !!binary", "!env")]),
    ("a: !!set {x}", [(1, 4, "unknown tag !!set", "")]),
    ("a: !x!y 1", [(1, 4, "unknown tag", "!unsafe")]),
    ("a: !cmd 'sops -d x'", [(1, 4, "!cmd takes a list of arguments", "[sops")]),
    ("a: !cmd [head, 1]", [(1, 4, "!cmd takes a list of texts", "quote")]),
    ("a: !cmd []", [(1, 4, "!cmd takes a list of texts", "")]),
    ("a: !cmd {x: y}", [(1, 4, "!cmd takes a list of arguments, not a mapping", "")]),
    ("a: !env [x]", [(1, 4, "!env takes a text, not a list", "")]),
    ("a: !env", [(1, 4, "!env takes the name of a variable", "")]),
    ("a: !file ''", [(1, 4, "!file takes a path", "")]),
    ("a: !vault hunter2", [(1, 4, "!vault takes text that starts with $ANSIBLE_VAULT;", "encrypt_string")]),
    ("a: !!int x", [(1, 4, "no value for the tag !!int", "")]),
    ("a: 0b_", [(1, 4, "looks like a number but is none", "quote")]),
    ("a: " + "9" * 5000, [(1, 4, "looks like a number but is none", "quote")]),
    ("a: *b", [(1, 4, "*b names nothing", "")]),
    ("base: &base 1\na: *bsae", [(2, 4, "*bsae names nothing", 'did you mean "base"?')]),
    ("a: &a [1, *a]", [(1, 11, "*a stands inside of what it names", "")]),
    ("a:\n  <<: 5", [(2, 7, "<<: takes a mapping", "*name")]),
    ("a: 1\n---\nb: 2\n", [(2, 1, "a second document", "")]),
    ("hello", [(1, 1, "expected a mapping or a list", "")]),
    ('a: "x\nb: y\n', [(1, 4, "the quote that opens here is never closed", "close it")]),
    ("a: b: c", [(1, 5, "a ':' stands where no key can be", "quote")]),
    ("a: @x", [(1, 4, "a value cannot start with '@'", "quote it")]),
    ("a: `x`", [(1, 4, "a value cannot start with '`'", "quote it")]),
    ("a: {h[1:2]: }", [(1, 6, "a [ ends the name", "quote a name with a range")]),
    ("a: {b: !x}", [(1, 10, "a blank is missing after the tag", "quote")]),
    ("a: *\n", [(1, 5, "no name behind a & or *", "quote")]),
    ("a: {b: 1 c: 2}", [(1, 11, "expected ',' or '}'", "")]),
    ("a: {b: 1 'c': 2}", [(1, 13, "expected ',' or '}'", "")]),
    ("x:\n  a: {b: 1\n", [(2, 6, "the { that opens here is never closed", "close it")]),
    ("a: [b,\n  c\n\n", [(1, 4, "the [ that opens here is never closed", "close it")]),
    ("a: [1, 2\nb: 3", [(2, 2, "expected ',' or ']'", "")]),
    ("a:\n  - x\n  y: z\n", [(3, 3, "expected '- ' for the next item", "indentation")]),
    ("a:\n    x: 1\n  y: 2\n", [(3, 3, "expected a key of the mapping", "indentation")]),
    ("a: 1\nb\nc: 2\n", [(3, 1, "this key has no ':'", "key: value")]),
    ("%YAML 3.0\n---\na: 1", [(1, 1, "not YAML 1.1", "")]),
    (b"a: x\nb: \xff\n", [(2, 4, "byte 0xff is not UTF-8", "UTF-8")]),
    (b"a: x\nb: \x00\n", [(2, 4, "a NUL byte", "UTF-8")]),
    (b"\x00", [(1, 1, "a NUL byte", "UTF-8")]),
    (b"a: \x1b[0m", [(1, 4, "the control character U+001B", "UTF-8")]),
    ("a: " + "[" * 64, [(1, 67, "more than 64 levels deep", "")]),
    (
        "a: !env\nb: 1\nb: 2\n7: x\nc: !nope 1\nd: [\n",
        [
            (1, 4, "!env takes", ""),
            (3, 1, '"b" stands twice', ""),
            (4, 1, "the key 7", ""),
            (5, 4, "unknown tag !nope", ""),
            (7, 1, "expected a value here", ""),
        ],
    ),
]


@pytest.mark.parametrize(("text", "expected"), REFUSED)
def test_what_is_refused_is_refused_with_place_reason_and_hint(
    text: str | bytes, expected: list[tuple[int, int, str, str]]
) -> None:
    found = errors_of(text)
    assert [error.where for error in found] == [
        Mark("f.yml", line, column) for line, column, _, _ in expected
    ]
    for error, (_, _, message, hint) in zip(found, expected, strict=True):
        assert message in error.message
        assert hint in (error.hint or "")


def test_utf_16_is_named() -> None:
    assert "UTF-16" in errors_of("a: 1".encode("utf-16"))[0].message


def test_the_offending_line_is_quoted() -> None:
    assert errors_of("a: 1\na: 2  # again\n")[0].excerpt == "a: 2  # again"


SECRETIVE = [
    "password: !hunter2",
    "password: *hunter2",
    "password: &hunter2 !hunter2 x\n",
    'a:\n  secret: "x\n  \\qhunter2"\n',
    "a:\n  secret: |\n    x\n  hunter2\n  b: 1\n",
    "secret: |\n  x\nhunter2 y\nz\n",
    "password: b: hunter2",
    "a: {api_key: hunter2, x: @}",
    "secret:\n  x: 1\n  x: hunter2\n",
    "secret:\n  - deep:\n      x: 1\n      x: hunter2\n",
    "psk: |\n  line\nother: b: c\n  hunter2: @\n",
    "token: 'hunter2\n hunter2 x\n y",
    "url: https://me:hunter2@example.net: x",
    "blob: aGVsbG8gd29ybGQgaGVsbG8gd29ybGQgaHVudGVyMg: hunter2: x",
]


@pytest.mark.parametrize("text", SECRETIVE)
def test_a_line_that_may_hold_a_secret_is_never_quoted(text: str) -> None:
    for error in errors_of(text):
        assert "hunter2" not in str(error)
        assert "hunter2" not in (error.excerpt or "")


def test_without_libyaml_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml, "__with_libyaml__", False)
    assert "without libyaml" in errors_of("a: 1")[0].message


# -- limits ------------------------------------------------------------------------------------------------


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    (error,) = errors_of("\n".join(lines))
    assert "more than 500000 values" in error.message


def test_a_bomb_of_merge_keys_and_one_of_long_texts_are_refused() -> None:
    wide = "a: &a {" + ", ".join(f"k{n}: 1" for n in range(100)) + "}\nb:\n"
    assert "values" in errors_of(wide + "".join(f"  - <<: *a\n    x: {n}\n" for n in range(6000)))[0].message
    long = "a: &a " + "x" * 100_000 + "\nb:\n"
    assert "values" in errors_of(long + "  - *a\n" * 1000)[0].message


def test_many_values_are_refused() -> None:
    assert errors_of("- 1\n- 2\n- 3\n", limits=YamlLimits(values=5))[0].where == Mark("f.yml", 3, 3)


def test_many_errors_end_somewhere() -> None:
    assert len(errors_of("a: 1\n" * 100_000)) == 50


def test_a_large_file_is_refused_unread(tmp_path: Path) -> None:
    large = tmp_path / "large.yml"
    with large.open("wb") as stream:
        stream.truncate(100 * 1024 * 1024)
    started = time.process_time()
    with pytest.raises(YamlError, match=r"too large: 100\.0 MiB, at most 16 MiB"):
        load_yaml(large)
    assert time.process_time() - started < 0.5  # reading it would fill 100 MB; the bound is no benchmark
    with pytest.raises(YamlError, match="too large"):
        loads_yaml(b"#" * 101, "f.yml", limits=YamlLimits(size_bytes=100))
    assert parse_yaml_value("5" * 9, "f.yml", limits=YamlLimits(size_bytes=9)) == 555555555
    with pytest.raises(YamlError, match="too large"):
        parse_yaml_value("5" * 10, "f.yml", limits=YamlLimits(size_bytes=9))


def test_a_pipe_is_read_up_to_the_limit(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.write(write, b"a: 1\n")
    os.close(write)
    try:
        assert load_yaml(f"/dev/fd/{read}") == {"a": 1}
    finally:
        os.close(read)
    with pytest.raises(YamlError, match="an endless stream"):
        load_yaml("/dev/zero", limits=YamlLimits(size_bytes=1000))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(YamlError, match="there is no file"):
        load_yaml(tmp_path / "none.yml")
    with pytest.raises(YamlError, match="cannot read the file: Is a directory"):
        load_yaml(tmp_path)
    with pytest.raises(YamlError, match="cannot read the file: embedded null byte"):
        load_yaml("a\0b")


def test_a_file_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "f.yml"
    path.write_text("a: 1\n")
    assert stat.S_ISREG(path.stat().st_mode)
    document = load_yaml(path)
    assert isinstance(document, YamlMap)
    assert document.mark("a") == Mark(str(path), 1, 4)


def test_a_whole_file_of_vault_text() -> None:
    from fazai.yamltext import parse_yaml

    data = b"$ANSIBLE_VAULT;1.1;AES256\n3333\n"
    (error,) = errors_of(data)
    assert "encrypted with Ansible Vault" in error.message
    assert parse_yaml(data, "f.yml", decrypt=lambda _, name: f"a: {name}".encode()) == {"a": "f.yml"}


HOSTILE = [
    b"[" * 1_000_000,
    b"{" * 1_000_000,
    b"- " * 1_000_000,
    b"? " * 1_000_000,
    b"a: *" * 500_000,
    b"&a " * 500_000,
    b"!" * 1_000_000,
    b"'" * 1_000_001,
    b"#" * 1_000_000,
    b"\n" * 1_000_000,
    b"a" * 1_000_000,
    b"{a: " * 300_000,
    b"%" * 1_000_000,
    b"x:\n" + b" " * 1_000_000,
]


@pytest.mark.parametrize("data", HOSTILE, ids=lambda data: repr(data[:6]))
def test_hostile_texts_end_soon(data: bytes) -> None:
    started = time.process_time()
    with contextlib.suppress(YamlError, Errors):
        loads_yaml(data, "f.yml")
    # quadratic behaviour would take minutes; the bound is no benchmark
    assert time.process_time() - started < 5


# fmt: off
FRAGMENTS = [
    "a: ", "b: ", "- ", "? ", "{", "}", "[", "]", ",", ": ", "\n", "  ", "    ", "\t", "&x ", "*x", "!env ",
    "!cmd ", "!vault ", "!unsafe ", "!!int ", "<<: ", "'", '"', "|", ">-", "#", "%YAML 1.1", "---", "...",
    "{{ x }}",
    "\\ud83d", "0b_", "1:30", "~", "yes", "\x00", "\ufeff", "é", "\\",
]
# fmt: on


@STEADY
@given(
    st.binary(max_size=200)
    | st.lists(st.sampled_from(FRAGMENTS), max_size=30).map(lambda parts: "".join(parts).encode())
)
def test_any_bytes_give_a_value_or_an_error_of_ours(data: bytes) -> None:
    try:
        value = loads_yaml(data, "f.yml")
    except (YamlError, Errors):
        return
    assert value is None or isinstance(value, YamlMap | YamlList)


def test_a_pipe_is_read_to_its_end_and_not_waited_for_for_ever(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(YamlError, match=r"nobody wrote it to its end within 0\.2 s"):
        load_yaml(pipe, limits=YamlLimits(pipe_s=0.2))  # nobody has it open
    silent = os.open(pipe, os.O_RDWR)
    try:
        with pytest.raises(YamlError, match="nobody wrote it to its end"):
            load_yaml(pipe, limits=YamlLimits(pipe_s=0.2))
    finally:
        os.close(silent)
    text = "a: " + "x" * 200_000
    writer = threading.Thread(target=pipe.write_text, args=(text,))
    writer.start()
    found = load_yaml(pipe)
    writer.join()
    assert found == {"a": "x" * 200_000}
