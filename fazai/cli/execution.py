"""Carries out a prepared run: asks, runs the engine, reports, and returns the exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fazai.cli import environment
from fazai.cli.planfile import plan_folder, save_plan
from fazai.cli.preparing import PreparedRun
from fazai.errors import ExitCode, InputError, Interrupted, StateError, UsageError, count_noun
from fazai.model import Provider, Verb, Work
from fazai.outcome import WRITING_COMMANDS, event_not_applied, mark_not_applied
from fazai.store.preview import PreviewStore

if TYPE_CHECKING:
    from fazai.apply import Engine
    from fazai.cli.reporting import RunReporter
    from fazai.config import ProcessConfig
    from fazai.outcome import EngineEvent, ProgramResult, RunOutcome
    from fazai.plan import Expected
    from fazai.report.text import TextReport
    from fazai.store.base import Run, Store


@dataclass(frozen=True, slots=True)
class RunView:
    """The parts that another command than apply, plan and drift puts in place of the engine's own.

    `provider` gives the targets' sessions, `ledger` wraps the store; `make_report` makes the report for
    people; `results` has what a program printed on each target; `scope` is entered around all of it.
    """

    provider: Callable[[str], Provider]
    ledger: Callable[[Store], Store]
    make_report: Callable[..., TextReport]
    results: Mapping[str, ProgramResult] = field(default_factory=dict)
    scope: AbstractAsyncContextManager[object] = field(default_factory=contextlib.nullcontext)


def execute_run(
    prepared: PreparedRun,
    *,
    check: bool,
    approved: bool = False,
    out: str | None = None,
    expected: Mapping[str, Expected] | None = None,
    on_outcome: Callable[[RunOutcome], object] = lambda _: None,
    view: RunView | None = None,
) -> int:
    """Carry out a prepared run, report it, and return the exit code.

    `check`: write nothing. `approved`: delete without asking. `out`: the file to save the plan in.
    `expected`: what a saved plan expects of each target. `on_outcome` is called with the outcome of the run,
    not with that of a preview. `view`: of another command. Raises FazaiError.
    """
    execution = _Execution(prepared, environment.read_config(), check, expected, on_outcome, view)
    return execution.execute(approved, out)


@dataclass(slots=True)
class _Execution:
    """One run on its way; see `execute_run`."""

    prepared: PreparedRun
    config: ProcessConfig
    check: bool
    expected: Mapping[str, Expected] | None
    on_outcome: Callable[[RunOutcome], object]
    view: RunView | None = None
    interrupts: int = 0
    recorded: bool = True

    def execute(self, approved: bool, out: str | None) -> int:
        """Run, report, and return the exit code."""
        check, writes = self.check, self.prepared.command in WRITING_COMMANDS and not self.check
        deletable: frozenset[str] | None = None  # all that may be deleted was approved
        run = environment.new_run(self.prepared.command, self.prepared.sources)
        with self._open_store(writes) as store:
            environment.refuse_used_run_id(store, run.run_id)
            if self.expected is not None:
                look = PreviewStore(store)
                preview = self._run_engine(look, run, check=True, silent=True)
                if preview.exit_code not in (ExitCode.OK, ExitCode.PENDING):
                    ended = preview if check else mark_not_applied(preview)
                    if not check:
                        look.retell(event_not_applied)
                    self._end_with(look, run, ended)
                    return ended.exit_code
            elif writes and not approved and _may_delete(self.prepared.works):
                preview = self._run_engine(PreviewStore(store), run, check=True, silent=True)
                if preview.interrupted:
                    raise Interrupted("interrupted; nothing was written")
                deletable = self._ask_approval(preview)
            outcome = self._run_engine(store, run, check=check, deletable=deletable)
        self._publish_outcome(outcome)
        if out is not None and outcome.exit_code in (ExitCode.OK, ExitCode.PENDING):
            hashes = self.prepared.hashes(plan_folder(Path(out)))
            sources, selection = self.prepared.sources, self.prepared.selection
            digest = save_plan(outcome, sources, selection, self.prepared.works, hashes, Path(out))
            if self.prepared.options.output == "text" and not self.prepared.options.quiet:
                click.echo(f"plan {digest}")
                click.echo(f"saved, apply it with: fazai apply --plan {out} --plan-hash {digest}")
        return outcome.exit_code

    @contextlib.contextmanager
    def _open_store(self, writes: bool) -> Iterator[Store]:
        from fazai.store.factory import describe_openness, open_store
        from fazai.store.null import NullStore

        store: Store
        try:
            days_s = self.config.keep_targets_days * 86400.0
            store = open_store(self.config.state, keep_runs=self.config.keep_runs, targets_age_s=days_s)
            if (warning := describe_openness(self.config.state)) is not None:
                click.echo(f"warning: {warning}", err=True)
        except StateError as error:
            if writes:
                raise
            click.echo(f"warning: {error.message}; this run is not recorded", err=True)
            store, self.recorded = NullStore(), False
        try:
            yield store
        finally:
            try:
                store.close()
            except StateError as error:
                click.echo(f"warning: {error.message}", err=True)

    def _run_engine(
        self,
        store: Store,
        run: Run,
        *,
        check: bool,
        deletable: frozenset[str] | None = None,
        silent: bool = False,
    ) -> RunOutcome:
        import asyncio  # validate does not pay for it

        from fazai.apply import Engine

        works = tuple(map(_make_read_only, self.prepared.works)) if check else self.prepared.works
        report = None if silent or self.prepared.options.output != "text" else self._begin_report(check)
        reporter = None if silent else self._start_reporter(run, check)

        def emit(event: EngineEvent) -> None:
            for each in (report, reporter):
                if each is not None:
                    each.event(event)

        engine = Engine(
            store=store if self.view is None else self.view.ledger(store),
            provider=self.prepared.registry.provider if self.view is None else self.view.provider,
            run=run,
            emit=emit,
            finished=report.target if report else lambda _: None,
            forks=self.prepared.options.forks or self.config.forks,
            check=check,
            expected=self.expected,
            deletable=deletable,
            secrets=self.prepared.secrets.texts,
        )
        outcome = asyncio.run(self._carry_out(engine, works))
        if report is not None:
            report.end(outcome)
        if reporter is not None:
            reporter.end(outcome)
            if reporter.trouble:
                click.echo(f"warning: {reporter.trouble}", err=True)
        return outcome

    def _end_with(self, look: PreviewStore, run: Run, outcome: RunOutcome) -> None:
        """Record and report a run that ends with its preview, as its plan cannot be applied."""
        import asyncio

        from fazai.outcome import EngineEvent

        with contextlib.suppress(StateError):  # it wrote nothing, and says how it ended in any case
            asyncio.run(look.record(run, outcome.exit_code, outcome.totals()))
        reporter = self._start_reporter(run, check=False)
        if reporter is not None:
            for moment, type_, target, data in look.events_kept:
                reporter.event(EngineEvent(type_, moment, target, data))
            reporter.end(outcome)
        self._report_preview(outcome)

    def _start_reporter(self, run: Run, check: bool) -> RunReporter | None:
        """Start to tell the daemon of this run, where one is configured."""
        root = os.geteuid() == 0
        if not os.environ.get("FAZAI_URL") and not environment.find_local_socket(root):
            return None  # without paying for the import
        from fazai.cli.reporting import start_reporter

        return start_reporter(os.environ, root=root, state=self.config.state, run=run, check=check)

    async def _carry_out(self, engine: Engine, works: tuple[Work, ...]) -> RunOutcome:
        import asyncio

        from fazai.cli.lab_targets import with_lab_firewalls, with_lab_folders

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt, engine.interrupt)
        if self.view is not None:  # it asks no firewall
            async with self.view.scope:
                return await engine.carry_out(with_lab_folders(works, self.config.lab))
        async with with_lab_firewalls(works, self.config.lab) as reachable:
            return await engine.carry_out(reachable)

    def _interrupt(self, interrupt: Callable[[], None]) -> None:
        self.interrupts += 1
        what = "stopping now" if self.interrupts > 1 else "finishing what is in flight (again: stop now)"
        click.echo(f"\ninterrupted: {what}", err=True)
        interrupt()

    # -- approval ---------------------------------------------------------------------------------------

    def _ask_approval(self, preview: RunOutcome) -> frozenset[str]:
        """Ask at a terminal before anything is deleted; returns what may be. Raises InputError without a
        terminal, or when told no."""
        deletes = [
            action.change
            for target in preview.targets
            for action in target.actions
            if action.change.verb is Verb.DELETE and action.status == "planned"
        ]
        if not deletes:
            return frozenset()
        targets = len({change.target for change in deletes})
        what = f"{count_noun(len(deletes), 'item')} on {count_noun(targets, 'target')}"
        if not sys.stdin.isatty() or self.prepared.options.output != "text":
            text = f"{what} would be deleted and there is no terminal to ask at; nothing was written"
            raise UsageError(text, hint="look at it with: fazai plan, then say --yes")
        from fazai.report.lines import change_title

        for change in deletes[:50]:
            click.echo(f"  {change.target}  - {change_title(change)}")
        if len(deletes) > 50:
            click.echo(f"  … and {len(deletes) - 50} more")
        if not click.confirm(f"Delete {what}?", default=False):
            raise InputError("not approved; nothing was written")
        from fazai.plan import changes_digest

        return frozenset(changes_digest((change,)) for change in deletes)

    # -- output -----------------------------------------------------------------------------------------

    def _begin_report(self, check: bool) -> TextReport:
        import shutil

        from fazai.cli.terminal import Terminal
        from fazai.report.text import TextReport

        terminal = Terminal.of(sys.stdout, os.environ, self.prepared.options.color)
        make_report = TextReport if self.view is None else self.view.make_report
        report = make_report(
            out=sys.stdout,
            noun=lambda name: getattr(self.prepared.registry.provider(name), "noun", "target"),
            paint=terminal.paint,
            live=terminal.live and not self.prepared.options.quiet,
            every_change=terminal.live or check or self.prepared.options.verbose,
            diff=self.prepared.options.diff,
            explain=self.prepared.options.explain,
            quiet=self.prepared.options.quiet,
            recorded=self.recorded,
            columns=shutil.get_terminal_size().columns if terminal.live else 160,
        )
        report.begin(self.prepared.works)
        return report

    def _report_preview(self, outcome: RunOutcome) -> None:
        """Report a preview, which ran silently, as the run that it stands for."""
        self._publish_outcome(outcome)
        if self.prepared.options.output == "text":
            report = self._begin_report(check=True)  # it had no room for progress: all that is known is shown
            for target in outcome.targets:
                report.target(target)
            report.end(outcome)

    def _publish_outcome(self, outcome: RunOutcome) -> None:
        """Hand the outcome to the caller, and print it in the machine format that was asked for."""
        self.on_outcome(outcome)
        if self.prepared.options.output != "text":
            from fazai.report.machine import render_outcome

            options, results = self.prepared.options, self.view.results if self.view is not None else {}
            text = render_outcome(options.output, outcome, self.prepared.command, results=results)
            click.echo(text, nl=False)


def _may_delete(works: Sequence[Work]) -> bool:
    return any(
        item.target.options.get("prune") or any(r.state == "absent" for r in item.resources)
        for work in works
        for item in work.targets
    )


def _make_read_only(work: Work) -> Work:
    """Return the same work on read-only targets: a check cannot write by mistake either."""
    targets = (replace(item, target=replace(item.target, mode="read")) for item in work.targets)
    return replace(work, targets=tuple(targets))
