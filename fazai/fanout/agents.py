"""Programs and files through agents: `command.exec`, `file.diff` and `file.apply` of SPEC.md section 3.

The agent's own allow-list decides what it does of it. What carries the messages is handed in (`Relay`).
"""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeGuard

from fazai.errors import (
    AccessDenied,
    Cancelled,
    DeviceError,
    FazaiError,
    Moved,
    NotAvailable,
    Refused,
    TimedOut,
    Unreachable,
    Unsure,
)
from fazai.fanout.sessions import AccessSession, Hear
from fazai.model import Change, Diff, Observation, Resource, Target, Verb

_DEFAULT_S: Final = 60.0
#: What an answer may take beyond the time of the program: the way there and back, and ending it.
_GRACE_S: Final = 15.0
#: In base64 it is below the 64 MiB that one message may have.
_FILE_BYTES: Final = 47 * 1024 * 1024
_LOOKS: Final = ("file.diff", "file.read", "file.list")
_REFUSALS: Final = ("not_allowed", "forbidden", "refused")


class Relay(Protocol):
    """A connection to a daemon, through which agents are asked."""

    async def request(self, agent: str, message: Mapping[str, Any], timeout_s: float) -> Mapping[str, Any]:
        """Send a message to an agent, and return its answer; have it end what it does when nobody waits for
        that any more. Raises Unreachable: at the stage `connect` where the message was not sent, else where
        nobody knows what became of it; Refused, DeviceError."""
        ...


@dataclass(frozen=True, slots=True)
class FolderListing:
    """The folders and files below a folder, by their paths from there, and how many others are left out."""

    folders: tuple[str, ...]
    files: tuple[str, ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class FileLooked:
    """The agent's word on a file that may be fetched (`FileState`)."""

    type: str
    mode: int = 0
    size: int = 0
    sha256: str = ""
    unsafe: str = ""  # the agent refuses what cannot be trusted


class AgentAccess:
    """One agent for the programs and files of one run, an async context manager: `way` leads to the daemon.
    `run_key` makes the ids of its messages the run's own."""

    def __init__(
        self, agent: str, target: Target, run_key: str, way: AbstractAsyncContextManager[Relay]
    ) -> None:
        self.target = target
        self._agent, self._run_key, self._way = agent, run_key, way
        self._timeout_s = float(target.options.get("timeout") or _DEFAULT_S)
        self._relay: Relay | None = None
        self._numbers = itertools.count()
        self._replaced: set[str] = set()

    async def __aenter__(self) -> Self:
        self._relay = await self._way.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._way.__aexit__(kind, error, trace)

    async def run_program(
        self,
        argv: Sequence[str],
        *,
        hear: Hear,
        timeout_s: float | None = None,
        folder: str | None = None,
        stdin: bytes | None = None,
    ) -> int:
        """Have the agent run a program of its allow-list (`ProgramAccess`)."""
        seconds = timeout_s or self._timeout_s
        message: dict[str, Any] = {
            "method": "command.exec",
            "command": argv[0],
            "args": list(argv[1:]),
            "timeout": max(1, min(3_600_000, round(seconds * 1000))),
        }
        if folder is not None:
            message["cwd"] = folder
        if stdin is not None:
            message["stdin"] = self._as_text(stdin)
        answer = await self._ask(message, seconds, argv[0])
        for name in ("stdout", "stderr"):
            text = answer.get(name)
            if isinstance(text, str) and text:
                hear(name, text.encode("utf-8", "surrogatepass"))
        if answer.get("ok") is not True:
            raise self._error_of(answer, argv[0], seconds)
        status = answer.get("exit_code")
        if not isinstance(status, int) or isinstance(status, bool) or not 0 <= status <= 255:
            raise self._unsure_error(argv[0], "the agent's answer does not say how it ended")
        return status

    async def compare_file(self, path: str, content: bytes, mode: str, owner: str) -> tuple[bool, str]:
        """Return whether the file there is another one than this, also by mode or owner where these are not
        empty, and the hash of what is there ("absent": nothing)."""
        attributes = _attributes(mode, owner)
        message = {"method": "file.diff", "path": path, "want_sha256": hashlib.sha256(content).hexdigest()}
        answer = await self._ask({**message, **attributes}, self._timeout_s, path)
        if _is_unknown_field(answer):  # only `file.apply` sends the content, unless the agent is older
            message = {"method": "file.diff", "path": path, "want_base64": _encode(content)}
            answer = await self._ask({**message, **attributes}, self._timeout_s, path)
        older = _is_unknown_field(answer)
        if older:
            answer = await self._ask(message, self._timeout_s, path)
        if answer.get("ok") is not True:
            raise self._error_of(answer, path, self._timeout_s)
        differs, base = answer.get("differs"), answer.get("base_sha256")
        if not isinstance(differs, bool) or not isinstance(base, str):
            hint = "an agent of contract 1.1 does: update it"
            text = f"the agent does not say what stands at {path}"
            raise NotAvailable(text, where=self.target.name, hint=hint)
        if older and not differs and path not in self._replaced:
            text = f"{path} has these bytes; its mode and owner an agent of this version does not compare"
            raise NotAvailable(text, where=self.target.name, hint="update it: fazai agents update")
        return differs, base

    async def replace_file(self, path: str, content: bytes, base: str, mode: str, owner: str) -> None:
        """Have the agent put a file in place, if what is there has the hash `base`."""
        message = {
            "method": "file.apply",
            "path": path,
            "content_base64": _encode(content),
            "base_sha256": base,
            **_attributes(mode, owner),
        }
        answer = await self._ask(message, self._timeout_s, path)
        if answer.get("ok") is not True:
            raise self._error_of(answer, path, self._timeout_s)
        if answer.get("applied") is not True:
            raise DeviceError(f"the agent did not write {path}", where=self.target.name)
        self._replaced.add(path)

    async def look(self, path: str) -> FileLooked:
        """Return what stands at a path (`FileAccess`)."""
        answer = await self._read(path, content=False)
        sha256, size, mode = answer.get("sha256"), answer.get("size"), answer.get("mode")
        if sha256 == "absent":
            return FileLooked("missing")
        if not isinstance(sha256, str) or not _is_count(size) or not isinstance(mode, str):
            raise self._no_file_error(path)
        try:
            return FileLooked("file", int(mode, 8) & 0o777, size, sha256)
        except ValueError:
            raise self._no_file_error(path) from None

    async def fetch_file(self, path: str, size: int, sha256: str, write: Callable[[bytes], object]) -> None:
        """Hand the bytes of a file to `write` (`FileAccess`)."""
        answer = await self._read(path, content=True)
        try:
            data = base64.b64decode(str(answer.get("content_base64", "")), validate=True)
        except ValueError:
            raise self._no_file_error(path) from None
        if len(data) != size or hashlib.sha256(data).hexdigest() != sha256:
            text = f"{path} is another one than when it was looked at"
            raise DeviceError(text, where=self.target.name, hint="run it again")
        write(data)

    async def list_folder(self, path: str) -> FolderListing:
        """Return what may be fetched below a folder (`FolderAccess`)."""
        answer = await self._ask_to_read({"method": "file.list", "path": path}, path)
        folders, files, left_out = answer.get("folders"), answer.get("files"), answer.get("left_out", 0)
        if not (_is_texts(folders) and _is_texts(files) and _is_count(left_out)):
            raise self._no_file_error(path)
        return FolderListing(tuple(folders), tuple(files), left_out)

    async def _read(self, path: str, *, content: bool) -> Mapping[str, Any]:
        return await self._ask_to_read({"method": "file.read", "path": path, "content": content}, path)

    async def _ask_to_read(self, message: dict[str, Any], path: str) -> Mapping[str, Any]:
        try:
            answer = await self._ask(message, self._timeout_s, path)
        except Refused as error:  # it was not even asked: it says that it does no such thing
            hint = "`files: [{root: FOLDER, read: true}]` in its agent.yml, then SIGHUP; or it is older"
            text = f"the agent of {self.target.name} hands out no file: {error.message}"
            raise Refused(text, where=self.target.name, hint=hint) from None
        if answer.get("ok") is not True:
            raise self._error_of(answer, path, self._timeout_s)
        return answer

    def _no_file_error(self, path: str) -> DeviceError:
        return DeviceError(f"the agent's answer does not say what stands at {path}", where=self.target.name)

    async def _ask(self, message: dict[str, Any], seconds: float, what: str) -> Mapping[str, Any]:
        """Send one message, with an id that this run has for nothing else; `what` is asked for."""
        assert self._relay is not None
        parts = f"{self._run_key}\0{self._agent}\0{self.target.name}\0{next(self._numbers)}"
        message["action_id"] = hashlib.sha256(parts.encode()).hexdigest()[:32]
        try:
            # deadline: the relay's, which is told of it
            return await self._relay.request(self._agent, message, seconds + _GRACE_S)
        except Unreachable as error:
            if error.stage == "connect" or message["method"] in _LOOKS:  # it changed nothing
                raise
            raise self._unsure_error(what, error.message) from None

    def _unsure_error(self, what: str, why: str) -> Unsure:
        text = f"it is not known what became of {what}: {why}"
        return Unsure(text, where=self.target.name, hint="look at the host before it is run again")

    def _as_text(self, data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError:
            text = "what a program reads through an agent is UTF-8 text, and --stdin is none"
            raise DeviceError(text, where=self.target.name, hint="copy it as a file: fazai cp") from None

    def _error_of(self, answer: Mapping[str, Any], what: str, seconds: float) -> FazaiError:
        """Return the error for an answer that is none: `what` was asked for."""
        code, said = str(answer.get("code") or ""), str(answer.get("error") or "it says no reason")
        where = self.target.name
        if code == "timeout" and "stdout" in answer:
            text = f"{what} did not end within {seconds:g} s, and was ended"
            return TimedOut(
                text, where=where, hint="a larger --timeout; the agent's own allow-list has one, too"
            )
        if code in ("interrupted", "timeout"):
            return self._unsure_error(what, said)
        if code in _REFUSALS:
            hint = "its own agent.yml says what is allowed; there: fazai agent check, then SIGHUP"
            return Refused(f"the agent refuses {what}: {said}", where=where, hint=hint)
        if code == "cancelled":
            return Cancelled(f"{what} was ended, as somebody else asked for that: {said}", where=where)
        if code == "conflict":
            return Moved(f"{what}: {said}", path=what, where=where, hint="run it again: it looks first")
        if code == "unauthorized":
            return AccessDenied(said, where=where)
        return DeviceError(f"{what}: {said}" + (f" ({code})" if code else ""), where=where)


def _is_texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_unknown_field(answer: Mapping[str, Any]) -> bool:
    return answer.get("code") == "bad_request" and "unknown field" in str(answer.get("error"))


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _attributes(mode: str, owner: str) -> dict[str, str]:
    return {name: value for name, value in (("mode", mode), ("owner", owner)) if value}


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


@dataclass(frozen=True, slots=True)
class FilesSeen:
    """An agent's word on each path: whether it differs, and the hash of what is there; or the error."""

    items: Mapping[str, tuple[bool, str] | FazaiError]

    @property
    def digest(self) -> str:
        parts = (f"{path}\0{seen}" for path, seen in sorted(self.items.items(), key=lambda item: item[0]))
        return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def is_plain_file(resource: Resource) -> bool:
    """Tell whether `file.apply` brings it: a file, and nothing of it that only a reconcile does."""
    fields = resource.fields
    by_group = fields.get("group") and not fields.get("owner")
    return resource.kind == "host.file" and not fields.get("backup") and not by_group


def _read_attributes(resource: Resource) -> tuple[str, str]:
    """Return the mode and the owner of a declared file, as messages have them; empty: not declared."""
    fields = resource.fields
    owner, group = str(fields.get("owner") or ""), str(fields.get("group") or "")
    return str(fields.get("mode") or ""), f"{owner}:{group}" if owner and group else owner


class AgentFileSession(AccessSession[AgentAccess]):
    """Session that brings files to an agent; each is verified by what the agent says of it afterwards."""

    def __init__(self, access: AgentAccess) -> None:
        super().__init__(access.target, access)
        self._wanted: dict[str, Resource] = {}
        self._bases: dict[str, str] = {}

    async def observe(self, wanted: Sequence[Resource]) -> Observation:
        """Compare each file with what is there. Raises Unreachable."""
        found: dict[str, tuple[bool, str] | FazaiError] = {}
        for resource in wanted:
            self._wanted[resource.identity] = resource
            try:
                self._check(resource)
                content, attributes = resource.fields["content"].data, _read_attributes(resource)
                path = resource.identity
                found[path] = await self._way.compare_file(path, content, *attributes)
            except Unreachable:
                raise
            except FazaiError as error:
                found[resource.identity] = error
        return FilesSeen(found)

    def _check(self, resource: Resource) -> None:
        """Refuse what an agent has no message for. Raises FazaiError."""
        hint = "over SSH, or with `reconcile:` in agent.yml and host.download"
        if resource.fields["content"].size > _FILE_BYTES:
            text = f"{resource.identity} is larger than the {_FILE_BYTES >> 20} MiB that an agent takes"
            raise NotAvailable(text, where=self._target.name, hint=hint)

    def diff(self, wanted: Sequence[Resource], seen: Observation, **_: object) -> Diff:
        assert isinstance(seen, FilesSeen)
        errors = tuple(each for each in seen.items.values() if isinstance(each, FazaiError))
        refused = tuple(
            (self.step_for(each), said)
            for each in wanted
            if isinstance(said := seen.items[each.identity], Refused)
        )
        steps: list[Change] = []
        for resource in wanted:
            item = seen.items[resource.identity]
            if not isinstance(item, FazaiError) and item[0]:
                self._bases[resource.identity] = item[1]
                steps.append(self.step_for(resource))
        others = tuple(each for each in errors if not isinstance(each, Refused))
        unchanged = len(wanted) - len(steps) - len(errors)
        return Diff(tuple(steps), unchanged, refused, others)

    def step_for(self, resource: Resource) -> Change:
        path, fields = resource.identity, resource.fields
        fresh = self._bases.get(path, "absent") == "absent"
        before = {} if fresh else {"content": f"sha256:{self._bases[path][:16]}…"}
        verb = Verb.CREATE if fresh else Verb.UPDATE
        return Change(self._target.name, resource.kind, path, verb, before, fields, ref=path)

    async def write(self, change: Change) -> str:
        """Put one file in place. Raises Moved where another hand was there, Unsure, Refused, DeviceError."""
        fields, path = self._wanted[change.identity].fields, change.identity
        attributes = _read_attributes(self._wanted[change.identity])
        await self._way.replace_file(path, fields["content"].data, self._bases[path], *attributes)
        return change.ref
