"""The hosts whose agents `fazai agents` works on: asked all at once, written through the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from fazai.cli.execution import execute_run
from fazai.cli.host_targets import ask_hosts, prepare_hosts
from fazai.cli.preparing import PreparedRun
from fazai.errors import ExitCode, FazaiError, UsageError
from fazai.model import Resource, TargetWork, Work

if TYPE_CHECKING:
    from fazai.providers.hosts.agent.health import AgentReport
    from fazai.providers.hosts.agent.remote.report import RemoteReport
    from fazai.providers.hosts.session import HostSession

    AnyReport: TypeAlias = AgentReport | RemoteReport

TELEMETRY = "host.telemetry_agent"
REMOTE = "host.agent"
#: The kinds of agents, with what they are called.
KINDS: Mapping[str, str] = {TELEMETRY: "telemetry agent", REMOTE: "remote agent"}


_ROWS_S = 20.0


@dataclass(frozen=True, slots=True)
class RegistryRow:
    """The row of an agent in the daemon's registry; None: it never connected there."""

    agent_id: str
    row: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class AgentFleet:
    """The hosts of an inventory that declare agents of these kinds; `prepared.works` holds nothing else."""

    prepared: PreparedRun
    kinds: tuple[str, ...] = tuple(KINDS)
    by_hand: tuple[TargetWork, ...] = ()  # hosts that are reached through agents: these declare none

    @classmethod
    def read(
        cls, options: Mapping[str, Any], kinds: tuple[str, ...] = tuple(KINDS), *, by_hand: bool = False
    ) -> AgentFleet:
        """Read the inventory that the command line names, from click's parameters; `by_hand`: also the hosts
        whose agents somebody else installed. Raises FazaiError."""
        prepared = prepare_hosts("apply", options, quiet=True)
        fleet = cls(prepared).of(*kinds)
        if by_hand and REMOTE in kinds:
            fleet = replace(fleet, by_hand=_reached_through_agents(prepared))
        if not fleet.items and not fleet.by_hand:
            names = " or ".join(KINDS[kind] for kind in kinds)
            examples = {TELEMETRY: "{server: https://…}", REMOTE: "{daemon: wss://…}"}
            hint = " or ".join(f"- {kind}: {examples[kind]}" for kind in kinds)
            if REMOTE in kinds:
                hint += "; agents that were installed by hand: fazai agents list"
            raise UsageError(f"none of these hosts declares a {names}", hint=hint)
        return fleet

    @property
    def items(self) -> dict[str, TargetWork]:
        return {item.target.name: item for work in self.prepared.works for item in work.targets}

    def of(self, *kinds: str) -> AgentFleet:
        """Return the part of the fleet that declares agents of these kinds."""
        works = (_agents_of(work, kinds) for work in self.prepared.works)
        found = tuple(work for work in works if work.targets)
        return AgentFleet(replace(self.prepared, works=found), kinds)

    def each_kind(self) -> Iterable[AgentFleet]:
        """Iterate over the parts of one kind each, without those that are empty."""
        return (part for part in map(self.of, self.kinds) if part.items)

    def reports(self, names: Iterable[str] | None = None) -> dict[str, Any]:
        """Ask each host for the report of its agent, in a fleet of one kind (AgentReport, RemoteReport);
        FazaiError: why it cannot be had; None: there is no agent."""

        async def look(item: TargetWork, session: HostSession) -> AnyReport | FazaiError | None:
            (resource,) = item.resources
            found = (await session.observe(item.resources)).items[resource.kind, resource.identity]
            if found is None or isinstance(found, FazaiError):
                return found
            report: AnyReport = found["report"]
            return report if "settings" in found else None  # else nothing of it is there

        items = self.items
        chosen = items if names is None else {name: items[name] for name in names}
        return ask_hosts(self.prepared, chosen.values(), look)

    def write(self, more: Mapping[str, Mapping[str, Any]]) -> int:
        """Bring the agents of these hosts to their declared state with these fields changed: through the
        engine, in the plays' waves. Returns the exit code."""

        def change(item: TargetWork, resource: Resource) -> Resource:
            return replace(resource, fields={**resource.fields, **more[item.target.name]})

        works = (_changed(work, more, change) for work in self.prepared.works)
        return self._execute(tuple(work for work in works if work.targets))

    def write_in_waves(self, names: Iterable[str], waves: tuple[int, ...]) -> int:
        """Bring the agents of these hosts to their declared state in waves of these sizes, the last of which
        repeats, and no further once one failed. Returns the exit code."""
        chosen = [item for name, item in self.items.items() if name in set(names)]
        work = Work("agents", tuple(chosen), serial=waves, max_fail=0)
        shown = replace(
            self.prepared, options=replace(self.prepared.options, quiet=False)
        )  # also what is current
        return replace(self, prepared=shown)._execute((work,) if chosen else ())

    def remove(self, *, approved: bool) -> int:
        """Remove the agents through the engine. Returns the exit code."""
        kept = ("agent_id", "init", "reconcile")

        def absent(item: TargetWork, resource: Resource) -> Resource:
            fields = {name: value for name, value in resource.fields.items() if name in kept}
            return replace(resource, fields=fields, state="absent")

        works = tuple(_changed(work, self.items, absent) for work in self.prepared.works)
        return self._execute(works, approved=approved)

    def _execute(self, works: tuple[Work, ...], *, approved: bool = True) -> int:
        prepared = replace(self.prepared, works=works)
        return execute_run(prepared, check=False, approved=approved) if works else ExitCode.OK


def _reached_through_agents(prepared: PreparedRun) -> tuple[TargetWork, ...]:
    from fazai.providers.hosts.remote.provider import AgentProvider

    items = (item for work in prepared.works for item in work.targets)
    find = prepared.registry.provider
    found = {
        item.target.name: item for item in items if isinstance(find(item.target.provider), AgentProvider)
    }
    return tuple(found.values())


def ask_for_rows(fleet: AgentFleet) -> dict[str, RegistryRow | FazaiError]:
    """Ask the daemon of each agent that was installed by hand what it knows of it."""
    import asyncio

    return asyncio.run(_ask_for_rows(fleet))


async def _ask_for_rows(fleet: AgentFleet) -> dict[str, RegistryRow | FazaiError]:
    from fazai.providers.hosts.remote.provider import AgentProvider, agent_id_of

    known: dict[str, Mapping[str, Mapping[str, Any]] | FazaiError] = {}  # by the daemon's address
    found: dict[str, RegistryRow | FazaiError] = {}
    for target in (item.target for item in fleet.by_hand):
        provider = fleet.prepared.registry.provider(target.provider)
        assert isinstance(provider, AgentProvider)
        async with provider.relay_to(target) as relay:  # deadline: it connects with the first question
            place = relay.address.name
            if place not in known:
                try:
                    rows = await relay.list_agents(_ROWS_S)  # deadline: its own
                    known[place] = {str(row.get("agent_id")): row for row in rows if isinstance(row, dict)}
                except FazaiError as error:
                    known[place] = error
        rows_there = known[place]
        if isinstance(rows_there, FazaiError):
            found[target.name] = rows_there
        else:
            found[target.name] = RegistryRow(agent_id_of(target), rows_there.get(agent_id_of(target)))
    return found


def _agents_of(work: Work, kinds: tuple[str, ...]) -> Work:
    """Return the same work with nothing but agents of these kinds."""
    targets = []
    for item in work.targets:
        found = tuple(r for r in item.resources if r.kind in kinds and r.state == "present")
        if found:
            targets.append(TargetWork(item.target, tuple(replace(r, notify=()) for r in found), whole=False))
    return replace(work, targets=tuple(targets))


def _changed(work: Work, names: Iterable[str], change: Callable[[TargetWork, Resource], Resource]) -> Work:
    """Return the same work on these hosts, with each resource changed."""
    chosen = (item for item in work.targets if item.target.name in names)
    return replace(
        work,
        targets=tuple(
            replace(item, resources=tuple(change(item, each) for each in item.resources)) for item in chosen
        ),
    )
