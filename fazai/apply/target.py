"""One target: observe, diff, and if it may be written, lock, journal, write, read back, activate, probe,
verify; and undo what was written when a step fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from fazai.apply.afterwards import find_undone_by_handlers, read_undone
from fazai.apply.boxes import BoxStore
from fazai.apply.progress import (
    TakenBack,
    Written,
    end_status,
    leading_changes,
    listen_to,
    resources_from,
    services_of,
)
from fazai.apply.sentences import (
    interrupted_error,
    later_notes,
    leftover_notes,
    make_action_id,
    not_stuck_error,
    read_only_error,
    unconfirmed_deletion,
)
from fazai.errors import (
    FazaiError,
    Interrupted,
    LockHeld,
    Moved,
    StateError,
    Unreachable,
    Unsure,
    count_noun,
    raise_found,
)
from fazai.model import (
    Activate,
    Change,
    Diff,
    Following,
    Joining,
    LookAgain,
    Provider,
    Rehearsing,
    Resource,
    Session,
    Step,
    TargetWork,
)
from fazai.outcome import ActionOutcome, TargetOutcome, TargetStatus, change_record, mask_change
from fazai.plan import Expected, check_later
from fazai.store.base import Action, Lease, Run, TargetMemory

_AS_A_WHOLE = "nothing is written to it: a target changes as a whole or not at all"


@dataclass(slots=True)
class TargetRun:
    """The state of one target in one run; `reconcile` moves it on, `outcome` freezes it."""

    item: TargetWork
    play: str
    run: Run
    store: BoxStore
    provider: Provider
    event: Callable[[str, str, Mapping[str, object]], None]
    emit_output: Callable[[str, str], None]  # what a command on it prints
    mask: Callable[[str], str]  # masks its secrets in what it says
    check: bool
    expected: Expected | None = None
    deletable: frozenset[str] | None = None
    status: TargetStatus = TargetStatus.CONVERGED
    actions: list[ActionOutcome] = field(default_factory=list)
    unchanged: int = 0
    activated: list[str] = field(default_factory=list)
    planned: tuple[str, ...] = ()
    not_activated: str = ""
    errors: list[FazaiError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    observed: str = ""
    _promised: Diff = field(default_factory=Diff)  # at the first look
    _planned: tuple[Change, ...] = ()  # at the last look
    _earlier: frozenset[str] = frozenset()  # services that an earlier run saved and never activated
    _lease: Lease | None = None  # once the target was taken
    _stop: bool = False
    _busy: bool = False

    def interrupt(self) -> bool:
        """Stop after the action in flight; true when nothing is in flight, so that the task may be ended."""
        self._stop = True
        return not self._busy

    def fail(self, status: TargetStatus, error: FazaiError) -> None:
        self.status = status
        self.errors.append(error)

    def outcome(self, duration_s: float) -> TargetOutcome:
        for error in self.errors:
            error.message = self.mask(error.message)
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
            notes=tuple(map(self.mask, self.notes)),
            duration_s=duration_s,
            observed=self.observed,
            activations=self.planned,
            not_activated=self.not_activated,
        )

    async def reconcile(self) -> None:
        """Bring the target to its wanted state. Raises FazaiError; what was done stands in the actions."""
        if await self._is_idle():
            return
        # deadline: the target's connect_timeout and timeout
        async with self.provider.connect(self.item.target) as session:
            listen_to(session, self.emit_output)
            memory = await self.store.memory()
            diff = await self._observe_and_diff(session, memory)
            if not self._may_write(diff):
                return
            if not diff.steps:
                if memory.unfinished:
                    await self.store.settle()
                return
            async with self.store.lease() as lease:
                self._lease = lease
                fresh = await self.store.memory()
                # somebody wrote between our look and our lock, or may have: whoever was on it as we looked
                if fresh.generation != memory.generation or memory.holder is not None:
                    self.actions.clear()
                    diff = await self._observe_and_diff(session, fresh)
                    if not self._may_write(diff) or not diff.steps:
                        return
                if not isinstance(session, Rehearsing) or await self._passes_rehearsal(session, diff):
                    await self._carry_out(session, diff)

    async def _is_idle(self) -> bool:
        """Return whether nothing is wanted and nothing is left over: the target is not contacted then."""
        wanted = self.item.resources or self.item.target.options.get("prune")
        planned = self.expected is not None and self.expected.observed  # it was looked at, and is to be again
        if wanted or planned:
            return False
        memory = await self.store.memory()
        return not (memory.pending or memory.unfinished)

    async def _observe_and_diff(self, session: Session, memory: TargetMemory) -> Diff:
        seen = await session.observe(self.item.wanted)
        wanted, pending, prune = self.item.wanted, frozenset(memory.pending), self.item.whole
        diff = session.diff(wanted, seen, adopted=memory.adopted, pending=pending, prune=prune)
        others = await self.store.other_names()
        diff = self.store.judged(diff, wanted, others)
        self.observed, self._promised, self._earlier = seen.digest, diff, pending
        self.notes = [*self.store.notes(memory, others), *leftover_notes(memory, self.check), *diff.notes]
        self.notes += await self.store.other_owners() if diff.refused else ()
        if self.check:
            self.notes += later_notes(diff)
        self._set_planned(diff, diff.unchanged)
        if self.expected is not None:
            self.expected.check(self.item.target.name, seen.digest, diff)
        return diff

    def _set_planned(self, diff: Diff, unchanged: int) -> None:
        self._planned = diff.changes
        self.unchanged = unchanged
        self.planned = tuple(step.service for step in diff.steps if isinstance(step, Activate))

    def _may_write(self, diff: Diff) -> bool:
        """Return whether this run may carry the diff out; otherwise the status and the errors say why not."""
        self.errors += diff.errors
        for change, error in diff.refused:
            self.actions.append(ActionOutcome(change, "refused", error=error))
            self.errors.append(error)
        if diff.errors or diff.refused:
            self.status = TargetStatus.FAILED if diff.errors else TargetStatus.REFUSED
        elif not diff.steps:
            return not self.check
        elif self.check:
            self.status = TargetStatus.PENDING
        elif self.item.target.mode != "write":
            self.fail(TargetStatus.REFUSED, read_only_error(self.item, len(diff.changes)))
        elif refused := unconfirmed_deletion(diff, self.deletable):
            self.fail(TargetStatus.REFUSED, refused)
        else:
            return True
        blocked = self.status is not TargetStatus.PENDING
        if blocked and diff.changes and (diff.errors or diff.refused):
            self.notes.append(_AS_A_WHOLE)
        self.actions += [ActionOutcome(change, "left" if blocked else "planned") for change in diff.changes]
        for action in self.actions:
            self._emit_change(action.change, status=action.status)
        return False

    async def _passes_rehearsal(self, session: Rehearsing, diff: Diff) -> bool:
        """Return whether the target accepts the changes; otherwise report all of its objections."""
        problems = await session.rehearse(diff.changes)
        if problems:
            self.status = TargetStatus.FAILED
            self.errors += problems
            self.notes.append(_AS_A_WHOLE)
            self._mark_left()
        return not problems

    async def _carry_out(self, session: Session, diff: Diff) -> None:
        done = Written()
        try:
            services = await self._write_all(session, diff, done)
            with self._in_flight():
                await self._finish_writing(session, services, done)
        except Interrupted as error:
            self.fail(TargetStatus.INTERRUPTED, error)
            self._mark_left()
            return
        except FazaiError as error:
            with self._in_flight():
                await self._handle_failure(session, error, done)
            return
        self.status = TargetStatus.CHANGED
        await self.store.settle()

    async def _write_all(self, session: Session, diff: Diff, done: Written) -> list[str]:
        """Carry out every change, and the activations that later changes need. Returns the other activations,
        which come last."""
        rest: Sequence[Step] = diff.steps
        while not all(isinstance(step, Activate) for step in rest):
            if self._stop:
                left = sum(isinstance(step, Change) for step in rest)
                handlers = getattr(self.provider, "handlers", False)
                raise interrupted_error(self.item, diff, len(done.changes), left, handlers)
            with self._in_flight():
                rest = await self._carry_out_next(session, rest, done)
        return [step.service for step in rest if isinstance(step, Activate)]

    async def _carry_out_next(self, session: Session, rest: Sequence[Step], done: Written) -> Sequence[Step]:
        """Carry out the first of these, or as many as go at once; returns those that are left."""
        first, begun = rest[0], len(done.changes)
        if isinstance(first, LookAgain):
            return await self._look_again(session, first.rest, done)
        if isinstance(first, Activate):
            await session.hold()
            await self._activate(session, first.service)
            return rest[1:]
        changes = list(leading_changes(rest))
        try:
            return rest[await self._write_next(session, changes, done) :]
        except Moved as error:
            change = changes[len(done.changes) - begun]
            since = [each for each, _ in done.changes[done.looked :]]
            if isinstance(session, Following) and await session.explains(error, since):
                return await self._look_again(session, resources_from(self.item.resources, change), done)
            self._record(change, self._new_action(change, undo=False), 0.0, error)
            raise

    async def _look_again(self, session: Session, rest: Sequence[Resource], done: Written) -> Sequence[Step]:
        """Observe and compare the resources that are left: the changes so far may have altered them."""
        wanted = (*rest, *self.item.handlers)
        diff = session.diff(wanted, await session.observe(wanted), pending=self._earlier | done.services)
        done.looked = len(done.changes)
        settled = len(self.item.resources) - len(rest) - len(done.changes)
        self._set_planned(diff, settled + diff.unchanged)
        self.notes += [note for note in diff.notes if note not in self.notes]
        if self.expected is not None:
            check_later(self.item.target.name, self._promised, diff.changes)
        raise_found([*diff.errors, *(error for _, error in diff.refused)])
        return diff.steps

    async def _write_next(self, session: Session, changes: Sequence[Change], done: Written) -> int:
        """Write the first of these, or as many as the session joins; return how many."""
        count = session.join(changes) if isinstance(session, Joining) and len(changes) > 1 else 1
        if isinstance(session, Joining) and count > 1:
            await self._write_joined(session, changes[:count], done)
            return count
        try:
            ref = await self._write_change(session, changes[0])
        except (Unreachable, Unsure):
            if session.inverse(changes[0], changes[0].ref) is not None:
                done.changes.append((changes[0], changes[0].ref))  # maybe it was done: undoing it is harmless
            raise
        done.changes.append((changes[0], ref))
        return 1

    async def _finish_writing(self, session: Session, services: Sequence[str], done: Written) -> None:
        """Read back, activate, probe, verify."""
        if done.changes:
            await self._read_back(session, done)
        if services:
            await session.hold()
        for service in services:
            await self._activate(session, service)
        if self.activated:
            await session.probe()
            self.notes += await find_undone_by_handlers(session, self.item, self.activated)
        problems = await session.verify([change for change, _ in done.changes])
        if problems:
            done.keep = True  # the configuration is as wanted and the target answers: do not take it back
            raise_found(problems)
        for change, ref in done.changes:
            if change.adopts:
                await self.store.adopt(change, ref)

    async def _read_back(self, session: Session, done: Written) -> None:
        """Read back what was sent and compare it; a field that did not stick is an error with its name."""
        changes = [change for change, _ in done.changes]
        touched = {change.kind for change in changes}
        wanted = [r for r in self.item.resources if r.kind in touched]
        if isinstance(session, Following):
            others = [r for r in self.item.resources if r.kind not in touched]
            wanted += session.affected(changes, others)
        wanted += self.item.handlers
        if touched - {r.kind for r in wanted if not r.listen}:  # pruned, of a kind not declared any more
            wanted = list(self.item.wanted)
        seen = await session.observe(wanted)
        adopted = (await self.store.memory()).adopted
        adopted |= {ref for change, ref in done.changes if change.adopts}
        again = session.diff(wanted, seen, adopted=adopted, prune=self.item.whole)
        not_stuck = [not_stuck_error(change) for change in again.changes]
        raise_found([*not_stuck, *again.errors, *(error for _, error in again.refused)])

    # -- actions ----------------------------------------------------------------------------------------

    async def _write_change(self, session: Session, change: Change, *, undo: bool = False) -> str:
        """Write one change, journaled before and after. Returns the item's ref."""
        action = self._new_action(change, undo)
        begun = time.monotonic()
        try:
            await self.store.store.action_begin(action, change.activates)
        except StateError:
            if not undo:  # nothing is written that the journal does not know; but what is, is taken back
                raise
        try:
            ref = await session.write(change)
        except FazaiError as error:
            told = self.mask(str(error))
            await self.store.store.action_end(action.action_id, end_status(error), error=told)
            if not undo and not isinstance(error, Moved):  # which need not be the end of it
                self._record(change, action, time.monotonic() - begun, error)
            raise
        await self.store.store.action_end(action.action_id, "done", ref=ref)
        if not undo:
            self._record(change, action, time.monotonic() - begun, None)
        return ref

    async def _write_joined(self, session: Joining, changes: Sequence[Change], done: Written) -> None:
        """Write several changes at once; all are journaled before the first."""
        actions = [self._new_action(change, undo=False) for change in changes]
        begun = time.monotonic()
        await self.store.store.actions_begin(
            [(a, c.activates) for a, c in zip(actions, changes, strict=True)]
        )
        refs, error = await session.write_joined(changes)
        each_s = (time.monotonic() - begun) / len(changes)
        for change, action, ref in zip(changes, actions, refs, strict=False):
            done.changes.append((change, ref))
            await self.store.store.action_end(action.action_id, "done", ref=ref)
            self._record(change, action, each_s, None)
        if error is None:
            return
        count = len(refs)
        for action in actions[count + 1 :]:
            await self.store.store.action_end(action.action_id, "left", error="the one before it failed")
        told = self.mask(str(error))
        await self.store.store.action_end(actions[count].action_id, end_status(error), error=told)
        if not isinstance(error, Moved):
            self._record(changes[count], actions[count], each_s, error)
        if isinstance(error, Unreachable | Unsure):  # maybe they were done: undoing them is harmless
            done.changes += [(change, change.ref) for change in changes[count:]]
        else:  # what the journal was told of the rest is not to be activated
            left = services_of(changes[count + 1 :]) - services_of(changes[: count + 1])
            await self._clear_pending(left - done.services - self._earlier)
        raise error

    def _new_action(self, change: Change, undo: bool) -> Action:
        run_id, shown = self.run.run_id, mask_change(change)
        token = self._lease.token if self._lease is not None else 0
        action_id = make_action_id(run_id, change, undo)
        return Action(action_id, run_id, shown, box=self.store.box, token=token)

    def _record(self, change: Change, action: Action, duration_s: float, error: FazaiError | None) -> None:
        """Record how an action ended."""
        status = end_status(error)
        self.actions.append(ActionOutcome(change, status, action.action_id, error, duration_s))
        more = {"action_id": action.action_id} if error is None else {"error": self.mask(str(error))}
        self._emit_change(change, status=status, **more)

    async def _activate(self, session: Session, service: str) -> None:
        try:
            await self._check_lease()
            await session.activate(service)
        except FazaiError:
            self.not_activated = service
            raise
        await self.store.activated(service)
        self.activated.append(service)
        self.event("activate", self.item.target.name, {"service": service})

    async def _check_lease(self) -> None:
        """Raise LockHeld where another run has taken the target: nothing more is written to it."""
        if self._lease is not None:
            await self._lease.check()

    # -- when it goes wrong -----------------------------------------------------------------------------

    async def _handle_failure(self, session: Session, error: FazaiError, done: Written) -> None:
        self.fail(done.failure_status(error), error)
        if not done.keep and done.changes:
            await self._undo_all(session, done)
        unsure = isinstance(error, Unreachable | Unsure | LockHeld)
        if getattr(self.provider, "atomic_writes", False) and not unsure:
            await self._clear_pending(done.refused_services(self.actions, self._earlier))
        self._mark_left()

    async def _undo_all(self, session: Session, done: Written) -> None:
        """Take back what this run wrote, backwards, and activate again what was activated."""
        name, total = self.item.target.name, len(done.changes)
        back = await self._revert_changes(session, done)
        if back.undone and not back.cut:
            adopted = (await self.store.memory()).adopted
            self.errors += await read_undone(session, self.item, back, self._promised, adopted)
            self.status = TargetStatus.FAILED if back.still else self.status
        running = list(dict.fromkeys(self.activated))
        if not back.cut:
            stays = services_of((*back.stuck, *back.lasting))
            try:
                await self._check_lease()
                for service in running:
                    await session.activate(service)
                await self._clear_pending(done.services - stays - self._earlier)
                if running:
                    await session.probe()
            except FazaiError as error:
                self.errors.append(error)
        if left := len(back.stuck) - len(back.moved):
            self.notes.append(f"{left} of {total} changes could not be taken back")
        self.notes += [f"{c.kind} {c.identity} cannot be taken back: it stays done" for c in back.lasting]
        undone = {id(change) for change in back.undone}
        for number, each in enumerate(self.actions):
            if each.status == "done" and id(each.change) in undone:
                self.actions[number] = replace(each, status="undone")
        if count := len(back.undone):
            self.notes.append(f"{count_noun(count, 'change')} taken back")
        self.event("undo", name, {"undone": count, "kept": total - count})

    async def _revert_changes(self, session: Session, done: Written) -> TakenBack:
        """Take back each change for itself, backwards: one that fails leaves the others; only a lost
        connection ends it."""
        back = TakenBack()
        for change, ref in reversed(done.changes):
            inverse = session.inverse(change, ref)
            if inverse is None:
                back.lasting.append(change)
                continue
            if not back.cut:
                try:
                    await self._write_change(session, inverse, undo=True)
                    back.undone.append(change)
                    continue
                except Moved as error:  # what stands there is not ours
                    back.moved.append(change)
                    self.notes.append(f"{change.kind} {change.identity}: {error.message}: it stays as it is")
                except FazaiError as error:
                    back.cut = isinstance(error, Unreachable | Unsure)
                    self.errors.append(error)
            back.stuck.append(change)
        return back

    async def _clear_pending(self, services: set[str]) -> None:
        """Record that saved and running are one again. A journal that cannot be written keeps the services
        pending: the next run then activates once more, which changes nothing."""
        for service in services:
            with suppress(StateError):
                await self.store.activated(service)

    def _mark_left(self) -> None:
        """Report every planned change that was not reached as left."""
        reached = {id(action.change) for action in self.actions}
        self.actions += [ActionOutcome(c, "left") for c in self._planned if id(c) not in reached]

    @contextmanager
    def _in_flight(self) -> Iterator[None]:
        """Defer the first interrupt until the block ends."""
        before, self._busy = self._busy, True
        try:
            yield
        finally:
            self._busy = before

    def _emit_change(self, change: Change, **more: object) -> None:
        self.event("change", change.target, {**change_record(change), **more})
