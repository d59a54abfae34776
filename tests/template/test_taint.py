"""A secret in a template: what comes out of it is a secret, or nothing comes out at all."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from fazai.errors import Mark, TemplateError
from fazai.model import Secret
from fazai.template import Scope, Templates
from fazai.template.filters.base import Secrecy
from fazai.template.filters.table import FILTERS, TESTS

TEXT = "s3cret-Value"
VARIABLES: dict[str, Any] = {
    "secret": Secret(TEXT),
    "empty_secret": Secret(""),
    "keys": {"api_key": Secret(TEXT), "name": "fw"},
    "secrets": [Secret(TEXT), Secret("other")],
    "derived": "key={{ secret }}",
    "name": "fw-01",
    "words": ["a", "b"],
    "json_secret": Secret('{"a": "x", "b": [1, true, null]}'),
}


@pytest.fixture
def scope() -> Scope:
    return Templates().scope(VARIABLES)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{ secret }}", TEXT),
        ("{{ secret }}\n", TEXT),
        ("key={{ secret }};", f"key={TEXT};"),
        ("{{ derived }}", f"key={TEXT}"),
        ("{{ derived | upper }}", f"KEY={TEXT.upper()}"),
        ("{{ keys.api_key }}", TEXT),
        ("{{ keys['api_key'] }} {{ name }}", f"{TEXT} fw-01"),
        ("{{ name ~ ':' ~ secret }}", f"fw-01:{TEXT}"),
        ("{{ name + secret }}", f"fw-01{TEXT}"),
        ("{{ secret + name }}", f"{TEXT}fw-01"),
        ("{{ secret + secret }}", TEXT * 2),
        ("{{ '%s' % secret }}", TEXT),
        ("{{ '%s:%s' % (name, secret) }}", f"fw-01:{TEXT}"),
        ("{{ '%(k)s' % {'k': secret} }}", TEXT),
        ("{{ '{}:{}'.format(name, secret) }}", f"fw-01:{TEXT}"),
        ("{{ '{x}'.format(x=secret) }}", TEXT),
        ("{{ ':'.join([name, secret]) }}", f"fw-01:{TEXT}"),
        ("{{ name.replace('fw', secret) }}", f"{TEXT}-01"),
        ("{{ secret | b64encode }}", base64.b64encode(TEXT.encode()).decode()),
        ("{{ secret | hash('sha256') }}", hashlib.sha256(TEXT.encode()).hexdigest()),
        ("{{ secret | upper | lower }}", TEXT.lower()),
        ("{{ secret | string }}", TEXT),
        ("{{ secret | quote }}", TEXT),
        ("{{ secret | replace('s3', 'x') }}", TEXT.replace("s3", "x")),
        ("{{ secret | regex_replace('-.*', '') }}", "s3cret"),
        ("{{ secret | regex_search('[0-9]') }}", "3"),
        ("{{ secret | split('-') | first }}", "s3cret"),
        ("{{ [name, secret] | join('/') }}", f"fw-01/{TEXT}"),
        ("{{ keys | to_json }}", f'{{"api_key": "{TEXT}", "name": "fw"}}'),
        ("{{ keys | to_nice_yaml }}", f"api_key: {TEXT}\nname: fw\n"),
        ("{{ keys }} text", f"{{'api_key': '{TEXT}', 'name': 'fw'}} text"),
        ("{{ secrets }} text", f"['{TEXT}', 'other'] text"),
        ("{{ secret | default('x') }}", TEXT),
        ("{{ nothing | default(secret) }}", TEXT),
        ("{{ empty_secret | default('x', true) }}", "x"),
        ("{{ secret if secret else 'none' }}", TEXT),
        ("{{ true | ternary(secret, 'x') }}", TEXT),
        ("{{ secrets | first }}", TEXT),
        ("{{ secrets[1] }}", "other"),
        ("{{ ['x'] | map('regex_replace', 'x', secret) | first }}", TEXT),
        ("{% for s in secrets %}{{ s }},{% endfor %}", f"{TEXT},other,"),
        ("{% set x = secret %}{{ x }}!", f"{TEXT}!"),
        ("{% set x %}<{{ secret }}>{% endset %}{{ x }}", f"<{TEXT}>"),
        ("{% macro m(x) %}[{{ x }}]{% endmacro %}{{ m(secret) }}", f"[{TEXT}]"),
        ("{% filter upper %}{{ secret }}{% endfilter %}", TEXT.upper()),
        ("{% if secret %}{{ secret }}{% endif %}", TEXT),
        ("{{ keys.values() | first }}", TEXT),
        ("{{ keys | dict2items | map(attribute='value') | first }}", TEXT),
        ("{{ '192.0.2.1' ~ empty_secret | ipaddr('revdns') }}", "192.0.2.1False"),
    ],
)
def test_what_a_secret_touches_is_one(text: str, value: str, scope: Scope) -> None:
    result = scope.render(text)
    if value in ("x", "192.0.2.1False"):  # nothing of the secret is left
        assert result in (value, Secret(value))
        return
    assert isinstance(result, Secret)
    assert result.reveal() == value
    assert TEXT not in repr(result)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{ keys }}", VARIABLES["keys"]),
        ("{{ keys | combine({'a': 1}) }}", {**VARIABLES["keys"], "a": 1}),
        ("{{ [secret, name] }}", [Secret(TEXT), "fw-01"]),
        ("{{ secrets | unique | list }}", VARIABLES["secrets"]),
        ("{{ secrets | length }}", 2),
        ("{{ json_secret | from_json }}", {"a": Secret("x"), "b": [Secret("1"), True, None]}),
        ("{{ secret | split('-') }}", [Secret("s3cret"), Secret("Value")]),
        ("{{ 'ab' | regex_findall(secret ~ '|a') }}", [Secret("a")]),
        ("{{ secret | type_debug }}", "Secret"),
        ("{{ secret is defined }}", True),
        ("{{ nothing | default({'k': secret}) }}", {"k": Secret(TEXT)}),
    ],
)
def test_structures_keep_their_secrets(text: str, value: Any, scope: Scope) -> None:
    assert scope.render(text) == value


@pytest.mark.parametrize(
    ("condition", "answer"),
    [
        (f"secret == '{TEXT}'", True),
        ("secret == 'other'", False),
        (f"'{TEXT}' == secret", True),
        ("secret != 'other'", True),
        ("secret == secrets[0]", True),
        ("'s3cret' in secret", True),
        ("'nope' in secret", False),
        (f"secret in ['x', '{TEXT}']", True),
        (f"'{TEXT}' in secrets", True),
        ("secret not in ['x']", True),
        (f"keys == {{'api_key': '{TEXT}', 'name': 'fw'}}", True),
        ("secret < 'z'", True),
        ("secret", None),
        ("not secret", False),
        ("not empty_secret", True),
        ("empty_secret == ''", True),
        ("secret is match('s3')", True),
        ("secret is search('Value$')", True),
        ("secret is string", True),
        ("secret is truthy", True),
        ("empty_secret is falsy", True),
        (f"secret is eq('{TEXT}')", True),
        ("secret is in(secrets)", True),
        ("secrets is contains(secret)", True),
        ("secret.startswith is defined", None),
    ],
)
def test_a_secret_is_compared_by_its_value(condition: str, answer: bool | None, scope: Scope) -> None:
    if answer is None:
        with pytest.raises(TemplateError) as caught:
            scope.test(condition)
        assert TEXT not in str(caught.value)
        assert caught.value.excerpt is None
    else:
        assert scope.test(condition) is answer


@pytest.mark.parametrize(
    "text",
    [
        "{{ secret[0] }}",
        "{{ secret[:3] }}",
        "{{ secret | length }}",
        "{{ secret | list }}",
        "{{ secret | first }}",
        "{{ secret | reverse }}",
        "{{ secret.upper() }}",
        "{{ secret * 2 }}",
        "{{ 2 * secret }}",
        "{{ secret - 1 }}",
        "{{ -secret }}",
        "{{ secret % 1 }}",
        "{{ secret + 1 }}",
        "{{ secret < 1 }}",
        "{{ secrets | sort }}",
        "{{ secrets | min }}",
        "{{ secrets | sum }}",
        "{{ {secret: 1} }}",
        "{{ range(secret) }}",
        "{% for c in secret %}{{ c }}{% endfor %}",
        "{{ secret | from_json }}",
        "{{ secret | b64decode }}",
        "{{ secret | hash('nope') }}",
        "{{ secret | human_to_bytes }}",
        "{{ secret | bool }}",
        "{{ '%d' % secret }}",
        "{{ '{:d}'.format(secret) }}",
        "{{ name.index(secret) }}",
        "{{ name | regex_search(secret ~ '(') }}",
        "{{ secret | abs }}",
        "{{ secrets | map('from_json') | list }}",
        "{{ secret | format(1) }}",
    ],
)
def test_what_cannot_be_done_with_a_secret(text: str, scope: Scope) -> None:
    with pytest.raises(TemplateError) as caught:
        scope.render(text)
    error: Any = caught.value
    while error is not None:
        assert TEXT not in f"{error} {error.excerpt} {error.hint} {error!r}"
        assert "'Secret'" not in error.message
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ secret | length }}", '"length" cannot take a secret'),
        ("{{ secret | count }}", '"count" cannot take a secret'),
        ("{{ secret | round }}", '"round" cannot take a secret'),
        ("{{ secret | first }}", '"first" cannot take a secret'),
        ("{{ secret | sum }}", '"sum" cannot take a secret'),
        ("{{ secret | abs }}", '"abs" cannot take a secret'),
        ("{{ -secret }}", "a secret cannot be measured, looped over or calculated with"),
        ("{{ range(secret) }}", "a secret cannot be measured, looped over or calculated with"),
    ],
)
def test_what_cannot_be_done_with_a_secret_is_said_plainly(text: str, said: str, scope: Scope) -> None:
    mark = Mark("i.yml", 3, 7)
    with pytest.raises(TemplateError) as caught:
        scope.render(text, mark)
    assert caught.value.message == said
    assert caught.value.where == mark
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("what a secret is made of is not told")


def test_no_error_quotes_a_template_in_which_a_secret_was_used(scope: Scope) -> None:
    for text in ("{{ secret ~ nowhere }}", "{{ keys.api_key ~ nowhere }}", "{{ secret }}{{ nowhere }}"):
        with pytest.raises(TemplateError) as caught:
            scope.render(text)
        assert caught.value.excerpt is None


def test_no_error_quotes_the_template_of_a_secret_value() -> None:
    mark = Mark("i.yml", 1, 1)
    scope = Templates().scope({"db_password": "{{ 'hunter2' ~ nowhere }}"}, lambda name: mark)
    for value in ("{{ db_password }}", {"api_secret": "{{ 'hunter2' ~ nowhere }}"}):
        with pytest.raises(TemplateError) as caught:
            scope.render(value, mark)
        assert caught.value.excerpt is None
    with pytest.raises(TemplateError) as caught:
        scope.render("{{ 'hunter2' ~ nowhere }}", mark, sensitive=True)
    assert caught.value.excerpt is None


ARGUMENTS = ("", "(s)", "('a')", "('a', s)", "(s, s)", "(0)", "(m)", "(l)", "('k')", "(attribute='k')")


@pytest.mark.in_turn("form", "value")
@pytest.mark.parametrize("value", ["s", "l", "m", "t"])
@pytest.mark.parametrize("form", ["{{ %s }}", "{{ (%s) }}x"], ids=["value", "text"])
@pytest.mark.parametrize("name", sorted({*FILTERS, *TESTS}))
def test_no_filter_lets_a_secret_out(name: str, form: str, value: str) -> None:
    """Whatever a filter or test makes of a secret, or of values that hold one: its text is in no result but
    as a Secret, and in no error."""
    kind = "is" if name in TESTS and name not in FILTERS else "|"
    variables = {"s": Secret(TEXT), "l": [Secret(TEXT)], "m": {"k": Secret(TEXT)}, "t": TEXT[:3]}
    scope = Templates().scope(variables)
    for arguments in ARGUMENTS:
        text = form % f"{value} {kind} {name}{arguments}"
        result, error = _rendered(scope, text)
        assert TEXT not in f"{result!r} {error}", text
        assert "***" not in _plain_text(result), f"{text} lost a secret: {result!r}"


def _rendered(scope: Scope, text: str) -> tuple[Any, str]:
    """The result, or the error with all it says."""
    try:
        return scope.render(text), ""
    except TemplateError as error:
        return None, f"{error} {error.excerpt} {error.hint}"


def _plain_text(value: Any) -> str:
    """The texts of a value that are no secrets."""
    if isinstance(value, dict):
        return " ".join(map(_plain_text, [*value, *value.values()]))
    if isinstance(value, list):
        return " ".join(map(_plain_text, value))
    return "" if isinstance(value, Secret) else str(value)


def test_every_filter_says_what_it_does_with_secrets() -> None:
    assert {each.secrecy for each in (*FILTERS.values(), *TESTS.values())} <= set(Secrecy)


#: What makes texts of a secret mapping's keys: nothing of it may be in the clear.
KEYS = [
    "{{ json_map | from_json | list }}",
    "{{ json_map | from_json | first }}",
    "{{ json_map | from_json | last }}",
    "{{ json_map | from_json | join(',') }}",
    "{{ json_map | from_json | string }}",
    "{{ json_map | from_json | to_json }}",
    "{{ json_map | from_json | to_nice_yaml }}",
    "{{ json_flags | from_json | dict2items }}",
    "{{ json_map | from_json | dict2items | map(attribute='key') | list }}",
    "{{ json_flags | from_json | items | list }}",
    "{{ json_map | from_json | map('upper') | list }}",
    "{{ (json_map | from_json).keys() | list }}",
    "{{ (json_flags | from_json).items() | list }}",
    "{{ json_map | from_json | combine({'b': 1}) | list }}",
    "{{ {'b': 1} | combine(json_map | from_json) | list }}",
    "{{ dict(json_map | from_json) | list }}",
    "{{ [json_map | from_json] | map('list') | list }}",
    "{{ json_map | from_json | batch(1) | list }}",
    "{{ ['x'] | zip(json_map | from_json) | list }}",
    "{{ [json_map | from_json] | map('first') | first }}",
    "{{ json_map | from_json | dict2items | items2dict | list }}",
    "{{ json_map | from_yaml | list }}",
    "{{ parsed | list }}",
    "{{ parsed.inner | list }}",
    "{{ nested.deep | list }}",
    "{{ json_flags | from_json | list }}",
    "{% for k in json_map | from_json %}{{ k }};{% endfor %}",
    "{% for k, v in (json_map | from_json).items() %}{{ k }};{% endfor %}",
    "{% for k, v in json_map | from_json | items %}{{ k }};{% endfor %}",
    "{{ json_map | from_json }} in a text",
]


@pytest.mark.parametrize("text", KEYS)
def test_the_keys_of_a_secret_mapping_are_secret(text: str) -> None:
    scope = Templates().scope(
        {
            "json_map": Secret('{"hiddenKey": "v", "inner": {"hiddenInner": 1}}'),
            "json_flags": Secret('{"hiddenKey": true}'),
            "parsed": "{{ json_map | from_json }}",
            "nested": {"deep": "{{ json_map | from_json }}"},
        }
    )
    for _ in range(2):  # the second time from what is remembered
        found = scope.render(text)
        assert "hidden" not in repr(found)
        assert "***" in repr(found)


def test_a_secret_mapping_is_looked_up_as_any() -> None:
    scope = Templates().scope(
        {"json_map": Secret('{"a": "x", "b": {"c": 1}}'), "m": "{{ json_map | from_json }}"}
    )
    for text, value in (
        ("{{ m.a }}", "x"),
        ("{{ m['b'].c }}", "1"),
        ("{{ m.get('a') }}", "x"),
        ("{% for k in m if k == 'a' %}{{ m[k] }}{% endfor %}", "x"),
        (
            "{% for i in m | combine({'d': 'y'}) | dict2items if i.key == 'd' %}{{ i.value }}{% endfor %}",
            "y",
        ),
    ):
        found = scope.render(text)
        assert (found.reveal() if isinstance(found, Secret) else found) == value
    assert scope.test("'a' in m and 'z' not in m and m | length == 2")
    whole = scope.render("{{ m }}")
    assert type(whole) is dict
    assert list(whole) == ["a", "b"]
    assert repr(whole) == "{'a': ***, 'b': {'c': ***}}"
