"""Templates and conditions, against what ansible-core makes of them (cases.json, by make_cases.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fazai.errors import TemplateError
from fazai.template import Scope, Templates

FOUND = json.loads((Path(__file__).parent / "cases.json").read_text())

#: Where we differ on purpose: the template or condition, what we say, and why.
DIFFERENT: dict[str, Any] = {
    # what a template is does not hang on how often its loop runs
    "{% for i in [5] %}{{ i }}{% endfor %}": "5",
    "{% if not enabled %}a{% endif %}": "",
    # Ansible warns, and goes on with false
    "{{ 'maybe' | bool }}": TemplateError,
    "{{ range(3) }}": [0, 1, 2],
}


@pytest.fixture(scope="module")
def scope() -> Scope:
    return Templates().scope(FOUND["variables"])


#: Of the errors that are expected here.
_WORDS = (
    "if without else|neither true nor false|is not JSON"
    '|"missing" is not defined|has no item 9|has no key "missing"'
)


def _name(case: dict[str, Any]) -> str:
    return str(case.get("template", case.get("condition")))


@pytest.mark.parametrize("case", FOUND["cases"], ids=_name)
def test_as_ansible(case: dict[str, Any], scope: Scope) -> None:
    text = _name(case)

    def ours() -> Any:
        return scope.test(text) if "condition" in case else scope.render(text)

    expected = DIFFERENT.get(text, case.get("value", TemplateError))
    if expected is TemplateError:
        with pytest.raises(TemplateError, match=_WORDS):
            ours()
    else:
        value = ours()
        assert value == expected
        assert type(value) is type(expected)


def test_differences_are_differences() -> None:
    cases = {_name(case): case for case in FOUND["cases"]}
    for text, value in DIFFERENT.items():
        assert cases[text].get("value", TemplateError) != value
