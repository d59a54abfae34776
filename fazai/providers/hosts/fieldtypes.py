"""The types of the fields of host kinds: canonical values, and the problems of those that have none."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from fazai.errors import spelling_hint
from fazai.model import FieldSpec, Problem, Secret, Value
from fazai.providers.hosts.blob import Blob

_MODE: Final = re.compile(r"0?[0-7]{3,4}")
#: What Linux takes in one path, less the name of a temporary file that stands beside it, and in one name.
_PATH_BYTES: Final = 4095 - 32
_NAME_BYTES: Final = 255
_ACCOUNT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*\$?")


def canonical_value(spec: FieldSpec, value: Value) -> tuple[Value, Problem | None]:
    """Return the value as it is compared and written, and what is wrong with it."""
    try:
        return _TYPES[spec.type](spec, value), None
    except _BadValue as wrong:
        return value, Problem(spec.name, wrong.message, wrong.hint)


class _BadValue(Exception):
    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def _canonical_text(spec: FieldSpec, value: Value) -> Value:
    if isinstance(value, Secret):
        raise _BadValue("cannot be a secret")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise _BadValue("must be text")
    if "\0" in value:
        raise _BadValue("must not hold a NUL character")
    return value


def _canonical_secret(spec: FieldSpec, value: Value) -> Value:
    return value if isinstance(value, Secret) else Secret(_canonical_text(spec, value))


def _canonical_path(spec: FieldSpec, value: Value) -> Value:
    text = _canonical_text(spec, value)
    if not text.startswith("/"):
        raise _BadValue("must be an absolute path", 'it begins with "/"')
    if ".." in text.split("/"):
        raise _BadValue('must not hold ".."')
    found = posixpath.normpath("/" + text.lstrip("/"))
    raw = found.encode("utf-8", "surrogateescape")
    if len(raw) > _PATH_BYTES:
        raise _BadValue(f"is {len(raw)} bytes long, and at most {_PATH_BYTES} can be managed")
    for name in raw.split(b"/"):
        if len(name) > _NAME_BYTES:
            raise _BadValue(
                f"has a name of {len(name)} bytes in it, and none can be longer than {_NAME_BYTES}"
            )
    return found


def _canonical_content(spec: FieldSpec, value: Value) -> Value:
    if isinstance(value, Blob):
        return value
    if isinstance(value, (Mapping, list, bool)) or value is None:
        raise _BadValue("must be text", "content: | and the lines below it, or … | to_nice_json")
    return Blob.of(value if isinstance(value, (Secret, bytes)) else str(value))


def _canonical_mode(spec: FieldSpec, value: Value) -> Value:
    if isinstance(value, int):
        raise _BadValue("must be text, as YAML reads a bare number as something else", 'mode: "0644"')
    text = _canonical_text(spec, value)
    if not _MODE.fullmatch(text):
        raise _BadValue(f'is no mode: "{text}"', 'four octal digits: mode: "0644"')
    return f"{int(text, 8):04o}"


def _canonical_account(spec: FieldSpec, value: Value) -> Value:
    text = _canonical_text(spec, value)
    if not _ACCOUNT.fullmatch(text):
        raise _BadValue(f'is no name of a user or group: "{text}"')
    return text


def _canonical_boolean(spec: FieldSpec, value: Value) -> Value:
    if not isinstance(value, bool):
        raise _BadValue("must be true or false")
    return value


def _canonical_integer(spec: FieldSpec, value: Value) -> Value:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _BadValue("must be a whole number")
    _check_range(spec, value)
    return value


def _canonical_number(spec: FieldSpec, value: Value) -> Value:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _BadValue("must be a number")
    _check_range(spec, value)
    found = round(float(value), 3)
    return int(found) if found.is_integer() else found


def _check_range(spec: FieldSpec, value: float) -> None:
    low, high = spec.minimum, spec.maximum
    if (low is not None and value < low) or (high is not None and value > high):
        raise _BadValue(f"must be from {low} on" if high is None else f"must be from {low} to {high}")


def _canonical_choice(spec: FieldSpec, value: Value) -> Value:
    if value not in spec.choices:
        near = spelling_hint(value, spec.choices) if isinstance(value, str) else None
        raise _BadValue(f"is one of {', '.join(spec.choices)}", near)
    return value


def _canonical_list(spec: FieldSpec, value: Value) -> Value:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, list):
        raise _BadValue("must be a list of texts")
    return [_canonical_text(spec, item) for item in value]


def _canonical_names(spec: FieldSpec, value: Value) -> Value:
    """Return one text, or a list of them without doubles; a list of one is that one."""
    if not isinstance(value, list):
        return _canonical_text(spec, value)
    if not value:
        raise _BadValue("is an empty list")
    found = list(dict.fromkeys(_canonical_text(spec, item) for item in value))
    return found if len(found) > 1 else found[0]


def _canonical_argv(spec: FieldSpec, value: Value) -> Value:
    if isinstance(value, str):
        raise _BadValue("must be a list: the program and its arguments", 'argv: [systemctl, restart, "x"]')
    if not isinstance(value, list) or not value:
        raise _BadValue("must be a list: the program and its arguments")
    if any(isinstance(item, Secret) for item in value):
        raise _BadValue("cannot hold a secret: every user of the host can read arguments", "environment:")
    return [_canonical_text(spec, item) for item in value]


def _canonical_map(spec: FieldSpec, value: Value) -> Value:
    if not isinstance(value, Mapping):
        raise _BadValue("must be a mapping")
    return {str(k): v if isinstance(v, Secret) else _canonical_text(spec, v) for k, v in value.items()}


def _canonical_data(spec: FieldSpec, value: Value) -> Value:
    """Return lists and mappings of texts, numbers and truth values as they are."""
    if isinstance(value, Secret):
        raise _BadValue("cannot hold a secret")
    if isinstance(value, Mapping):
        return {_canonical_text(spec, key): _canonical_data(spec, each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical_data(spec, each) for each in value]
    return value if value is None or isinstance(value, (bool, int, float)) else _canonical_text(spec, value)


_TYPES: Final[Mapping[str, Callable[[FieldSpec, Any], Any]]] = {
    "text": _canonical_text,
    "secret": _canonical_secret,
    "path": _canonical_path,
    "content": _canonical_content,
    "source": _canonical_content,
    "template": _canonical_content,
    "mode": _canonical_mode,
    "account": _canonical_account,
    "boolean": _canonical_boolean,
    "integer": _canonical_integer,
    "number": _canonical_number,
    "choice": _canonical_choice,
    "list": _canonical_list,
    "names": _canonical_names,
    "argv": _canonical_argv,
    "data": _canonical_data,
    "map": _canonical_map,
}
