"""The hosts whose telemetry agents `fazai agents` works on: asked all at once, written through the engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fazai.cli.execution import execute_run
from fazai.cli.host_targets import ask_hosts, prepare_hosts
from fazai.cli.preparing import PreparedRun
from fazai.errors import ExitCode, FazaiError, UsageError
from fazai.model import TargetWork, Work

if TYPE_CHECKING:
    from fazai.providers.hosts.agent.health import AgentReport
    from fazai.providers.hosts.session import HostSession

KIND = "host.telemetry_agent"


@dataclass(frozen=True, slots=True)
class AgentFleet:
    """The hosts of an inventory that declare a telemetry agent; `prepared.works` holds nothing else."""

    prepared: PreparedRun

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> AgentFleet:
        """Read the inventory that the command line names, from click's parameters. Raises FazaiError."""
        prepared = prepare_hosts("apply", options, quiet=True)
        agents = tuple(found for work in prepared.works if (found := _agents_of(work)) is not None)
        if not agents:
            text, hint = "none of these hosts declares a telemetry agent", f"- {KIND}: {{server: https://…}}"
            raise UsageError(text, hint=hint)
        return cls(replace(prepared, works=agents))

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

        items = self.items
        chosen = items if names is None else {name: items[name] for name in names}
        return ask_hosts(self.prepared, chosen.values(), look)

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
    """Return the same work on the hosts of `more`, with these fields on top."""

    def change(item: TargetWork, fields: Mapping[str, Any]) -> TargetWork:
        changed = (replace(each, fields={**each.fields, **fields}) for each in item.resources)
        return replace(item, resources=tuple(changed))

    chosen = [item for item in work.targets if item.target.name in more]
    return replace(work, targets=tuple(change(item, more[item.target.name]) for item in chosen))
