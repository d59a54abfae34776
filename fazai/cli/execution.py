"""Carries out a prepared run: asks, runs the engine, reports, and returns the exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fazai.cli import environment
from fazai.cli.planfile import plan_folder, save_plan
from fazai.cli.preparing import PreparedRun, count
from fazai.errors import ExitCode, InputError, Interrupted, StateError, UsageError
from fazai.model import Verb, Work
from fazai.outcome import event_not_applied, mark_not_applied
from fazai.store.preview import PreviewStore

if TYPE_CHECKING:
    from fazai.cli.reporting import RunReporter
    from fazai.config import ProcessConfig
    from fazai.outcome import EngineEvent, RunOutcome, TargetOutcome
    from fazai.plan import Expected
    from fazai.report.text import TextReport
    from fazai.store.base import Run, Store

__all__ = ["execute_run"]


def execute_run(
    prepared: PreparedRun,
    *,
    check: bool,
    approved: bool = False,
    out: str | None = None,
    expected: Mapping[str, Expected] | None = None,
    on_outcome: Callable[[RunOutcome], object] = lambda _: None,
) -> int:
    """Carry out a prepared run, report it, and return the exit code.

    `check`: write nothing. `approved`: delete without asking. `out`: the file to save the plan in.
    `expected`: what a saved plan expects of each target. `on_outcome` is called with the outcome of the run,
    not with that of a preview. Raises FazaiError.
    """
    return _Execution(prepared, environment.read_config(), on_outcome).execute(
        check=check, approved=approved, out=out, expected=expected
    )


class _Execution:
    """One run on its way; see `execute_run`."""

    def __init__(
        self, prepared: PreparedRun, config: ProcessConfig, on_outcome: Callable[[RunOutcome], object]
    ) -> None:
        self._prepared = prepared
        self._command = prepared.command
        self._works = prepared.works
        self._options = prepared.options
        self._config = config
        self._on_outcome = on_outcome
        self._interrupts = 0
        self._recorded = True

    def execute(
        self,
        *,
        check: bool,
        approved: bool = False,
        out: str | None = None,
        expected: Mapping[str, Expected] | None = None,
    ) -> int:
        """Run, report, and return the exit code."""
        writes = self._command == "apply" and not check
        deletable: frozenset[str] | None = None  # all that may be deleted was approved
        run = environment.new_run(self._command, self._prepared.sources)
        with self._open_store(writes) as store:
            environment.refuse_used_run_id(store, run.run_id)
            if expected is not None:
                look = PreviewStore(store)
                preview = self._run_engine(look, run, check=True, expected=expected, silent=True)
                if preview.exit_code not in (ExitCode.OK, ExitCode.PENDING):
                    ended = preview if check else mark_not_applied(preview)
                    if not check:
                        look.retell(event_not_applied)
                    self._end_with(look, run, ended)
                    return ended.exit_code
            elif writes and not approved and _may_delete(self._works):
                preview = self._run_engine(PreviewStore(store), run, check=True, silent=True)
                if preview.interrupted:
                    raise Interrupted("interrupted; nothing was written")
                deletable = self._ask_approval(preview)
            outcome = self._run_engine(store, run, check=check, expected=expected, deletable=deletable)
        self._publish_outcome(outcome)
        if out is not None and outcome.exit_code in (ExitCode.OK, ExitCode.PENDING):
            hashes = self._prepared.hashes(plan_folder(Path(out)))
            sources, selection = self._prepared.sources, self._prepared.selection
            digest = save_plan(outcome, sources, selection, self._works, hashes, Path(out))
            if self._options.output == "text" and not self._options.quiet:
                click.echo(f"plan {digest}")
                click.echo(f"saved, apply it with: fazai apply --plan {out} --plan-hash {digest}")
        return outcome.exit_code

    @contextlib.contextmanager
    def _open_store(self, writes: bool) -> Iterator[Store]:
        from fazai.store.factory import describe_openness, open_store
        from fazai.store.null import NullStore

        store: Store
        try:
            config = self._config
            days_s = config.keep_targets_days * 86400.0
            store = open_store(config.state, keep_runs=config.keep_runs, targets_age_s=days_s)
            if (warning := describe_openness(self._config.state)) is not None:
                click.echo(f"warning: {warning}", err=True)
        except StateError as error:
            if writes:
                raise
            click.echo(f"warning: {error.message}; this run is not recorded", err=True)
            store, self._recorded = NullStore(), False
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
        expected: Mapping[str, Expected] | None = None,
        deletable: frozenset[str] | None = None,
        silent: bool = False,
    ) -> RunOutcome:
        import asyncio  # validate does not pay for it

        works = tuple(map(_make_read_only, self._works)) if check else self._works
        report = None if silent or self._options.output != "text" else self._begin_report(check)
        reporter = None if silent else self._start_reporter(run, check)
        emits = [each.event for each in (report, reporter) if each is not None]
        outcome = asyncio.run(self._carry_out(store, run, works, check, expected, deletable, report, emits))
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

        return start_reporter(os.environ, root=root, state=self._config.state, run=run, check=check)

    async def _carry_out(
        self,
        store: Store,
        run: Run,
        works: tuple[Work, ...],
        check: bool,
        expected: Mapping[str, Expected] | None,
        deletable: frozenset[str] | None,
        report: TextReport | None,
        emits: Sequence[Callable[[EngineEvent], None]],
    ) -> RunOutcome:
        import asyncio

        from fazai.apply import Engine
        from fazai.cli.lab_targets import with_lab_firewalls

        def ignore(_: TargetOutcome) -> None:
            pass

        def emit(event: EngineEvent) -> None:
            for one in emits:
                one(event)

        engine = Engine(
            store=store,
            provider=self._prepared.registry.provider,
            run=run,
            emit=emit,
            finished=report.target if report else ignore,
            forks=self._options.forks or self._config.forks,
            check=check,
            expected=expected,
            deletable=deletable,
            secrets=self._prepared.secrets.texts,
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt, engine.interrupt)
        async with with_lab_firewalls(works, self._config.lab) as reachable:
            return await engine.carry_out(reachable)

    def _interrupt(self, interrupt: Callable[[], None]) -> None:
        self._interrupts += 1
        what = "stopping now" if self._interrupts > 1 else "finishing what is in flight (again: stop now)"
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
        what = f"{count(len(deletes), 'item')} on {count(targets, 'target')}"
        if not sys.stdin.isatty() or self._options.output != "text":
            raise UsageError(
                f"{what} would be deleted and there is no terminal to ask at; nothing was written",
                hint="look at it with: fazai plan, then say --yes",
            )
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

        terminal = Terminal.of(sys.stdout, os.environ, self._options.color)
        report = TextReport(
            out=sys.stdout,
            noun=self._count_noun,
            paint=terminal.paint,
            live=terminal.live and not self._options.quiet,
            every_change=terminal.live or check or self._options.verbose,
            diff=self._options.diff,
            explain=self._options.explain,
            quiet=self._options.quiet,
            recorded=self._recorded,
            columns=shutil.get_terminal_size().columns if terminal.live else 160,
        )
        plays: dict[str, dict[str, int]] = {}
        alike: dict[str, str] = {}  # ssh and local are both hosts
        for work in self._works:
            counts = plays.setdefault(work.name, {})
            for item in work.targets:
                name = alike.setdefault(self._count_noun(item.target.provider, 1), item.target.provider)
                counts[name] = counts.get(name, 0) + 1
        resources = {work.name: sum(len(item.resources) for item in work.targets) for work in self._works}
        names = max((len(item.target.name) for work in self._works for item in work.targets), default=0)
        report.begin(plays, resources, names)
        return report

    def _report_preview(self, outcome: RunOutcome) -> None:
        """Report a preview, which ran silently, as the run that it stands for."""
        self._publish_outcome(outcome)
        if self._options.output == "text":
            report = self._begin_report(check=True)  # it had no room for progress: all that is known is shown
            for target in outcome.targets:
                report.target(target)
            report.end(outcome)

    def _count_noun(self, provider: str, number: int) -> str:
        noun: str = getattr(self._prepared.registry.provider(provider), "noun", "target")
        return count(number, noun)

    def _publish_outcome(self, outcome: RunOutcome) -> None:
        """Hand the outcome to the caller, and print it in the machine format that was asked for."""
        self._on_outcome(outcome)
        if self._options.output == "text":
            return
        from fazai.report import machine

        if self._options.output == "json":
            click.echo(machine.as_json(machine.run_record(outcome, self._command)), nl=False)
        elif self._options.output == "junit":
            click.echo(machine.as_junit(outcome, self._command), nl=False)
        else:
            click.echo(machine.as_markdown(outcome, self._command), nl=False)


def _may_delete(works: Sequence[Work]) -> bool:
    return any(
        item.target.options.get("prune") or any(r.state == "absent" for r in item.resources)
        for work in works
        for item in work.targets
    )


def _make_read_only(work: Work) -> Work:
    """Return the same work on read-only targets: a check cannot write by mistake either."""
    return replace(
        work,
        targets=tuple(replace(item, target=replace(item.target, mode="read")) for item in work.targets),
    )
