"""One target: observe, diff, and if it may be written, lock, journal, write, read back, activate, probe,
verify; and undo what was written when a step fails."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from fazai.errors import (
    Errors,
    FazaiError,
    Interrupted,
    Refused,
    StateError,
    Unreachable,
    Unsure,
    VerifyError,
)
from fazai.model import Activate, Change, Diff, Joining, Provider, Session, Step, Talking, TargetWork, Verb
from fazai.outcome import ActionOutcome, Status, TargetOutcome, change_record, record
from fazai.plan import Expected
from fazai.store.base import Action, Run, Store, TargetMemory

__all__ = ["TargetRun"]


@dataclass(slots=True)
class TargetRun:
    """The state of one target in one run; `reconcile` moves it on, `outcome` freezes it."""

    item: TargetWork
    play: str
    run: Run
    store: Store
    provider: Provider
    event: Callable[[str, str, Mapping[str, object]], None]
    check: bool
    expected: Expected | None = None
    deletable: frozenset[str] | None = None
    status: Status = Status.CONVERGED
    actions: list[ActionOutcome] = field(default_factory=list)
    unchanged: int = 0
    activated: list[str] = field(default_factory=list)
    planned: tuple[str, ...] = ()
    not_activated: str = ""
    errors: list[FazaiError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    observed: str = ""
    _earlier: frozenset[str] = frozenset()  # services that an earlier run saved and never activated
    _stop: bool = False
    _busy: bool = False

    # -- what the engine asks ---------------------------------------------------------------------------

    def interrupt(self) -> bool:
        """Stop after the action in flight; true when nothing is in flight, so that the task may be ended."""
        self._stop = True
        return not self._busy

    def fail(self, status: Status, error: FazaiError) -> None:
        self.status = status
        self.errors.append(error)

    def outcome(self, duration_s: float) -> TargetOutcome:
        return TargetOutcome(
            target=self.item.target.name,
            provider=self.item.target.provider,
            play=self.play,
            status=self.status,
            resources=len(self.item.resources),
            actions=tuple(self.actions),
            unchanged=self.unchanged,
            activated=tuple(self.activated),
            errors=tuple(self.errors),
            notes=tuple(self.notes),
            duration_s=duration_s,
            observed=self.observed,
            activations=self.planned,
            not_activated=self.not_activated,
        )

    # -- the line ---------------------------------------------------------------------------------------

    async def reconcile(self) -> None:
        """Bring the target to its wanted state. Raises FazaiError; what was done stands in the actions."""
        name = self.item.target.name
        async with self.provider.connect(self.item.target) as session:
            if isinstance(session, Talking):
                session.listen(self._hear)
            memory = self.store.memory(name)
            diff = await self._look(session, memory)
            if not self._writable(diff):
                return
            if not diff.steps:
                if memory.unfinished:
                    await self.store.settle(name)
                return
            with self.store.lock(name, self.run):
                fresh = self.store.memory(name)
                if fresh.generation != memory.generation:  # somebody wrote between our look and our lock
                    self.actions.clear()
                    diff = await self._look(session, fresh)
                    if not self._writable(diff) or not diff.steps:
                        return
                await self._carry_out(session, diff)

    async def _look(self, session: Session, memory: TargetMemory) -> Diff:
        seen = await session.observe(self.item.wanted)
        diff = session.diff(
            self.item.wanted,
            seen,
            adopted=memory.adopted,
            pending=frozenset(memory.pending),
            prune=self.item.whole,
        )
        self.observed = seen.digest
        self._earlier = frozenset(memory.pending)
        self.unchanged = diff.unchanged
        self.planned = tuple(step.service for step in diff.steps if isinstance(step, Activate))
        self.notes = [*_found(memory, self.check), *diff.notes]
        if self.expected is not None:
            self.expected.check(self.item.target.name, seen.digest, diff)
        return diff

    def _writable(self, diff: Diff) -> bool:
        """Whether this run may carry the diff out; otherwise the status and the errors say why not."""
        self.errors += diff.errors
        for change, error in diff.refused:
            self.actions.append(ActionOutcome(change, "refused", error=error))
            self.errors.append(error)
        if diff.errors:
            self.status = Status.FAILED
        elif diff.refused:
            self.status = Status.REFUSED
        elif not diff.steps:
            return not self.check
        elif self.check:
            self.status = Status.PENDING
        elif self.item.target.mode != "write":
            self.status = Status.REFUSED
            self.errors.append(_read_only(self.item, len(diff.changes)))
        elif unasked := _unasked(diff, self.deletable):
            self.status = Status.REFUSED
            self.errors.append(unasked)
        else:
            return True
        blocked = self.status is not Status.PENDING
        if blocked and diff.changes and (diff.errors or diff.refused):
            self.notes.append("nothing is written to it: a target changes as a whole or not at all")
        self.actions += [ActionOutcome(change, "left" if blocked else "planned") for change in diff.changes]
        for action in self.actions:
            self._say("change", action.change, status=action.status)
        return False

    async def _carry_out(self, session: Session, diff: Diff) -> None:
        done = _Done()
        try:
            await self._write_all(session, diff, done)
            with self._in_flight():
                await self._finish(session, diff, done)
        except Interrupted as error:
            self.status = Status.INTERRUPTED
            self.errors.append(error)
            self._left(diff, done)
            return
        except FazaiError as error:
            with self._in_flight():
                await self._failed(session, error, diff, done)
            return
        self.status = Status.CHANGED
        await self.store.settle(self.item.target.name)

    async def _write_all(self, session: Session, diff: Diff, done: _Done) -> None:
        """Every change, and the activations that later changes need."""
        rest: Sequence[Step] = diff.steps[: _writes_end(diff)]
        while rest:
            if self._stop:
                count = len(done.changes)
                text = f"interrupted: {count} of {len(diff.changes)} changes are saved and not yet activated"
                hint = "run it again: it goes on from there"
                raise Interrupted(text if count else "interrupted", where=self.item.target.name, hint=hint)
            changes = list(_changes(rest))
            with self._in_flight():
                count = await self._write(session, changes, done) if changes else 1
                if isinstance(rest[0], Activate):
                    await session.hold()
                    await self._activate(session, rest[0].service)
            rest = rest[count:]

    async def _write(self, session: Session, changes: Sequence[Change], done: _Done) -> int:
        """The first of these, or as many as the session joins; returns how many."""
        count = session.join(changes) if isinstance(session, Joining) and len(changes) > 1 else 1
        if isinstance(session, Joining) and count > 1:
            await self._act_joined(session, changes[:count], done)
            return count
        try:
            ref = await self._act(session, changes[0])
        except (Unreachable, Unsure):
            done.changes.append((changes[0], changes[0].ref))  # maybe it was done: undoing it is harmless
            raise
        done.changes.append((changes[0], ref))
        return 1

    async def _finish(self, session: Session, diff: Diff, done: _Done) -> None:
        """Read back, activate, probe, verify."""
        if done.changes:
            await self._read_back(session, done)
        rest = [s.service for s in diff.steps[_writes_end(diff) :] if isinstance(s, Activate)]
        if rest:
            await session.hold()
        for service in rest:
            await self._activate(session, service)
        if self.activated:
            await session.probe()
        problems = await session.verify([change for change, _ in done.changes])
        if problems:
            done.keep = True  # the configuration is as wanted and the target answers: do not take it back
            raise Errors(problems) if len(problems) > 1 else problems[0]
        for change, ref in done.changes:
            if change.adopts:
                await self.store.adopt(change.target, ref, change.kind, change.identity, self.run.run_id)

    async def _read_back(self, session: Session, done: _Done) -> None:
        """What was sent is read back and compared; a field that did not stick is an error with its name."""
        touched = {change.kind for change, _ in done.changes}
        wanted = [r for r in self.item.resources if r.kind in touched]
        wanted += self.item.handlers
        if touched - {
            r.kind for r in wanted if not r.listen
        }:  # something was pruned whose kind is not declared any more
            wanted = list(self.item.wanted)
        seen = await session.observe(wanted)
        adopted = self.store.memory(self.item.target.name).adopted
        adopted |= {ref for change, ref in done.changes if change.adopts}
        again = session.diff(wanted, seen, adopted=adopted, prune=self.item.whole)
        left: list[FazaiError] = [_not_stuck(change) for change in again.changes]
        left += again.errors
        left += [error for _, error in again.refused]
        if left:
            raise Errors(left) if len(left) > 1 else left[0]

    # -- actions ----------------------------------------------------------------------------------------

    async def _act(self, session: Session, change: Change, *, undo: bool = False) -> str:
        """One change, journaled before and after. Returns the item's ref."""
        action = self._action(change, undo)
        begun = time.monotonic()
        try:
            await self.store.action_begin(action, change.activates)
        except StateError:
            if not undo:  # nothing is written that the journal does not know; but what is, is taken back
                raise
        try:
            ref = await session.write(change)
        except FazaiError as error:
            await self.store.action_end(action.action_id, "failed", error=str(error))
            if not undo:
                self._not_done(change, action, error, time.monotonic() - begun)
            raise
        await self.store.action_end(action.action_id, "done", ref=ref)
        if not undo:
            self._is_done(change, action, time.monotonic() - begun)
        return ref

    async def _act_joined(self, session: Joining, changes: Sequence[Change], done: _Done) -> None:
        """Several changes that the session carries out at once; all are journaled before the first."""
        actions = [self._action(change, undo=False) for change in changes]
        begun = time.monotonic()
        await asyncio.gather(
            *(self.store.action_begin(a, c.activates) for a, c in zip(actions, changes, strict=True))
        )
        refs, error = await session.write_joined(changes)
        each_s = (time.monotonic() - begun) / len(changes)
        for change, action, ref in zip(changes, actions, refs, strict=False):
            done.changes.append((change, ref))
            await self.store.action_end(action.action_id, "done", ref=ref)
            self._is_done(change, action, each_s)
        if error is None:
            return
        count = len(refs)
        for action in actions[count + 1 :]:
            await self.store.action_end(action.action_id, "left", error="the one before it failed")
        await self.store.action_end(actions[count].action_id, "failed", error=str(error))
        self._not_done(changes[count], actions[count], error, each_s)
        if isinstance(error, Unreachable | Unsure):  # maybe they were done: undoing them is harmless
            done.changes += [(change, change.ref) for change in changes[count:]]
        else:  # what the journal was told of the rest is not to be activated
            begun_for = {s for change in changes[: count + 1] for s in change.activates}
            left = {s for change in changes[count + 1 :] for s in change.activates}
            before = {s for change, _ in done.changes for s in change.activates}
            await self._forget(left - begun_for - before - self._earlier)
        raise error

    def _action(self, change: Change, undo: bool) -> Action:
        return Action(
            action_id=_action_id(self.run.run_id, change, undo),
            run_id=self.run.run_id,
            target=change.target,
            kind=change.kind,
            identity=change.identity,
            verb=str(change.verb),
            before=record(change.before),
            after=record(change.after),
            ref=change.ref,
        )

    def _is_done(self, change: Change, action: Action, duration_s: float) -> None:
        self.actions.append(ActionOutcome(change, "done", action.action_id, None, duration_s))
        self._say("change", change, status="done", action_id=action.action_id)

    def _not_done(self, change: Change, action: Action, error: FazaiError, duration_s: float) -> None:
        self.actions.append(ActionOutcome(change, "failed", action.action_id, error, duration_s))
        self._say("change", change, status="failed", error=str(error))

    async def _activate(self, session: Session, service: str) -> None:
        try:
            await session.activate(service)
        except FazaiError:
            self.not_activated = service
            raise
        await self.store.activated(self.item.target.name, service)
        self.activated.append(service)
        self.event("activate", self.item.target.name, {"service": service})

    # -- when it goes wrong -----------------------------------------------------------------------------

    async def _failed(self, session: Session, error: FazaiError, diff: Diff, done: _Done) -> None:
        self.status = Status.UNREACHABLE if isinstance(error, Unreachable) else Status.FAILED
        self.errors.append(error)
        if not done.keep and done.changes:
            await self._undo(session, done)
        self._left(diff, done)

    async def _undo(self, session: Session, done: _Done) -> None:
        """Take back what this run wrote, backwards, and activate again what was activated."""
        name, total = self.item.target.name, len(done.changes)
        running = list(dict.fromkeys(self.activated))
        undone: list[Change] = []
        lasting: list[Change] = []
        try:
            for change, ref in reversed(done.changes):
                inverse = session.inverse(change, ref)
                if inverse is None:
                    lasting.append(change)
                    continue
                await self._act(session, inverse, undo=True)
                undone.append(change)
            for service in running:
                await session.activate(service)
            await self._forget({s for change, _ in done.changes for s in change.activates} - self._earlier)
            if running:
                await session.probe()
        except FazaiError as error:
            self.errors.append(error)
            if left := total - len(undone) - len(lasting):
                self.notes.append(f"{left} of {total} changes could not be taken back")
        self.notes += [f"{c.kind} {c.identity} cannot be taken back: it stays done" for c in lasting]
        changes = [id(change) for change in undone]
        self.actions = [
            replace(a, status="undone") if a.status == "done" and id(a.change) in changes else a
            for a in self.actions
        ]
        if undone:
            self.notes.append(f"{len(undone)} change{'s' if len(undone) > 1 else ''} taken back")
        self.event("undo", name, {"undone": len(undone), "kept": total - len(undone)})

    async def _forget(self, services: set[str]) -> None:
        """Saved and running are one again. A journal that cannot be written keeps them: the next run then
        activates once more, which changes nothing."""
        for service in services:
            with suppress(StateError):
                await self.store.activated(self.item.target.name, service)

    def _left(self, diff: Diff, done: _Done) -> None:
        reached = {id(action.change) for action in self.actions}
        self.actions += [ActionOutcome(c, "left") for c in diff.changes if id(c) not in reached]

    @contextmanager
    def _in_flight(self) -> Iterator[None]:
        """What is inside is finished when the run is interrupted once."""
        before, self._busy = self._busy, True
        try:
            yield
        finally:
            self._busy = before

    def _hear(self, stream: str, chunk: str) -> None:
        """What a command on the target prints."""
        self.event("exec_log", self.item.target.name, {"stream": stream, "chunk": chunk})

    def _say(self, type_: str, change: Change, **more: object) -> None:
        self.event(type_, change.target, {**change_record(change), **more})


@dataclass(slots=True)
class _Done:
    """What this run wrote on the target, in order, with the refs; `keep`: not to be taken back."""

    changes: list[tuple[Change, str]] = field(default_factory=list)
    keep: bool = False


def _changes(steps: Sequence[Step]) -> Iterator[Change]:
    """Those before the first activation."""
    for step in steps:
        if not isinstance(step, Change):
            return
        yield step


def _writes_end(diff: Diff) -> int:
    """Where the last change stands; behind it only activations follow."""
    return max((i for i, step in enumerate(diff.steps, 1) if isinstance(step, Change)), default=0)


def _found(memory: TargetMemory, check: bool) -> list[str]:
    """What an earlier run left behind, in sentences."""
    then = "apply activates them" if check else "this run activates them"
    notes = [
        f"run {run_id} saved changes of {service} and never activated them; {then}"
        for service, run_id in memory.pending.items()
    ]
    for action in memory.unfinished:
        notes.append(
            f"run {action.run_id} was cut off during {action.verb} of {action.kind} {action.identity};"
            " the target was looked at again"
        )
    return notes


def _unasked(diff: Diff, deletable: frozenset[str] | None) -> Refused | None:
    """What would be deleted though nobody was asked: when the question was put it was not there, or the
    target could not be reached."""
    if deletable is None:
        return None
    for change in diff.changes:
        if change.verb is Verb.DELETE and change.where not in deletable:
            what = f"{change.kind} {change.identity} would be deleted, and nobody was asked about it"
            return Refused(what, where=change.target, hint="run it again to be asked, or say --yes")
    return None


def _read_only(item: TargetWork, count: int) -> Refused:
    target = item.target
    changes = f"{count} change{'' if count == 1 else 's'} pending" if count else "an activation pending"
    return Refused(
        f"{target.name} is read-only, {changes}",
        where=target.where("mode"),
        hint="to allow writing: mode: write",
    )


def _not_stuck(change: Change) -> VerifyError:
    fields = ", ".join(
        f"{name} reads {record(change.before.get(name))!r}, {record(change.after[name])!r} was sent"
        for name in change.after
    )
    known = {Verb.DELETE: "is still there", Verb.CREATE: "is not there"}
    known[Verb.RUN] = "what it is run for still is not so"
    what = known.get(change.verb, fields or change.note)
    return VerifyError(f"after writing, {change.kind} {change.identity}: {what}", where=change.where)


def _action_id(run_id: str, change: Change, undo: bool) -> str:
    """Idempotent: a hash of run, target, resource and desired content (design.md)."""
    parts = [
        run_id,
        change.target,
        change.kind,
        change.identity,
        str(change.verb),
        record(change.after),
        undo,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]
