"""State and locks belong to a box, however the inventory calls it.

Two inventories may both have a host `fw`, and one inventory two names for one firewall. So state, journal,
lock and adoption are kept by the identity that the provider gives the box (`Provider.box_of`); names are for
people.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace

from fazai.errors import FazaiError, Refused
from fazai.model import Change, Diff, Provider, Resource, Target, Verb, Work
from fazai.store.base import Lease, Run, Store, TargetMemory

_DAY_S = 86400.0
_OWN = 'give each a name of its own there, such as "{{ inventory_hostname }}"'


def names_by_box(works: Iterable[Work], provider: Callable[[str], Provider]) -> dict[str, tuple[str, ...]]:
    """Return the names that this run has for each box (`box_and_owner`), in the order of the inventory."""
    found: dict[str, dict[str, None]] = {}
    for work in works:
        for item in work.targets:
            known = box_and_owner(provider(item.target.provider).box_of(item.target), item.target)
            found.setdefault(known, {})[item.target.name] = None
    return {known: tuple(names) for known, names in found.items()}


def box_and_owner(box: str, target: Target) -> str:
    """Return the key of a box and of the owner whose items are meant: each owner prunes only its own."""
    owner = str(target.options.get("owner") or "")
    return f"{box} {owner}" if owner else box


@dataclass(frozen=True, slots=True)
class BoxStore:
    """The store as one target of a run sees it: what it asks by its name is answered for its box.
    `names`: all that this run calls the box. State of earlier releases was kept by name, and is read as well.
    """

    store: Store
    box: str
    target: Target
    provider: Provider
    run: Run
    names: tuple[str, ...]
    claimed: dict[str, tuple[str, str]]  # what a target of this run is to be alone: its name, and its box

    async def memory(self) -> TargetMemory:
        """Return what earlier runs left; what a run that is under way has open is left out."""
        found = await self.store.memory(self.box, self.target.name)
        if found.holder is None:
            return found
        running = found.holder.run
        if running == self.run.run_id:
            return replace(found, holder=None)
        return replace(
            found,
            pending={name: run_id for name, run_id in found.pending.items() if run_id != running},
            unfinished=tuple(action for action in found.unfinished if action.run_id != running),
        )

    def lease(self) -> AbstractAsyncContextManager[Lease]:
        return self.store.lease(self.box, self.run, self.target.name)

    async def activated(self, service: str) -> None:
        await self.store.activated(self.box, service, self.target.name)

    async def settle(self) -> None:
        """Settle the box, unless another run is under way: what is open is then of that run."""
        if (await self.memory()).holder is None:
            await self.store.settle(self.box, self.target.name)

    async def adopt(self, change: Change, ref: str) -> None:
        await self.store.adopt(self.box, ref, change.kind, change.identity, self.run.run_id)

    # -- several names ----------------------------------------------------------------------------------

    async def other_names(self) -> dict[str, float]:
        """Return the box's other names, with the time of each one's last run; former names are left out."""
        former = self.target.options.get("formerly") or ()
        remembered = await self.store.names(box_and_owner(self.box, self.target))
        known = {**remembered, **dict.fromkeys(self.names, time.time())}
        return {name: when for name, when in known.items() if name != self.target.name and name not in former}

    async def other_owners(self) -> list[str]:
        """Return a sentence for each other owner for whom runs with this state folder worked on the box."""
        mine = str(self.target.options.get("owner") or "")
        return [
            f"{self.target.name} is also managed for the {f'owner {owner}' if owner else 'default owner'}"
            f" (as {', '.join(names)})"
            for owner, names in (await self.store.owners(self.box)).items()
            if owner != mine
        ]

    def judged(self, diff: Diff, wanted: Iterable[Resource], others: Mapping[str, float]) -> Diff:
        """Return the diff without what the box's `other_names`, or other targets of the run, forbid."""
        name, errors = self.target.name, []
        for claim, where in diff.claims:
            other, box = self.claimed.setdefault(claim, (name, self.box))
            if box != self.box:
                text = f"{other} and {name} would both be {claim}, which could not tell them apart"
                errors.append(Refused(text, where=where, hint=_OWN))
        diff = replace(diff, errors=(*diff.errors, *errors)) if errors else diff
        return refuse_pruning(diff, wanted, others, self.target)

    def notes(self, memory: TargetMemory, others: Mapping[str, float]) -> list[str]:
        """Return notes about the box for the report, before it is observed; `others`: `other_names`."""
        found = []
        recent = [name for name, when in others.items() if when > time.time() - _DAY_S]
        if recent:
            noun = getattr(self.provider, "noun", "target")
            end = ", and nothing is pruned" if "prune" in self.provider.options else ""
            found.append(
                f"{self.target.name} and {', '.join(sorted(recent))} are names of one {noun} ({self.box}):"
                f" they share one lock and one state{end}"
            )
        if holder := memory.holder:
            who, held = (f"run {holder.run}", f" ({holder.duration})") if holder.run else ("another run", "")
            found.append(f"{who} is under way on {self.target.name}: this is how it is meanwhile{held}")
        return found


def refuse_pruning(diff: Diff, wanted: Iterable[Resource], others: Iterable[str], target: Target) -> Diff:
    """Return the diff of a box with several names, deletions refused where another name's list may hold the
    item."""
    names = sorted(others)
    if not names:
        return diff
    listed = {(resource.kind, resource.identity) for resource in wanted}
    pruned = [c for c in diff.changes if c.verb is Verb.DELETE and (c.kind, c.identity) not in listed]
    if not pruned:
        return diff
    hint = f"give it one name; if {names[0]} is a former name of it: formerly: [{names[0]}]"
    reason = f"and {target.name} is also called {', '.join(names)}: it may be on that list"
    refused: list[tuple[Change, FazaiError]] = []
    for change in pruned:
        text = f"{change.kind} {change.identity} would be pruned, {reason}"
        refused.append((change, Refused(text, where=target.where("prune"), hint=hint)))
    gone = {id(change) for change in pruned}
    steps = tuple(step for step in diff.steps if id(step) not in gone)
    return replace(diff, steps=steps, refused=(*diff.refused, *refused))
