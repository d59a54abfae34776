"""Section 3 of SPEC.md, planned: remote agents, over a WebSocket with client certificates or signed HTTP.

The contract fixes these messages, and no process speaks them yet.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from fazai.wire.base import (
    MAX_PAYLOAD_BYTES,
    AnswerMessage,
    Count,
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


class Hello(RequestMessage, frozen=True, kw_only=True, tag_field="method", tag="hello"):
    """The handshake. `version` is the agent's own, `contract` the version of SPEC.md that it speaks."""

    agent_id: Ident
    name: Label
    version: AgentVersion
    capabilities: Annotated[tuple[Ident, ...], Meta(max_length=64)]
    timestamp: Timestamp
    contract: ContractVersion | None = None


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


class FileDiff(_FileRequest, frozen=True, kw_only=True, tag="file.diff"):
    """`want` is the whole wanted text; it may hold a secret, so the text form leaves it out."""

    want: str

    def __repr__(self) -> str:
        return f"FileDiff(action_id={self.action_id!r}, path={self.path!r})"


class FileApply(_FileRequest, frozen=True, kw_only=True, tag="file.apply"):
    """`patch` is what file.diff answered, unchanged; the text form leaves it out."""

    patch: str
    mode: Mode | None = None
    owner: Owner | None = None

    def __repr__(self) -> str:
        return f"FileApply(action_id={self.action_id!r}, path={self.path!r}, mode={self.mode!r})"


SouthboundRequest = Hello | CommandExec | TelemetryPush | FileDiff | FileApply


class Policy(Message, frozen=True, kw_only=True):
    """The limits that the daemon sets an agent; `timeouts` are in milliseconds, by the method's last word."""

    timeouts: dict[str, Milliseconds]
    max_payload: Count
    max_output: Count | None = None
    heartbeat_ms: Milliseconds | None = None


class HelloAnswer(AnswerMessage, frozen=True, kw_only=True):
    policy: Policy
    contract: ContractVersion | None = None


class _ActionAnswer(AnswerMessage, frozen=True, kw_only=True):
    action_id: Ident | None = None


class ExecAnswer(_ActionAnswer, frozen=True, kw_only=True):
    """The program ran; that it failed is told by `exit_code`. A signal's number counts as 128 + number."""

    exit_code: Annotated[int, Meta(ge=0, le=255)]
    stdout: str
    stderr: str
    truncated: bool = False


class PushAnswer(_ActionAnswer, frozen=True, kw_only=True):
    pass


class FileDiffAnswer(_ActionAnswer, frozen=True, kw_only=True):
    """A unified diff, empty when the file is as wanted."""

    patch: str


class FileApplyAnswer(_ActionAnswer, frozen=True, kw_only=True):
    applied: bool


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
