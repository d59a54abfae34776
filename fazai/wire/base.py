"""Shared by all sections of the contract (SPEC.md, "Common rules"): error, limits, decode, encode."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, TypeVar, get_args

import msgspec
from msgspec import Meta, Struct

from fazai.errors import FazaiError, spelling_hint

if TYPE_CHECKING:
    import json

#: The version of SPEC.md that these types follow.
CONTRACT = "1.2"

MAX_LINE_BYTES = 4 * 1024 * 1024  # one line on the worker's socket
MAX_BODY_BYTES = 1024 * 1024  # one body of a daemon route, /ingest excepted
MAX_PAYLOAD_BYTES = 1024 * 1024  # one southbound message, unless the policy says otherwise

#: An id: printable ASCII without spaces, so that it can stand in a log line, a path or a header as it is.
Ident = Annotated[
    str, Meta(min_length=1, max_length=128, pattern=r"(?#printable ASCII without spaces)\A[!-~]+\Z")
]
#: A name that people read.
Label = Annotated[str, Meta(min_length=1, max_length=256)]
#: An RFC 3339 time with its offset.
Timestamp = Annotated[datetime, Meta(tz=True)]
Milliseconds = Annotated[int, Meta(ge=1, le=3_600_000)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]

_MESSAGE_CHARS = 300


class WireError(FazaiError):
    """A message that the contract refuses; `code` is one of the contract's codes (SPEC.md, "Errors")."""

    def __init__(self, code: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all messages. An optional field that is None is not sent; null is read as absent.

    `constants` are fields whose value the class itself says (`ok`, `success`, an action's `type`): written by
    `encode`, not stored.
    """

    constants: ClassVar[Mapping[str, Any]] = {}


class RequestMessage(Message, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what asks for something: a field that we do not know is refused, for ignoring it could change
    what is done."""


class AnswerMessage(Message, frozen=True, kw_only=True):
    """Base of answers that say yes."""

    constants: ClassVar[Mapping[str, Any]] = {"ok": True}


class OkAnswer(AnswerMessage, frozen=True, kw_only=True):
    """`{"ok":true}`: done, nothing more to say."""


class SessionAnswer(AnswerMessage, frozen=True, kw_only=True):
    """The answer to create_session on the socket and to POST /agent/sessions."""

    session_id: Ident


class ErrorAnswer(Message, frozen=True, kw_only=True):
    """`{"ok":false,"error":…,"code":…}`, the refusal of all sections but `/opn/*`."""

    constants: ClassVar[Mapping[str, Any]] = {"ok": False}
    error: str
    code: str | None = None  # workers and daemons before 1.0 sent none
    action_id: Ident | None = None  # southbound: which request is meant

    @classmethod
    def of(cls, error: WireError) -> ErrorAnswer:
        """Return the answer that carries this error to the other side."""
        text = f"{error.message} ({error.hint})" if error.hint else error.message
        return cls(error=text, code=error.code)


T = TypeVar("T")
M = TypeVar("M", bound=Message)


class _Verdict(Message, frozen=True, kw_only=True):
    ok: bool


@dataclass(frozen=True)
class Family(Generic[T]):
    """A tagged union of messages that arrive on one channel, and how it is read.

    `tag` is the field that tells them apart (`type`, `method`, `action`), `unknown` the code for a tag that
    no message of the family has; `unique_names` those that ask for something, where a name may occur once.
    """

    union: Any  # a Union of Structs; typing has no name for that
    _: KW_ONLY
    tag: str
    unknown: str
    limit_bytes: int
    too_large: str = "too_large"
    unique_names: bool = False

    @cached_property
    def tags(self) -> tuple[str, ...]:
        return tuple(str(member.__struct_config__.tag) for member in get_args(self.union))

    @cached_property
    def _decoder(self) -> msgspec.json.Decoder[T]:
        return msgspec.json.Decoder(self.union)

    def decode(self, data: bytes | str, *, limit_bytes: int | None = None) -> T:
        """Read the message in `data`. Raises WireError."""
        raw = _check_size(data, limit_bytes or self.limit_bytes, self.too_large)
        try:
            with _reading_json():
                message = self._decoder.decode(raw)
                if self.unique_names:
                    _refuse_twice(raw)
                return message
        except WireError as error:
            if error.code == "bad_request":
                self._refuse_tag(_parse_or_none(raw))
            raise

    def convert(self, value: Any) -> T:
        """Read the message in an already parsed JSON value. Raises WireError."""
        try:
            with _reading_json():
                message: T = msgspec.convert(value, self.union)
        except WireError:
            self._refuse_tag(value)
            raise
        return message

    def _refuse_tag(self, value: object) -> None:
        """Refuse an object whose tag is missing, mistyped or unknown: that is wrong first, and said better
        here than by the decoder of the union. Raises WireError."""
        if not isinstance(value, dict):
            return
        if self.tag not in value:
            known = ", ".join(self.tags)
            raise WireError("bad_request", f"`{self.tag}` is missing", hint=f"one of: {known}")
        found = value[self.tag]
        if not isinstance(found, str):
            raise WireError("bad_request", f"`{self.tag}`: expected `str`, got `{_json_type_name(found)}`")
        if found not in self.tags:
            near = spelling_hint(found, self.tags) or f"one of: {', '.join(self.tags)}"
            raise WireError(self.unknown, _cut_message(f"unknown {self.tag} {found!r}"), hint=near)


def _parse_or_none(raw: bytes) -> Any:
    """Parse JSON; None for a number that nothing holds, of which the decoder of the message names the place.
    Raises WireError(bad_json)."""
    try:
        return parse_json(raw)
    except WireError as error:
        if error.code == "bad_json":
            raise
        return None


def decode_body(
    data: bytes | str, of: type[M], *, limit_bytes: int = MAX_BODY_BYTES, unique_names: bool = True
) -> M:
    """Read a message whose type is known from where it arrived; in one that carries others as they came, the
    caller looks for names that occur twice. Raises WireError."""
    raw = _check_size(data, limit_bytes, "too_large")
    with _reading_json():
        message = msgspec.json.decode(raw, type=of)
        if unique_names and issubclass(of, RequestMessage):
            _refuse_twice(raw)
        return message


def decode_answer(data: bytes | str, of: type[M]) -> M | ErrorAnswer:
    """Read the answer to a request: `of` where `ok` is true, else the refusal. Raises WireError."""
    if decode_body(data, _Verdict, limit_bytes=MAX_LINE_BYTES).ok:
        return decode_body(data, of, limit_bytes=MAX_LINE_BYTES)
    return decode_body(data, ErrorAnswer, limit_bytes=MAX_LINE_BYTES)


def parse_json(raw: bytes) -> Any:
    """Parse any JSON value. Raises WireError."""
    with _reading_json():
        return msgspec.json.decode(raw)


def parse_object(
    data: bytes | str, *, limit_bytes: int = MAX_BODY_BYTES, unique_names: bool = False
) -> dict[str, Any]:
    """Parse any JSON object as a dict. Raises WireError."""
    raw = _check_size(data, limit_bytes, "too_large")
    value = parse_json(raw)
    if not isinstance(value, dict):
        raise WireError("bad_request", f"expected `object`, got `{_json_type_name(value)}`")
    if unique_names:
        with _reading_json():
            _refuse_twice(raw)
    return value


def convert_to(value: Any, of: type[M]) -> M:
    """Read a message from an already parsed JSON value. Raises WireError."""
    with _reading_json():
        return msgspec.convert(value, of)


def convert_query(values: Mapping[str, Any], of: type[M]) -> M:
    """Read the parameters of a query. Raises WireError(bad_query)."""
    try:
        return convert_to(values, of)
    except WireError as error:
        raise WireError("bad_query", error.message, hint=error.hint) from None


def convert_fields(values: Mapping[str, Any], of: type[M]) -> M:
    """Read a message from what it has of these values; empty ones are left out. Raises WireError."""
    names = of.__struct_fields__
    return convert_to({name: values[name] for name in names if values.get(name) not in (None, "")}, of)


def encode(message: Message) -> bytes:
    """Write the message as a line of JSON, without newline. Raises WireError for text that is no UTF-8."""
    try:
        if not message.constants:
            return msgspec.json.encode(message)
        return msgspec.json.encode({**message.constants, **msgspec.to_builtins(message)})
    except UnicodeEncodeError:
        name = type(message).__name__
        raise WireError("internal", f"{name} holds text that cannot be written as UTF-8") from None


def _refuse_twice(raw: bytes) -> None:
    """Refuse a name that occurs twice in one object of this JSON: two readers would see two messages, and a
    policy would judge another message than the one that is carried out. Raises WireError."""
    _unique_names().decode(raw.decode())


@functools.cache
def _unique_names() -> json.JSONDecoder:
    import json

    return json.JSONDecoder(object_pairs_hook=_check_unique, parse_int=_skip_number, parse_float=_skip_number)


def _check_unique(pairs: list[tuple[str, None]]) -> None:
    if len(dict(pairs)) == len(pairs):
        return
    seen = set()
    for name, _ in pairs:
        if name in seen:
            raise WireError("bad_request", _cut_message(f"the name {name!r} occurs twice in one object"))
        seen.add(name)


def _skip_number(_: str) -> None:
    """Replace a number: only names are looked at, and a number of many digits takes long to read."""


def _check_size(data: bytes | str, limit_bytes: int, too_large: str) -> bytes:
    try:
        raw = data.encode() if isinstance(data, str) else data
    except UnicodeEncodeError:
        raise WireError("bad_json", "the text is not valid UTF-8") from None
    if len(raw) > limit_bytes:
        raise WireError(too_large, f"the message has {len(raw)} bytes, the limit is {limit_bytes}")
    return raw


@contextmanager
def _reading_json() -> Iterator[None]:
    """Turn the errors of msgspec about foreign input into WireError."""
    try:
        yield
    except msgspec.ValidationError as error:
        raise _validation_error(error) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _json_error(error) from None


_PLACE = re.compile(r"\A(?P<text>.*?)(?: - at (?P<key>key in )?`\$(?P<path>.*)`)?\Z", re.DOTALL)
#: The patterns of the contract begin with a comment that says them in words.
_PATTERN = re.compile(r" matching regex '\(\?#(?P<words>[^)]*)\).*'", re.DOTALL)


def _validation_error(error: msgspec.ValidationError) -> WireError:
    """Reword msgspec's "Expected `int`, got `str` - at `$.params.seed`" as a sentence with the place in
    front."""
    found = _PLACE.match(str(error))
    text, path = (found["text"], found["path"]) if found else (str(error), None)
    text = _PATTERN.sub(r": \g<words>", text[:1].lower() + text[1:])
    place = (path or "").removeprefix(".")
    return WireError("bad_request", _cut_message(f"`{place}`: {text}" if place else text))


def _json_error(error: Exception) -> WireError:
    if isinstance(error, RecursionError):
        return WireError("bad_json", "the JSON is nested too deeply")
    if isinstance(error, UnicodeError):
        return WireError("bad_json", "the text is not valid UTF-8")
    text = str(error)
    if "JSON" not in text:
        text = f"JSON is malformed: {text[:1].lower()}{text[1:]}"
    return WireError("bad_json", _cut_message(text))


def _cut_message(text: str) -> str:
    return text if len(text) <= _MESSAGE_CHARS else text[: _MESSAGE_CHARS - 1] + "…"


def _json_type_name(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "bool", int: "int", float: "float", str: "str", list: "array", dict: "object"}
    return names.get(type(value), type(value).__name__)
