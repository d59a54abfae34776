"""What became of a run: values that the engine makes, and that reports, events and the store show.

Records (plain dicts of JSON types) never hold a secret: a Secret becomes `***` in `record`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from fazai.errors import Errors, ExitCode, FazaiError, worst_exit
from fazai.model import Change, Secret, SecretRef, Value, Verb

__all__ = [
    "ActionOutcome",
    "Event",
    "RunOutcome",
    "Status",
    "TargetOutcome",
    "change_record",
    "error_record",
    "event_not_applied",
    "not_applied",
    "record",
]


class Status(StrEnum):
    """How one target ended."""

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
    Status.CONVERGED: ExitCode.OK,
    Status.CHANGED: ExitCode.OK,
    Status.PENDING: ExitCode.PENDING,
    Status.FAILED: ExitCode.FAILED,
    Status.UNREACHABLE: ExitCode.UNREACHABLE,
    Status.REFUSED: ExitCode.REFUSED,
    Status.LOCKED: ExitCode.LOCKED,
    Status.STALE: ExitCode.STALE,
    Status.INTERRUPTED: ExitCode.INTERRUPTED,
    Status.SKIPPED: ExitCode.PENDING,  # not looked at; the targets that failed say why, and win
}


@dataclass(frozen=True, slots=True)
class Event:
    """One line of what happened. `data` is a record. Time in seconds since the epoch, UTC."""

    type: str
    time: float
    target: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ActionOutcome:
    """`status`: planned, done, failed, undone (written, then taken back), refused, left (not reached)."""

    change: Change
    status: str
    action_id: str = ""
    error: FazaiError | None = None
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True)
class TargetOutcome:
    target: str
    provider: str
    play: str
    status: Status
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
        if self.status is Status.FAILED and self.errors:
            codes = (error.exit_code for error in self.errors)
            return worst_exit(ExitCode.FAILED if code == ExitCode.BAD_INPUT else code for code in codes)
        return self.status.exit_code

    def count(self, status: str) -> int:
        return sum(1 for action in self.actions if action.status == status)

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
    plays: tuple[str, ...] = field(default=())

    @property
    def exit_code(self) -> int:
        codes = [target.exit_code for target in self.targets]
        if self.interrupted:
            codes.append(ExitCode.INTERRUPTED)
        return worst_exit(codes)

    def totals(self) -> dict[str, int]:
        """Counts of actions (changed, pending, failed, undone, refused), of resources and of targets."""
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
            "failed": statuses[Status.FAILED],
            "unreachable": statuses[Status.UNREACHABLE],
            "locked": statuses[Status.LOCKED],
            "stale": statuses[Status.STALE],
            "skipped": statuses[Status.SKIPPED] + statuses[Status.INTERRUPTED],
        }


_NOT_APPLIED = "left as it is: the plan does not hold for all of its targets, so it was carried out for none"


def not_applied(preview: RunOutcome) -> RunOutcome:
    """What a look ahead found, told as the end of a run that wrote nothing because of it: a saved plan is
    carried out for all of its targets or for none."""

    def ended(target: TargetOutcome) -> TargetOutcome:
        actions = tuple(
            replace(a, status="left" if a.status == "planned" else a.status) for a in target.actions
        )
        if target.status is not Status.PENDING:
            return replace(target, actions=actions)
        return replace(target, status=Status.SKIPPED, actions=actions, notes=(*target.notes, _NOT_APPLIED))

    return replace(preview, check=False, targets=tuple(ended(target) for target in preview.targets))


def event_not_applied(type_: str, data: Mapping[str, Any]) -> Mapping[str, Any]:
    """An event of such a look ahead, told as one of a run that wrote nothing because of it."""
    if type_ == "change" and data.get("status") == "planned":
        return {**data, "status": "left"}
    if type_ != "outcome":
        return data
    if data.get("status") == Status.PENDING:
        data = {**data, "status": str(Status.SKIPPED), "notes": [*data.get("notes", ()), _NOT_APPLIED]}
    return {**data, "pending": 0}


def record(value: Value) -> Any:
    """A value as JSON types, secrets masked."""
    if value.__class__ is str:  # nearly all are
        return value
    if isinstance(value, Secret | SecretRef):
        return "***"
    if isinstance(value, Mapping):
        return {str(key): record(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [record(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(record(item) for item in value)
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)


def change_record(change: Change, *, origins: bool = False) -> dict[str, Any]:
    """A change as JSON types: what plans, events, the journal and machine output show of it."""
    result: dict[str, Any] = {
        "target": change.target,
        "kind": change.kind,
        "identity": change.identity,
        "verb": str(change.verb),
        "before": record(change.before),
        "after": record(change.after),
        "ref": change.ref,
    }
    if change.options:
        result["options"] = record(change.options)
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
    """An error, or each of several, as JSON types."""
    if isinstance(error, Errors):
        return [item for one in error.errors for item in error_record(one)]
    result: dict[str, Any] = {"error": type(error).__name__, "message": error.message}
    if error.where is not None:
        result["where"] = str(error.where)
    if error.hint:
        result["hint"] = error.hint
    result["exit_code"] = int(error.exit_code)
    return [result]
