"""Outcomes of runs: values that the engine makes, and that reports, events and the store show.

Records (plain dicts of JSON types) never hold a secret: `json_value` makes `***` of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Literal

from fazai.errors import Cancelled, ExitCode, FazaiError, TimedOut, Unreachable, Unsure, worst_exit
from fazai.model import Change, Secret, SecretRef, Value, Verb

#: Commands that do something once, and say nothing of whether a target is as it is declared.
ONCE_COMMANDS = frozenset({"exec", "cp"})
#: Commands that may write to a target.
WRITING_COMMANDS = frozenset({"apply", *ONCE_COMMANDS})
#: How one action ended: written, then taken back (undone); not reached (left).
ActionStatus = Literal["done", "planned", "failed", "undone", "refused", "left"]


class TargetStatus(StrEnum):
    """The status in which a target ended, in the engine as on the wire."""

    CONVERGED = "converged"
    CHANGED = "changed"
    PENDING = "pending"
    FAILED = "failed"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    LOCKED = "locked"
    STALE = "stale"
    INTERRUPTED = "interrupted"
    SKIPPED = "skipped"

    @property
    def exit_code(self) -> int:
        return _EXIT[self]


_EXIT = {
    TargetStatus.CONVERGED: ExitCode.OK,
    TargetStatus.CHANGED: ExitCode.OK,
    TargetStatus.PENDING: ExitCode.PENDING,
    TargetStatus.FAILED: ExitCode.FAILED,
    TargetStatus.UNREACHABLE: ExitCode.UNREACHABLE,
    TargetStatus.REFUSED: ExitCode.REFUSED,
    TargetStatus.LOCKED: ExitCode.LOCKED,
    TargetStatus.STALE: ExitCode.STALE,
    TargetStatus.INTERRUPTED: ExitCode.INTERRUPTED,
    TargetStatus.SKIPPED: ExitCode.PENDING,  # not looked at; the targets that failed say why, and win
}

#: Ends of a program that a status alone does not tell.
_ENDINGS: Mapping[type[FazaiError], str] = {TimedOut: "timed out", Unsure: "unknown", Cancelled: "cancelled"}


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """One line of a run's progress. `data` is a record; `time` in seconds since the epoch, UTC."""

    type: str
    time: float
    target: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ActionOutcome:
    """A change, and how it ended."""

    change: Change
    status: ActionStatus
    action_id: str = ""
    error: FazaiError | None = None
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ProgramResult:
    """The end of a program on one target, and what it printed, secrets masked. `exit_status` None: it is not
    known, as the program was ended or the answer never came; `truncated`: it printed more than is kept."""

    exit_status: int | None
    stdout: str = ""
    stderr: str = ""
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class TargetOutcome:
    target: str
    provider: str
    play: str
    status: TargetStatus
    resources: int
    actions: tuple[ActionOutcome, ...] = ()
    unchanged: int = 0
    activated: tuple[str, ...] = ()
    errors: tuple[FazaiError, ...] = ()
    notes: tuple[str, ...] = ()
    duration_s: float = 0.0
    observed: str = ""
    activations: tuple[str, ...] = ()  # planned
    not_activated: str = ""  # the one that failed

    @property
    def exit_code(self) -> int:
        """The status's own code, except that an error's class knows better for a failed target; 3 is not
        among these, as the target was contacted."""
        if self.status is TargetStatus.FAILED and self.errors:
            codes = (error.exit_code for error in self.errors)
            return worst_exit(ExitCode.FAILED if code == ExitCode.BAD_INPUT else code for code in codes)
        return self.status.exit_code

    def count(self, status: ActionStatus) -> int:
        return sum(1 for action in self.actions if action.status == status)

    @property
    def answered(self) -> bool:
        """False where the target gave no answer: it was not reached, did not end in time, or it is not known
        what became of what was sent."""
        lost = any(isinstance(error, Unreachable | Unsure | TimedOut) for error in self.errors)
        return not lost and self.status is not TargetStatus.UNREACHABLE

    @property
    def ending(self) -> str:
        """A word or two for what became of a program, or a file, on the target."""
        for class_, word in _ENDINGS.items():
            if any(isinstance(error, class_) for error in self.errors):
                return word
        if self.status is TargetStatus.PENDING:
            return "would be asked"
        return str(self.status) if self.asked else "not asked"

    @property
    def asked(self) -> bool:
        """False where the run ended, or was stopped, before it came to the target."""
        stopped = self.status is TargetStatus.INTERRUPTED and not self.errors
        return self.status is not TargetStatus.SKIPPED and not stopped

    @property
    def verbs(self) -> Counter[Verb]:
        return Counter(a.change.verb for a in self.actions if a.status in ("done", "planned"))


@dataclass(frozen=True, slots=True)
class RunOutcome:
    run_id: str
    command: str
    check: bool
    started: float
    duration_s: float
    targets: tuple[TargetOutcome, ...]
    interrupted: bool = False
    plays: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        codes = [target.exit_code for target in self.targets]
        if self.interrupted:
            codes.append(ExitCode.INTERRUPTED)
        return worst_exit(codes)

    def totals(self) -> dict[str, int]:
        """Count actions (changed, pending, undone, refused), resources and targets."""
        actions = Counter(a.status for t in self.targets for a in t.actions)
        statuses = Counter(t.status for t in self.targets)
        return {
            "targets": len(self.targets),
            "resources": sum(t.resources for t in self.targets),
            "changed": actions["done"],
            "pending": actions["planned"],
            "unchanged": sum(t.unchanged for t in self.targets),
            "undone": actions["undone"],
            "refused": actions["refused"],
            "failed": statuses[TargetStatus.FAILED],
            "unreachable": statuses[TargetStatus.UNREACHABLE],
            "locked": statuses[TargetStatus.LOCKED],
            "stale": statuses[TargetStatus.STALE],
            "skipped": statuses[TargetStatus.SKIPPED] + statuses[TargetStatus.INTERRUPTED],
        }


_NOT_APPLIED = "left as it is: the plan does not hold for all of its targets, so it was carried out for none"


def mark_not_applied(preview: RunOutcome) -> RunOutcome:
    """Return the outcome of a look ahead as the end of a run that wrote nothing because of it: a saved plan
    is carried out for all of its targets or for none."""

    def ended(target: TargetOutcome) -> TargetOutcome:
        actions = tuple(
            replace(a, status="left" if a.status == "planned" else a.status) for a in target.actions
        )
        if target.status is not TargetStatus.PENDING:
            return replace(target, actions=actions)
        return replace(
            target, status=TargetStatus.SKIPPED, actions=actions, notes=(*target.notes, _NOT_APPLIED)
        )

    return replace(preview, check=False, targets=tuple(ended(target) for target in preview.targets))


def event_not_applied(type_: str, data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the event of such a look ahead as one of a run that wrote nothing because of it."""
    if type_ == "change" and data.get("status") == "planned":
        return {**data, "status": "left"}
    if type_ != "outcome":
        return data
    if data.get("status") == TargetStatus.PENDING:
        data = {**data, "status": str(TargetStatus.SKIPPED), "notes": [*data.get("notes", ()), _NOT_APPLIED]}
    return {**data, "pending": 0}


def json_value(value: Value) -> Any:
    """Return the value in JSON types, secrets masked."""
    if value.__class__ is str:  # nearly all are
        return value
    if isinstance(value, Secret | SecretRef):
        return "***"
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(json_value(item) for item in value)
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)


def mask_change(change: Change) -> Change:
    """Return the change with its values as JSON types, secrets masked."""
    return replace(
        change,
        before=json_value(change.before),
        after=json_value(change.after),
        options=json_value(change.options),
    )


def change_record(change: Change, *, origins: bool = False) -> dict[str, Any]:
    """Return the change in JSON types, as plans, events, the ledger and machine output show it."""
    result: dict[str, Any] = {
        "target": change.target,
        "kind": change.kind,
        "identity": change.identity,
        "verb": str(change.verb),
        "before": json_value(change.before),
        "after": json_value(change.after),
        "ref": change.ref,
    }
    if change.options:
        result["options"] = json_value(change.options)
    if change.note:
        result["note"] = change.note
    if change.adopts:
        result["adopts"] = True
    if origins:
        result["from"] = {name: str(mark) for name, mark in change.origins.items()}
        if change.mark is not None:
            result["declared"] = str(change.mark)
    return result


def error_record(error: FazaiError) -> list[dict[str, Any]]:
    """Return the error, or each of several, in JSON types."""
    found = []
    for one in error.errors:
        place = {} if one.where is None else {"where": str(one.where)}
        hint = {"hint": one.hint} if one.hint else {}
        head = {"error": type(one).__name__, "message": one.message}
        found.append({**head, **place, **hint, "exit_code": int(one.exit_code)})
    return found
