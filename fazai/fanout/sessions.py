"""Sessions (`model.Session`) that the engine gets in place of a provider's own: a program, a refusal, a list
of what would be done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Generic, Protocol, Self, TypeVar

from fazai.errors import DeviceError, FazaiError, Refused
from fazai.fanout.output import OutputKeeper
from fazai.masking import make_lazy_mask, secret_texts
from fazai.model import Change, Diff, Observation, Resource, Target, Verb
from fazai.outcome import ProgramResult

Access = TypeVar("Access")
#: Gets the output of a program as it comes: the stream's name, and bytes.
Hear = Callable[[str, bytes], None]
_EXIT_HINTS: Final = {
    126: "it is there, and this user may not run it",
    127: "is there such a program? there is no shell between: a pipe or a variable takes -- sh -c '…'",
}


@dataclass(frozen=True, slots=True)
class NothingSeen:
    """Observation of a session that does not look."""

    digest: str = ""


class StepSession:
    """Base of sessions of which each resource is one step that nothing takes back. Connects to nothing."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._done: set[tuple[str, str]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def observe(self, wanted: Sequence[Resource]) -> Observation:
        return NothingSeen()

    def diff(
        self,
        wanted: Sequence[Resource],
        seen: Observation,
        *,
        adopted: frozenset[str] = frozenset(),
        pending: frozenset[str] = frozenset(),
        prune: bool = False,
    ) -> Diff:
        left = [each for each in wanted if (each.kind, each.identity) not in self._done]
        return Diff(tuple(map(self.step_for, left)), len(wanted) - len(left))

    def step_for(self, resource: Resource) -> Change:
        """Return the change that stands for a resource."""
        verb = Verb.RUN if resource.kind == "host.command" else Verb.CREATE
        name, fields = resource.identity, resource.fields
        return Change(self._target.name, resource.kind, name, verb, {}, fields, ref=name)

    async def write(self, change: Change) -> str:
        raise DeviceError(f"nothing writes {change.kind} {change.identity}", where=change.where)

    def inverse(self, change: Change, ref: str) -> Change | None:
        return None

    async def hold(self) -> None:
        pass

    async def activate(self, service: str) -> None:
        pass

    async def probe(self) -> None:
        pass

    async def verify(self, changes: Sequence[Change]) -> list[FazaiError]:
        return []


class RefusedSession(StepSession):
    """Session on a target that is not asked: the guard's sentence is its answer."""

    def __init__(self, target: Target, refusal: Refused) -> None:
        super().__init__(target)
        self._refusal = refusal

    def diff(self, wanted: Sequence[Resource], seen: Observation, **_: object) -> Diff:
        first = self.step_for(wanted[0])
        return Diff(refused=((first, self._refusal),))


class AccessSession(StepSession, Generic[Access]):
    """Base of sessions on a way to their target, which is open as long as they are."""

    def __init__(self, target: Target, access: AbstractAsyncContextManager[Access]) -> None:
        super().__init__(target)
        self._access = access
        self._opened: Access | None = None

    @property
    def _way(self) -> Access:
        assert self._opened is not None
        return self._opened

    async def __aenter__(self) -> Self:
        self._opened = await self._access.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._access.__aexit__(kind, error, trace)


class ProgramAccess(Protocol):
    """The way of a program to one target: SSH, this machine, an agent."""

    async def run_program(
        self,
        argv: Sequence[str],
        *,
        hear: Hear,
        timeout_s: float | None = None,
        folder: str | None = None,
        stdin: bytes | None = None,
    ) -> int:
        """Run a program to its end, and return its exit status. Raises Unreachable where it was not sent,
        TimedOut, Unsure, Refused, DeviceError."""
        ...


@dataclass(frozen=True, slots=True)
class Program:
    """The program that every target is to run. `shown` is its argv without secrets; its text form shows
    neither the real one nor `stdin`."""

    argv: tuple[str, ...] = field(repr=False)
    shown: tuple[str, ...]
    timeout_s: float | None = None
    folder: str | None = None
    stdin: bytes | None = field(default=None, repr=False)


class ProgramSession(AccessSession[ProgramAccess]):
    """Session that runs one program; `keep` gets its result, however it ended."""

    def __init__(
        self,
        target: Target,
        program: Program,
        access: AbstractAsyncContextManager[ProgramAccess],
        make_keeper: Callable[[Callable[[str], str], Callable[[str, str], None]], OutputKeeper],
        keep: Callable[[str, ProgramResult], None],
    ) -> None:
        super().__init__(target, access)
        self._program, self._keep = program, keep
        self._make_keeper = make_keeper
        self._say: Callable[[str, str], None] = lambda stream, text: None

    def listen(self, say: Callable[[str, str], None]) -> None:
        """Hand on what the program prints, line by line (`model.Talking`)."""
        self._say = say

    async def write(self, change: Change) -> str:
        """Run the program. Raises DeviceError when it failed, and what `run_program` raises."""
        mask = make_lazy_mask(lambda: secret_texts(self._target.options))
        keeper, program = self._make_keeper(mask, self._say), self._program
        status: int | None = None
        try:
            status = await self._way.run_program(
                program.argv,
                hear=keeper.hear,
                timeout_s=program.timeout_s,
                folder=program.folder,
                stdin=program.stdin,
            )
        finally:
            self._keep(self._target.name, keeper.result(status))
        if status:
            text = f"{program.shown[0]}: exit status {status}"
            raise DeviceError(text, where=self._target.name, hint=_EXIT_HINTS.get(status))
        self._done.add((change.kind, change.identity))
        return change.ref
