"""The operators of templates one by one: what they give, what they cost, and what they say of a secret.

Each case stands for a change of the code that no other test noticed (docs/testing.md, "Mutation checks").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jinja2
import pytest

from fazai.model import Secret
from fazai.template import guard
from fazai.template.filters.base import TEXT_MAX, FilterError, SecretMap
from fazai.template.limits import OMIT, Rendering

PLENTY = 1_000_000


@pytest.mark.parametrize(
    ("left", "sign", "right", "value"),
    [
        (7, "+", 20_000, 20_007),  # only products of whole numbers are limited in their length
        (7, "-", 20_000, -19_993),
        (7, "//", 2, 3),
        (7, "/", 2, 3.5),
        (7, "%", 4, 3),
        (7, "*", 3, 21),
        (7, "**", 2, 49),
        (2, "**", -1, 0.5),
        (2.5, "*", 3, 7.5),
        (2.0, "**", 3, 8.0),
        (3, "*", 2.5, 7.5),
        ("ab", "*", 2, "abab"),
        (2, "*", [1], [1, 1]),
        ("a%s", "%", "b", "ab"),
        ((1,), "+", (2,), (1, 2)),
    ],
)
def test_plain_values_are_calculated_as_python_does(left: Any, sign: str, right: Any, value: Any) -> None:
    assert guard.calculate(Rendering(PLENTY), sign, left, right) == value


@pytest.mark.parametrize(
    ("left", "sign", "right"),
    [
        (1, "+", 2),
        ("a" * 64_000, "+", "b"),
        ("a", "+", "b" * 64_000),
        ([0] * 1000, "+", [1]),
        ([0], "+", (*[1] * 1000,)),
        ("ab", "*", 32_000),
        (32_000, "*", "ab"),
        ([0], "*", 1000),
        ("%s", "%", "b" * 64_000),
        (Secret("a" * 64_000), "+", "b"),
    ],
)
def test_what_is_made_is_paid_for_by_its_size(left: Any, sign: str, right: Any) -> None:
    rendering = Rendering(PLENTY)
    try:
        made = guard.calculate(rendering, sign, left, right)
    except TypeError:  # a list and a tuple: paid for before Python refuses it
        made = [0] * 1000
    made = made.reveal() if isinstance(made, Secret) else made
    size = len(made) // 64 if isinstance(made, str) else len(made) if isinstance(made, list) else 1
    assert PLENTY - rendering.left >= size
    small = Rendering(max(0, size - 1))
    with pytest.raises(FilterError, match="too many operations"):
        guard.calculate(small, sign, left, right)


@pytest.mark.parametrize(("left", "sign", "right"), [(2**8192, "*", 2**8191), (2, "**", 8_193)])
def test_a_product_of_too_many_bits_is_not_made(left: int, sign: str, right: int) -> None:
    with pytest.raises(FilterError) as refused:
        guard.calculate(Rendering(PLENTY), sign, left, right)
    assert refused.value.args[0] == "a number becomes too large"


@pytest.mark.parametrize(("left", "sign", "right"), [(2**8191, "*", 2**8191), (2, "**", 8_192)])
def test_a_product_of_as_many_bits_as_there_may_be_is_made(left: int, sign: str, right: int) -> None:
    assert guard.calculate(Rendering(PLENTY), sign, left, right) > 0


ORDERED = [
    ("eq", (False, True, False)),
    ("ne", (True, False, True)),
    ("lt", (True, False, False)),
    ("lteq", (True, True, False)),
    ("gt", (False, False, True)),
    ("gteq", (False, True, True)),
]


@pytest.mark.parametrize("kind", [str, Secret])
@pytest.mark.parametrize(("sign", "answers"), ORDERED)
def test_texts_are_compared_whether_secret_or_not(
    kind: Any, sign: str, answers: tuple[bool, bool, bool]
) -> None:
    compared = [guard.compare_values(Rendering(PLENTY), sign, left, kind("b")) for left in ("a", "b", "c")]
    assert tuple(compared) == answers
    compared = [guard.compare_values(Rendering(PLENTY), sign, kind(left), "b") for left in ("a", "b", "c")]
    assert tuple(compared) == answers


def test_a_text_is_looked_for_in_another_and_in_a_list() -> None:
    for container in ("abc", ["b"], [Secret("b")], Secret("abc")):
        assert guard.compare_values(Rendering(PLENTY), "in", "b", container)
        assert not guard.compare_values(Rendering(PLENTY), "notin", "b", container)
        assert guard.compare_values(Rendering(PLENTY), "notin", "x", container)


@pytest.mark.parametrize(
    ("sign", "left", "right", "value"),
    [
        ("+", Secret("a"), "b", "ab"),
        ("+", "a", Secret("b"), "ab"),
        ("%", "a%s", Secret("b"), "ab"),
        ("%", "a%s%s", (Secret("b"), 1), "ab1"),
        ("%", "a%(x)s", {"x": Secret("b")}, "ab"),
        ("%", Secret("a%s"), "b", "ab"),
    ],
)
def test_what_is_made_of_a_secret_is_one(sign: str, left: Any, right: Any, value: str) -> None:
    rendering = Rendering(PLENTY)
    made = guard.calculate(rendering, sign, left, right)
    assert isinstance(made, Secret)
    assert (made.reveal(), rendering.tainted) == (value, True)


@pytest.mark.parametrize(
    ("sign", "left", "right", "said"),
    [
        ("%", "%d", Secret("x"), "% fails on a secret value"),
        ("%", "%s %s", (Secret("x"),), "% fails on a secret value"),
        ("*", Secret("x"), 2, "a secret cannot be used with *"),
        ("+", Secret("x"), 1, "a secret cannot be used with +"),
        ("-", 1, Secret("x"), "a secret cannot be used with -"),
        ("%", 7, Secret("x"), "a secret cannot be used with %"),
    ],
)
def test_what_fails_on_a_secret_does_not_quote_it(sign: str, left: Any, right: Any, said: str) -> None:
    with pytest.raises(FilterError) as refused:
        guard.calculate(Rendering(PLENTY), sign, left, right)
    assert refused.value.args[0] == said
    with pytest.raises(FilterError) as refused:
        guard.compare_values(Rendering(PLENTY), "lt", Secret("x"), 1)
    assert refused.value.args[0] == "a secret is text, and is compared with text only"


@pytest.mark.parametrize(
    ("sign", "left", "right", "cost"),
    [
        ("eq", 1, 2, 1),
        ("eq", "a", "b" * 1023, 1),
        ("in", "a", "b" * 4096, 5),  # a search through four times 1,024 characters
        ("eq", [0] * 80, [1] * 80, 2 * 11 + 1 + 162 // 4),  # both are walked through
    ],
)
def test_what_a_comparison_costs(sign: str, left: Any, right: Any, cost: int) -> None:
    rendering = Rendering(PLENTY)
    guard.compare_values(rendering, sign, left, right)
    assert PLENTY - rendering.left == cost


def test_a_sum_costs_one_operation() -> None:
    rendering = Rendering(PLENTY)
    guard.calculate(rendering, "+", 1, 2)
    assert rendering.left == PLENTY - 1


# -- methods of texts


@pytest.mark.parametrize(
    ("text", "name", "args", "named"),
    [
        ("a", "center", (64_000,), {}),
        ("a", "ljust", (64_000,), {}),
        ("a", "rjust", (64_000, "."), {}),
        ("a", "zfill", (64_000,), {}),
        ("\t" * 10, "expandtabs", (6_400,), {}),
        ("\t" * 10, "expandtabs", (), {"tabsize": 6_400}),
        ("\t" * 8_000, "expandtabs", (), {}),
        ("a" * 100, "replace", ("a", "b" * 640), {}),
        ("b" * 640, "join", (["a"] * 101,), {}),
        ("", "join", (("a" * 32_000, "a" * 32_000),), {}),
    ],
)
def test_what_a_method_makes_is_paid_for_before_it_is_made(
    text: str, name: str, args: tuple[Any, ...], named: dict[str, Any]
) -> None:
    made: list[str] = []

    def call(*args: Any, **named: Any) -> str:
        made.append(name)
        return ""

    call.__name__ = name
    with pytest.raises(FilterError, match="too many operations"):
        guard.call_text_method(Rendering(999), call, text, args, named)
    assert made == []
    guard.call_text_method(Rendering(PLENTY), call, text, args, named)
    assert made == [name]


@pytest.mark.parametrize(
    ("call", "args"),
    [(("x " * 1000).split, ()), (("a" * 64_000).upper, ()), ("a".partition, ("b" * 64_000,))],
)
def test_what_a_method_made_is_paid_for(call: Callable[..., Any], args: tuple[Any, ...]) -> None:
    with pytest.raises(FilterError, match="too many operations"):
        guard.call_text_method(Rendering(999), call, "", args, {})


def test_a_method_that_goes_through_a_long_text_is_paid_for() -> None:
    text = "a" * 64_000
    with pytest.raises(FilterError, match="too many operations"):
        guard.call_text_method(Rendering(999), text.endswith, text, ("b",), {})


def test_a_method_with_a_secret_among_its_arguments() -> None:
    made = guard.call_text_method(Rendering(PLENTY), "a-a".replace, "a-a", ("a", Secret("b")), {})
    assert isinstance(made, Secret)
    assert made.reveal() == "b-b"
    (*rest,) = guard.call_text_method(Rendering(PLENTY), "a-b".split, "a-b", (Secret("-"),), {})
    assert [part.reveal() for part in rest] == ["a", "b"]
    assert guard.call_text_method(Rendering(PLENTY), "a-b".split, "a-b", ("-",), {}) == ["a", "b"]
    with pytest.raises(FilterError) as refused:
        guard.call_text_method(Rendering(PLENTY), "a".center, "a", (Secret("x"),), {})
    assert refused.value.args[0] == "center() fails on a secret value"
    with pytest.raises(TypeError):
        guard.call_text_method(Rendering(PLENTY), "a".center, "a", ("x",), {})


# -- what is put out


@pytest.mark.parametrize(
    ("value", "text", "secret"),
    [
        (None, "", False),
        ("a", "a", False),
        (True, "True", False),
        (Secret("s"), "s", True),
        (["a", 1], "['a', 1]", False),
        (["a", Secret("s")], "['a', 's']", True),
        ({"a": Secret("s")}, "{'a': 's'}", True),
        ((1, 2), "[1, 2]", False),
    ],
)
def test_the_text_of_a_value(value: Any, text: str, secret: bool) -> None:
    rendering = Rendering(PLENTY)
    assert guard.text_of_piece(rendering, value) == (text, secret)
    assert rendering.tainted is secret
    joined = guard.join_pieces(Rendering(PLENTY), ["<", value, ">"])
    assert isinstance(joined, Secret) is secret
    assert (joined.reveal() if isinstance(joined, Secret) else joined) == f"<{text}>"


def test_a_text_is_paid_for_and_not_too_long() -> None:
    for use in (guard.join_pieces, guard.text_of_piece):
        with pytest.raises(FilterError, match="too many operations"):
            use(Rendering(999), ["a" * 64_000])
        with pytest.raises(FilterError, match="too many operations"):
            use(Rendering(999), [Secret("a")] * 1_000)
    limit = TEXT_MAX
    guard.join_pieces(Rendering(PLENTY), ["a" * limit])
    with pytest.raises(FilterError) as refused:
        guard.join_pieces(Rendering(PLENTY), ["a" * limit, "a"])
    assert refused.value.args[0] == f"the template makes a text of more than {limit} characters"


def test_omit_is_no_part_of_a_text() -> None:
    with pytest.raises(FilterError) as refused:
        guard.text_of_piece(Rendering(PLENTY), OMIT)
    assert refused.value.args[0] == "omit stands for a whole value, and cannot be a part of a text"


class Text(str):
    """As libraries mark texts."""

    __slots__ = ()


@pytest.mark.parametrize(
    "value", [None, 1, "a", OMIT, Secret("s"), {"a": [1, {"b": "c"}]}, ["a", ["b"]], [], {}]
)
def test_a_value_as_yaml_has_it_is_the_same_object(value: Any) -> None:
    assert guard.plain_value(Rendering(PLENTY), value) is value


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Text("a"), "a"),
        ((1, 2), [1, 2]),
        (range(2), [0, 1]),
        ({"a": 1}.keys(), ["a"]),
        ({1: "a", 2.5: "b"}, {"1": "a", "2.5": "b"}),
        ({"a": OMIT, "b": 1}, {"b": 1}),
        ([1, OMIT, 2], [1, 2]),
        ({"a": [(1,), OMIT]}, {"a": [[1]]}),
        ([Text("a")], ["a"]),
    ],
)
def test_other_values_become_such_as_yaml_has(value: Any, plain: Any) -> None:
    found = guard.plain_value(Rendering(PLENTY), value)
    assert (found, type(found)) == (plain, type(plain))
    assert "Text" not in [type(item).__name__ for item in (found if isinstance(found, list) else [found])]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (object(), "the template gives object, which is no value"),
        ([object()], "the template gives object, which is no value"),
        ({True: 1}, "the template gives a mapping with a key that is no text: bool"),
        ({None: 1}, "the template gives a mapping with a key that is no text: NoneType"),
    ],
)
def test_what_is_no_value_is_refused(value: Any, said: str) -> None:
    with pytest.raises(FilterError) as refused:
        guard.plain_value(Rendering(PLENTY), value)
    assert refused.value.args[0] == said


def test_a_mapping_with_secret_keys_stays_one() -> None:
    made = guard.plain_value(Rendering(PLENTY), SecretMap.of({"a": OMIT, "b": (1,)}))
    assert isinstance(made, SecretMap)
    assert dict(made.plain()) == {"b": [1]}


def test_what_is_undefined() -> None:
    assert guard.text_of_piece(Rendering(PLENTY), jinja2.Undefined(name="x")) == ("", False)
    with pytest.raises(FilterError) as refused:
        guard.plain_value(Rendering(PLENTY), jinja2.Undefined(name="x"))
    assert refused.value.args[0] == "an if without else gives nothing here"
    for use in (guard.text_of_piece, guard.plain_value):
        with pytest.raises(jinja2.UndefinedError, match="'x' is undefined"):
            use(Rendering(PLENTY), jinja2.StrictUndefined(name="x"))
