"""The values of plain scalars: YAML 1.1 as PyYAML's SafeLoader (and so Ansible) takes it.

The one difference: dates and times stay text.
"""

from __future__ import annotations

import re
from functools import reduce
from typing import Any

_WORDS: dict[str, bool | None] = {
    "": None,
    "~": None,
    **dict.fromkeys(("null", "Null", "NULL")),
    **{form: True for word in ("yes", "true", "on") for form in (word, word.capitalize(), word.upper())},
    **{form: False for word in ("no", "false", "off") for form in (word, word.capitalize(), word.upper())},
}
_NUMBER_START = frozenset("-+.0123456789")
_INT = re.compile(
    r"[-+]?0b[01_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+"
    r"|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+"
)
_FLOAT = re.compile(
    r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?"
    r"|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_DIGITS_MAX = 1000  # a number that nobody means; int() of a long text takes quadratic time


def convert_plain(text: str) -> Any:
    """Return the value of an unquoted scalar. Raises ValueError for a number that cannot be one."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_START:
        return text
    if _INT.fullmatch(text):
        return _parse_int(text)
    if _FLOAT.fullmatch(text):
        return _parse_float(text)
    return text


def convert_plain_json(text: str) -> Any:
    """The value of an unquoted scalar in a text that is JSON throughout."""
    if text in ("true", "false", "null"):
        return {"true": True, "false": False}.get(text)
    return float(text) if re.search(r"[.eE]", text) else _parse_int(text)


def convert_tagged(kind: str, text: str) -> Any:
    """The value of a scalar with a standard tag (`!!int "5"`). Raises ValueError; KeyError: no such kind."""
    if kind in ("str", "timestamp"):
        return text
    if kind == "int" and _INT.fullmatch(text):
        return _parse_int(text)
    if kind == "float" and (_FLOAT.fullmatch(text) or _INT.fullmatch(text)):
        return _parse_float(text)
    if kind == "bool" and isinstance(_WORDS.get(text), bool):
        return _WORDS[text]
    if kind == "null":
        return None
    if kind in ("int", "float", "bool"):
        raise ValueError(kind)
    raise KeyError(kind)


def _parse_int(text: str) -> int:
    sign, digits = _split_sign(text)
    for prefix, base in (("0b", 2), ("0x", 16), ("0", 8)):
        if digits.startswith(prefix):
            return sign * int(digits, base)
    return sign * reduce(lambda value, part: value * 60 + int(part), digits.split(":"), 0)  # 1:30 is ninety


def _parse_float(text: str) -> float:
    sign, digits = _split_sign(text.lower())
    if digits in (".inf", ".nan"):
        return sign * float(digits[1:])
    return sign * reduce(lambda value, part: value * 60 + float(part), digits.split(":"), 0.0)


def _split_sign(text: str) -> tuple[int, str]:
    """Return 1 or -1, and the digits without underscores. Raises ValueError for too many."""
    digits = text.replace("_", "")
    if len(digits) > _DIGITS_MAX:
        raise ValueError("too many digits")
    return (-1 if digits.startswith("-") else 1), digits.lstrip("+-")
