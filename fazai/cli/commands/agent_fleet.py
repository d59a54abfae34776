"""The hosts whose telemetry agents `fazai agents` works on: asked all at once, written through the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from fazai.cli import environment
from fazai.cli.execution import execute_run
from fazai.cli.lab_targets import with_lab_folders
from fazai.cli.preparing import PreparedRun, prepare_run
from fazai.cli.run_options import RunOptions, RunSelection
from fazai.config import ProcessConfig
from fazai.errors import ExitCode, FazaiError, UsageError
from fazai.model import Resource, TargetWork, Work

if TYPE_CHECKING:
    from fazai.providers.hosts.agent.health import AgentReport
    from fazai.providers.hosts.session import HostSession

KIND = "host.telemetry_agent"
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class AgentFleet:
    """The hosts of an inventory that declare a telemetry agent; `prepared.works` holds nothing else."""

    prepared: PreparedRun
    config: ProcessConfig

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> AgentFleet:
        """Read the inventory that the command line names, from click's parameters. Raises FazaiError."""
        sources, limit = environment.split_words(options["words"], options["more"])
        selection = RunSelection.from_click({**options, "inventory": sources, "limit": limit})
        shown = replace(RunOptions.from_click(options), quiet=True)
        prepared = prepare_run("apply", selection, shown)
        config = environment.read_config()
        works = with_lab_folders(prepared.works, config.lab)
        agents = tuple(found for work in works if (found := _agents_of(work)) is not None)
        if not agents:
            raise UsageError(
                "none of these hosts declares a telemetry agent", hint=f"- {KIND}: {{server: https://…}}"
            )
        return cls(replace(prepared, works=agents), config)

    @property
    def items(self) -> dict[str, TargetWork]:
        return {item.target.name: item for work in self.prepared.works for item in work.targets}

    def reports(self, names: Iterable[str] | None = None) -> dict[str, AgentReport | FazaiError | None]:
        """Ask each host for the report of its agent; None: there is none."""

        async def look(item: TargetWork, session: HostSession) -> AgentReport | FazaiError | None:
            (resource,) = item.resources
            found = (await session.observe(item.resources)).items[resource.kind, resource.identity]
            if found is None or isinstance(found, FazaiError):
                return found
            report: AgentReport = found["report"]
            return report if "settings" in found else None  # else nothing of it is there

        return self.each(look, names)

    def each(
        self, work: Callable[[TargetWork, HostSession], Awaitable[_Found]], names: Iterable[str] | None = None
    ) -> dict[str, _Found | FazaiError]:
        """Do `work` on each host; returns what it found there, or why not."""
        chosen = self.items if names is None else {name: self.items[name] for name in names}
        return asyncio.run(self._each(work, list(chosen.values())))

    async def _each(
        self, work: Callable[[TargetWork, HostSession], Awaitable[_Found]], items: Sequence[TargetWork]
    ) -> dict[str, _Found | FazaiError]:
        gate = asyncio.Semaphore(self.prepared.options.forks or self.config.forks)

        async def work_on(item: TargetWork) -> _Found | FazaiError:
            provider: Any = self.prepared.registry.provider(item.target.provider)
            try:
                # deadline: the target's connect_timeout and timeout
                async with gate, provider.connect(item.target) as session:
                    return await work(item, session)
            except FazaiError as error:
                return error

        answers = await asyncio.gather(*(work_on(item) for item in items))
        return {item.target.name: found for item, found in zip(items, answers, strict=True)}

    def write(self, more: Mapping[str, Mapping[str, Any]]) -> int:
        """Bring the agents of these hosts to their declared state with these fields changed: through the
        engine, in the plays' waves. Returns the exit code."""
        works = (_with_fields(work, more) for work in self.prepared.works)
        prepared = replace(self.prepared, works=tuple(work for work in works if work.targets))
        return execute_run(prepared, check=False, approved=True) if prepared.works else ExitCode.OK


def _agents_of(work: Work) -> Work | None:
    """Return the same work with nothing but agents, None if there are none."""
    targets = []
    for item in work.targets:
        found = tuple(r for r in item.resources if r.kind == KIND and r.state == "present")
        if found:
            targets.append(TargetWork(item.target, tuple(replace(r, notify=()) for r in found), whole=False))
    return replace(work, targets=tuple(targets)) if targets else None


def _with_fields(work: Work, more: Mapping[str, Mapping[str, Any]]) -> Work:
    def changed(resource: Resource, fields: Mapping[str, Any]) -> Resource:
        return replace(resource, fields={**resource.fields, **fields})

    targets = tuple(
        replace(item, resources=tuple(changed(r, more[item.target.name]) for r in item.resources))
        for item in work.targets
        if item.target.name in more
    )
    return replace(work, targets=targets)
