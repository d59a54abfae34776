"""Progress of a run on one target."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from fazai.model import Change, Resource, Step
from fazai.outcome import ActionOutcome


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

    def refused_services(self, actions: Iterable[ActionOutcome], earlier: frozenset[str]) -> set[str]:
        """Name the services of changes that the target refused: nothing was saved for them that is not
        active."""
        refused = services_of(action.change for action in actions if action.status == "failed")
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
