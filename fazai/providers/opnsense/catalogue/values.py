"""Values of fields: YAML to canonical form, canonical form to and from the API, and their comparison. Pure.

Canonical form: text for scalars ("1"/"0" for booleans), a tuple for lists, `Secret` where the field is secret
or the value came as one.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fazai.errors import spelling_hint
from fazai.model import Problem, Secret, SecretRef, Value
from fazai.providers.opnsense.catalogue.table import FieldRow

_MAC = r"(?i)(?:[0-9a-f]{1,2}[:-]){1,5}[0-9a-f]{1,2}"  # compiled when a MAC turns up
_TRUE = frozenset({"1", "true", "yes", "on"})
_MATCHED = 1024  # a longer text is the firewall's to judge
_FALSE = frozenset({"0", "false", "no", "off"})


def to_canonical(row: FieldRow, value: Value) -> tuple[Value, Problem | None]:
    """Return the canonical form of a YAML value, or its problem; no secret stands in a message."""
    if isinstance(value, SecretRef):
        return value, None
    if row.type == "list":
        return _canonical_list(row, value)
    hidden = isinstance(value, Secret)
    plain = value.reveal() if isinstance(value, Secret) else value
    if plain is None:
        if row.required and row.default is None:
            return "", Problem(row.name, "needs a value")
        text, problem = "", None
    elif isinstance(plain, (list, tuple, Mapping)):
        return "", Problem(row.name, f"takes one value, not {_noun_of(plain)}")
    else:
        text, problem = _read_scalar(row, plain, hidden)
    if hidden or row.secret:
        return Secret(text), problem
    return text, problem


def _read_scalar(row: FieldRow, value: Any, hidden: bool) -> tuple[str, Problem | None]:
    reader = _READERS.get(row.type, _read_free_text)
    text, wrong, hint = reader(row, value)
    if wrong is None:
        return text, None
    shown = "" if hidden or row.secret else f", not {_quote_value(value)}"
    return text, Problem(row.name, f"{wrong}{shown}", hint)


def _quote_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    return f'"{text[:60]}…"' if len(text) > 60 else f'"{text}"'


_Read = tuple[str, str | None, str | None]


def _read_boolean(row: FieldRow, value: Any) -> _Read:
    word = str(value).strip().lower()
    if word in _TRUE:
        return "1", None, None
    if word in _FALSE or (word == "" and not row.required):
        return "0", None, None
    return "", "must be true or false", None


def _read_integer(row: FieldRow, value: Any) -> _Read:
    text = str(value).strip()
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        return "", "must be a whole number", None
    if isinstance(value, float):
        text = str(int(value))
    if text == "" and not row.required:
        return "", None, None
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        return "", "must be a whole number", None
    number = int(text)
    if row.minimum is not None and number < row.minimum:
        return "", f"must be at least {row.minimum}", None
    if row.maximum is not None and number > row.maximum:
        return "", f"must be at most {row.maximum}", None
    return str(number), None, None


def _read_number(row: FieldRow, value: Any) -> _Read:
    text = str(value).strip()
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]+(?:\.[0-9]+)?|", text):
        return "", "must be a number", None
    return text, None, None


def _read_choice(row: FieldRow, value: Any) -> _Read:
    text = "" if value is None else str(value).strip()
    found = _pick_choice(row.choices, text)
    if found is not None:
        return found, None, None
    return "", "is not one of the choices", _choices_hint(row, text)


def _pick_choice(choices: Iterable[str], text: str) -> str | None:
    """Return the device's own spelling of a choice: `tcp` is `TCP` in rules, `TCP` is `tcp` in dnat."""
    if text in choices:
        return text
    folded = text.lower()
    return next((choice for choice in choices if choice.lower() == folded), None)


def _read_free_text(row: FieldRow, value: Any) -> _Read:
    if isinstance(value, bool):
        return "", "must be text", 'put it in quotes if the word "true" or "false" is meant'
    text = str(value)
    if row.api == "Description" and (len(text) > 255 or "\n" in text or "\r" in text):
        return "", "must be one line of at most 255 characters", None
    if "\x00" in text:
        return "", "must not contain a zero byte", None
    if row.required and not text.strip() and row.default is None:
        return "", "must not be empty", None
    if row.pattern and 0 < len(text) <= _MATCHED and not re.search(row.pattern, text):
        return text, "must be as the firewall takes it", row.wanted or f"it must match {row.pattern}"
    if row.fold == "port" and re.fullmatch(r"[0-9]+:[0-9]+", text):
        return text, "writes a port range as from-to", f'write "{text.replace(":", "-")}"'
    return text, None, None


_READERS: Mapping[str, Callable[[FieldRow, Any], _Read]] = {
    "boolean": _read_boolean,
    "integer": _read_integer,
    "number": _read_number,
    "choice": _read_choice,
}


def _canonical_list(row: FieldRow, value: Value) -> tuple[Value, Problem | None]:
    if isinstance(value, Mapping):
        return (), Problem(row.name, "takes a list, not a map")
    found: dict[Any, None] = {}
    for item in _split_items(row, value):
        if isinstance(item, (SecretRef, Secret)):
            found[item] = None
        elif item is None or isinstance(item, (bool, list, tuple, Mapping)):
            text = f"holds {_noun_of(item)} where text is expected"
            return (), Problem(row.name, text, "put the entry in quotes")
        else:
            text = str(item).strip()
            if row.choices:
                picked = _pick_choice(row.choices, text)
                if picked is None:
                    wrong = f'"{text}" is not one of the choices'
                    return (), Problem(row.name, wrong, _choices_hint(row, text))
                text = picked
            if row.separator in text:
                return (), Problem(row.name, "an entry must not contain a " + _SEPARATORS[row.separator])
            if text and text not in row.own:
                found[text] = None
    if not found and row.required and row.default is None:
        return (), Problem(row.name, "must not be empty")
    return tuple(found), None


_SEPARATORS = {",": "comma", "\n": "line break"}


def _choices_hint(row: FieldRow, text: str) -> str | None:
    """Return the nearest choice, or all of them where they are few, with what is said of the field."""
    known = "; ".join(filter(None, (", ".join(choice or '""' for choice in row.choices), row.doc)))
    return spelling_hint(text, row.choices) or (f"one of {known}" if len(known) < 200 else None)


def _noun_of(item: Any) -> str:
    if item is None:
        return "nothing"
    if isinstance(item, bool):
        return "true or false"
    return "a list" if isinstance(item, (list, tuple)) else "a map"


def _split_items(row: FieldRow, value: Value) -> Iterable[Any]:
    if value is None:
        return ()
    if isinstance(value, (list, tuple, set, frozenset)):
        return value
    if isinstance(value, str):
        return [part for part in re.split(r"[,\n]", value) if part.strip()]
    return (value,)


def text_of(value: Value) -> str:
    """Return the plain text of a canonical value, for the wire and for comparing only."""
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, tuple):
        return ",".join(text_of(item) for item in value)
    return "" if value is None else str(value)


def compose_name(text: str) -> str:
    """Return a name in one Unicode form: an "é" of one character and one of two are the same to people."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def to_api(row: FieldRow, value: Value) -> str:
    """Return the API's text of a canonical value whose references are resolved."""
    if isinstance(value, tuple):
        try:
            return row.separator.join(value)
        except TypeError:  # a secret among them
            return row.separator.join(text_of(item) for item in value)
    return text_of(value)


def is_same(row: FieldRow, wanted: str, seen: str) -> bool:
    """Return whether two API texts mean the same; lists are sets unless their order means something."""
    if wanted == seen:
        return True
    if row.type == "list":
        first = [comparison_key(row, part) for part in wanted.split(row.separator) if part]
        second = [comparison_key(row, part) for part in seen.split(row.separator) if part]
        return first == second if row.in_order else set(first) == set(second)
    if row.type == "boolean":
        return (wanted or "0") == (seen or "0")
    return comparison_key(row, wanted) == comparison_key(row, seen)


def comparison_key(row: FieldRow, text: str) -> str:
    """Return what a text is compared by: the device keeps case and notation as they were given."""
    match row.fold:
        case "":
            return text
        case "host" | "port" | "case":
            return text.lower()
        case "set":
            return ",".join(sorted(text.split(",")))
        case "lines":  # of keys and certificates: their ends say nothing
            return "\n".join(text.split())
        case "mac":
            return text.lower().replace("-", ":")
        case _:
            return _address_comparison_key(text, names=row.fold == "content")


def _address_comparison_key(text: str, *, names: bool) -> str:
    bang, rest = ("!", text[1:]) if text.startswith("!") else ("", text)
    if ":" in rest:
        if re.fullmatch(_MAC, rest) and rest.count(":") <= 5 and "::" not in rest:
            return bang + rest.lower()
        parts = [_shorten_ipv6(part) for part in rest.split("-")]
        return bang + "-".join(parts)
    if names and "." in rest and "/" not in rest:
        return bang + rest.lower()
    return text


def _shorten_ipv6(text: str) -> str:
    address, slash, bits = text.partition("/")
    try:
        return f"{ipaddress.IPv6Address(address)}{slash}{bits}"
    except ValueError:
        return text


def flatten_item(item: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten an item as `get` answers it into a search row: option maps become their keys.

    Options 0, 1, 2, … arrive as a list, in which their place is the key.
    """
    found: dict[str, str] = {}
    for name, value in item.items():
        if name.startswith("%"):
            continue
        if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            value = {str(place): one for place, one in enumerate(value)}
        if not isinstance(value, Mapping):
            found[prefix + name] = "" if value == [] else str(value)
        elif value and all(isinstance(option, Mapping) and "selected" in option for option in value.values()):
            found[prefix + name] = ",".join(
                key for key, option in value.items() if str(option["selected"]) in ("1", "True") and key
            )
        else:
            found.update(flatten_item(value, f"{prefix}{name}."))
    return found
