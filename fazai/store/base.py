"""Protocol of the ledger: what the engine remembers of runs, actions and targets.

`factory.open_store` opens the store that a place names; the embedded one is in `sqlite/`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from fazai.model import Change
from fazai.timestamps import format_time

#: How long a lease lasts when nobody renews it. The block that holds it does, three times as often.
LEASE_S = 60.0


@dataclass(frozen=True, slots=True)
class Run:
    """One invocation of the reconciler. Times are seconds since the epoch, UTC."""

    run_id: str
    command: str
    sources: tuple[str, ...]
    user: str
    host: str
    pid: int
    started: float
    finished: float | None = None
    exit_code: int | None = None
    summary: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Action:
    """One change being carried out, without its secrets (`outcome.mask_change`). What the store keeps of
    the change: target, kind, identity, verb, before, after, ref."""

    action_id: str
    run_id: str
    change: Change
    started: float = 0.0
    finished: float | None = None
    status: str = "begun"  # begun, done, failed
    error: str = ""
    box: str = ""  # what the target is (`Provider.box_of`); its name when not given
    token: int = 0  # of the lease under which it begins; 0: of none. It is not read back.


@dataclass(frozen=True, slots=True)
class Holder:
    """Holder of a box: its run, and what that calls the box. Times are seconds since the epoch, UTC.
    `expires`: when another run may take the box although this one has not let go of it; None for one of
    release 0.1.0: never."""

    run: str
    pid: int
    host: str
    user: str
    since: float
    expires: float | None = None
    target: str = ""
    token: int = 0

    @property
    def duration(self) -> str:
        """The time since which the box is held and that until which it will be, as messages say it."""
        until = "" if self.expires is None else f", its lease lasts until {format_time(self.expires)}"
        return f"since {format_time(self.since)}{until}"


class Lease(Protocol):
    """The right of one run, the `owner`, to write to a box.

    `token` is greater than those of all earlier leases of the box, so that a write with an older one can be
    refused. `expires`, in seconds since the epoch, UTC: when another run may take the box although the owner
    has not let go of it. The block that holds the lease renews it in time, and every action that begins does,
    where it has expired and nobody took the box; so it is lost only when another run did. A store that learns
    that the owner died, as from the kernel of one machine, frees the box at once."""

    @property
    def box(self) -> str: ...
    @property
    def owner(self) -> str: ...
    @property
    def token(self) -> int: ...
    @property
    def expires(self) -> float: ...

    async def renew(self) -> None:
        """Have the lease last its time from now on. Raises LockHeld where it was lost."""
        ...

    async def check(self) -> None:
        """Raise LockHeld where the lease was lost: to be asked before what no action precedes. Renews one
        that has expired."""
        ...


@dataclass(frozen=True, slots=True)
class TargetMemory:
    """Memory of one target, as earlier runs left it. `pending`: service -> run that saved but never
    activated. `unfinished`: actions whose end was never written. `generation` grows with each run that wrote.
    `holder`: who holds the box just now, when something is pending or unfinished."""

    adopted: frozenset[str] = frozenset()
    pending: Mapping[str, str] = field(default_factory=dict)
    unfinished: tuple[Action, ...] = ()
    generation: int = 0
    holder: Holder | None = None


class TargetState(NamedTuple):
    """State in which a run left a target: a status of `outcome.Status`, and the number of changes that it
    found and did not make. Time in seconds since the epoch, UTC."""

    status: str
    pending: int
    run_id: str
    time: float


class Store(Protocol):
    """The ledger. Every call may raise StateError. A write that is awaited is durable when it returns; a read
    sees all writes that were awaited before, also those of other processes. `box` is what a target is, `name`
    what the inventory calls it: under which earlier releases kept its state."""

    def close(self) -> None: ...

    async def run_begin(self, run: Run) -> None: ...
    async def run_end(self, run_id: str, exit_code: int, summary: Mapping[str, Any]) -> None: ...

    async def memory(self, box: str, name: str = "") -> TargetMemory:
        """Return what earlier runs left, read now."""
        ...

    def lease(
        self, box: str, run: Run, name: str = "", lease_s: float = LEASE_S
    ) -> AbstractAsyncContextManager[Lease]:
        """Hold the box for this run until the block ends or its process dies; one that lives and does not
        renew for `lease_s` may lose it. Raises LockHeld, which says who holds it since when."""
        ...

    async def action_begin(self, action: Action, services: Sequence[str]) -> None:
        """Record, before the write, the action and that these services will be saved but not active. Raises
        LockHeld where the lease of the action was lost: nothing is recorded then, or that the action failed
        where it was lost meanwhile."""
        ...

    async def actions_begin(self, begun: Sequence[tuple[Action, Sequence[str]]]) -> None:
        """Record several that are written at once, as `action_begin` does: all of them or none."""
        ...

    async def action_end(self, action_id: str, status: str, *, ref: str = "", error: str = "") -> None: ...
    async def activated(self, box: str, service: str, name: str = "") -> None: ...
    async def settle(self, box: str, name: str = "") -> None:
        """Settle what earlier runs left unfinished: the box was brought to its wanted state."""
        ...

    async def adopt(self, box: str, ref: str, kind: str, identity: str, run_id: str) -> None: ...
    def event(self, run_id: str, time: float, type_: str, target: str, data: Mapping[str, Any]) -> None:
        """Record an event with the next commit; not waited for."""
        ...

    async def history(self, limit: int) -> list[Run]: ...
    async def find_run(self, prefix: str) -> Run | None: ...
    async def actions(self, run_id: str) -> list[Action]: ...
    async def events(self, run_id: str) -> list[dict[str, Any]]: ...

    def ended(self, target: str, state: TargetState, known: str = "") -> None:
        """Record how a run left the target, with the next commit; not waited for. Of several plays of one run
        the worst counts, and what is older than what is known changes nothing. `known`: what the target is,
        to one owner of items on it, and that it has this name."""
        ...

    async def names(self, known: str) -> dict[str, float]:
        """Return the names that this has, and when a run that may write last used each."""
        ...

    async def owners(self, box: str) -> dict[str, tuple[str, ...]]:
        """Return the owners for whom runs worked on a box ("" where none was said), and what they called
        it."""
        ...

    async def left(self, target: str) -> str:
        """Return the status in which the newest run left the target; empty when none is known."""
        ...

    async def targets(self) -> dict[str, TargetState]:
        """Return how the newest run left each target. 5,000 of them: about 10 ms."""
        ...
