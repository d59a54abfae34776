"""The common part of `fazai exec` and `fazai cp`: from their words to a run of the engine."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

from fazai.cli import environment
from fazai.cli.execution import RunView, execute_run
from fazai.cli.options import ALLOW_SCRIPTS, COLOR, EXTRA_VARS, PASSWORDS, SOURCES, VAULT_PASSWORDS
from fazai.cli.preparing import PreparedRun, prepare_run
from fazai.cli.run_options import OUTPUTS, RunOptions, RunSelection
from fazai.errors import Refused, UsageError
from fazai.model import Provider, Resource, Session, Target, TargetWork, Work

if TYPE_CHECKING:
    from fazai.fanout.agents import AgentAccess
    from fazai.outcome import ProgramResult
    from fazai.providers.hosts.once.access import HostAccess
    from fazai.store.base import Store

#: Endings of files that are inventories, and no patterns.
_INVENTORIES: Final = (".yml", ".yaml", ".json", ".ini")
#: Options that both have.
FANOUT_OPTIONS: Final = (
    SOURCES,
    click.option("-f", "--forks", type=click.IntRange(1, 4096), help="Hosts at once, within a wave."),
    click.option(
        "--wave", metavar="SIZE,...", help="Hosts in each wave: 10, or 1,10%,100%; the last size repeats."
    ),
    click.option(
        "--max-failures",
        metavar="N|N%",
        help="No further wave once more hosts failed, gave no answer, timed out or ended unknown.",
    ),
    click.option("-C", "--check", is_flag=True, help="Say who would be asked; contact nobody. Exit 2."),
    EXTRA_VARS,
    VAULT_PASSWORDS,
    *PASSWORDS,
    ALLOW_SCRIPTS,
    click.option("-q", "--quiet", is_flag=True, help="Say nothing of hosts where all went well."),
    click.option("--output", type=click.Choice(OUTPUTS), default="text", show_default=True),
    COLOR,
)


class TransferMeter:
    """Hands on how far files are on their way, once there is a report that shows it."""

    def __init__(self) -> None:
        self.show: Callable[[str, int, int], object] = lambda target, done, total: None

    def tell(self, target: str, done: int, total: int) -> None:
        """Take how much of so much was sent to a target, or read from it."""
        self.show(target, done, total)


@dataclass(frozen=True, slots=True)
class FanoutRun:
    """The targets of one command, and how they are asked; `options` are click's parameters."""

    prepared: PreparedRun
    targets: tuple[TargetWork, ...]
    options: Mapping[str, Any]
    run_key: str  # what the ids of this run's messages to agents are made of
    meter: TransferMeter = field(default_factory=TransferMeter)

    @classmethod
    def prepare(
        cls, command: str, sources: Sequence[str], patterns: Sequence[str], options: Mapping[str, Any]
    ) -> FanoutRun:
        """Read the inventory, and choose the targets. Raises FazaiError."""
        selection = RunSelection.from_click({**options, "inventory": sources, "limit": tuple(patterns)})
        prepared = prepare_run(command, selection, RunOptions.from_click(options), targets_only=True)
        found = {item.target.name: item for work in prepared.works for item in work.targets}
        return cls(prepared, tuple(found.values()), options, secrets.token_hex(16))

    def with_timeout(self, seconds: float | None) -> FanoutRun:
        """Return the same run on targets that have so long for each step; None: as long as they say."""
        if seconds is None:
            return self

        def limit(item: TargetWork) -> TargetWork:
            return replace(
                item, target=replace(item.target, options={**item.target.options, "timeout": seconds})
            )

        return replace(self, targets=tuple(map(limit, self.targets)))

    def access_to(self, target: Target) -> HostAccess | AgentAccess:
        """Return the way to a host for one program or file; it is connected when it is used."""
        from fazai.providers.hosts.provider import ShellProvider
        from fazai.providers.hosts.remote.provider import AgentProvider, agent_id_of

        provider = self.prepared.registry.provider(target.provider)
        if isinstance(provider, AgentProvider):
            from fazai.fanout.agents import AgentAccess

            return AgentAccess(agent_id_of(target), target, self.run_key, provider.relay_to(target))
        from fazai.providers.hosts.once.access import HostAccess

        assert isinstance(provider, ShellProvider)
        return HostAccess(provider, target)

    @asynccontextmanager
    async def _hold_relays(self) -> AsyncIterator[None]:
        """Keep one connection to each daemon from the first host that needs it to the last."""
        from fazai.providers.hosts.remote.provider import AgentProvider

        async with AsyncExitStack() as stack:
            for item in self.targets:
                provider = self.prepared.registry.provider(item.target.provider)
                if isinstance(provider, AgentProvider):
                    await stack.enter_async_context(provider.relay_to(item.target))
            yield

    def mask_words(self, words: Sequence[str]) -> tuple[str, ...]:
        """Return words of the command line as they may be recorded: without the secrets of this run."""
        from fazai.masking import make_mask, secret_texts

        own = secret_texts([item.target.options for item in self.targets])
        mask = make_mask([*self.prepared.secrets.texts(), *own])
        return tuple(map(mask, words))

    def execute(
        self,
        resources: Callable[[Target], tuple[Resource, ...]],
        open_session: Callable[[Target], Session],
        *,
        title: str,
        ledger: Callable[[Store], Store] | None = None,
        reads: bool = False,
        results: Mapping[str, ProgramResult] | None = None,
    ) -> int:
        """Have the engine carry out these resources on every target, in sessions that `open_session` makes;
        returns the exit code. `reads`: nothing is written to the targets."""
        from fazai.fanout.ledger import FanoutStore
        from fazai.fanout.waves import parse_budget, parse_waves
        from fazai.report.programs import FanoutReport

        count, check = len(self.targets), bool(self.options["check"])
        waves = parse_waves(self.options["wave"], count)
        budget = parse_budget(self.options["max_failures"], count)
        read_only = {item.target.name for item in self.targets if item.target.mode != "write" and not reads}
        items = tuple(
            replace(item, target=replace(item.target, mode="write"), resources=resources(item.target))
            for item in self.targets
        )
        group = bool(self.options.get("group"))

        def make_report(**given: Any) -> FanoutReport:
            report = FanoutReport(**given, results=results, group=group)
            self.meter.show = report.transfer
            return report

        view = RunView(
            provider=partial(self._provider, read_only, open_session, check),
            ledger=ledger or FanoutStore,
            make_report=make_report,
            results={} if results is None else results,
            scope=self._hold_relays(),
        )
        work = Work(title, items, waves, budget)
        prepared = replace(self.prepared, works=(work,))
        return execute_run(prepared, check=check, approved=True, view=view)

    def _provider(
        self, read_only: set[str], open_session: Callable[[Target], Session], check: bool, name: str
    ) -> Provider:
        from fazai.fanout.provider import FanoutProvider
        from fazai.providers.hosts.provider import HostProvider

        inner = self.prepared.registry.provider(name)

        def refuse(target: Target) -> Refused | None:
            if not isinstance(inner, HostProvider):  # without loading its kinds
                noun = getattr(inner, "noun", "target")
                text = f"{target.name} is a {noun}: programs and files are for hosts"
                return Refused(text, where=target.where("provider"), hint=f"leave it out: '…:!{target.name}'")
            if target.name in read_only:
                text = f"{target.name} is read-only: nothing is run on it, and no file is written"
                return Refused(text, where=target.where("mode"), hint="to allow it: mode: write")
            return None

        return FanoutProvider(inner, refuse, open_session, dry=check)


def split_words(words: Sequence[str], more: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split the words before a program into inventories and patterns. The last one is a pattern, whatever
    lies in the current folder; with -i all of them are. Raises UsageError without a pattern: a program for
    every host is asked for as such."""
    named = bool(more or os.environ.get("FAZAI_INVENTORY"))
    file = words and os.path.isfile(words[-1]) and (words[-1].endswith(_INVENTORIES) or not named)
    if not words or (file and not more):
        hint = 'a group, a host, or "all" for every host, behind the inventory'
        raise UsageError("which hosts? a pattern is missing", hint=hint)
    if more:
        return (), tuple(words)
    sources, patterns = environment.split_inventories(words[:-1], more)
    return sources, (*patterns, words[-1])
