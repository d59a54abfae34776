"""The operators of templates one by one: what they give, what they cost, and what they say of a secret.

Each case stands for a change of the code that no other test noticed (docs/testing.md, "Mutation checks").
"""

from __future__ import annotations

from typing import Any

import pytest

from fazai.model import Secret
from fazai.template import guard
from fazai.template.filters.base import FilterError
from fazai.template.limits import Rendering

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


@pytest.mark.parametrize(("left", "sign", "right"), [(2**8192, "*", 2**8192), (2, "**", 16_384)])
def test_a_product_of_too_many_bits_is_not_made(left: int, sign: str, right: int) -> None:
    with pytest.raises(FilterError, match="a number becomes too large"):
        guard.calculate(Rendering(PLENTY), sign, left, right)


@pytest.mark.parametrize(("left", "sign", "right"), [(2**8191, "*", 2**8191), (2, "**", 8_192)])
def test_a_product_of_as_many_bits_as_there_may_be_is_made(left: int, sign: str, right: int) -> None:
    assert guard.calculate(Rendering(PLENTY), sign, left, right) > 0
