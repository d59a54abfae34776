"""A session on one host (`model.Session`): one shell, one question for all resources, one block a change."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from fazai.errors import DeviceError, FazaiError, Unreachable, Unsure
from fazai.hosts import planning
from fazai.hosts.faults import failed, unmasked
from fazai.hosts.kind import Act, Answers, HostKind, Want
from fazai.hosts.questions import Question
from fazai.hosts.script import observe_script, read_answers
from fazai.hosts.shell import Channel, Ended, Listener, Result, Shell
from fazai.model import Change, Diff, Resource, Target, Verb

__all__ = ["HostSession", "Seen"]


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen: the items by resource (None: not there), or why one could not be seen."""

    items: Mapping[tuple[str, str], Mapping[str, Any] | FazaiError | None]

    @property
    def digest(self) -> str:
        text = "\0".join(f"{key}{_stable(item)}" for key, item in sorted(self.items.items()))
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _stable(item: Mapping[str, Any] | FazaiError | None) -> str:
    if not isinstance(item, Mapping):
        return repr(item)
    return repr([(k, getattr(v, "sha256", None) or repr(v)) for k, v in sorted(item.items())])


class HostSession:
    """`start` opens the shell; it is called once, when the host is first looked at."""

    def __init__(
        self,
        target: Target,
        kinds: Mapping[str, HostKind],
        start: Callable[[], Awaitable[Channel]],
        *,
        timeout_s: float,
        root: str = "",
    ) -> None:
        self._target = target
        self._kinds = kinds
        self._start = start
        self._timeout_s = timeout_s
        self._root = root.rstrip("/")
        self._channel: Channel | None = None
        self._shell: Shell | None = None
        self._seen: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._wanted: dict[tuple[str, str], Resource] = {}

    @property
    def round_trips(self) -> int:
        """Blocks that were sent so far."""
        return self._shell.blocks if self._shell is not None else 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._channel is not None:
            await self._channel.close()
        self._channel = self._shell = None

    # -- looking ----------------------------------------------------------------------------------------

    async def observe(self, wanted: Sequence[Resource]) -> Seen:
        """One block that answers for all resources; a second one for the content of what differs."""
        refused = {(r.kind, r.identity): self._no_machine(r) for r in wanted if self._rootless(r)}
        wants = [Want(r, self._at) for r in wanted if (r.kind, r.identity) not in refused]
        answers: dict[Question, Any] = {}
        await self._ask(answers, (q for want in wants for q in self._kinds[want.resource.kind].ask(want)))
        more: list[Question] = []
        items: dict[tuple[str, str], Mapping[str, Any] | FazaiError | None] = {**refused}
        for want in wants:
            try:
                more += self._kinds[want.resource.kind].more(want, answers)
            except DeviceError as error:
                items[want.resource.kind, want.resource.identity] = error
        await self._ask(answers, more)
        for want in wants:
            key = want.resource.kind, want.resource.identity
            if key not in items:
                items[key] = self._read(want, answers)
            self._wanted[key] = want.resource
        self._seen.update({key: item for key, item in items.items() if isinstance(item, Mapping)})
        return Seen(items)

    def _rootless(self, resource: Resource) -> bool:
        return bool(self._root) and self._kinds[resource.kind].machine

    def _no_machine(self, resource: Resource) -> FazaiError:
        return DeviceError(
            f"{resource.kind} {resource.identity}: a folder (root: {self._root}) has no such thing",
            where=resource.mark or resource.identity,
            hint="declare it for a machine, without root:",
        )

    def _read(self, want: Want, answers: Answers) -> Mapping[str, Any] | FazaiError | None:
        try:
            return self._kinds[want.resource.kind].read(want, answers)
        except DeviceError as error:
            return error

    async def _ask(self, answers: dict[Question, Any], questions: Iterable[Question]) -> None:
        """Ask what was not answered yet."""
        fresh = [q for q in dict.fromkeys(questions) if q not in answers]
        if not fresh and self._shell is not None:
            return
        result = await self._run(observe_script(fresh))
        assert self._shell is not None
        answers.update(read_answers(fresh, b"\n" + result.out, self._shell.nonce, self._target.name))

    def diff(
        self,
        wanted: Sequence[Resource],
        seen: Any,
        *,
        adopted: frozenset[str] = frozenset(),
        pending: frozenset[str] = frozenset(),
        prune: bool = False,
    ) -> Diff:
        """Pure; nothing of a host is pruned: only what is declared is managed."""
        wants = [Want(resource, self._at) for resource in wanted]
        return planning.work_out(self._target.name, self._kinds, wants, seen.items, pending)

    # -- writing ----------------------------------------------------------------------------------------

    async def write(self, change: Change) -> str:
        """Carry out one change. Raises DeviceError with what the host said, Unreachable before anything was
        done, Unsure when the connection was cut while it was done."""
        key = change.kind, change.identity
        undone = change.note == planning.UNDONE
        resource = self._wanted.get(key)
        act = Act(
            verb=change.verb,
            identity=change.identity,
            before=change.before,
            after=change.after,
            have={} if change.verb is Verb.CREATE else {**self._seen.get(key, {}), **change.before},
            options={} if undone or resource is None else resource.fields,
            token=secrets.token_hex(8),
            at=self._at,
        )
        for block in self._kinds[change.kind].write(act):
            try:
                setup = f"fz_tmp={planning.word(block.tmp)}" if block.tmp else "fz_tmp="
                result = await self._run(block.script, setup=setup, timeout_s=block.timeout_s)
            except Unreachable as error:
                text = f"{error.message}, while {change.kind} {change.identity} was written"
                raise Unsure(text, where=change.where, hint="run it again: it looks first") from None
            if result.exit:
                raise failed(change, result, unmasked(change))
        return change.ref

    def inverse(self, change: Change, ref: str) -> Change:
        """Create and delete swap; what was changed goes back."""
        verb = {Verb.CREATE: Verb.DELETE, Verb.DELETE: Verb.CREATE}.get(change.verb, change.verb)
        return replace(
            change, verb=verb, before=change.after, after=change.before, ref=ref, note=planning.UNDONE
        )

    async def hold(self) -> None:
        """Our connection stays open; nothing to do."""

    async def activate(self, service: str) -> None:
        raise NotImplementedError

    async def probe(self) -> None:
        raise NotImplementedError

    async def verify(self, changes: Sequence[Change]) -> list[FazaiError]:
        """What was written was read back already; a host has no second state."""
        return []

    # -- the shell --------------------------------------------------------------------------------------

    def _at(self, path: str) -> str:
        return f"{self._root}{path}" if self._root else path

    async def _run(
        self,
        script: str | Iterable[bytes],
        *,
        setup: str = "",
        timeout_s: float | None = None,
        listener: Listener | None = None,
    ) -> Result:
        if self._shell is None:
            self._channel = await self._start()
            self._shell = Shell(self._channel, self._target.name)
        seconds = timeout_s or self._timeout_s
        try:
            return await self._shell.run(script, timeout_s=seconds, setup=setup, listener=listener)
        except TimeoutError:
            assert self._channel is not None
            await self._channel.close()
            text = f"{self._target.name}: no answer within {seconds:g} s"
            where = self._target.where("timeout")
            raise Unreachable(text, stage="answer", where=where, hint="a larger timeout:") from None
        except Ended as ended:
            assert self._channel is not None
            raise self._channel.refusal(ended.err.decode("utf-8", "replace").strip()) from None
