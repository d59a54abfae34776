"""Scopes: variables that are rendered when they are used, and values and conditions rendered with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

from fazai.errors import FazaiError, Mark, TemplateError
from fazai.model import Secret, SecretRef, Value
from fazai.template.errors import describe_type
from fazai.template.filters.base import SecretMap, plain_entries
from fazai.template.header import HEADER
from fazai.template.hostvars import HostVars, HostView
from fazai.template.limits import CHAIN_MAX, OMIT, OPERATIONS, Rendering
from fazai.template.simple import LATER, MISSING, SimpleTemplate, parse_simple
from fazai.yamltext import UnsafeText, YamlList, YamlMap

if TYPE_CHECKING:
    from fazai.template.compiled import CompiledTemplate
    from fazai.template.engine import TemplateEngine

_COMPILED_MAX: Final = 20_000
_LEAVES: Final = frozenset({int, float, bool, type(None)})
_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0"})
#: Parts of names whose values may be secret.
_TELLING: Final = ("secret", "passw", "pwd", "token", "key", "psk", "credential", "auth")

Places = Callable[[str], Mark | None]


def is_static(value: Value) -> bool:
    """Tell whether rendering the value would give back the very same object: no template and no secret in
    it."""
    kind = type(value)
    if kind is str:
        return not ("{" in value and ("{{" in value or "{%" in value or "{#" in value))
    if isinstance(value, dict):
        return all(map(is_static, value.values()))
    if isinstance(value, list):
        return all(map(is_static, value))
    return kind is not UnsafeText and kind is not SecretRef


class Templates:
    """Compiled templates, one for each text, and the reader of secrets. For one thread at a time."""

    def __init__(
        self, *, secrets: Callable[[SecretRef], Value] | None = None, operations: int = OPERATIONS
    ) -> None:
        self._secrets = secrets
        self._operations = operations
        self._plans: dict[str, SimpleTemplate | CompiledTemplate] = {}
        self._compiled: dict[tuple[str, str], CompiledTemplate] = {}
        self._static: dict[int, tuple[Any, bool]] = {}
        self._engine: TemplateEngine | None = None

    def scope(self, variables: Mapping[str, Value], places: Places | None = None) -> Scope:
        """A scope of these variables. `places` finds a variable's place."""
        return Scope(self, variables, places)

    def new_rendering(self) -> Rendering:
        return Rendering(self._operations)

    def read_secret(self, ref: SecretRef) -> Value:
        """Read the secret that a reference stands for. Raises SecretError."""
        if self._secrets is None:
            raise TemplateError(f"!{ref.scheme} cannot be used here", where=ref.mark)
        return self._secrets(ref)

    def is_static(self, value: Value) -> bool:
        """Tell `is_static`, remembered for containers."""
        if not isinstance(value, dict | list):
            return is_static(value)
        known = self._static.get(id(value))
        if known is None:
            known = self._static[id(value)] = (value, is_static(value))  # kept alive, so the id stays its own
        return known[1]

    def plan_text(self, text: str) -> SimpleTemplate | CompiledTemplate:
        """The template of a text. Raises TemplateError."""
        plan = self._plans.get(text)
        if plan is None:
            plan = parse_simple(text) or self.compile(text, "text")
            self._plans[text] = plan
        return plan

    def compile(self, text: str, form: Literal["text", "file", "condition"]) -> CompiledTemplate:
        """Compile a text with Jinja2: that of a value, of a template file, or an expression that stands
        without braces. Raises TemplateError."""
        known = self._compiled.get((form, text))
        if known is None:
            from fazai.template import compiled as compiling  # Jinja2: only when a template needs it
            from fazai.template.engine import TemplateEngine

            if self._engine is None:
                self._engine = TemplateEngine()
            if len(self._compiled) >= _COMPILED_MAX:
                self._compiled.clear()
            if form == "file":
                known = compiling.compile_template_file(self._engine, text)
            else:
                known = compiling.compile_template(self._engine, text, condition=form == "condition")
            self._compiled[form, text] = known
        return known


class _FailedVariable:
    """The error of a variable that could not be rendered, kept for the next use."""

    __slots__ = ("error",)

    def __init__(self, error: FazaiError) -> None:
        self.error = error


class Scope:
    """Variables of one host, and of one resource or loop item within it (`child`)."""

    __slots__ = ("_done", "_final", "_parent", "_places", "_texts", "_variables", "templates")

    def __init__(
        self,
        templates: Templates,
        variables: Mapping[str, Value],
        places: Places | None = None,
        *,
        parent: Scope | None = None,
        final: bool = False,
    ) -> None:
        self.templates = templates
        self._variables = variables
        self._places = places
        self._parent = parent
        self._final = final  # the variables are values: nothing in them is a template any more
        self._done: dict[str, Any] = {}
        self._texts: dict[str, Value] = {}

    def child(self, variables: Mapping[str, Value], places: Places | None = None) -> Scope:
        """A scope in which these variables come first. What refers to them is rendered anew."""
        return Scope(self.templates, variables, places, parent=self)

    def having(self, values: Mapping[str, Value]) -> Scope:
        """A scope in which these come first: values, which are not rendered again."""
        return Scope(self.templates, values, parent=self, final=True)

    def names(self) -> Iterator[str]:
        """The names of all variables."""
        scope: Scope | None = self
        while scope is not None:
            yield from scope._variables
            scope = scope._parent

    def new_rendering(self) -> Rendering:
        """Return the budget of a rendering that begins now."""
        return self.templates.new_rendering()

    def has(self, name: object) -> bool:
        """Tell whether there is such a variable, whatever its value."""
        return self._find_owner(name) is not None

    def render(self, value: Value, where: Mark | None = None, *, sensitive: bool = False) -> Value:
        """Return the value with templates and secret references resolved; the same object if there are none.

        `where` is the value's place, for errors; with `sensitive` they do not quote the template.
        Raises TemplateError, SecretError. A result that is `OMIT` says that the value is to be left out.
        """
        if self.templates.is_static(value):
            return value
        rendering = self.templates.new_rendering()
        try:
            found = self._render_value(value, rendering)
        except FazaiError as error:
            raise _add_place(error, where, sensitive) from None
        return _plain_keys(found)

    def render_file(self, text: str, where: Mark) -> str | Secret:
        """Return the content that the text of a template file gives, as Ansible's template module has it.

        Raises TemplateError, SecretError."""
        if is_static(text) and not text.startswith(HEADER):
            return text
        scope = self if self.has("ansible_managed") else self.having({"ansible_managed": "Ansible managed"})
        try:
            return self.templates.compile(text, "file").render_file(scope, self.templates.new_rendering())
        except FazaiError as error:
            raise _add_place(error, where, False) from None

    def test(self, condition: Value, where: Mark | None = None) -> bool:
        """Tell whether a condition holds: a truth value, an expression without braces, or a list: all must
        hold.

        Raises TemplateError, SecretError.
        """
        if isinstance(condition, bool):
            return condition
        if isinstance(condition, list):
            for index, item in enumerate(condition):
                place = condition.mark(index) if isinstance(condition, YamlList) else where
                if not self.test(item, place):
                    return False
            return True
        try:
            return self._test_condition(condition)
        except FazaiError as error:
            raise _add_place(error, where, False) from None

    def _test_condition(self, condition: Value) -> bool:
        if not isinstance(condition, str) or not condition.strip():
            text = f"a condition is an expression, not {describe_type(condition)}"
            raise TemplateError(text, hint="write: when: site == 'north'")
        if "{{" in condition or "{%" in condition:
            text, hint = "a condition is an expression already", "write it without {{ }}"
            raise TemplateError(text, hint=hint, excerpt=condition.strip())
        rendering = self.templates.new_rendering()
        value = self.templates.compile(condition, "condition").render(self, rendering)
        answer = _read_truth(value)
        if answer is None:
            text = f"a condition gives true or false, and this one gives {describe_type(value)}"
            hint = "compare it, or ask: x is defined, x | length > 0, x | bool"
            raise TemplateError(text, hint=hint, excerpt=None if rendering.tainted else condition.strip())
        return answer

    def find(self, name: str, rendering: Rendering) -> Any:
        """The rendered value of a variable, MISSING if there is none. Raises FazaiError."""
        done = self._done
        if name in done:
            value = done[name]
            if type(value) is _FailedVariable:
                raise value.error
            return value
        owner = self._find_owner(name)
        if owner is None:
            return MISSING
        raw = owner._variables[name]
        if not owner._final and not self.templates.is_static(raw):
            raw = self._render_variable(name, raw, owner, rendering)
        done[name] = raw
        return raw

    def _find_owner(self, name: object) -> Scope | None:
        """Find the scope that a variable is from: this one, or the nearest above it."""
        scope: Scope | None = self
        while scope is not None and name not in scope._variables:
            scope = scope._parent
        return scope

    def _render_variable(self, name: str, raw: Value, owner: Scope, rendering: Rendering) -> Value:
        """Render a variable that is a template; errors get its place."""
        key = (id(self), name)
        chain = rendering.chain
        if key in chain:
            names = [known for _, known in chain[chain.index(key) :]]
            loop = " -> ".join([*names, name])
            raise _CircularVariables(f"these variables refer to each other in a circle: {loop}")
        if len(chain) >= CHAIN_MAX:
            raise TemplateError(f"more than {CHAIN_MAX} variables refer to one another, down to {name}")
        chain.append(key)
        try:
            return self._render_value(raw, rendering)
        except _CircularVariables as error:
            raise _add_place(error, owner._find_place(name), _may_be_secret(name)) from None
        except FazaiError as error:
            located = _add_place(error, owner._find_place(name), _may_be_secret(name))
            self._done[name] = _FailedVariable(located)
            raise located from None
        finally:
            chain.pop()

    def _find_place(self, name: str) -> Mark | None:
        return self._places(name) if self._places is not None else None

    def _render_value(self, value: Value, rendering: Rendering) -> Value:
        kind = type(value)
        if kind is str:
            return self._render_text(value, rendering) if "{" in value else value
        if kind in _LEAVES:
            return value
        if isinstance(value, dict):
            return self._render_map(value, rendering)
        if isinstance(value, list):
            return self._render_list(value, rendering)
        if kind is UnsafeText:
            return str(value)
        if kind is SecretRef:
            rendering.tainted = True
            return self.templates.read_secret(value)
        return value

    def _render_text(self, text: str, rendering: Rendering) -> Value:
        if is_static(text):
            return text
        plan = self.templates.plan_text(text)
        if isinstance(plan, SimpleTemplate):
            value = plan.render(self.find, rendering)
            if value is not LATER and not isinstance(value, HostVars | HostView):
                return value
            plan = self.templates.compile(text, "text")
        elif text in self._texts:  # the same template again: names do not change within a scope
            return self._texts[text]
        value = self._texts[text] = plan.render(self, rendering)
        return value

    def _render_map(self, value: dict[str, Value], rendering: Rendering) -> Value:
        done: dict[str, Value] = {}
        changed = False
        for key, item in value.items():
            try:
                rendered = self._render_value(item, rendering)
            except FazaiError as error:
                place = value.mark(key) if isinstance(value, YamlMap) else None
                raise _add_place(error, place, _may_be_secret(key)) from None
            changed = changed or rendered is not item
            if rendered is not OMIT:
                done[key] = rendered
        return done if changed else value

    def _render_list(self, value: list[Value], rendering: Rendering) -> Value:
        done: list[Value] = []
        changed = False
        for index, item in enumerate(value):
            try:
                rendered = self._render_value(item, rendering)
            except FazaiError as error:
                place = value.mark(index) if isinstance(value, YamlList) else None
                raise _add_place(error, place, False) from None
            changed = changed or rendered is not item
            if rendered is not OMIT:
                done.append(rendered)
        return done if changed else value


class _CircularVariables(TemplateError):
    """Variables refer to each other in a circle. Not remembered: seen from another there may be none."""


def _plain_keys(value: Value) -> Value:
    """Return the value with plain mappings: in a value, the keys of a mapping are names of fields and
    settings."""
    if isinstance(value, dict):
        named = {key: _plain_keys(item) for key, item in plain_entries(value)}
        if isinstance(value, SecretMap) or any(named[key] is not item for key, item in value.items()):
            return named
    elif isinstance(value, list):
        items = [_plain_keys(item) for item in value]
        if any(new is not old for new, old in zip(items, value, strict=True)):
            return items
    return value


def _read_truth(value: Value) -> bool | None:
    """Return the truth value that a value stands for, None for what stands for neither."""
    if isinstance(value, Secret):
        value = value.reveal()
    if value is None or isinstance(value, bool | int | float):
        return bool(value)
    if isinstance(value, str):
        word = value.strip().lower()
        return True if word in _TRUE else False if word in _FALSE else None
    return None


def _may_be_secret(name: str) -> bool:
    """Tell whether a value of this name may be secret, so that its template is not quoted."""
    return any(part in name.lower() for part in _TELLING)


def _add_place(error: FazaiError, where: Mark | None, sensitive: bool) -> FazaiError:
    """Add the place to an error, unless it has one nearer to the cause."""
    if error.where is None:
        error.where = where
        if sensitive:
            error.excerpt = None
    return error
