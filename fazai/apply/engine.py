"""Many targets: plays in waves, a bounded number at once, one failure a row and never an exception."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fazai.apply.boxes import BoxStore, box_and_owner, names_by_box
from fazai.apply.progress import status_of_error
from fazai.apply.sentences import hint_after_interrupt
from fazai.apply.target import TargetRun
from fazai.errors import FazaiError, Interrupted, StateError
from fazai.masking import make_lazy_mask, secret_texts
from fazai.model import Provider, TargetWork, Work
from fazai.outcome import EngineEvent, RunOutcome, TargetOutcome, TargetStatus
from fazai.plan import Expected
from fazai.store.base import Run, Store, TargetState

_CHUNK_CHARS = 16 * 1024  # at most 64 KiB
#: What `max_fail` counts.
_FAILURES = (
    TargetStatus.FAILED,
    TargetStatus.UNREACHABLE,
    TargetStatus.REFUSED,
    TargetStatus.LOCKED,
    TargetStatus.STALE,
)
_SETTLED = (str(TargetStatus.CONVERGED), str(TargetStatus.CHANGED))


@dataclass(slots=True)
class Engine:
    """One run. `check`: never write. `expected`: the promises of a saved plan, by target. `deletable`: what
    may be deleted (`plan.changes_digest` of each), when somebody was asked. `emit` receives every event as it
    happens, `finished` each target's outcome; neither may block. `secrets`: all that were read for this run;
    those that a target was given, and what they were made from, are masked in whatever it says.

    `interrupt()` once: what is in flight is finished, nothing new is begun. Twice: everything stops now.
    """

    store: Store
    provider: Callable[[str], Provider]
    run: Run
    emit: Callable[[EngineEvent], None]
    finished: Callable[[TargetOutcome], None]
    forks: int
    check: bool = False
    expected: Mapping[str, Expected] | None = None
    deletable: frozenset[str] | None = None
    secrets: Callable[[], Iterable[str]] = tuple
    _active: dict[asyncio.Task[None], TargetRun] = field(default_factory=dict)
    _interrupts: int = 0
    _names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # box -> what this run calls it
    _turns: dict[str, asyncio.Lock] = field(default_factory=dict)  # box: its names take turns
    _claimed: dict[str, tuple[str, str]] = field(default_factory=dict)  # of `BoxStore`

    async def carry_out(self, works: Sequence[Work]) -> RunOutcome:
        """Carry out all work. Raises StateError when a run that may write cannot be recorded, nothing else:
        a record that fails later is the store's to say when it is closed."""
        begun = time.monotonic()
        try:
            await self.store.run_begin(self.run)
        except StateError:
            if not self.check:
                raise
        outcomes: list[TargetOutcome] = []
        self._names = names_by_box(works, self.provider)
        for work in works:
            self._emit_event("play", "", {"name": work.name, "targets": len(work.targets)})
            outcomes += await self._run_play(work)
        outcome = RunOutcome(
            run_id=self.run.run_id,
            command=self.run.command,
            check=self.check,
            started=self.run.started,
            duration_s=time.monotonic() - begun,
            targets=tuple(outcomes),
            interrupted=self._interrupts > 0,
            plays=tuple(work.name for work in works),
        )
        with contextlib.suppress(StateError):
            await self.store.run_end(self.run.run_id, outcome.exit_code, outcome.totals())
        return outcome

    def interrupt(self) -> None:
        """Count an interrupt, and end what may be ended. Called from a signal handler of the loop."""
        self._interrupts += 1
        for task, target in self._active.items():
            if self._interrupts > 1 or target.interrupt():
                task.cancel()

    # -- waves ------------------------------------------------------------------------------------------

    async def _run_play(self, work: Work) -> list[TargetOutcome]:
        outcomes: list[TargetOutcome] = []
        for wave in _split_waves(work):
            failed = sum(1 for outcome in outcomes if outcome.status in _FAILURES)
            if work.max_fail is not None and failed > work.max_fail:
                reason = f"{failed} of the play's targets failed, at most {work.max_fail} may fail"
                for item in wave:
                    outcomes.append(await self._skip_target(item, work, TargetStatus.SKIPPED, reason))
            else:
                outcomes += await self._run_wave(work, wave)
        return outcomes

    async def _run_wave(self, work: Work, wave: Sequence[TargetWork]) -> list[TargetOutcome]:
        outcomes: list[TargetOutcome | None] = [None] * len(wave)
        queue = iter(enumerate(wave))

        async def worker() -> None:
            for index, item in queue:
                outcomes[index] = await self._run_target(work, item)

        await asyncio.gather(*(worker() for _ in range(min(self.forks, len(wave)))))
        return [outcome for outcome in outcomes if outcome is not None]

    # -- one target -------------------------------------------------------------------------------------

    async def _run_target(self, work: Work, item: TargetWork) -> TargetOutcome:
        provider = self.provider(item.target.provider)
        box = provider.box_of(item.target)
        async with self._turns.setdefault(box, asyncio.Lock()):
            return await self._run_on_box(work, item, provider, box)

    async def _run_on_box(self, work: Work, item: TargetWork, provider: Provider, box: str) -> TargetOutcome:
        if self._interrupts:
            reason = "interrupted before it began"
            return await self._skip_target(item, work, TargetStatus.INTERRUPTED, reason)
        begun = time.monotonic()
        names = self._names.get(box_and_owner(box, item.target), ())
        store = BoxStore(self.store, box, item.target, provider, self.run, names, self._claimed)
        mask = make_lazy_mask(lambda: _secrets_of(item, self.secrets()))
        target = TargetRun(
            item=item,
            play=work.name,
            run=self.run,
            store=store,
            provider=provider,
            event=self._emit_event,
            check=self.check,
            expected=None if self.expected is None else self.expected.get(item.target.name),
            deletable=self.deletable,
            emit_output=functools.partial(self._emit_output, item.target.name, mask),
            mask=mask,
        )
        self._emit_event("target", item.target.name, {"status": "started", "play": work.name})
        task = asyncio.ensure_future(self._reconcile_guarded(target))
        self._active[task] = target
        try:
            await asyncio.wait({task})  # deadline: each operation on the target has its own
        finally:
            del self._active[task]
        outcome = target.outcome(time.monotonic() - begun)
        await self._finish_target(outcome, "" if self.check else box_and_owner(box, item.target))
        return outcome

    async def _reconcile_guarded(self, target: TargetRun) -> None:
        """Reconcile the target; a failure becomes the status and the errors of its outcome."""
        try:
            await target.reconcile()
        except FazaiError as error:
            target.fail(status_of_error(error), error)
        except asyncio.CancelledError:
            ended = Interrupted(
                "interrupted", where=target.item.target.name, hint=hint_after_interrupt(self.run.command)
            )
            target.fail(TargetStatus.INTERRUPTED, ended)
        except Exception as error:  # noqa: BLE001 - the border: a defect on one target must not stop the others
            target.fail(TargetStatus.FAILED, _defect_error(error, target.item.target.name))

    async def _skip_target(
        self, item: TargetWork, work: Work, status: TargetStatus, reason: str
    ) -> TargetOutcome:
        outcome = TargetOutcome(
            target=item.target.name,
            provider=item.target.provider,
            play=work.name,
            status=status,
            resources=len(item.resources),
            notes=(reason,),
        )
        await self._finish_target(outcome)
        return outcome

    async def _finish_target(self, outcome: TargetOutcome, known: str = "") -> None:
        data: dict[str, object] = {
            "status": str(outcome.status),
            "play": outcome.play,
            "changed": outcome.count("done"),
            "pending": outcome.count("planned"),
            "unchanged": outcome.unchanged,
            "duration_s": round(outcome.duration_s, 3),
        }
        if outcome.errors:
            data["errors"] = [str(error) for error in outcome.errors]
        if outcome.notes:
            data["notes"] = list(outcome.notes)
        was = await self.store.left(outcome.target)
        if outcome.status is TargetStatus.CONVERGED and was not in _SETTLED:
            data["was"] = was or "unknown"
        self._emit_event("outcome", outcome.target, data)
        state = TargetState(str(outcome.status), outcome.count("planned"), self.run.run_id, time.time())
        self.store.ended(outcome.target, state, known)
        self.finished(outcome)

    def _emit_output(self, target: str, mask: Callable[[str], str], stream: str, said: str) -> None:
        """Publish a chunk of stdout or stderr as `exec_log` events of a size that every reader takes."""
        text = mask(said)
        for at in range(0, len(text), _CHUNK_CHARS):
            self._emit_event("exec_log", target, {"stream": stream, "chunk": text[at : at + _CHUNK_CHARS]})

    def _emit_event(self, type_: str, target: str, data: Mapping[str, object]) -> None:
        """Publish the event, and record it unless it is routine: that a target is converged is kept when it
        is news."""
        now = time.time()
        self.emit(EngineEvent(type_, now, target, data))
        if not is_routine(type_, data):
            self.store.event(self.run.run_id, now, type_, target, data)


def is_routine(type_: str, data: Mapping[str, object]) -> bool:
    """Tell whether an event is the beginning of a target, or says that one is converged as it was."""
    same = type_ == "outcome" and data.get("status") == "converged" and "was" not in data
    return same or type_ == "target"


def _secrets_of(item: TargetWork, known: Iterable[str]) -> Iterator[str]:
    """Yield the secrets that a target was given, and those of the run that stand in them."""
    values = [item.target.options, *(resource.fields for resource in item.wanted)]
    yield from secret_texts(values)
    given = set(secret_texts(values, contents=True))
    yield from (part for part in known if any(part in text for text in given))


def _split_waves(work: Work) -> Iterator[Sequence[TargetWork]]:
    """Yield the targets in waves of `serial`; the last size repeats; no size means all at once."""
    if not work.serial:
        yield work.targets
        return
    start = 0
    for size in itertools.chain(work.serial, itertools.repeat(work.serial[-1])):
        if start >= len(work.targets):
            return
        yield work.targets[start : start + max(1, size)]
        start += max(1, size)


def _defect_error(error: Exception, target: str) -> FazaiError:
    """Return the error for an exception that nobody meant: its place in our code, never its values."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else "?"
    text = f"defect in fazai: {type(error).__name__} at {place}"
    return FazaiError(text, where=target, hint="please report it")
