"""Messages that the daemon only hands on: the little that it reads of them, and the frames around them.

The message of a client goes to the agent as the bytes that came, and so does its answer: of each only the
head is read.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Annotated, NamedTuple, cast

import msgspec
from msgspec import Meta

from fazai.wire.base import (
    MAX_PAYLOAD_BYTES,
    ErrorAnswer,
    Ident,
    Message,
    Milliseconds,
    RequestMessage,
    Timestamp,
    WireError,
    decode_body,
    encode,
    parse_json,
    parse_object,
)
from fazai.wire.daemon import HTTP_STATUS, AgentRow, AgentsAnswer
from fazai.wire.southbound import (
    EFFECTS,
    Ack,
    AskOutcomes,
    Cancel,
    OutcomesAnswer,
    Part,
    SouthboundRequest,
    Trust,
    decode_southbound_request,
)

#: What clients may ask agents for.
METHODS = (
    "command.exec",
    "file.diff",
    "file.apply",
    "file.read",
    "file.list",
    "state.observe",
    "state.apply",
    "state.close",
)
_SINCE_1_1 = frozenset({"file.read", "file.list", "state.observe", "state.apply", "state.close"})
#: Of the methods of 1.0, the fields that an agent of 1.0 knows.
_FIELDS_1_0 = {
    "command.exec": {"action_id", "command", "args", "timeout", "cwd", "env", "stdin"},
    "file.diff": {"action_id", "path", "want"},
    "file.apply": {"action_id", "path", "patch", "mode", "owner"},
}
MAX_MESSAGE_BYTES = 64 << 20
_ENVELOPE_BYTES = 4096
#: One frame of a client.
MAX_FRAME_BYTES = MAX_MESSAGE_BYTES + _ENVELOPE_BYTES


class Head(Message, frozen=True, kw_only=True):
    """The fields that tell a request (`method`) from an answer (`ok`), and which action is meant."""

    method: str | None = None
    ok: bool | None = None
    action_id: Ident | None = None
    code: str | None = None
    error: str | None = None
    exit_code: int | None = None
    timeout: Milliseconds | None = None


class Envelope(RequestMessage, frozen=True, kw_only=True):
    """One frame of a client: a message for an agent, or `list`. `id` comes back with the answer."""

    id: Annotated[int, Meta(ge=0, le=2**53)]
    agent: Ident | None = None
    message: msgspec.Raw = msgspec.Raw(b"")  # msgspec has no optional one
    list: bool = False


_MOST_VALUES = 2_000_000
_AROUND_BYTES = 4096
_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_HEADS: msgspec.json.Decoder[Head] = msgspec.json.Decoder(Head)


def read_head(message: bytes) -> Head:
    """Return the head of a message. Raises WireError."""
    try:
        return _HEADS.decode(message)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        decode_body(message, Head, limit_bytes=MAX_FRAME_BYTES)  # says what is wrong in the contract's words
        raise WireError("bad_request", "the message cannot be read") from None


def check_text(message: bytes) -> None:
    """Check that a message of an agent is text, and of no more values than its readers have memory for: two
    bytes of JSON may become a hundred. Raises WireError."""
    try:
        message.decode()
    except UnicodeDecodeError:
        raise WireError("bad_json", "the text is not valid UTF-8") from None
    # what stands in texts counts for nothing; they are taken out only where that may matter
    if _count_values(message) > _MOST_VALUES and _count_values(_TEXT.sub(b"", message)) > _MOST_VALUES:
        raise WireError("too_large", f"the message has more than {_MOST_VALUES} values")


def _count_values(message: bytes) -> int:
    return message.count(b",") + message.count(b"[") + message.count(b"{")


class ResultData(RequestMessage, frozen=True, kw_only=True, tag_field="method", tag="result"):
    """`wire.southbound.Result` with the answer as it came: only its head is read."""

    action_id: Ident
    of: Ident
    answer: msgspec.Raw


class PushData(RequestMessage, frozen=True, kw_only=True, tag_field="method", tag="telemetry.push"):
    """`wire.southbound.TelemetryPush` with the record as it came: who stores it reads it."""

    action_id: Ident
    payload: msgspec.Raw
    ts: Timestamp


def read_request(message: bytes, head: Head) -> SouthboundRequest | ResultData | PushData:
    """Return a request of an agent; what it carries for others is left as it came. Raises WireError."""
    if head.method == "result":
        result = decode_body(message, ResultData, limit_bytes=MAX_MESSAGE_BYTES, unique_names=False)
        _check_around(message, bytes(result.answer), b"{")
        return result
    if head.method == "telemetry.push":
        push = decode_body(message, PushData, limit_bytes=MAX_MESSAGE_BYTES, unique_names=False)
        _check_around(message, bytes(push.payload), b"{")
        return push
    return decode_southbound_request(message, max_payload=MAX_PAYLOAD_BYTES)


def _check_around(message: bytes, carried: bytes, begin: bytes) -> None:
    """Check the names beside what a message carries. Raises WireError."""
    if not carried.startswith(begin):
        raise WireError("bad_request", "expected `object` in what the message carries")
    around = message.replace(carried, b"0", 1)
    if len(around) > _AROUND_BYTES:
        raise WireError("bad_request", "a name occurs twice in one object")
    parse_object(around, unique_names=True)


class AskedFor(NamedTuple):
    """A message of a client to an agent; `digest` is there where it has an effect."""

    head: Head
    message: bytes
    digest: str


class Frame(NamedTuple):
    """A frame of a client: what it asks for, None for the list of agents, or why nothing can be asked."""

    envelope: Envelope
    request: AskedFor | WireError | None


def read_frame(data: bytes) -> Frame:
    """Read the frame of a client. Raises WireError where it is none. May run in any thread."""
    envelope = decode_body(data, Envelope, limit_bytes=MAX_FRAME_BYTES)
    if envelope.list:
        return Frame(envelope, None)
    message = bytes(envelope.message)
    try:
        if envelope.agent is None or not message:
            raise WireError("bad_request", "`agent` and `message` are needed, or `list`")
        head = read_head(message)
        digest = digest_of(message) if head.method is not None and has_effect(head.method) else ""
    except WireError as error:
        return Frame(envelope, error)
    return Frame(envelope, AskedFor(head, message, digest))


def check_request(head: Head) -> str:
    """Return the action's id of a request that a client may make. Raises WireError."""
    if head.method not in METHODS:
        what = f"unknown method {str(head.method)[:64]!r}" if head.method else "`method` is missing"
        raise WireError("unknown_method", what, hint=f"one of: {', '.join(METHODS)}")
    if head.action_id is None:
        raise WireError("bad_request", "`action_id` is missing")
    return head.action_id


def check_for_1_0(agent_id: str, method: str, message: bytes) -> None:
    """Refuse a request that an agent of contract 1.0 does not know. Raises WireError."""
    new = None
    if method in _SINCE_1_1:
        new = method
    else:
        fields = [name for name, value in parse_json(message).items() if value is not None]
        more = sorted(set(fields) - _FIELDS_1_0[method] - {"method"})
        new = f"`{more[0]}`" if more else None
    if new is not None:
        raise WireError("unknown_method", f"{agent_id} speaks contract 1.0, which has no {new}")


def digest_of(message: bytes) -> str:
    """Return the digest of a request: SHA-256 of its JSON with sorted names and without null."""
    value = {name: one for name, one in parse_json(message).items() if one is not None}
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()


def has_effect(method: str) -> bool:
    """Return whether a method changes something on the agent's machine."""
    return method in EFFECTS


# -- writing


def answer_frame(id_: int, answer: bytes) -> bytes:
    """Return the frame of an answer to a client."""
    return b'{"id":%d,"answer":%s}' % (id_, answer)


def error_frame(id_: int, error: WireError) -> bytes:
    """Return the frame of a refusal to a client."""
    said = ErrorAnswer.of(error)
    return msgspec.json.encode({"id": id_, "error": said.error, "code": said.code})


def refusal(error: WireError, action_id: str | None = None) -> bytes:
    """Return a refusal as an answer."""
    said = ErrorAnswer.of(error)
    return encode(ErrorAnswer(error=said.error, code=said.code, action_id=action_id))


def write_ack(action_ids: tuple[str, ...]) -> bytes:
    """Return the acknowledgement of outcomes."""
    return encode(Ack(action_ids=action_ids))


def write_cancel(action_id: str) -> bytes:
    """Return the request to end an action."""
    return encode(Cancel(action_id=action_id))


def write_question(action_id: str, action_ids: tuple[str, ...]) -> bytes:
    """Return the question what became of actions."""
    return encode(AskOutcomes(action_id=action_id, action_ids=action_ids))


def write_trust(action_id: str, pem: str, endorsements: tuple[str, ...], *, renew: bool) -> bytes:
    """Return the request to trust CAs, with what others say of them."""
    return encode(Trust(action_id=action_id, ca=pem, endorsements=endorsements, renew=renew))


def read_unknown(message: bytes) -> frozenset[str]:
    """Return the actions that an agent says it does not know. Raises WireError."""
    return frozenset(decode_body(message, OutcomesAnswer).unknown)


def split_message(action_id: str, message: bytes, max_payload: int) -> Iterator[bytes]:
    """Return the parts of a message that is too long for one."""
    size = (max_payload - 512) // 4 * 3
    places = range(0, len(message), size)
    for index, place in enumerate(places):
        data = base64.b64encode(message[place : place + size]).decode()
        last = place + size >= len(message)
        yield encode(Part(action_id=action_id, index=index, last=last, data=data))


class PartData(RequestMessage, frozen=True, kw_only=True, tag_field="method", tag="part"):
    """A part as `wire.southbound.Part`, whose data is checked where it is decoded."""

    action_id: Ident
    index: Annotated[int, Meta(ge=0, le=1_000_000)]
    last: bool
    data: str


_PARTS: msgspec.json.Decoder[PartData] = msgspec.json.Decoder(PartData)
_QUOTES = 16  # of a part whose names occur once


def read_part(message: bytes) -> PartData | Part:
    """Return a part, at a few milliseconds for a MiB: the general reader takes five times as long. Raises
    WireError."""
    if message.count(b'"') == _QUOTES:
        with contextlib.suppress(msgspec.DecodeError, UnicodeError):
            return _PARTS.decode(message)
    return cast("Part", decode_southbound_request(message))


def _decode_base64(text: str) -> bytes:
    """Return the bytes of a base64 text. Raises WireError."""
    try:
        data = binascii.a2b_base64(text)
    except ValueError:
        data = b""
    if len(text) % 4 or len(data) != len(text) // 4 * 3 - text[-2:].count(
        "="
    ):  # foreign characters are left out
        raise WireError("bad_request", "`data` is no base64")
    return data


class PartReader:
    """Puts the parts of one direction together."""

    def __init__(self) -> None:
        self._action_id: str | None = None
        self._parts: list[bytes] = []
        self.bytes = 0

    def add(self, part: PartData | Part) -> bytes | None:
        """Take the next part; return the message with the last one. Raises WireError."""
        if part.index != len(self._parts) or (self._parts and part.action_id != self._action_id):
            raise WireError("bad_request", f"part {part.index} of {part.action_id} is not the next one")
        data = _decode_base64(part.data)
        if self.bytes + len(data) > MAX_MESSAGE_BYTES:
            raise WireError("too_large", f"the parts have more than {MAX_MESSAGE_BYTES} bytes")
        self._action_id = part.action_id
        self._parts.append(data)
        self.bytes += len(data)
        if not part.last:
            return None
        message = b"".join(self._parts)
        self.clear()
        return message

    def clear(self) -> None:
        """Forget what came so far."""
        self._parts = []
        self._action_id = None
        self.bytes = 0


def outcome_of(head: Head) -> str:
    """Return an answer in a word: `ok`, or the error's code."""
    if head.ok:
        return "ok"
    return head.code if head.code is not None and head.code in HTTP_STATUS else "error"


def sentence_of(head: Head) -> str:
    """Return an answer in a sentence; what a program printed is not in it."""
    if head.ok:
        return f"exit code {head.exit_code}" if head.exit_code is not None else "done"
    return f"{head.code or 'error'}: {(head.error or '')[:200]}"


def list_answer(rows: Iterable[AgentRow]) -> bytes:
    """Return the answer to `list`."""
    return encode(AgentsAnswer(agents=tuple(rows)))
