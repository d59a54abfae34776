"""Section 3 of SPEC.md: remote agents, over a WebSocket with client certificates or signed HTTP.

These are the daemon's types. The agent, which has only the standard library, reads the same messages with
`fazai.agent.messages`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from fazai.wire.base import (
    MAX_PAYLOAD_BYTES,
    AnswerMessage,
    Count,
    ErrorAnswer,
    Family,
    Ident,
    Label,
    Message,
    Milliseconds,
    RequestMessage,
    Timestamp,
    WireError,
)

AgentVersion = Annotated[
    str,
    Meta(
        max_length=64,
        pattern=r"(?#a version such as 1.2.3)\A[0-9]+\.[0-9]+(?:\.[0-9]+)?(?:[-+.][0-9A-Za-z.+-]+)?\Z",
    ),
]
ContractVersion = Annotated[str, Meta(max_length=16, pattern=r"(?#a version such as 1.0)\A[0-9]+\.[0-9]+\Z")]
Argument = Annotated[str, Meta(max_length=131_072, pattern=r"(?#text without NUL)\A[^\x00]*\Z")]
Program = Annotated[str, Meta(min_length=1, max_length=4096, pattern=r"(?#text without NUL)\A[^\x00]+\Z")]
Path = Annotated[str, Meta(max_length=4096, pattern=r"(?#an absolute path)\A/[^\x00]*\Z")]
Mode = Annotated[str, Meta(pattern=r"(?#an octal mode such as 0644)\A0?[0-7]{3,4}\Z")]
Owner = Annotated[
    str,
    Meta(
        max_length=65, pattern=r"(?#user or user:group)\A[a-z_][a-z0-9_-]{0,31}(?::[a-z_][a-z0-9_-]{0,31})?\Z"
    ),
]

Base64 = Annotated[str, Meta(pattern=r"(?#base64)\A[A-Za-z0-9+/]*={0,2}\Z")]
BaseHash = Annotated[str, Meta(pattern=r"(?#64 hexadecimal digits, or absent)\A(?:[0-9a-f]{64}|absent)\Z")]
Sha256 = Annotated[str, Meta(pattern=r"(?#64 hexadecimal digits)\A[0-9a-f]{64}\Z")]
Pem = Annotated[str, Meta(min_length=1, max_length=65_536, pattern=r"(?#PEM)\A-----BEGIN [^\x00]+\Z")]
#: Whether the machine may be reconciled through its agent.
Reconcile = Literal["no", "look", "yes"]


class TimeRequest(RequestMessage, frozen=True, kw_only=True, tag_field="method", tag="time"):
    """Asks for the daemon's clock; the one message that may come before hello. Since 1.1."""


class Hello(RequestMessage, frozen=True, kw_only=True, tag_field="method", tag="hello"):
    """The handshake. `version` is the agent's own, `contract` the version of SPEC.md that it speaks;
    `instance` is new at each start of the agent's process."""

    agent_id: Ident
    name: Label
    version: AgentVersion
    capabilities: Annotated[tuple[Ident, ...], Meta(max_length=64)]
    timestamp: Timestamp
    contract: ContractVersion | None = None
    instance: Ident | None = None
    reconcile: Reconcile | None = None
    platform: Label | None = None


class CommandExec(RequestMessage, frozen=True, kw_only=True, tag_field="method", tag="command.exec"):
    """One program of the agent's allow-list; its text form shows neither `env` nor `stdin`."""

    action_id: Ident
    command: Program
    args: Annotated[tuple[Argument, ...], Meta(max_length=4096)]
    timeout: Milliseconds
    cwd: Path | None = None
    env: dict[str, str] | None = None
    stdin: str | None = None

    def __repr__(self) -> str:
        return f"CommandExec(action_id={self.action_id!r}, command={self.command!r}, args: {len(self.args)})"


class TelemetryPush(RequestMessage, frozen=True, kw_only=True, tag_field="method", tag="telemetry.push"):
    """`payload` is a record of section 4; what is not known in it is kept."""

    action_id: Ident
    payload: dict[str, Any]
    ts: Timestamp


class _FileRequest(RequestMessage, frozen=True, kw_only=True, tag_field="method"):
    action_id: Ident
    path: Path

    def __post_init__(self) -> None:
        if any(part in (".", "..") for part in self.path.split("/")):
            raise ValueError("`path` must not hold `.` or `..`")


def _check_one_of(message: Message, *names: str) -> None:
    """Check that a message has exactly one of some fields. Raises ValueError."""
    if sum(getattr(message, name) is not None for name in names) != 1:
        raise ValueError(f"expected either {' or '.join(f'`{name}`' for name in names)}")


class FileDiff(_FileRequest, frozen=True, kw_only=True, tag="file.diff"):
    """`want` is the whole wanted text, `want_base64` (since 1.1) the same of what may be no text; either may
    hold a secret, so the text form leaves it out. `want_sha256` (since 1.1) is the hash of the wanted
    content, for who needs no patch. `mode` and `owner` (since 1.1) are compared as well."""

    want: str | None = None
    want_base64: Base64 | None = None
    want_sha256: Sha256 | None = None
    mode: Mode | None = None
    owner: Owner | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_one_of(self, "want", "want_base64", "want_sha256")

    def __repr__(self) -> str:
        return f"FileDiff(action_id={self.action_id!r}, path={self.path!r})"


class FileApply(_FileRequest, frozen=True, kw_only=True, tag="file.apply"):
    """`patch` is what file.diff answered, unchanged; `content_base64` (since 1.1) the whole new content, with
    the hash of what it replaces. The text form leaves both out."""

    patch: str | None = None
    content_base64: Base64 | None = None
    base_sha256: BaseHash | None = None
    mode: Mode | None = None
    owner: Owner | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_one_of(self, "patch", "content_base64")
        if self.content_base64 is not None and self.base_sha256 is None:
            raise ValueError("`content_base64` needs `base_sha256`")

    def __repr__(self) -> str:
        return f"FileApply(action_id={self.action_id!r}, path={self.path!r}, mode={self.mode!r})"


class FileRead(_FileRequest, frozen=True, kw_only=True, tag="file.read"):
    """Asks for a file; without `content` for its hash, size and mode alone. Since 1.1."""

    content: bool = True


class FileList(_FileRequest, frozen=True, kw_only=True, tag="file.list"):
    """Asks for what may be fetched below a folder. Since 1.1."""


class ResourceData(RequestMessage, frozen=True, kw_only=True):
    """One declared resource; values that JSON lacks are written as section 3.4 says. The text form leaves
    the fields out."""

    kind: Label
    identity: Annotated[str, Meta(max_length=65_536)]
    fields: dict[str, Any]
    state: Label = "present"
    listen: Annotated[tuple[Label, ...], Meta(max_length=256)] = ()
    place: Count | None = None

    def __repr__(self) -> str:
        return f"ResourceData(kind={self.kind!r})"


class StateObserve(RequestMessage, frozen=True, kw_only=True, tag_field="method", tag="state.observe"):
    """Asks for what stands on the machine of these resources; changes nothing. Since 1.1."""

    action_id: Ident
    session: Ident
    timeout: Milliseconds
    resources: Annotated[tuple[ResourceData, ...], Meta(max_length=100_000)]
    facts: bool = False

    def __repr__(self) -> str:
        return f"StateObserve(action_id={self.action_id!r}, resources: {len(self.resources)})"


class StateApply(RequestMessage, frozen=True, kw_only=True, tag_field="method", tag="state.apply"):
    """Carries out one step of a session's changes. `step` has exactly one of `write`, `activate`, `verify`,
    `explains`; what stands in it is the host provider's. Since 1.1."""

    action_id: Ident
    session: Ident
    timeout: Milliseconds
    step: Annotated[dict[str, Any], Meta(min_length=1, max_length=1)]

    def __repr__(self) -> str:
        return f"StateApply(action_id={self.action_id!r}, step: {', '.join(self.step)})"


class StateClose(RequestMessage, frozen=True, kw_only=True, tag_field="method", tag="state.close"):
    """Ends a session; one that is not known is ended already. Since 1.1."""

    action_id: Ident
    session: Ident


class Cancel(RequestMessage, frozen=True, kw_only=True, tag_field="method", tag="cancel"):
    """Ends a running action, whose own answer tells. Since 1.1."""

    action_id: Ident


class Ack(RequestMessage, frozen=True, kw_only=True, tag_field="method", tag="ack"):
    """Says that the outcomes of these actions are durable. Has no answer. Since 1.1."""

    action_ids: Annotated[tuple[Ident, ...], Meta(min_length=1, max_length=1024)]


class Result(RequestMessage, frozen=True, kw_only=True, tag_field="method", tag="result"):
    """Delivers an outcome that was not acknowledged: `answer` is the answer itself. Since 1.1."""

    action_id: Ident
    of: Ident
    answer: dict[str, Any]

    def __repr__(self) -> str:
        return f"Result(action_id={self.action_id!r}, of={self.of!r})"


class AskOutcomes(RequestMessage, frozen=True, kw_only=True, tag_field="method", tag="outcomes"):
    """Asks what became of actions of earlier connections: those that the agent does not know are in its
    answer, the outcomes of the others come as `result`. Since 1.1."""

    action_id: Ident
    action_ids: Annotated[tuple[Ident, ...], Meta(min_length=1, max_length=1024)]


class Trust(RequestMessage, frozen=True, kw_only=True, tag_field="method", tag="trust"):
    """Says which authorities the agent is to trust from now on: exactly these. Each that is new to it comes
    with an endorsement of one that it trusts. `renew`: its certificate is of one that will go, so that it
    asks for another one soon. Since 1.1."""

    action_id: Ident
    ca: Pem
    endorsements: Annotated[tuple[Pem, ...], Meta(max_length=16)] = ()
    renew: bool = False


class Renew(RequestMessage, frozen=True, kw_only=True, tag_field="method", tag="renew"):
    """Asks for the next certificate of the same name. Since 1.1."""

    action_id: Ident
    csr: Pem


class Part(RequestMessage, frozen=True, kw_only=True, tag_field="method", tag="part"):
    """One piece of a message that is longer than `max_payload`. Has no answer. Since 1.1."""

    action_id: Ident
    index: Annotated[int, Meta(ge=0, le=1_000_000)]
    last: bool
    data: Base64

    def __repr__(self) -> str:
        return f"Part(action_id={self.action_id!r}, index={self.index})"


SouthboundRequest = (
    TimeRequest
    | Hello
    | CommandExec
    | TelemetryPush
    | FileDiff
    | FileApply
    | FileRead
    | FileList
    | StateObserve
    | StateApply
    | StateClose
    | Cancel
    | Ack
    | Result
    | AskOutcomes
    | Trust
    | Renew
    | Part
)

#: Methods that change something on the agent's machine: their outcomes are kept until they are acknowledged.
EFFECTS = frozenset({"command.exec", "file.apply", "state.apply"})


class EnrolBody(RequestMessage, frozen=True, kw_only=True):
    """POST /southbound/enrol. Since 1.1."""

    token: Annotated[str, Meta(min_length=16, max_length=128, pattern=r"(?#printable ASCII)\A[!-~]+\Z")]
    csr: Pem

    def __repr__(self) -> str:
        return "EnrolBody()"


class ReturnBody(RequestMessage, frozen=True, kw_only=True):
    """POST /southbound/return: a certificate that has expired, and proof of its key. Since 1.1."""

    certificate: Pem
    csr: Pem
    timestamp: Timestamp
    signature: Base64


class PollBody(RequestMessage, frozen=True, kw_only=True):
    """POST /southbound/poll: waits for the next request. Since 1.1."""

    wait_ms: Annotated[int, Meta(ge=0, le=25_000)]


class Policy(Message, frozen=True, kw_only=True):
    """The limits that the daemon sets an agent; `timeouts` are in milliseconds, by the method's last word."""

    timeouts: dict[str, Milliseconds]
    max_payload: Count
    max_output: Count | None = None
    heartbeat_ms: Milliseconds | None = None
    max_message: Count | None = None
    ack: bool = False


class HelloAnswer(AnswerMessage, frozen=True, kw_only=True):
    policy: Policy
    contract: ContractVersion | None = None


class TimeAnswer(AnswerMessage, frozen=True, kw_only=True):
    """A hint, which nobody proves: it tells a person that a clock is wrong, and sets none."""

    time: Timestamp


class EnrolAnswer(AnswerMessage, frozen=True, kw_only=True):
    """`ca` is the authority's certificate, `certificate` the agent's; both PEM."""

    agent_id: Ident
    certificate: Pem
    ca: Pem


class ActionAnswer(AnswerMessage, frozen=True, kw_only=True):
    """Base of what answers an action; `{"ok":true,"action_id":…}` by itself: done, nothing more to say."""

    action_id: Ident | None = None  # an agent of 1.0 may leave it out


class ExecAnswer(ActionAnswer, frozen=True, kw_only=True):
    """The program ran; that it failed is told by `exit_code`. A signal's number counts as 128 + number."""

    exit_code: Annotated[int, Meta(ge=0, le=255)]
    stdout: str
    stderr: str
    truncated: bool = False


class PushAnswer(ActionAnswer, frozen=True, kw_only=True):
    pass


class FileDiffAnswer(ActionAnswer, frozen=True, kw_only=True):
    """A unified diff, empty when the file is as wanted, or `binary`; the rest is there since 1.1."""

    patch: str
    differs: bool | None = None
    base_sha256: BaseHash | None = None
    binary: bool = False


class FileApplyAnswer(ActionAnswer, frozen=True, kw_only=True):
    applied: bool


class FileReadAnswer(ActionAnswer, frozen=True, kw_only=True):
    """`content_base64` where it was asked for, and there is such a file. Since 1.1."""

    sha256: BaseHash
    size: Count
    mode: Mode | None = None
    content_base64: Base64 | None = None

    def __repr__(self) -> str:
        return f"FileReadAnswer(sha256={self.sha256!r}, size={self.size})"


_Places = Annotated[tuple[str, ...], Meta(max_length=10_000)]


class FileListAnswer(ActionAnswer, frozen=True, kw_only=True):
    """Paths from the folder on. Since 1.1."""

    folders: _Places
    files: _Places
    left_out: Count = 0


class ObserveAnswer(ActionAnswer, frozen=True, kw_only=True):
    observation: dict[str, Any]


class ApplyAnswer(ActionAnswer, frozen=True, kw_only=True):
    result: dict[str, Any]


class OutcomesAnswer(ActionAnswer, frozen=True, kw_only=True):
    """`unknown`: what never reached the agent."""

    unknown: Annotated[tuple[Ident, ...], Meta(max_length=1024)]


class RenewAnswer(ActionAnswer, frozen=True, kw_only=True):
    certificate: Pem


class ActionError(ErrorAnswer, frozen=True, kw_only=True):
    """A refusal or failure of an action; a program that was ended says what it had printed."""

    stdout: str | None = None
    stderr: str | None = None
    truncated: bool = False


_REQUESTS: Family[SouthboundRequest] = Family(
    SouthboundRequest,
    tag="method",
    unknown="unknown_method",
    limit_bytes=MAX_PAYLOAD_BYTES,
    unique_names=True,
)


def decode_southbound_request(
    data: bytes | str, *, max_payload: int = MAX_PAYLOAD_BYTES
) -> SouthboundRequest:
    """Read a request of either side. Raises WireError: bad_json, bad_request, unknown_method, too_large."""
    return _REQUESTS.decode(data, limit_bytes=max_payload)


def decode_hello(data: bytes | str) -> Hello:
    """Read the first message of a connection. Raises WireError: hello_required for another method."""
    request = decode_southbound_request(data)
    if not isinstance(request, Hello):
        method = request.__struct_config__.tag
        raise WireError("hello_required", f"{method} came before hello", hint="send hello first")
    return request
