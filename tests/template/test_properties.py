"""What holds for any template and any value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fazai.errors import TemplateError
from fazai.model import Secret
from fazai.template import Templates, is_static
from tests.campaign import with_examples

VARIABLES: dict[str, Any] = {
    "a": "text", "b": 5, "c": [1, "x", None], "d": {"k": "v", "n": {"m": 2}}, "e": None, "f": True, "g": 1.5,
    "s": Secret("s3cret"), "t": "{{ a }}-{{ b }}", "l": "{{ l }}", "u": "{{ nowhere }}",
}  # fmt: skip
TEMPLATES = Templates(operations=20_000)
SCOPE = TEMPLATES.scope(VARIABLES)

_SIGNS = "{{ }} {% %} {# #} {{- -%} | . , ( ) [ ] { } : ~ + - * / ** % == != < \\ '"
_WORDS = """
    in not and or is if else endif for endfor set macro endmacro call endcall raw endraw filter loop item x
    'x' 0 1 -1 99999 1.5 none true omit range dict namespace default to_json from_json map select regex_search
    ipaddr combine join first list length upper split hash defined match format items k n __class__
"""
_TOKENS = [*_SIGNS.split(" "), *_WORDS.split(), " ", "\n", '"y"', *VARIABLES]


def outcome(ask: Callable[[str], Any], text: str) -> tuple[Any, str]:
    """The value, or the error with all it says."""
    try:
        return ask(text), ""
    except TemplateError as error:
        return None, f"{error} {error.excerpt} {error.hint}"


@with_examples(100, 600)
def test_a_template_gives_a_value_or_a_template_error(count: int) -> None:
    @settings(
        deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], max_examples=count
    )
    @given(st.lists(st.sampled_from(_TOKENS), max_size=14).map(" ".join))
    def holds(inner: str) -> None:
        for text in (inner, "{{ " + inner + " }}", "x{% " + inner + " %}y"):
            value, error = outcome(SCOPE.render, text)
            assert "s3cret" not in f"{value!r} {error}"

    holds()


@with_examples(80, 300)
def test_a_condition_gives_an_answer_or_a_template_error(count: int) -> None:
    @settings(deadline=None, derandomize=True, max_examples=count)
    @given(st.lists(st.sampled_from(_TOKENS), max_size=10).map(" ".join))
    def holds(text: str) -> None:
        answer, error = outcome(SCOPE.test, text)
        assert answer in (True, False, None)
        assert "s3cret" not in error

    holds()


_NAMES = st.sampled_from(
    ["a", "b", "c", "d.k", "d.n", "d.n.m", "e", "f", "g", "s", "t", "c.x", "nope", "d.nope"]
)
_PIECES = st.one_of(
    st.sampled_from(["", "x", "-", "{", "}", "\n", " "]), _NAMES.map(lambda name: f"{{{{ {name} }}}}")
)


@with_examples(80, 300)
def test_the_short_way_gives_what_jinja_gives(count: int) -> None:
    """A comment at its end sends a template to Jinja2."""

    @settings(deadline=None, derandomize=True, max_examples=count)
    @given(st.lists(_PIECES, max_size=5).map("".join))
    def holds(text: str) -> None:
        if text.startswith("\n"):
            return  # a line end after a comment is left out
        answers = []
        for each in (text, "{##}" + text):
            try:
                answers.append((SCOPE.render(each), ""))
            except TemplateError as error:
                answers.append((None, error.message.split(" (line")[0]))
        assert answers[0] == answers[1]

    holds()


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@with_examples(50, 200)
def test_a_variable_comes_out_as_it_went_in(count: int) -> None:
    @settings(deadline=None, derandomize=True, max_examples=count)
    @given(_VALUES)
    def holds(value: Any) -> None:
        if not is_static(value):
            return
        scope = TEMPLATES.scope({"v": value})
        assert scope.render("{{ v }}") is value
        assert scope.render("{{ v | default(1) }}") == value
        assert scope.render("{{ v | to_json | from_json }}") == value
        assert scope.render("{{ [v] | first }}") == value

    holds()
