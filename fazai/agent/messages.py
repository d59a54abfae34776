"""The messages of the southbound contract (SPEC.md, section 3) as the agent reads and writes them.

The same messages have types in `fazai.wire.southbound`; those need msgspec, which an agent's machine lacks.
What this module takes and what it refuses is held to be the same by a test.
"""

from __future__ import annotations

import hashlib
import json
import re

from fazai.agent.errors import Refused
from fazai.errors import FazaiError, spelling_hint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Check = Callable[[Any, str], Any]

CONTRACT = "1.1"
MAX_PAYLOAD_BYTES = 1024 * 1024
MAX_MESSAGE_BYTES = 64 * 1024 * 1024

#: Methods that change something on this machine: their outcomes are kept until they are acknowledged.
EFFECTS = frozenset({"command.exec", "file.apply", "state.apply"})

_TEXT_CHARS = 300
_MOST_DEPTH = 100
_MOST_VALUES = 2_000_000
_JSON_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_IDENT = re.compile(r"[!-~]{1,128}")
_PATH = re.compile(r"/[^\x00]*")
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_PEM = re.compile(r"-----BEGIN [^\x00]+")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_HASH = re.compile(r"[0-9a-f]{64}|absent")
_MODE = re.compile(r"0?[0-7]{3,4}")
_OWNER = re.compile(r"[a-z_][a-z0-9_-]{0,31}(?::[a-z_][a-z0-9_-]{0,31})?")


def read_message(data: bytes, *, limit_bytes: int = MAX_PAYLOAD_BYTES) -> dict[str, Any]:
    """Parse one JSON object, in which no name occurs twice. Raises Refused: bad_json, bad_request,
    too_large."""
    if len(data) > limit_bytes:
        raise Refused("too_large", f"the message has {len(data)} bytes, the limit is {limit_bytes}")
    _check_count(data)
    try:
        text = data.decode()
        value = json.loads(
            text,
            object_pairs_hook=_read_object,
            parse_constant=_refuse_constant,
            parse_int=_read_integer,
            parse_float=_read_number,
        )
        if "\\u" in text:  # half a pair of surrogates is written so, and is no text
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        raise Refused("bad_json", "the text is not valid UTF-8") from None
    except RecursionError:
        raise Refused("bad_json", "the JSON is nested too deeply") from None
    except ValueError as error:
        raise Refused("bad_json", _cut(f"JSON is malformed: {error}")) from None
    if not isinstance(value, dict):
        raise Refused("bad_request", f"expected `object`, got `{_type_name(value)}`")
    _check_depth(value)
    return value


def _check_count(data: bytes) -> None:
    """Refuse more values than there is memory for: a few bytes of JSON become a hundred of it."""

    def count(text: bytes) -> int:
        return text.count(b",") + text.count(b"[") + text.count(b"{")

    # what stands in texts counts for nothing; they are taken out only where that may matter
    if count(data) > _MOST_VALUES and count(_JSON_TEXT.sub(b"", data)) > _MOST_VALUES:
        raise Refused("too_large", f"the message has more than {_MOST_VALUES} values")


def _check_depth(value: Any) -> None:
    """Refuse JSON that is nested too deeply for those who walk through it later."""
    level = [value]
    for _ in range(_MOST_DEPTH):
        level = [
            below
            for each in level
            for below in (each.values() if isinstance(each, dict) else each)
            if isinstance(below, (dict, list))
        ]
        if not level:
            return
    raise Refused("bad_json", "the JSON is nested too deeply")


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen = set()
        for name, _ in pairs:
            if name in seen:
                raise Refused("bad_request", _cut(f"the name {name!r} occurs twice in one object"))
            seen.add(name)
    return found


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def _read_integer(text: str) -> int:
    if len(text) > 20:  # beyond 64 bits, and of many digits slow to read
        raise Refused("bad_request", "a number is out of range")
    return int(text)


def _read_number(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise Refused("bad_request", "a number is out of range")
    return value


def is_answer(message: dict[str, Any]) -> bool:
    """Return whether a message answers a request of ours."""
    return "method" not in message and isinstance(message.get("ok"), bool)


def is_newer(contract: Any) -> bool:
    """Return whether the daemon speaks 1.1 or later of the same major version."""
    if not isinstance(contract, str) or len(contract) > 16:
        return False
    major, _, minor = contract.partition(".")
    return major == "1" and minor.isascii() and minor.isdigit() and int(minor) >= 1


def check_request(message: dict[str, Any]) -> dict[str, Any]:
    """Return a request that the contract knows, without the names whose value is null. Raises Refused:
    bad_request, unknown_method."""
    method = _check_method(message)
    fields = _REQUESTS[method]
    checked: dict[str, Any] = {"method": method}
    for name, value in message.items():
        if name == "method":
            continue
        if name not in fields:
            hint = spelling_hint(name, fields)
            raise Refused("bad_request", _cut(f"unknown field {name!r} in {method}"), hint=hint)
        required, check = fields[name]
        if value is None and not required:
            continue
        checked[name] = check(value, f"`{name}`")
    for name, (required, _) in fields.items():
        if required and name not in checked:
            raise Refused("bad_request", f"`{name}` is missing")
    _check_together(checked)
    return checked


def _check_method(message: dict[str, Any]) -> str:
    if "method" not in message:
        raise Refused("bad_request", "`method` is missing", hint=f"one of: {', '.join(_REQUESTS)}")
    method = message["method"]
    if not isinstance(method, str):
        raise Refused("bad_request", f"`method`: expected `str`, got `{_type_name(method)}`")
    if method not in _REQUESTS:
        hint = spelling_hint(method[:64], _REQUESTS) or f"one of: {', '.join(_REQUESTS)}"
        raise Refused("unknown_method", _cut(f"unknown method {method!r}"), hint=hint)
    return method


def _check_together(request: dict[str, Any]) -> None:
    """Check what concerns more than one field."""
    method = request["method"]
    if method in ("file.diff", "file.apply"):
        wants = ("want", "want_base64", "want_sha256")
        names = wants if method == "file.diff" else ("patch", "content_base64")
        if sum(name in request for name in names) != 1:
            raise Refused("bad_request", f"expected either {' or '.join(f'`{name}`' for name in names)}")
        if "content_base64" in request and "base_sha256" not in request:
            raise Refused("bad_request", "`content_base64` needs `base_sha256`")


def _text(place: str, value: Any) -> str:
    if not isinstance(value, str):
        raise Refused("bad_request", f"{place}: expected `str`, got `{_type_name(value)}`")
    return value


def _any_text(value: Any, place: str) -> str:
    return _text(place, value)


def _identity(value: Any, place: str) -> str:
    if len(_text(place, value)) > 65_536:
        raise Refused("bad_request", f"{place}: expected at most 65536 characters")
    return value  # type: ignore[no-any-return]


def _matching(pattern: re.Pattern[str], words: str, *, longest: int | None = None) -> Check:
    def check(value: Any, place: str) -> str:
        text = _text(place, value)
        if longest is not None and len(text) > longest:
            raise Refused("bad_request", f"{place}: expected at most {longest} characters")
        if pattern.fullmatch(text) is None:
            raise Refused("bad_request", f"{place}: expected {words}")
        return text

    return check


def _label(value: Any, place: str) -> str:
    text = _text(place, value)
    if not 1 <= len(text) <= 256:
        raise Refused("bad_request", f"{place}: expected 1 to 256 characters")
    return text


def _without_nul(longest: int, shortest: int = 0) -> Check:
    def check(value: Any, place: str) -> str:
        text = _text(place, value)
        if "\0" in text or not shortest <= len(text) <= longest:
            raise Refused("bad_request", f"{place}: expected {shortest} to {longest} characters without NUL")
        return text

    return check


def _path(value: Any, place: str) -> str:
    text: str = _absolute(value, place)
    if any(part in (".", "..") for part in text.split("/")):
        raise Refused("bad_request", f"{place} must not hold `.` or `..`")
    return text


def _whole(least: int, most: int) -> Check:
    def check(value: Any, place: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise Refused("bad_request", f"{place}: expected `int`, got `{_type_name(value)}`")
        if not least <= value <= most:
            raise Refused("bad_request", f"{place}: expected a number from {least} to {most}")
        return value

    return check


def _boolean(value: Any, place: str) -> bool:
    if not isinstance(value, bool):
        raise Refused("bad_request", f"{place}: expected `bool`, got `{_type_name(value)}`")
    return value


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refused("bad_request", f"{place}: expected `object`, got `{_type_name(value)}`")
    return value


def _texts_by_name(value: Any, place: str) -> dict[str, str]:
    for one in _object(value, place).values():
        _text(f"{place}[...]", one)
    return value  # type: ignore[no-any-return]


def _step(value: Any, place: str) -> dict[str, Any]:
    if len(_object(value, place)) != 1:
        raise Refused("bad_request", f"{place}: expected an object of one name")
    return value  # type: ignore[no-any-return]


def _list(check: Check, least: int, most: int) -> Check:
    def check_all(value: Any, place: str) -> list[Any]:
        if not isinstance(value, list):
            raise Refused("bad_request", f"{place}: expected `array`, got `{_type_name(value)}`")
        if not least <= len(value) <= most:
            raise Refused("bad_request", f"{place}: expected {least} to {most} entries")
        return [check(one, f"{place}[{number}]") for number, one in enumerate(value)]

    return check_all


def _resource(value: Any, place: str) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for name, one in _object(value, place).items():
        if name not in _RESOURCE:
            raise Refused("bad_request", _cut(f"{place}: unknown field {name!r}"))
        checked[name] = _RESOURCE[name](one, f"{place}.{name}")
    for name in ("kind", "identity", "fields"):
        if name not in checked:
            raise Refused("bad_request", f"{place}: `{name}` is missing")
    return checked


_ident = _matching(_IDENT, "printable ASCII without spaces", longest=128)
_absolute = _matching(_PATH, "an absolute path", longest=4096)
_base64 = _matching(_BASE64, "base64")
_milliseconds = _whole(1, 3_600_000)

_RESOURCE: dict[str, Check] = {
    "kind": _label,
    "identity": _identity,
    "fields": _object,
    "state": _label,
    "listen": _list(_label, 0, 256),
}

_ID = {"action_id": (True, _ident)}
_SESSION = {**_ID, "session": (True, _ident)}
_ATTRIBUTES: dict[str, tuple[bool, Check]] = {
    "mode": (False, _matching(_MODE, "an octal mode such as 0644")),
    "owner": (False, _matching(_OWNER, "user or user:group", longest=65)),
}
#: Method -> field -> whether it is required, and its check. The methods that an agent serves, and `part`.
_REQUESTS: dict[str, dict[str, tuple[bool, Check]]] = {
    "command.exec": {
        **_ID,
        "command": (True, _without_nul(4096, 1)),
        "args": (True, _list(_without_nul(131_072), 0, 4096)),
        "timeout": (True, _milliseconds),
        "cwd": (False, _absolute),
        "env": (False, _texts_by_name),
        "stdin": (False, _any_text),
    },
    "file.diff": {
        **_ID,
        "path": (True, _path),
        "want": (False, _any_text),
        "want_base64": (False, _base64),
        "want_sha256": (False, _matching(_DIGEST, "64 hexadecimal digits")),
        **_ATTRIBUTES,
    },
    "file.read": {**_ID, "path": (True, _path), "content": (False, _boolean)},
    "file.list": {**_ID, "path": (True, _path)},
    "file.apply": {
        **_ID,
        "path": (True, _path),
        "patch": (False, _any_text),
        "content_base64": (False, _base64),
        "base_sha256": (False, _matching(_HASH, "64 hexadecimal digits, or absent")),
        **_ATTRIBUTES,
    },
    "state.observe": {
        **_SESSION,
        "timeout": (True, _milliseconds),
        "resources": (True, _list(_resource, 0, 100_000)),
        "facts": (False, _boolean),
    },
    "state.apply": {**_SESSION, "timeout": (True, _milliseconds), "step": (True, _step)},
    "state.close": _SESSION,
    "cancel": _ID,
    "ack": {"action_ids": (True, _list(_ident, 1, 1024))},
    "outcomes": {**_ID, "action_ids": (True, _list(_ident, 1, 1024))},
    "trust": {
        **_ID,
        "ca": (True, _matching(_PEM, "PEM", longest=65_536)),
        "endorsements": (False, _list(_matching(_PEM, "PEM", longest=65_536), 0, 16)),
        "renew": (False, _boolean),
    },
    "part": {
        **_ID,
        "index": (True, _whole(0, 1_000_000)),
        "last": (True, _boolean),
        "data": (True, _base64),
    },
}


#: Write a value as compact JSON; in the second, names are sorted. `json.dumps` makes an encoder each time.
write_json: Callable[[Any], str] = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_write_canonical: Callable[[Any], str] = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), sort_keys=True
).encode


def encode(message: dict[str, Any]) -> bytes:
    """Write a message as it goes on the wire. Text that is no UTF-8 becomes question marks."""
    return write_json(message).encode("utf-8", "replace")


def digest_request(request: dict[str, Any]) -> str:
    """Return the SHA-256 of a request's canonical JSON: sorted names, no spaces, no names without a value."""
    found = _write_canonical(_without_null(request))
    return hashlib.sha256(found.encode()).hexdigest()


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_null(one) for name, one in value.items() if one is not None}
    return value


def refuse(error: FazaiError, action_id: str | None) -> dict[str, Any]:
    """Return the answer that carries an error."""
    text = f"{error.message} ({error.hint})" if error.hint else error.message
    fields = error.fields if isinstance(error, Refused) else {}
    answer = {"ok": False, "error": text, "code": getattr(error, "code", "internal"), **fields}
    return answer if action_id is None else {**answer, "action_id": action_id}


def find_action_id(message: dict[str, Any]) -> str | None:
    """Return the `action_id` of a message that may be wrong otherwise, so that its refusal can name it."""
    found = message.get("action_id")
    return found if isinstance(found, str) and _IDENT.fullmatch(found) else None


def split_message(raw: bytes, action_id: str, max_payload: int) -> Iterator[bytes]:
    """Cut a message that is longer than `max_payload` into `part`s, one at a time so that they are not all in
    memory."""
    import base64

    room = max_payload - len(encode({"method": "part", "action_id": action_id, "index": 1_000_000})) - 64
    size = max(room * 3 // 4, 1024)
    count = -(-len(raw) // size)
    for index in range(count):
        data = base64.b64encode(raw[index * size : (index + 1) * size]).decode()
        yield encode(
            {
                "method": "part",
                "action_id": action_id,
                "index": index,
                "last": index == count - 1,
                "data": data,
            }
        )


class PartCollector:
    """Joins the `part`s of one message at a time. Any wrong one drops what was collected."""

    def __init__(self, max_message: int) -> None:
        self._limit = max_message
        self._action_id: str | None = None
        self._next = 0
        self._data = bytearray()

    def add(self, part: dict[str, Any]) -> bytes | None:
        """Take one piece; returns the message with the last one. Raises Refused: bad_request, too_large."""
        import base64

        try:
            if part["index"] == 0 and self._action_id is None:
                self._action_id = part["action_id"]
            if part["action_id"] != self._action_id or part["index"] != self._next:
                raise Refused("bad_request", f"part {part['index']} came where {self._next} was expected")
            try:
                data = base64.b64decode(part["data"], validate=True)
            except ValueError:
                raise Refused("bad_request", "`data`: expected base64") from None
            if len(self._data) + len(data) > self._limit:
                raise Refused("too_large", f"the message in parts is over {self._limit} bytes")
        except Refused:
            self.drop()
            raise
        self._data += data
        self._next += 1
        if not part["last"]:
            return None
        whole = bytes(self._data)
        self.drop()
        return whole

    def drop(self) -> None:
        """Forget what was collected."""
        self._action_id, self._next = None, 0
        self._data = bytearray()


def _type_name(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "bool", int: "int", float: "float", str: "str", list: "array", dict: "object"}
    return names.get(type(value), type(value).__name__)


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_CHARS else text[: _TEXT_CHARS - 1] + "…"
