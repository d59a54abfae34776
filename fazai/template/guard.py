"""Sandboxed operators: charge the budget first, propagate secrecy."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import jinja2
from jinja2 import Undefined

from fazai.model import Secret
from fazai.template.filters.base import (
    FilterError,
    SecretMap,
    check_percent,
    check_text_length,
    plain_entries,
)
from fazai.template.limits import OMIT, Rendering, conceal, is_listed, reveal

#: The hint for an operation that would tell what a secret is made of.
WHOLE_ONLY: Final = "what a secret is made of is not told: put it out whole, or compare it"
_OUR_CLASS: Final = re.compile(r"'Secret'|\btype Secret\b")

#: Exceptions that a template can cause by itself, without a fault of ours.
FAULTS: Final = (
    jinja2.TemplateError,
    FilterError,
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    RecursionError,
    MemoryError,
)

_LEAVES: Final = frozenset({str, int, float, bool, type(None)})
_NUMBERS: Final = frozenset({int, float, bool})
_BITS_MAX: Final = 16_384
_UNIT: Final = 64

_ARITHMETIC: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": operator.pow,
}
_COMPARE: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "lteq": operator.le,
    "gt": operator.gt,
    "gteq": operator.ge,
    "in": lambda item, container: item in container,
    "notin": lambda item, container: item not in container,
}


def is_about_secret(error: Exception) -> bool:
    """Tell whether Python complains of our class for secrets, which no template knows of."""
    return isinstance(error, TypeError | AttributeError) and bool(_OUR_CLASS.search(str(error)))


def calculate(rendering: Rendering, sign: str, left: Any, right: Any) -> Any:
    """Calculate `left sign right`. Raises FilterError, and what Python raises."""
    rendering.spend(1)
    if type(left) in _NUMBERS and type(right) in _NUMBERS:
        if sign in ("*", "**") and isinstance(left, int) and isinstance(right, int):
            _check_bits(sign, left, right)
        return _ARITHMETIC[sign](left, right)
    given = isinstance(left, Secret) or isinstance(right, Secret)
    if given or (sign == "%" and rendering.holds_secret(right)):
        return _calculate_secret(rendering, sign, left, right)
    if sign == "%" and isinstance(left, str):
        check_percent_cost(rendering, left, right)
    elif sign == "+" and isinstance(left, str) and isinstance(right, str):
        rendering.spend_text(len(left) + len(right))
    elif sign == "+" and isinstance(left, list | tuple) and isinstance(right, list | tuple):
        rendering.spend(len(left) + len(right))
    elif sign == "*":
        _check_repeat(rendering, left, right)
    return _ARITHMETIC[sign](left, right)


def _calculate_secret(rendering: Rendering, sign: str, left: Any, right: Any) -> Secret:
    rendering.tainted = True
    if sign == "+" and isinstance(left, str | Secret) and isinstance(right, str | Secret):
        text: str = reveal(left) + reveal(right)
        rendering.spend_text(len(text))
        return Secret(text)
    if sign == "%" and isinstance(left, str | Secret):
        pattern, values = reveal(left), reveal(right)
        values = tuple(values) if isinstance(right, tuple) else values
        check_percent_cost(rendering, pattern, values)
        try:
            return Secret(pattern % values)
        except (TypeError, ValueError, KeyError):
            raise FilterError("% fails on a secret value") from None
    raise FilterError(f"a secret cannot be used with {sign}")


def check_percent_cost(rendering: Rendering, pattern: str, values: Any) -> None:
    """Pay for `pattern % values` before it is made."""
    check_percent(pattern)
    weight, _ = rendering.measure(values)
    times = 1 if isinstance(values, tuple) else pattern.count("%")
    rendering.spend_text(len(pattern) + (times * weight * _UNIT if weight > 4 else 0))


def _check_bits(sign: str, left: int, right: int) -> None:
    bits = left.bit_length() + right.bit_length() if sign == "*" else left.bit_length() * max(right, 0)
    if bits > _BITS_MAX:
        raise FilterError("a number becomes too large")


def _check_repeat(rendering: Rendering, left: Any, right: Any) -> None:
    many, count = (right, left) if isinstance(left, int) else (left, right)
    if not isinstance(count, int):
        return
    if isinstance(many, str):
        rendering.spend_text(len(many) * max(count, 0))
    elif isinstance(many, list | tuple):
        rendering.spend(len(many) * max(count, 0))


def compare_values(rendering: Rendering, sign: str, left: Any, right: Any) -> bool:
    """Compare `left sign right`, secrets by their value. Raises FilterError, and what Python raises."""
    for each in (left, right):
        if isinstance(each, Undefined):
            each._fail_with_undefined_error()
    if type(left) not in _LEAVES or type(right) not in _LEAVES:
        (weight, secret), (other_weight, other_secret) = rendering.measure(left), rendering.measure(right)
        rendering.spend(1 + (weight + other_weight) // 4)
        if secret or other_secret:
            try:
                return bool(_COMPARE[sign](reveal(left), reveal(right)))
            except TypeError:
                raise FilterError("a secret is text, and is compared with text only") from None
    else:
        rendering.spend(1 + (len(right) // 1024 if type(right) is str else 0))
    return bool(_COMPARE[sign](left, right))


def is_true(value: Any) -> bool:
    """Tell Python's truth of a value, a secret's by its text."""
    return bool(value.reveal()) if isinstance(value, Secret) else bool(value)


def call_text_method(
    rendering: Rendering, call: Callable[..., Any], text: str, args: tuple[Any, ...], named: dict[str, Any]
) -> Any:
    """Call a method of `text` with these arguments."""
    values = (*args, *named.values())
    weight = sum([rendering.measure(value)[0] for value in values])
    rendering.spend(weight + len(text) // _UNIT)
    secret = rendering.holds_secret(*values)
    args, named = (tuple(reveal(args)), reveal(named)) if secret else (args, named)
    _check_method(rendering, call.__name__, text, args, named)
    try:
        result = call(*args, **named)
    except (TypeError, ValueError):
        if secret:
            raise FilterError(f"{call.__name__}() fails on a secret value") from None
        raise
    if isinstance(result, str):
        rendering.spend_text(len(result))
    elif isinstance(result, list | tuple):
        rendering.spend(len(result))
    return conceal(result) if secret else result


def _check_method(
    rendering: Rendering, name: str, text: str, args: tuple[Any, ...], named: dict[str, Any]
) -> None:
    """Refuse a result that is too large before it is made."""
    if name in ("center", "ljust", "rjust", "zfill") and args and isinstance(args[0], int):
        rendering.spend_text(args[0])
    elif name == "expandtabs":
        size = args[0] if args else named.get("tabsize", 8)
        rendering.spend_text(len(text) + text.count("\t") * size if isinstance(size, int) else 0)
    elif name == "replace" and len(args) >= 2 and isinstance(args[0], str) and isinstance(args[1], str):
        rendering.spend_text(len(text) + text.count(args[0]) * len(args[1]))
    elif name == "join" and args and isinstance(args[0], list | tuple):
        rendering.spend_text(sum([len(item) + len(text) for item in args[0] if isinstance(item, str)]))


def text_of_piece(rendering: Rendering, value: Any) -> tuple[str, bool]:
    """Return the text of a value inside of a larger text, and whether it is secret."""
    if isinstance(value, str):
        return value, False
    if value is None:
        return "", False
    if isinstance(value, Secret):
        rendering.tainted = True
        return value.reveal(), True
    if isinstance(value, Undefined):
        return str(value), False  # raises, but for what Jinja2 itself leaves out
    if value is OMIT:
        raise FilterError("omit stands for a whole value, and cannot be a part of a text")
    weight, secret = rendering.measure(value)
    rendering.spend(weight)
    text = str(reveal(value) if secret else plain_value(rendering, value))
    rendering.spend_text(len(text))
    return text, secret


def join_pieces(rendering: Rendering, pieces: list[Any]) -> str | Secret:
    """Join the pieces that a template puts out."""
    texts = [text_of_piece(rendering, piece) for piece in pieces]
    length = sum([len(text) for text, _ in texts])
    check_text_length(length)
    rendering.spend(1 + len(texts) + length // _UNIT)
    text = "".join([text for text, _ in texts])
    return Secret(text) if any(secret for _, secret in texts) else text


def plain_value(rendering: Rendering, value: Any) -> Any:
    """Return the value as YAML could have given it; the same object where it is that already.

    Raises FilterError for what is no value, UndefinedError for what is undefined.
    """
    if type(value) in _LEAVES or isinstance(value, Secret) or value is OMIT:
        return value
    if isinstance(value, Undefined) and not str(value):  # str() raises, but for an `if` without `else`
        raise FilterError("an if without else gives nothing here", "add: else …")
    if isinstance(value, str):
        return str(value)
    weight, _ = rendering.measure(value)
    rendering.spend(weight)
    return _plain_container(value)


def _plain_container(value: Any) -> Any:
    if type(value) in _LEAVES or isinstance(value, Secret) or value is OMIT:
        return value
    if isinstance(value, dict):
        items = {_plain_key(key): _plain_container(item) for key, item in plain_entries(value)}
        if all(items.get(key) is item and item is not OMIT for key, item in plain_entries(value)):
            return value
        kept = {key: item for key, item in items.items() if item is not OMIT}
        return SecretMap.of(kept) if isinstance(value, SecretMap) else kept
    if isinstance(value, list | tuple):
        done = [_plain_container(item) for item in value]
        same = isinstance(value, list) and all(
            a is b and a is not OMIT for a, b in zip(done, value, strict=True)
        )
        return value if same else [item for item in done if item is not OMIT]
    if isinstance(value, Undefined | str):
        return str(value)
    if is_listed(value):
        return [_plain_container(item) for item in value]
    text = f"the template gives {type(value).__name__}, which is no value"
    raise FilterError(text, "put out one of its variables")


def _plain_key(key: Any) -> str:
    if isinstance(key, str | int | float) and not isinstance(key, bool):
        return str(key)
    raise FilterError(f"the template gives a mapping with a key that is no text: {type(key).__name__}")
