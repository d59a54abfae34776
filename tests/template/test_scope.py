"""Scopes: rendering when used, references, places of errors, conditions."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from fazai.errors import FazaiError, Mark, TemplateError
from fazai.model import Secret, SecretRef
from fazai.template import OMIT, HostVars, Scope, Templates, UndefinedName, is_static
from fazai.yamltext import UnsafeText, YamlMap, loads_yaml


def scope(variables: Mapping[str, Any]) -> Scope:
    return Templates().scope(variables)


def yaml(text: str) -> YamlMap:
    found = loads_yaml(text, "vars.yml")
    assert isinstance(found, YamlMap)
    return found


def of_yaml(text: str) -> Scope:
    found = yaml(text)
    return Templates().scope(found, found.mark)


# -- what is rendered --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["text", "a { b } c", "{ {", "}}", "", 5, None, True, 1.5, ["a", {"b": "c"}], {"a": ["{"]}]
)
def test_what_holds_no_template_is_the_same_object(value: Any) -> None:
    assert is_static(value)
    assert scope({}).render(value) is value


def test_what_is_rendered_keeps_what_is_not() -> None:
    static = {"deep": ["x"]}
    value = {"a": static, "b": "{{ x }}"}
    rendered = scope({"x": 1}).render(value)
    assert rendered == {"a": static, "b": 1}
    assert rendered["a"] is static
    assert value["b"] == "{{ x }}"


def test_only_what_is_used_is_rendered() -> None:
    where = scope({"broken": "{{ nowhere }}", "worse": "{{ x | nofilter }}", "fine": "{{ x }}!", "x": "y"})
    assert where.render("{{ fine }}") == "y!"


def test_a_branch_that_is_not_taken_is_not_rendered() -> None:
    where = scope({"broken": "{{ nowhere }}", "loop": "{{ loop }}", "yes": True})
    assert where.render("{{ 1 if yes else broken }}") == 1
    assert where.render("{% if yes %}a{% else %}{{ loop }}{% endif %}") == "a"


def test_a_variable_is_rendered_once() -> None:
    seen: list[str] = []

    class Watched(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            seen.append(name)
            return super().__getitem__(name)

    where = scope(Watched(a="{{ b }}", b="{{ c }}", c=1))
    assert where.render("{{ a }}{{ a }}{{ b }}") == "111"
    assert seen == ["a", "b", "c"]


def test_keys_are_not_rendered() -> None:
    assert scope({"x": 1}).render({"{{ x }}": "{{ x }}"}) == {"{{ x }}": 1}


def test_a_result_is_not_rendered_again() -> None:
    where = scope({"a": "{{ '{{' ~ ' b }}' }}", "b": "no"})
    assert where.render("{{ a }}") == "{{ b }}"


def test_unsafe_text_is_no_template() -> None:
    where = scope({"u": UnsafeText("{{ x }}"), "x": 1})
    assert where.render(UnsafeText("{{ x }}")) == "{{ x }}"
    assert where.render("<{{ u }}>") == "<{{ x }}>"
    assert where.render("{{ u | upper }}") == "{{ X }}"
    assert type(where.render(UnsafeText("{{ x }}"))) is str


def test_omit() -> None:
    where = scope({"x": 1})
    assert where.render("{{ omit }}") is OMIT
    assert where.render("{{ x if false else omit }}") is OMIT
    assert where.render("{{ y | default(omit) }}") is OMIT
    assert where.render({"a": "{{ omit }}", "b": ["{{ omit }}", "{{ x }}"]}) == {"b": [1]}
    with pytest.raises(TemplateError, match="whole value"):
        where.render("a {{ omit }}")


def test_line_ends() -> None:
    where = scope({"x": 1, "t": "a"})
    assert where.render("{{ x }}\n") == 1
    assert where.render("{{ t }}\n") == "a\n"
    assert where.render("{{ t }}\n\n") == "a\n\n"
    assert where.render("{{ t | upper }}\n") == "A\n"


@pytest.mark.parametrize(
    "text",
    [
        "{{ a }}",
        "{{ a.b }}",
        "x{{ a.b }}y{{ c }}",
        "{{ none_ }}",
        "-{{ none_ }}-",
        "{{ l }}",
        "{{ a.b }}\n",
        "{{ t }}-{{ f }}",
    ],
)
def test_the_short_way_and_jinja_agree(text: str) -> None:
    variables = {"a": {"b": "c"}, "c": 5, "none_": None, "l": [1], "t": True, "f": 1.0}
    assert scope(variables).render(text) == scope(variables).render(text + "{# #}")


def test_jinja_is_only_imported_when_it_is_needed() -> None:
    code = (
        "import sys; from fazai.template import Templates\n"
        "s = Templates().scope({'a': {'b': '{{ c }}'}, 'c': 1})\n"
        "assert s.render('x {{ a.b }}') == 'x 1' and s.render('plain') == 'plain'\n"
        "assert 'jinja2' not in sys.modules\n"
        "assert s.render('{{ c + 1 }}') == 2 and 'jinja2' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- scopes ------------------------------------------------------------------------------------------------


def test_child_scopes_render_anew_what_refers_to_them() -> None:
    parent = scope({"name": "{{ item.name }}-{{ suffix }}", "suffix": "x", "item": {"name": "none"}})
    assert parent.render("{{ name }}") == "none-x"
    assert parent.child({"item": {"name": "a"}}).render("{{ name }}") == "a-x"
    assert parent.child({"item": {"name": "b"}}).child({"suffix": "y"}).render("{{ name | upper }}") == "B-Y"
    assert parent.render("{{ name }}") == "none-x"


def test_values_are_not_rendered_again() -> None:
    where = scope({"x": 1, "twice": "{{ item }}", "item": "{{ x }}"}).having({"item": "{{ x }}"})
    assert where.render("{{ item }}") == "{{ x }}"
    assert where.render("{{ twice | upper }}") == "{{ X }}"
    assert where.child({"y": "<{{ item }}>"}).render("{{ y }}") == "<{{ x }}>"


def test_hostvars() -> None:
    templates = Templates()
    scopes: dict[str, Scope] = {}
    hostvars = HostVars(["a", "b"], scopes.__getitem__)
    for host, net in (("a", "192.0.2.0/25"), ("b", "192.0.2.128/25")):
        scopes[host] = templates.scope(
            {
                "net": net,
                "gw": "{{ net | ipaddr('1') }}",
                "bad": "{{ oops }}",
                "hostvars": hostvars,
                "me": host,
            }
        )
    where = scopes["a"]
    assert where.render("{{ hostvars['b'].gw }} {{ hostvars.a.gw }}") == "192.0.2.129/25 192.0.2.1/25"
    assert where.render("{{ ['a', 'b'] | map('extract', hostvars, 'net') | list }}") == [
        "192.0.2.0/25",
        "192.0.2.128/25",
    ]
    assert (
        where.render("{{ 'b' in hostvars }} {{ hostvars.b.get('x', 5) }} {{ hostvars | list }}")
        == "True 5 ['a', 'b']"
    )
    assert where.render("{{ hostvars.b.hostvars.a.me }}") == "a"
    assert where.render("{{ hostvars.b.nothing | default('d') }}") == "d"
    with pytest.raises(UndefinedName, match='"oops" is not defined'):
        where.render("{{ hostvars.b.bad }}")
    with pytest.raises(TemplateError, match='hostvars has no "c"'):
        where.render("{{ hostvars.c }}")
    for whole in ("{{ hostvars }}", "{{ hostvars.b }}", "x {{ hostvars }}"):
        with pytest.raises(TemplateError, match="is no value"):
            where.render(whole)


@pytest.mark.parametrize("name", ["child", "render", "find", "templates", "bound", "_scope", "__class__"])
def test_hostvars_shows_variables_only(name: str) -> None:
    templates = Templates()
    where = templates.scope({"hostvars": HostVars(["a"], lambda host: templates.scope({}))})
    for text in (
        f"{{{{ hostvars.a.{name} }}}}",
        f"{{{{ hostvars.{name} }}}}",
        f"{{{{ hostvars['a']['{name}'] }}}}",
    ):
        with pytest.raises(UndefinedName, match=rf'(hostvars|the host) has no "{name}"'):
            where.render(text)


# -- circles -----------------------------------------------------------------------------------------------


def test_circles_are_named() -> None:
    where = of_yaml("a: '{{ b }}'\nb: 'x{{ c | upper }}'\nc: '{{ a }}'\nd: '{{ a }}'\nown: '{{ own }}'\n")
    with pytest.raises(TemplateError, match="circle: a -> b -> c -> a"):
        where.render("{{ a }}")
    with pytest.raises(TemplateError, match="circle: a -> b -> c -> a"):
        where.render("{{ d | default('x') }}")
    with pytest.raises(TemplateError, match="circle: own -> own"):
        where.render("{{ own is defined }}")


def test_what_only_looks_like_a_circle_is_none() -> None:
    where = scope({"a": "{{ 1 if first else b }}", "b": "{{ a if first else 2 }}", "first": True})
    assert where.render("{{ a }} {{ b }}") == "1 1"
    assert where.render("{{ b }}") == 1


def test_long_chains() -> None:
    variables: dict[str, Any] = {f"v{n}": f"{{{{ v{n + 1} | upper }}}}" for n in range(60)} | {"v60": "end"}
    assert scope(variables).render("{{ v25 }}") == "END"
    with pytest.raises(TemplateError, match="more than 40 variables"):
        scope(variables).render("{{ v0 }}")


# -- errors ------------------------------------------------------------------------------------------------


def failing(where: Scope, value: Any, mark: Mark | None = None) -> FazaiError:
    with pytest.raises(TemplateError) as caught:
        where.render(value, mark)
    assert caught.value.exit_code == 3
    return caught.value


def test_an_error_is_where_the_value_stands() -> None:
    where = of_yaml("good: 1\nbad:\n  deep:\n    - fine\n    - 'x {{ goood }}'\nuse: '{{ bad.deep }}'\n")
    error = failing(where, "{{ use }}", Mark("play.yml", 7, 3))
    assert str(error) == 'vars.yml:5:7: "goood" is not defined (did you mean "good"?)'
    assert error.excerpt == "x {{ goood }}"
    error = failing(where, "{{ goood }}", Mark("play.yml", 7, 3))
    assert str(error.where) == "play.yml:7:3"


def test_an_error_has_its_line_in_the_template() -> None:
    text = "one\n{% for x in [1, 2] %}\n  {{ x }}\n  {{ y }}\n{% endfor %}\n"
    error = failing(of_yaml("x: 1\n"), text, Mark("play.yml", 7, 3))
    assert error.message == '"y" is not defined (line 4 of the template)'
    assert error.excerpt == "{{ y }}"
    error = failing(of_yaml("x: 1\n"), "one\n{{ x ! }}\n")
    assert error.message.endswith("(line 2 of the template)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ naem }}", '"naem" is not defined (did you mean "name"?)'),
        ("{{ net.gatway }}", 'the mapping has no key "gatway" (did you mean "gateway"?)'),
        ("{{ words[5] }}", "the list of 2 has no item 5"),
        ("{{ name.foo }}", 'text has no "foo"'),
        ("{{ name | uper }}", 'there is no filter "uper" (did you mean "upper"?)'),
        ("{{ name is strng }}", 'there is no test "strng" (did you mean "string"?)'),
        ("{{ words | map('uper') }}", "the template fails: No filter named 'uper'."),
        ("{{ 1 / 0 }}", "the template divides by zero"),
        ("{{ name + 1 }}", 'the template fails: can only concatenate str (not "int") to str'),
        ("{{ name", "this is not a template that can be read"),
        ("{% if name %}", "this is not a template that can be read"),
        ("{{ lookup('env', 'HOME') }}", "lookup() is not available: a template reads nothing"),
        ("{{ query('file', 'x') }}", "query() is not available"),
        ("{% include '/etc/passwd' %}", "{% include %} is not available"),
        ("{% import 'x' as y %}", "{% import %} is not available"),
        ("{% from 'x' import y %}", "{% import %} is not available"),
        ("{% extends 'x' %}", "{% extends %} is not available"),
        ("{{ 'x' | password_hash }}", 'there is no filter "password_hash"'),
        ("{{ [1] | random }}", "what is random changes with every run"),
        ("{{ words | first | from_json }}", "this is not JSON"),
        ("{{ 'x: [' | from_yaml }}", "this is not YAML"),
        ("{{ name | combine({}) }}", "combine takes mappings, not str"),
        ("{{ {} | combine({}, list_merge='x') }}", 'list_merge cannot be "x"'),
        ("{{ name | hash('sha3') }}", 'there is no hash "sha3"'),
        ("{{ name | ipaddr('adress') }}", 'ipaddr has no query "adress" (did you mean "address"?)'),
        ("{{ '192.0.2.1' | ipaddr('first_usable') }}", "an address without a prefix has no network"),
        ("{{ missing | mandatory('say it') }}", "say it"),
        ("{{ name | regex_search('(') }}", "this is not a regular expression"),
        ("{{ range }}", "the template gives"),
        ("{{ {none: 1} }}", "a key that is no text"),
        ("{{ name() }}", "str cannot be called"),
        ("{{ name | to_json(default=1) }}", "to_json has no option default"),
        ("{{ 'x' if false }}", "an if without else"),
    ],
)
def test_messages(text: str, message: str) -> None:
    where = scope({"name": "web", "net": {"gateway": 1}, "words": ["a", "b"]})
    error = failing(where, text)
    assert str(error).startswith(message) or message in str(error)
    assert error.excerpt == text


def test_a_typo_is_not_hidden_by_default() -> None:
    """`default` is for what is not defined, not for what is wrong."""
    where = scope({"wrong": "{{ 1 / 0 }}", "typo": "{{ 'x' | uper }}", "undefined_inside": "{{ nope }}"})
    for name in ("wrong", "typo"):
        for text in ("{{ %s | default('x') }}", "{{ %s is defined }}"):
            failing(where, text % name)
    assert where.render("{{ undefined_inside | default('x') }}") == "x"
    assert where.render("{{ undefined_inside is defined }}") is False


def test_long_lines_are_no_excerpts() -> None:
    assert failing(scope({}), "{{ x }}" + "y" * 200).excerpt is None


# -- conditions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "answer"),
    [
        (True, True),
        (False, False),
        ("true", True),
        ("x == 1", True),
        ("x", True),
        ("zero", False),
        ("none", False),
        ("words | length", True),
        ("yes_text", True),
        ("no_text", False),
        (["x == 1", True], True),
        (["x == 1", False], False),
        ([], True),
        ("x == {'a': {'b': 1}}.a.b", True),
        ("text == 'x' and nowhere", False),
        ("text != 'x' or text is match('y')", True),
    ],
)
def test_conditions(condition: Any, answer: bool) -> None:
    variables = {"x": 1, "zero": 0, "words": ["a"], "yes_text": "Yes", "no_text": "off", "text": "y"}
    assert scope(variables).test(condition) is answer


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("{{ x }}", "a condition is an expression already"),
        ("x == ", "this is not a template that can be read"),
        ("x }} {{ y", "a condition is an expression already"),
        ("x }} y", "this is not one expression"),
        ("", "a condition is an expression, not text"),
        (5, "a condition is an expression"),
        ({"a": 1}, "a condition is an expression, not a mapping"),
        ("words", "a condition gives true or false, and this one gives a list"),
        ("text", "a condition gives true or false, and this one gives text"),
        ("nowhere", '"nowhere" is not defined'),
    ],
)
def test_conditions_that_are_none(condition: Any, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        scope({"x": 1, "words": ["a"], "text": "y"}).test(condition, Mark("p.yml", 1, 2))
    assert message in str(caught.value)
    assert str(caught.value.where) == "p.yml:1:2"


def test_a_condition_of_a_list_has_its_own_place() -> None:
    document = yaml("when:\n  - x == 1\n  - nowhere\n")
    with pytest.raises(TemplateError, match=r"^vars\.yml:3:5: "):
        scope({"x": 1}).test(document["when"])


# -- secrets by reference ----------------------------------------------------------------------------------


def test_references_are_read_when_they_are_used() -> None:
    read: list[str] = []

    def reader(ref: SecretRef) -> Any:
        read.append(str(ref.value))
        return Secret("s") if ref.value == "ONE" else {"api_key": Secret("k")}

    mark = Mark("vars.yml", 1, 1)
    variables = {
        "one": SecretRef("env", "ONE", mark),
        "two": SecretRef("env", "TWO", mark),
        "all": {"x": SecretRef("env", "ONE", mark)},
    }
    where = Templates(secrets=reader).scope(variables)
    assert read == []
    assert where.render("{{ two.api_key }}") == Secret("k")
    assert read == ["TWO"]
    assert where.render({"a": variables["one"], "b": "{{ all.x }}"}) == {"a": Secret("s"), "b": Secret("s")}
    with pytest.raises(TemplateError, match="!env cannot be used here"):
        scope(variables).render("{{ one }}")


@pytest.mark.parametrize("text", ["{{ a ~ b }}", "{{ a }}{{ b }}", "{% for x in l %}{{ x }}{% endfor %}"])
def test_templates_are_compiled_once(text: str) -> None:
    templates = Templates()
    first = templates.plan_text(text)
    for n in range(3):
        templates.scope({"a": n, "b": n, "l": [n]}).render(text)
    assert templates.plan_text(text) is first
