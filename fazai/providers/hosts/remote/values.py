"""Values of resources and observations as JSON, and back.

JSON has fewer types than a resource: what it lacks stands as a mapping with one name that begins with `$`.
Both sides read what the other wrote, so decoding trusts nothing: an unknown mark, a wrong type or a content
that is not what its hash says raises Malformed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Final

from fazai.model import Secret
from fazai.providers.hosts.agent.health import AgentReport
from fazai.providers.hosts.agent.layout import AgentFile
from fazai.providers.hosts.blob import Blob
from fazai.providers.hosts.shell.questions import PathState

#: How deep values may be nested: ours are four deep, and a parser of JSON stands a hundred times that.
_MOST_DEPTH: Final = 32
#: Integers that every reader of JSON takes as they are; others stand as text.
_EXACT: Final = 2**53
_MOST_DIGITS: Final = 400
_SHA256_LETTERS: Final = 64
#: Records that stand among the fields of an item, by their mark.
_RECORDS: Final[Mapping[str, type[Any]]] = {
    "$path": PathState,
    "$agent_report": AgentReport,
    "$agent_file": AgentFile,
}


#: What values that make no sense can do to code of a kind that reads them.
NONSENSE: Final = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)


class Malformed(ValueError):
    """Raised for data that no encoder of ours makes."""


# -- encoding -------------------------------------------------------------------------------------------


def encode_value(value: object) -> Any:
    """Return a value in types of JSON. Raises TypeError for one that no kind of hosts has."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _encode_text(value)
    if isinstance(value, int):
        return value if -_EXACT < value < _EXACT else {"$int": str(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, Mapping):
        return _encode_mapping(value)
    if isinstance(value, list):
        return [encode_value(each) for each in value]
    if isinstance(value, tuple):
        return {"$tuple": [encode_value(each) for each in value]}
    if isinstance(value, bytes):
        return {"$bytes": encode_bytes(value)}
    if isinstance(value, Secret):
        return {"$secret": _encode_text(value.reveal())}
    if isinstance(value, Blob):
        return {"$blob": _encode_blob(value)}
    for mark, class_ in _RECORDS.items():
        if type(value) is class_:
            named: Any = class_
            return {mark: {each.name: encode_value(getattr(value, each.name)) for each in fields(named)}}
    raise TypeError(f"a {type(value).__name__} is no value of a host's resource")


def encode_bytes(data: bytes) -> str:
    """Return bytes as base64."""
    return base64.b64encode(data).decode("ascii")


def _encode_text(text: str) -> Any:
    """Return text as it is, unless it holds what UTF-8 cannot: half of a character, as in names of files that
    are none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return {"$text": encode_bytes(text.encode("utf-8", "surrogatepass"))}
    return text


def _encode_mapping(value: Mapping[Any, Any]) -> Any:
    if any(not isinstance(name, str) for name in value):
        raise TypeError("a name in a mapping is no text")
    found = {name: encode_value(each) for name, each in value.items()}
    if any(not isinstance(_encode_text(name), str) for name in found):
        return {"$pairs": [[_encode_text(name), each] for name, each in found.items()]}
    return {"$map": found} if any(name.startswith("$") for name in found) else found


def _encode_blob(blob: Blob) -> dict[str, Any]:
    found: dict[str, Any] = {"sha256": blob.sha256, "size": blob.size}
    if blob.private:
        found["private"] = True
    if blob.data is not None:
        found["data"] = encode_bytes(blob.data)
    return found


# -- decoding -------------------------------------------------------------------------------------------


def decode_value(data: object, depth: int = 0) -> Any:
    """Return the value that `encode_value` made this of. Raises Malformed."""
    if depth > _MOST_DEPTH:
        raise Malformed("nested too deeply")
    if data is None or isinstance(data, (bool, int, str)):
        return data
    if isinstance(data, float):
        if not math.isfinite(data):
            raise Malformed("a number that is none")
        return data
    if isinstance(data, list):
        return [decode_value(each, depth + 1) for each in data]
    if not isinstance(data, dict):
        raise Malformed("no value of JSON")
    if any(not isinstance(name, str) for name in data):
        raise Malformed("a name that is no text")
    if not any(name.startswith("$") for name in data):
        return {name: decode_value(each, depth + 1) for name, each in data.items()}
    if len(data) != 1:
        raise Malformed("a mark beside other names")
    ((mark, body),) = data.items()
    if mark in _RECORDS:
        return _decode_record(_RECORDS[mark], body, depth)
    decode = _MARKS.get(mark)
    if decode is None:
        raise Malformed("an unknown mark")
    return decode(body, depth)


def decode_text(data: object) -> str:
    """Return a text. Raises Malformed."""
    found = decode_value(data)
    if not isinstance(found, str):
        raise Malformed("no text")
    return found


def decode_bytes(data: object) -> bytes:
    """Return the bytes of base64. Raises Malformed."""
    if not isinstance(data, str):
        raise Malformed("no base64")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("no base64") from None


def _decode_surrogates(data: object, depth: int) -> str:
    try:
        return decode_bytes(data).decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise Malformed("no text") from None


def _decode_int(data: object, depth: int) -> int:
    text = data if isinstance(data, str) else ""
    digits = text[1:] if text.startswith("-") else text
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS):
        raise Malformed("no integer")
    return int(text)


def _decode_float(data: object, depth: int) -> float:
    if data not in ("inf", "-inf", "nan"):
        raise Malformed("no number")
    return float(str(data))


def _decode_list(data: object, depth: int) -> tuple[Any, ...]:
    if not isinstance(data, list):
        raise Malformed("no list")
    return tuple(decode_value(each, depth + 1) for each in data)


def _decode_map(data: object, depth: int) -> dict[str, Any]:
    if not isinstance(data, dict) or any(not isinstance(name, str) for name in data):
        raise Malformed("no mapping")
    return {name: decode_value(each, depth + 1) for name, each in data.items()}


def _decode_pairs(data: object, depth: int) -> dict[str, Any]:
    if not isinstance(data, list) or any(not isinstance(pair, list) or len(pair) != 2 for pair in data):
        raise Malformed("no pairs")
    found = {decode_text(name): decode_value(each, depth + 1) for name, each in data}
    if len(found) != len(data):
        raise Malformed("a name twice")
    return found


def _decode_secret(data: object, depth: int) -> Secret:
    return Secret(decode_text(data))


def _decode_blob(data: object, depth: int) -> Blob:
    if not isinstance(data, dict) or not {"sha256", "size"} <= data.keys() <= {
        "sha256",
        "size",
        "private",
        "data",
    }:
        raise Malformed("no content")
    sha256, size, private = data["sha256"], data["size"], data.get("private", False)
    if not is_sha256(sha256) or not is_count(size) or not isinstance(private, bool):
        raise Malformed("no content")
    content = decode_bytes(data["data"]) if "data" in data else None
    if content is not None and (len(content) != size or hashlib.sha256(content).hexdigest() != sha256):
        raise Malformed("a content that is not what its hash says")
    return Blob(content, sha256, size, private)


def _decode_record(class_: type[Any], data: object, depth: int) -> Any:
    specs = {each.name: str(each.type) for each in fields(class_)}
    if not isinstance(data, dict) or data.keys() != specs.keys():
        raise Malformed(f"no {class_.__name__}")
    found = {name: decode_value(each, depth + 1) for name, each in data.items()}
    for name, type_ in specs.items():
        if not _CHECKS[type_](found[name]):
            raise Malformed(f"no {class_.__name__}: {name}")
    return class_(**found)


def is_count(value: object) -> bool:
    """Tell whether a value is a whole number from 0 on."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_sha256(value: object) -> bool:
    """Tell whether a value is the text of a hash."""
    return (
        isinstance(value, str) and len(value) == _SHA256_LETTERS and not set(value) - set("0123456789abcdef")
    )


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text_map(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())


_MARKS: Final[Mapping[str, Callable[[object, int], Any]]] = {
    "$text": _decode_surrogates,
    "$int": _decode_int,
    "$float": _decode_float,
    "$tuple": _decode_list,
    "$map": _decode_map,
    "$pairs": _decode_pairs,
    "$bytes": lambda data, depth: decode_bytes(data),
    "$secret": _decode_secret,
    "$blob": _decode_blob,
}
#: Checks of the fields of records, by their annotations.
_CHECKS: Final[Mapping[str, Callable[[object], bool]]] = {
    "str": lambda value: isinstance(value, str),
    "bytes": lambda value: isinstance(value, bytes),
    "bool": lambda value: isinstance(value, bool),
    "int": _is_int,
    "int | None": lambda value: value is None or _is_int(value),
    "float": lambda value: isinstance(value, float) or _is_int(value),
    "Mapping[str, str]": _is_text_map,
}
