"""The values of plain scalars: YAML 1.1 as PyYAML's SafeLoader (and so Ansible) takes it.

The one difference: dates and times stay text.
"""

from __future__ import annotations

import re
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
    digits = text.replace("_", "")
    if len(digits) > _DIGITS_MAX:
        raise ValueError("too many digits")
    sign = -1 if digits.startswith("-") else 1
    digits = digits.lstrip("+-")
    if digits == "0":
        return 0
    if digits.startswith("0b"):
        return sign * int(digits[2:], 2)
    if digits.startswith("0x"):
        return sign * int(digits[2:], 16)
    if digits.startswith("0"):
        return sign * int(digits, 8)
    value = 0
    for part in digits.split(":"):  # 1:30 is ninety: base 60
        value = value * 60 + int(part)
    return sign * value


def _parse_float(text: str) -> float:
    digits = text.replace("_", "").lower()
    if len(digits) > _DIGITS_MAX:
        raise ValueError("too many digits")
    sign = -1.0 if digits.startswith("-") else 1.0
    digits = digits.lstrip("+-")
    if digits in (".inf", ".nan"):
        return sign * float(digits[1:])
    value = 0.0
    for part in digits.split(":"):
        value = value * 60 + float(part)
    return sign * value
