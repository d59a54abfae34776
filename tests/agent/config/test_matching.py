"""Whole argument lists: what is accepted fits the rules in every place, and all that fits is accepted."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from fazai.policy.arguments import ArgumentRule, match_arguments
from tests.campaign import with_examples

PATTERNS = ["[ab]+", "a*", ".*", "a|ab", "(?:a|b)?", "-?[ab]", "/[a-z/.]*", "[^a]", r"\w\S*", "(?i)AB"]
VALUES = [
    "",
    "a",
    "b",
    "ab",
    "aa",
    "-a",
    "--",
    "-",
    "/a",
    "/a/../b",
    "..",
    "a\n",
    "\n",
    "a b",
    "é",
    "AB",
    "a=..",
    "٣",
]
RULE = st.one_of(
    st.builds(ArgumentRule, literal=st.sampled_from(VALUES), optional=st.booleans()),
    st.builds(ArgumentRule, pattern=st.sampled_from(PATTERNS), optional=st.booleans(), dash=st.booleans()),
)
LAST = st.builds(
    ArgumentRule,
    pattern=st.sampled_from(PATTERNS),
    optional=st.booleans(),
    dash=st.booleans(),
    rest=st.just(True),
)
RULES = st.tuples(st.lists(RULE, max_size=4), st.lists(LAST, max_size=1)).map(
    lambda pair: (*pair[0], *pair[1])
)
#: Between arguments in one text, which none of them can hold.
END = "\x00"
NO_DASH = "(?!-)"
NO_PART = rf"(?!(?:[^{END}]*[/=:,\s])?\.\.(?:[/=:,\s]|{END}))"
NO_CONTROL = rf"(?![^{END}]*[\x01-\x1f\x7f])"


def as_expression(rules: tuple[ArgumentRule, ...]) -> str:
    """The whole list as one regular expression over the arguments, each of which ends with END."""
    text = ""
    for rule in rules:
        if rule.literal is not None:
            one = re.escape(rule.literal) + END
        else:
            assert rule.pattern is not None
            inner = rule.pattern.replace("(?i)AB", "(?i:AB)")
            inner = (
                inner.replace("[^a]", f"[^a{END}]")
                .replace(r"\S", rf"[^\s{END}]")
                .replace(".*", f"[^{END}\n]*")
            )
            one = f"{'' if rule.dash else NO_DASH}{NO_PART}{NO_CONTROL}(?:{inner}){END}"
        often = {(False, False): "", (False, True): "?", (True, False): "+", (True, True): "*"}
        text += f"(?:{one}){often[rule.rest, rule.optional]}"
    return text


@with_examples(100, 600)
def test_a_list_is_accepted_exactly_where_each_argument_fits(count: int) -> None:
    @settings(max_examples=count, deadline=None)
    @given(RULES, st.lists(st.sampled_from(VALUES), max_size=6))
    def holds(rules: tuple[ArgumentRule, ...], args: list[str]) -> None:
        _, reason = match_arguments(args, rules)
        whole = re.fullmatch(as_expression(rules), "".join(arg + END for arg in args), re.ASCII)
        assert (reason is None) == (whole is not None), reason

    holds()


@with_examples(100, 400)
def test_no_accepted_list_differs_from_a_literal_one(count: int) -> None:
    @settings(max_examples=count, deadline=None)
    @given(
        st.lists(st.sampled_from(["-n", "x", "a b", ""]), min_size=1, max_size=5),
        st.integers(0, 4),
        st.text(max_size=8),
    )
    def holds(literals: list[str], place: int, other: str) -> None:
        rules = tuple(ArgumentRule(literal=text) for text in literals)
        assert match_arguments(literals, rules) == (len(literals), None)
        place %= len(literals)
        changed = [*literals[:place], other, *literals[place + 1 :]]
        reached, reason = match_arguments(changed, rules)
        assert (reason is None) == (changed == literals)
        assert reason is None or reached == place
        for wrong in (literals[:-1], [*literals, other]):
            assert match_arguments(wrong, rules)[1] is not None

    holds()


@with_examples(100, 600)
def test_a_free_place_takes_what_its_pattern_fits_and_no_option(count: int) -> None:
    @settings(max_examples=count, deadline=None)
    @given(st.text(min_size=1, max_size=12), st.booleans())
    def holds(value: str, dash: bool) -> None:
        rules = (
            ArgumentRule(literal="-f"),
            ArgumentRule(pattern="[a-z./-]{1,9}", dash=dash),
            ArgumentRule(literal="z"),
        )
        accepted = match_arguments(["-f", value, "z"], rules)[1] is None
        expected = (
            len(value) <= 9
            and set(value) <= set("abcdefghijklmnopqrstuvwxyz./-")
            and ".." not in value.split("/")
            and (dash or not value.startswith("-"))
        )
        assert accepted == expected

    holds()


def test_many_optional_places_take_no_exponential_time() -> None:
    rules = tuple(ArgumentRule(pattern="a", optional=True) for _ in range(200))
    assert match_arguments(["a"] * 200, rules) == (200, None)
    assert match_arguments(["a"] * 199 + ["b"], rules)[0] == 199
