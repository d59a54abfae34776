"""Jinja2 as fazai uses it: immutable sandbox, native types, a budget, secrets that taint what they touch."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from types import BuiltinMethodType, MethodType
from typing import Any, Final

from jinja2 import nodes, pass_context, pass_environment
from jinja2.nativetypes import NativeCodeGenerator
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter, safe_range
from jinja2.utils import Namespace

from fazai.errors import FazaiError
from fazai.model import Secret
from fazai.template import guard
from fazai.template.filters.base import FilterError, Secrecy, SecretMap, TemplateFilter
from fazai.template.filters.table import FILTERS, TESTS
from fazai.template.guard import FAULTS, WHOLE_ONLY, is_about_secret
from fazai.template.hostvars import HostVars, HostView, Variables
from fazai.template.lexer import BackslashLexer
from fazai.template.limits import OMIT, Rendering, conceal, reveal
from fazai.template.rewrite import TreeRewriter
from fazai.template.simple import MISSING
from fazai.template.undefined import NamedUndefined

_TEXT_METHODS: Final = (
    "capitalize casefold center count endswith expandtabs find format index isalnum isalpha isascii isdecimal"
    " isdigit islower isnumeric isspace istitle isupper join ljust lower lstrip partition removeprefix"
    " removesuffix replace rfind rindex rjust rpartition rsplit rstrip split splitlines startswith strip"
    " swapcase title upper zfill"
)
_LOOP_ATTRIBUTES: Final = (
    "index index0 first last length revindex revindex0 depth depth0 previtem nextitem changed cycle"
)
#: The attributes that a template may use of an object, by its type. Nothing else has attributes here.
_METHODS: Final[tuple[tuple[type | tuple[type, ...], frozenset[str]], ...]] = (
    (str, frozenset(_TEXT_METHODS.split())),
    ((dict, HostVars, HostView), frozenset({"get", "items", "keys", "values"})),
    ((list, tuple), frozenset({"count", "index"})),
    (LoopContext, frozenset(_LOOP_ATTRIBUTES.split())),
)
_SUBSCRIBED: Final = (str, dict, list, tuple, range, HostVars, HostView)
_LEAVES: Final = frozenset({int, float, bool, type(None)})
_WIDE: Final = re.compile(r"\d{5}")


class _ConstantKeeper(NativeCodeGenerator):
    """Code generator that keeps constants as they are: `{{ 5 }}` is the number."""

    def _output_child_to_const(self, node: nodes.Expr, frame: Any, finalize: Any) -> Any:
        if not isinstance(node, nodes.TemplateData):
            raise nodes.Impossible()
        return node.as_const(frame.eval_ctx)


class _ScopeContext(Context):
    """Looks names up in the scope of the rendering."""

    scope: Variables
    environment: TemplateEngine

    def resolve_or_missing(self, key: str) -> Any:
        if key in self.vars:
            return self.vars[key]
        try:
            value = self.scope.find(key, self.environment.rendering)
        except FazaiError as error:  # not now: it may stand in a branch that is not taken
            return NamedUndefined(name=key, fault=error)
        if value is not MISSING:
            if isinstance(value, Secret):
                self.environment.rendering.tainted = True
            return value
        return self.parent[key] if key in self.parent else NamedUndefined(name=key)


class _BoundedFormatter(SandboxedFormatter):
    """Formatter for `'{:>5}'.format(x)` that refuses widths of five digits and more."""

    def format_field(self, value: Any, format_spec: str) -> Any:
        if _WIDE.search(format_spec):
            raise FilterError("a width in format() is too large")
        return super().format_field(value, format_spec)


class TemplateEngine(ImmutableSandboxedEnvironment):
    """The environment; one for each `Templates`. `rendering` is the one that is going on."""

    code_generator_class = _ConstantKeeper
    context_class = _ScopeContext
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self) -> None:
        super().__init__(
            undefined=NamedUndefined, finalize=_check_defined, optimized=False, trim_blocks=True, cache_size=0
        )
        self.rendering = Rendering(0)
        self._lexer = BackslashLexer(self)
        self.globals = {"range": safe_range, "dict": dict, "namespace": Namespace, "omit": OMIT}
        self.filters = {name: _guard_filter(name, each) for name, each in FILTERS.items()} | _HIDDEN
        self.tests = {name: _guard_filter(name, each, test=True) for name, each in TESTS.items()}
        self.tests |= {name: _make_comparison(sign) for name, sign in _COMPARISONS.items()}

    @contextlib.contextmanager
    def reading(self, *, escapes: bool, settings: Mapping[str, Any] | None = None) -> Iterator[None]:
        """Compile templates meanwhile with these settings of Jinja2; `escapes`: backslashes escape."""
        usual = self._lexer
        self._lexer = BackslashLexer(self.overlay(**settings)) if settings else usual
        self._lexer.escapes = escapes
        try:
            yield
        finally:
            self._lexer = usual

    @property
    def lexer(self) -> BackslashLexer:
        return self._lexer

    def context(self, scope: Variables) -> Context:
        context = _ScopeContext(self, self.globals, None, {})
        context.scope = scope
        return context

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        return TreeRewriter(self.filters, self.tests).visit(tree)  # type: ignore[no-any-return]

    def concat(self, pieces: Any) -> Any:
        """Join the output of a macro or a `set` block."""
        pieces = list(pieces)
        return pieces[0] if len(pieces) == 1 else guard.join_pieces(self.rendering, pieces)

    # -- attributes, items, calls: everything that a template can reach goes through these ------------------

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, NamedUndefined):
            return obj
        for kind, names in _METHODS:
            if isinstance(obj, kind) and attribute in names:
                is_format = attribute == "format"
                return _FormatMethod(self, str(obj)) if is_format else getattr(self._bind(obj), attribute)
        if isinstance(obj, Namespace) and not attribute.startswith("_"):
            return getattr(obj, attribute, NamedUndefined(obj=obj, name=attribute))
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, NamedUndefined):
            return obj
        _check_defined(argument)
        _check_divisible(obj)
        if isinstance(obj, _SUBSCRIBED):
            try:
                found = self._bind(obj)[argument]
                if isinstance(found, Secret):
                    self.rendering.tainted = True
                return found
            except (TypeError, LookupError):
                pass
            except FazaiError as error:
                return NamedUndefined(obj=obj, name=argument, fault=error)
        return NamedUndefined(obj=obj, name=argument)

    def _bind(self, obj: Any) -> Any:
        """Make this rendering pay for rendering another host's variables."""
        return obj.bound(self.rendering) if isinstance(obj, HostView) else obj

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        return guard.calculate(self.rendering, operator, _check_defined(left), _check_defined(right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        rendering = __self.rendering
        rendering.spend(1)
        _check_defined(__obj)
        if isinstance(__obj, Macro | LoopContext):
            return __context.call(__obj, *args, **kwargs)
        kwargs.pop("_loop_vars", None)
        kwargs.pop("_block_vars", None)
        if __obj is not Namespace:
            for each in (*args, *kwargs.values()):
                _check_defined(each)
        if __obj is safe_range or __obj is dict or __obj is Namespace:
            rendering.spend(sum([rendering.measure(each)[0] for each in args]))
            if __obj is dict and args and isinstance(args[0], SecretMap):
                return SecretMap.of({**dict(args[0].plain()), **kwargs})
            return __obj(*args, **kwargs)
        if isinstance(__obj, _FormatMethod):
            return __obj(*args, **kwargs)
        if not isinstance(__obj, BuiltinMethodType | MethodType):
            raise FilterError(f"{type(__obj).__name__} cannot be called")
        owner = __obj.__self__
        if isinstance(owner, str):
            return guard.call_text_method(rendering, __obj, owner, args, kwargs)
        if isinstance(owner, list | tuple):
            rendering.spend(rendering.measure(owner)[0] + sum([rendering.measure(each)[0] for each in args]))
        return __obj(*args, **kwargs)


class _FormatMethod:
    """The method `format` of a text."""

    def __init__(self, engine: TemplateEngine, text: str) -> None:
        self._engine = engine
        self._text = text

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        rendering = self._engine.rendering
        weight, secret = rendering.measure([args, kwargs])
        if weight > 8:
            rendering.spend_text(len(self._text) + self._text.count("{") * weight * 64)
        if secret:
            args, kwargs = tuple(reveal(args)), reveal(kwargs)
        try:
            text = _BoundedFormatter(self._engine).vformat(self._text, args, kwargs)
        except FAULTS:
            if secret:
                raise FilterError("format() fails on a secret value") from None
            raise
        rendering.spend_text(len(text))
        return Secret(text) if secret else text


# -- filters and tests ---------------------------------------------------------------------------------------


def _guard_filter(name: str, each: TemplateFilter, *, test: bool = False) -> Callable[..., Any]:
    """Wrap a filter or test: count its cost, keep its secrets, refuse undefined values."""

    @pass_context
    def call(context: _ScopeContext, *args: Any, **kwargs: Any) -> Any:
        rendering = context.environment.rendering
        secret = False
        for value in (*args, *kwargs.values()) if kwargs else args:
            if type(value) is str:
                rendering.spend(1 + (len(value) >> 6))
            elif isinstance(value, NamedUndefined):
                if not each.undefined:
                    value.fail()
            elif type(value) not in _LEAVES:
                weight, inside = rendering.measure(value)
                rendering.spend(weight)
                secret = secret or inside
        rendering.spend(1)
        before = (context,) if each.takes == "context" else (context.environment,) if each.takes else ()
        if secret and each.secrecy is not Secrecy.CARRY:
            if each.secrecy is Secrecy.REFUSE:
                raise FilterError(f'"{name}" cannot take a secret', WHOLE_ONLY)
            return _call_on_secret(rendering, name, each, before, args, kwargs)
        try:
            result = each.call(*before, *args, **kwargs)
        except FAULTS as error:
            if secret and is_about_secret(error):
                raise FilterError(f'"{name}" cannot take a secret', WHOLE_ONLY) from None
            raise
        return bool(result) if test else _settle_result(rendering, result)

    return call


def _call_on_secret(
    rendering: Rendering,
    name: str,
    each: TemplateFilter,
    before: tuple[Any, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    try:
        return conceal(_settle_result(rendering, each.call(*before, *reveal(args), **reveal(kwargs))))
    except FAULTS:
        raise FilterError(f'"{name}" fails on a secret value') from None


def _settle_result(rendering: Rendering, result: Any) -> Any:
    """Pay for a filter's result, and turn an iterator into a list."""
    if isinstance(result, str):
        rendering.spend_text(len(result))
        return result
    if isinstance(result, list | dict | tuple):
        rendering.spend(len(result))
        return result
    if isinstance(result, int | float | Secret | NamedUndefined | None) or not hasattr(result, "__next__"):
        return result
    done = []
    for item in result:
        rendering.spend(1)
        done.append(item)
    return done


def _make_comparison(sign: str) -> Callable[..., bool]:
    @pass_environment
    def call(engine: TemplateEngine, left: Any, right: Any) -> bool:
        return guard.compare_values(engine.rendering, sign, left, right)

    return call


def _check_defined(value: Any) -> Any:
    """Return the value. Raises for an undefined one: for output of `{{ }}` here, where the line is known, and
    not when all is joined."""
    if isinstance(value, NamedUndefined):
        value.fail()
    return value


def _check_divisible(value: Any) -> None:
    if isinstance(value, Secret):
        text, hint = "a part of a secret cannot be taken like this", "use a filter: | split(':') | first"
        raise FilterError(text, hint)


@pass_environment
def _compare(engine: TemplateEngine, left: Any, sign: str, right: Any) -> bool:
    return guard.compare_values(engine.rendering, sign, left, right)


@pass_environment
def _concat(engine: TemplateEngine, pieces: list[Any]) -> Any:
    return guard.join_pieces(engine.rendering, pieces)


@pass_environment
def _iterate(engine: TemplateEngine, value: Any) -> Any:
    if isinstance(value, Secret):
        raise FilterError("a secret cannot be looped over")
    return _check_defined(value)


@pass_environment
def _pay(engine: TemplateEngine, weight: int) -> bool:
    engine.rendering.spend(weight)
    return True


@pass_environment
def _slice(engine: TemplateEngine, value: Any, start: Any, stop: Any, step: Any) -> Any:
    _check_divisible(_check_defined(value))
    if isinstance(value, str | list | tuple):
        engine.rendering.spend(1 + len(value) // (64 if isinstance(value, str) else 1))
    return value[start:stop:step]


#: Filters that only `rewrite.TreeRewriter` puts into templates.
_HIDDEN: Final[dict[str, Callable[..., Any]]] = {
    "_truth": guard.is_true,
    **{each.__name__: each for each in (_compare, _concat, _iterate, _pay, _slice)},
}
_COMPARISONS: Final[Mapping[str, str]] = {
    "==": "eq", "eq": "eq", "equalto": "eq",
    "!=": "ne", "ne": "ne",
    "<": "lt", "lt": "lt", "lessthan": "lt",
    "<=": "lteq", "le": "lteq",
    ">": "gt", "gt": "gt", "greaterthan": "gt",
    ">=": "gteq", "ge": "gteq",
    "in": "in",
}  # fmt: skip
