"""Progress of a run on one target."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fazai.errors import FazaiError, Interrupted, LockHeld, PlanStale, Refused, Unreachable
from fazai.model import Change, Resource, Session, Step, Talking, has_role
from fazai.outcome import ActionOutcome, ActionStatus, TargetStatus

_ERROR_STATUSES: Mapping[type[FazaiError], TargetStatus] = {
    Unreachable: TargetStatus.UNREACHABLE,
    LockHeld: TargetStatus.LOCKED,
    PlanStale: TargetStatus.STALE,
    Refused: TargetStatus.REFUSED,
    Interrupted: TargetStatus.INTERRUPTED,
}


def status_of_error(error: FazaiError) -> TargetStatus:
    """Return the status of a target on which an error ended the run, and nothing was written."""
    found = (status for class_, status in _ERROR_STATUSES.items() if isinstance(error, class_))
    return next(found, TargetStatus.FAILED)


def end_status(error: FazaiError | None) -> ActionStatus:
    """Return how an action ended that raised this error, or none."""
    return "done" if error is None else "refused" if isinstance(error, Refused) else "failed"


@dataclass(slots=True)
class Written:
    """Changes that this run wrote on the target, in order, with their refs; `looked`: how many of these
    before the last look; `keep`: not to be taken back."""

    changes: list[tuple[Change, str]] = field(default_factory=list)
    looked: int = 0
    keep: bool = False

    @property
    def services(self) -> set[str]:
        """The services that are to be activated for what was written."""
        return services_of(change for change, _ in self.changes)

    def failure_status(self, error: FazaiError) -> TargetStatus:
        """Return the status of the target once an error ended the writing."""
        status = status_of_error(error)
        partly = self.changes and status is not TargetStatus.UNREACHABLE
        return TargetStatus.FAILED if partly else status

    def refused_services(self, actions: Iterable[ActionOutcome], earlier: frozenset[str]) -> set[str]:
        """Name the services of changes that the target refused: nothing was saved for them that is not
        active."""
        refused = services_of(action.change for action in actions if action.status in ("failed", "refused"))
        return refused - self.services - earlier


@dataclass(slots=True)
class TakenBack:
    """Result of taking changes back: `lasting` ones nothing takes back, `stuck` are those that failed,
    `moved` those of them that somebody else changed since, `still` those that the target says it took back
    and has not; `cut`: the target is gone."""

    undone: list[Change] = field(default_factory=list)
    lasting: list[Change] = field(default_factory=list)
    stuck: list[Change] = field(default_factory=list)
    moved: list[Change] = field(default_factory=list)
    still: list[Change] = field(default_factory=list)
    cut: bool = False


def listen_to(session: Session, say: Callable[[str, str], None]) -> None:
    """Have what commands on the target print said, where the session tells."""
    if has_role(session, Talking):  # type: ignore[type-abstract]
        session.listen(say)


def services_of(changes: Iterable[Change]) -> set[str]:
    """Name the services that must be activated for changes to take effect."""
    return {service for change in changes for service in change.activates}


def resources_from(resources: Sequence[Resource], change: Change) -> Sequence[Resource]:
    """Return the resources from that of a change on."""
    names = [(resource.kind, resource.identity) for resource in resources]
    return resources[names.index((change.kind, change.identity)) :]


def leading_changes(steps: Sequence[Step]) -> Iterator[Change]:
    """Yield the changes before the first other step."""
    for step in steps:
        if not isinstance(step, Change):
            return
        yield step
