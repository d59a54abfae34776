"""Templates that mean harm: they end soon, stay small, and reach nothing but their variables."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import pytest

from fazai.errors import TemplateError
from fazai.model import Secret
from fazai.template import Templates
from fazai.template.filters.base import FilterError
from fazai.template.filters.pattern import check_pattern

VARIABLES: dict[str, Any] = {
    "text": "x" * 1000,
    "big": "y" * (1 << 20),
    "words": [f"w{n}" for n in range(1000)],
    "net": {"a": {"b": [1, 2]}},
    "n": 5,
    "secret": Secret("s3cret"),
}

#: A list that holds another twice, sixty levels deep.
DOUBLED = "{% set ns = namespace(t=[1]) %}{% for i in range(60) %}{% set ns.t = [ns.t, ns.t] %}{% endfor %}"


#: How long one of these may take, in processor time. None takes a hundredth of it, and where memory is
#: counted a tenth; what nothing bounds would take hours.
SECONDS = 60.0
BYTES = 100 << 20


def refused(text: str) -> TemplateError:
    scope = Templates().scope(VARIABLES)
    started = time.process_time()
    with pytest.raises(TemplateError) as caught:
        scope.render(text)
    assert time.process_time() - started < SECONDS
    assert len(str(caught.value)) < 1000
    return caught.value


SLOW = [
    # loops
    "{% for a in range(1000) %}{% for b in range(1000) %}{% for c in range(1000) %}{% endfor %}"
    "{% endfor %}{% endfor %}",
    "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
    "{% for a in range(100000) if false %}{% endfor %}" * 20,
    pytest.param(
        "{% for a in range(90000) %}" + "{{ n + 1 }}" * 500 + "{% endfor %}", marks=pytest.mark.slow
    ),
    "{% for a in range(90000) %}{{ text }}{% endfor %}",
    "{% for a in words %}{% for b in words %}{{ a == b }}{% endfor %}{% endfor %}",
    "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "{{ range(100000000) | list }}",
    "{{ range(100001) }}",
    pytest.param("{{ range(99999) | product(range(99999)) | list }}", marks=pytest.mark.slow),
    "{{ range(99999) | map('product', range(99999)) | list }}",
    "{{ words | map('combine', net) | list }}",
    # macros
    "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    pytest.param(
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        marks=pytest.mark.slow,
    ),
    "{% macro f() %}" + "{{ n }}" * 2000 + "{% endmacro %}{% for i in range(90000) %}{{ f() }}{% endfor %}",
    # values that hold one another many times over
    DOUBLED + "{{ ns.t }}",
    DOUBLED + "{{ ns.t | to_json }}",
    DOUBLED + "{{ ns.t | flatten }}",
    DOUBLED + "{{ ns.t ~ '' }}",
    "{% set ns = namespace(t=[1], u=[1]) %}{% for i in range(60) %}{% set ns.t = [ns.t, ns.t] %}"
    "{% set ns.u = [ns.u, ns.u] %}{% endfor %}{{ ns.t == ns.u }}",
    "{% set ns = namespace(t=[1]) %}{% for i in range(5000) %}{% set ns.t = [ns.t] %}{% endfor %}{{ ns.t }}",
    "{{ '[' * 5000 ~ ']' * 5000 | from_json }}",
    "{{ ('[' * 5000 ~ ']' * 5000) | from_json }}",
    "{{ ('[' * 5000 ~ ']' * 5000) | from_yaml }}",
    # templates that are hard to read
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{{ " + "[" * 1000 + "]" * 1000 + " }}",
    "{{ " + "1 + " * 9000 + "1 }}",
    "{{ " + "not " * 9000 + "n }}",
    "{% if n %}" * 3000 + "{% endif %}" * 3000,
    "{% for a in words %}" * 50 + "{% endfor %}" * 50,
    "{{ n }}" + " " * 70000,
    # sums of lists
    "{{ range(90000) | batch(1) | sum(start=[]) | map('product', words) | list }}",
    # regular expressions
    "{{ ('a' * 5000 ~ 'b') | regex_search('(a+)+$') }}",
    "{{ ('a' * 5000 ~ 'b') | regex_search('(a|a)*$') }}",
    "{{ ('a' * 5000 ~ 'b') | regex_search('(a|ab?)+$') }}",
    "{{ ('a' * 5000) | regex_search('a*a*a*a*b') }}",
    "{{ ('a' * 60000) | regex_search('a*b') }}",
    "{{ ('a' * 60) | regex_search('" + "a?" * 40 + "a" * 40 + "') }}",
    "{{ ('a' * 200) | regex_search('(a{0,16}){0,16}b') }}",
    "{{ big | regex_search('z') }}",
    "{{ (('a' * 5000 ~ 'b') is match('(a+)+$')) }}",
    "{{ [('a' * 5000 ~ 'b')] | select('match', '(a+)+$') | list }}",
]

GROWING = [
    # text that grows
    "{{ 'x' * 1000000000 }}",
    "{{ 1000000000 * 'x' }}",
    "{{ [1] * 1000000000 }}",
    "{{ [big] * 100000 | int | to_json }}",
    "{% set ns = namespace(t='x') %}{% for i in range(60) %}{% set ns.t = ns.t ~ ns.t %}"
    "{% endfor %}{{ ns.t }}",
    "{% set ns = namespace(t='x') %}{% for i in range(60) %}{% set ns.t = ns.t + ns.t %}"
    "{% endfor %}{{ ns.t }}",
    "{% set ns = namespace(t=[1]) %}{% for i in range(60) %}{% set ns.t = ns.t + ns.t %}"
    "{% endfor %}{{ ns.t }}",
    "{% set ns = namespace(t=[big]) %}{% for i in range(9000) %}"
    "{% set ns.t = ns.t + [ns.t[0] ~ i] %}{% endfor %}",
    "{{ big ~ big }}",
    "{{ big }}{{ big }}",
    "{{ big + big }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{{ '%.1000000000f' % 1.0 }}",
    "{{ ('%(a)s' * 9000) % {'a': text} }}",
    "{{ ('%s' * 3) % (big, big, big) }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ '{:{w}}'.format(1, w=1000000000) }}",
    "{{ ('{0}' * 9000).format(text) }}",
    "{{ 'x'.center(1000000000) }}",
    "{{ 'x'.ljust(1000000000) }}",
    "{{ 'x'.zfill(1000000000) }}",
    "{{ '\t'.expandtabs(1000000000) }}",
    "{{ big.replace('', big) }}",
    "{{ big.replace('y', text) }}",
    "{{ text.join(words * 10) }}",
    "{{ big | replace('y', text) }}",
    "{{ words | join(big) }}",
    "{{ 'x' | center(1000000000) }}",
    "{{ 'a\nb' | indent(1000000000) }}",
    "{{ big | regex_replace('y', text) }}",
    "{{ text | regex_replace('x', '\\g<0>' * 5000) }}",
    "{{ '%s' | format(big, big) }}",
    "{{ words | batch(1000000000, 'x') | list }}",
    pytest.param("{{ words | slice(1000000000) | list }}", marks=pytest.mark.slow),  # half a million lists
    "{{ words | to_nice_json(indent=1000000000) }}",
    "{{ words | to_nice_yaml(indent=1000000000) }}",
    "{{ 1.5 | round(1000000000) }}",
    # numbers that grow
    "{{ 10 ** (10 ** 10) }}",
    "{{ (10 ** 4000) ** 4000 }}",
    "{% set ns = namespace(t=9) %}{% for i in range(60) %}{% set ns.t = ns.t * ns.t %}{% endfor %}{{ ns.t }}",
]


@pytest.mark.parametrize("text", SLOW, ids=lambda text: text[:60])
def test_does_not_take_long(text: str) -> None:
    refused(text)


@pytest.mark.parametrize("text", GROWING, ids=lambda text: text[:60])
def test_does_not_grow(text: str) -> None:
    refused("{{ 1 }}{{ nothing }}")  # what is made once is not counted
    tracemalloc.start()
    try:
        refused(text)
        assert tracemalloc.get_traced_memory()[1] < BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__ }}",
        "{{ ''['__class__'] }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ [].__class__.__base__ }}",
        "{{ n.__class__ }}",
        "{{ n.to_bytes(1000000000, 'big') }}",
        "{{ n.real }}",
        "{{ text.encode }}",
        "{{ text.translate({}) }}",
        "{{ text.format_map(net) }}",
        "{{ '{0.__class__}'.format(n) }}",
        "{{ '{0[__class__]}'.format(net) }}",
        "{{ '{0.__init__.__globals__}'.format(range) }}",
        "{{ range.__init__.__globals__ }}",
        "{{ dict.__mro__ }}",
        "{{ dict.fromkeys }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ net.update({'a': 1}) }}",
        "{{ net.pop('a') }}",
        "{{ net.setdefault('z', 1) }}",
        "{{ words.append(1) }}",
        "{{ words.sort() }}",
        "{{ words.clear() }}",
        "{{ self.__init__ }}",
        "{{ self }}",
        "{{ self._TemplateReference__context }}",
        "{{ cycler('a') }}",
        "{{ joiner() }}",
        "{{ lipsum() }}",
        "{{ config }}",
        "{{ request }}",
        "{{ net | attr('__class__') }}",
        "{{ words | map(attribute='__class__') | list }}",
        "{{ words | map('attr', '__class__') | list }}",
        "{{ words | sort(attribute='__class__') }}",
        "{{ words | selectattr('__class__') | list }}",
        "{{ [n] | groupby('__class__') }}",
        "{{ n | _pay }}",
        "{{ n | _truth }}",
        "{{ words | map('_pay') | list }}",
        "{% for x in words %}{{ loop.__class__ }}{% endfor %}",
        "{% for x in words %}{{ loop._iterator }}{% endfor %}",
        "{% macro m() %}{% endmacro %}{{ m.__class__ }}",
        "{% macro m() %}{% endmacro %}{{ m._func }}",
        "{% macro m() %}{% endmacro %}{{ m }}",
        "{{ namespace() }}",
        "{{ namespace().__dict__ }}",
        "{{ missing.__class__ }}",
        "{{ (missing | default(range)).__self__ }}",
        "{{ undefined }}",
        "{{ environment }}",
        "{{ context }}",
        "{{ open('/etc/passwd') }}",
        "{{ secret.reveal() }}",
        "{{ secret._value }}",
        "{{ secret['reveal'] }}",
        "{% set secret.x = 1 %}",
        "{{ '{0.reveal}'.format(secret) }}",
        "{{ '%s' % secret.reveal }}",
        "{% filter _pay %}{% endfilter %}",
        "{% trans %}x{% endtrans %}",
        "{% do words %}",
        "{% debug %}",
    ],
)
def test_reaches_nothing(text: str) -> None:
    error = refused(text)
    assert "s3cret" not in str(error)


def test_what_is_allowed_still_works() -> None:
    scope = Templates().scope(
        VARIABLES | {"hosts": [{"name": f"h{n}", "nets": list(range(20))} for n in range(1000)]}
    )
    text = "{% for h in hosts %}{% for n in h.nets %}{{ h.name }}:{{ n }},{% endfor %}{% endfor %}"
    assert str(scope.render(text)).count(",") == 20_000
    assert len(scope.render("{{ hosts | map(attribute='nets') | flatten | unique }}")) == 20
    assert scope.render("{{ words | map('regex_replace', '^w', 'x') | join(',') }}").startswith("x0,x1")
    assert scope.render("{{ 2 ** 64 }}") == 2**64
    assert len(scope.render("{{ hosts | to_nice_json }}")) > 100_000


# -- regular expressions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "length"),
    [
        (r"^fw-\d+$", 60_000),
        (r"\d+\.\d+\.\d+\.\d+", 4_000),
        (r"^(\d{1,3}\.){3}\d{1,3}$", 60_000),
        (r"^(?:[a-z0-9-]+\.)+[a-z]{2,}$", 4_000),
        (r"(\w+)=(\w+)", 2_000),
        (r"^(.*)-(.*)-(.*)$", 300),
        (r"[^,]+,", 4_000),
        (r"\s+", 60_000),
        (r"(a|b|c)*d", 4_000),
        (r"^(?P<host>[^:]+):(?P<port>\d+)$", 60_000),
        (r"(?i)^ERROR: .*$", 60_000),
        (r"(?:ab)+", 60_000),
        (r"x{3}", 60_000),
        (r"([0-9a-f]{2}:){5}[0-9a-f]{2}", 4_000),
        (r"[]a]+\]", 1_000),
        (r"[^]]*", 60_000),
        (r"\bword\b", 60_000),
        (r"(a)\1", 60_000),
        (r"a++b", 4_000),
        (r"^(?!foo)bar", 60_000),
        (r"é+ü", 4_000),
        (r"a{,5}b", 4_000),
        (r"a{}", 60_000),
        ("", 60_000),
    ],
)
def test_patterns_that_people_write(pattern: str, length: int) -> None:
    check_pattern(pattern, length)


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a+)+$", r"(a*)*b", r"(a|aa)+$", r"(.*)*x", r"(\w+\s*)+:", r"([a-z]+)*1", r"(a?)+b", r"((a)+)+b",
        r"(a+b?)+c", r"(x+x+)+y", r"^(([a-z])+.)+[A-Z]([a-z])+$", r"(?:a|[ab])*c", r"(a{2,}){2,}b",
        r"(\d+|[0-9]+)*x", r"(é+)+x",
        r"(?:(?:a+)b?)*c", r"(a+){20}b{0}(a+)+c",
    ],
)  # fmt: skip
def test_patterns_that_repeat_what_repeats(pattern: str) -> None:
    with pytest.raises(FilterError, match=r"repeat|too long"):
        check_pattern(pattern, 10_000)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (r"(?x) a b", "this kind of group is not available"),
        (r"(a)(?(1)b|c)", "this kind of group is not available"),
        ("(" * 30 + ")" * 30, "nested too deeply"),
        ("a" * 3000, "at most 2000 characters"),
        ("a|" * 1500, "at most 2000 characters"),
    ],
)
def test_patterns_that_are_not_available(pattern: str, words: str) -> None:
    with pytest.raises(FilterError, match=words):
        check_pattern(pattern, 10)


@pytest.mark.parametrize(
    "pattern",
    [
        r"^(.*)-(.*)-(.*)$",
        r"\w+\s*=\s*\w+;",
        r"a?a?a?a?aaaa",
        pytest.param(r"(a{0,4}){0,4}b", marks=pytest.mark.slow),
        r".*.*=",
        r"[ab]*[bc]*[cd]*e",
        r"(?:ab?)*c",
    ],
)
def test_what_is_let_through_is_quick(pattern: str) -> None:
    """The longest text that a pattern is allowed on, and the worst one for it."""
    import re

    length = 1
    while length < 65536:
        try:
            check_pattern(pattern, length * 2)
        except FilterError:
            break
        length *= 2
    compiled = re.compile(pattern)
    for unit in ("a", "-", "ab", "aaab", "b", "c", "bc"):
        started = time.process_time()
        compiled.search((unit * length)[:length])
        assert time.process_time() - started < SECONDS
