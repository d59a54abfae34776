"""One invocation of apply, plan, drift or validate, from options to the exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from fazai.cli import setup
from fazai.cli.passwords import with_passwords
from fazai.cli.planfile import FilesRead, folder_of, save_plan
from fazai.errors import (
    Errors,
    ExitCode,
    FazaiError,
    InputError,
    Interrupted,
    StateError,
    UsageError,
    raise_found,
)
from fazai.model import Provider, Verb, Warming, Work
from fazai.outcome import event_not_applied, not_applied
from fazai.store.preview import PreviewStore

if TYPE_CHECKING:
    from fazai.cli.reporting import Reporter
    from fazai.inventory import Inventory
    from fazai.outcome import Event, RunOutcome, TargetOutcome
    from fazai.plan import Expected, SavedPlan
    from fazai.playbook import Selection
    from fazai.registry import Registry
    from fazai.report.text import TextReport
    from fazai.store.base import Run, Store

__all__ = ["Command", "command_of", "count"]

_T = TypeVar("_T")


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def command_of(name: str, options: Mapping[str, Any]) -> Command:
    """A command that only needs to know the targets."""
    unset = dict.fromkeys(("playbook", "tags", "skip_tags", "kind"), ())
    return Command(name, {**unset, **options})


class Command:
    """One invocation, from options to work: all that can be wrong is found here, before any contact."""

    def __init__(
        self,
        name: str,
        options: Mapping[str, Any],
        ended: Callable[[RunOutcome], object] = lambda _: None,
        plan: tuple[SavedPlan, Path] | None = None,
    ) -> None:
        """`plan`: a saved one, and its file: what it was made from is held against it before a secret is
        read, and what is wanted of each target before one is contacted. Raises InputError, PlanStale."""
        from fazai.registry import Registry

        self.name = name
        self._ended = ended  # hears of the run that counts
        self.options = options
        self.config = setup.config()
        self._interrupts = 0
        self._recorded = True
        self.registry: Registry = Registry()
        self.sources = setup.sources_of(options["inventory"], options["more"])
        self._inputs, self._files = FilesRead(), FilesRead()
        self._wrong: list[FazaiError] = []  # what was found before all is resolved, and said with the rest
        self.secrets = self._read(lambda: setup.secret_reader(options["vault_password_file"]))
        self.inventory: Inventory = self._read(
            lambda: setup.load_inventory(
                self.sources,
                self.secrets,
                allow_scripts=options.get("allow_scripts", False),
                quiet=options.get("quiet", False),
            )
        )
        works = self._resolve(plan)
        self.works: tuple[Work, ...] = with_passwords(works, options, self.registry.provider)

    def _read(self, read: Callable[[], _T]) -> _T:
        """What is read; of what has mistakes, the rest. Raises FazaiError when there is none."""
        try:
            return read()
        except FazaiError as error:
            self._wrong += error.errors if isinstance(error, Errors) else [error]
            if error.rest is None:
                raise_found(self._wrong)
            return cast("_T", error.rest)

    def _resolve(self, plan: tuple[SavedPlan, Path] | None) -> tuple[Work, ...]:
        from fazai.playbook import load_playbooks, resolve

        paths = [path for path, _ in self.inventory.playbooks]
        plays = self._read(
            lambda: load_playbooks(
                [*paths, *(Path(path) for path in self.options["playbook"])],
                decrypt=self.secrets.open_file,
                seen=self._inputs,
            )
        )
        known = len(self._wrong)
        extra_vars = self._read(lambda: setup.extra_vars(self.options["extra_vars"], self._inputs))
        whole = self.inventory.whole and len(self._wrong) == known
        selection = self._read(self._selection)
        if plan is not None:  # before a secret is read: what reads it may have been edited
            raise_found(self._wrong)
            plan[0].check_inventory(self._inputs.digest(self.inventory, folder_of(plan[1])))
        works = resolve(
            self.inventory,
            plays,
            providers=self._provider,
            kinds=self.registry.kind,
            selection=selection,
            extra_vars=extra_vars,
            secrets=self.secrets,
            seen=self._files,
            left_out=self._note_left_out,
            misnamed=self._note_misnamed,
            before=self._wrong,
            whole=whole,
        )
        if plan is None:
            return works
        works = tuple(
            replace(w, targets=tuple(i for i in w.targets if i.target.name in plan[0].targets)) for w in works
        )
        plan[0].check_files(self._files.digest(self.inventory, folder_of(plan[1])))
        plan[0].check_wanted(item for work in works for item in work.targets)
        return works

    def _selection(self) -> Selection:
        """What `--limit` and its like choose. Raises UsageError, Errors."""
        from fazai.playbook import Selection

        wrong: list[FazaiError] = []
        words: dict[str, tuple[str, ...]] = {}
        for name in ("tags", "skip_tags", "kind"):
            try:
                words[name] = _words(f"--{name.replace('_', '-')}", self.options[name])
            except UsageError as error:
                wrong.append(error)
        limit = tuple(self.options["limit"])
        if wrong:
            raise_found(wrong, Selection(limit=limit))
        return Selection(limit, words["tags"], words["skip_tags"], words["kind"])

    def _note_left_out(self, hosts: Sequence[str]) -> None:
        """Says that hosts are no targets: `provider:` is easily forgotten, and all would seem well."""
        if hosts and not self.options.get("quiet"):
            has, are = ("has", "is") if len(hosts) == 1 else ("have", "are")
            names = ", ".join(hosts[:3]) + (", …" if len(hosts) > 3 else "")
            click.echo(
                f"note: {count(len(hosts), 'host')} {has} no provider: and {are} left out: {names}", err=True
            )

    def _note_misnamed(self, name: str, meant: str, hosts: Sequence[str]) -> None:
        if not self.options.get("quiet"):
            more = f" and {count(len(hosts) - 1, 'more host')}" if len(hosts) > 1 else ""
            text = f'the variable "{name}" of {hosts[0]}{more} is no option; did you mean "{meant}"?'
            click.echo(f"note: {text}", err=True)

    def _provider(self, name: str) -> Provider:
        found = self.registry.provider(name)
        if self.name != "validate" and isinstance(found, Warming):
            found.warm()  # a connection will be wanted
        return found

    # -- running ----------------------------------------------------------------------------------------

    def execute(
        self,
        *,
        check: bool,
        approved: bool = False,
        out: str | None = None,
        expected: Mapping[str, Expected] | None = None,
    ) -> int:
        """Run, report, and return the exit code."""
        writes = self.name == "apply" and not check
        deletable: frozenset[str] | None = None  # all that may be deleted was approved
        run = setup.new_run(self.name, self.sources)
        with self._store(writes) as store:
            setup.refuse_used(store, run.run_id)
            if expected is not None:
                look = PreviewStore(store)
                preview = self._run(look, run, check=True, expected=expected, silent=True)
                if preview.exit_code not in (ExitCode.OK, ExitCode.PENDING):
                    ended = preview if check else not_applied(preview)
                    if not check:
                        look.retell(event_not_applied)
                    self._end_with(look, run, ended)
                    return ended.exit_code
            elif writes and not approved and _may_delete(self.works):
                preview = self._run(PreviewStore(store), run, check=True, silent=True)
                if preview.interrupted:
                    raise Interrupted("interrupted; nothing was written")
                deletable = self._approve(preview)
            outcome = self._run(store, run, check=check, expected=expected, deletable=deletable)
        self._machine(outcome)
        if out is not None and outcome.exit_code in (ExitCode.OK, ExitCode.PENDING):
            folder = folder_of(Path(out))
            hashes = (
                self._inputs.digest(self.inventory, folder),
                self._files.digest(self.inventory, folder),
            )
            digest = save_plan(outcome, self.sources, self.options, self.works, hashes, Path(out))
            if self.options["output"] == "text" and not self.options["quiet"]:
                click.echo(f"plan {digest}")
                click.echo(f"saved, apply it with: fazai apply --plan {out} --plan-hash {digest}")
        return outcome.exit_code

    @contextlib.contextmanager
    def _store(self, writes: bool) -> Iterator[Store]:
        from fazai.store.null import NullStore
        from fazai.store.schema import openness
        from fazai.store.sqlite import SqliteStore

        store: Store
        try:
            store = SqliteStore(self.config.state, keep_runs=self.config.keep_runs)
            if (warning := openness(self.config.state)) is not None:
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

    def _run(
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

        works = tuple(_read_only(work) for work in self.works) if check else self.works
        report = None if silent or self.options["output"] != "text" else self._text(check)
        reporter = None if silent else self._reporter(run, check)
        emits = [one.event for one in (report, reporter) if one is not None]
        outcome = asyncio.run(self._carry_out(store, run, works, check, expected, deletable, report, emits))
        if report is not None:
            report.end(outcome)
        if reporter is not None:
            reporter.end(outcome)
            if reporter.trouble:
                click.echo(f"warning: {reporter.trouble}", err=True)
        return outcome

    def _end_with(self, look: PreviewStore, run: Run, outcome: RunOutcome) -> None:
        """Record and report a run that ends with the look ahead of it, as its plan cannot be applied."""
        import asyncio

        from fazai.outcome import Event

        with contextlib.suppress(StateError):  # it wrote nothing, and says how it ended in any case
            asyncio.run(look.record(run, outcome.exit_code, outcome.totals()))
        reporter = self._reporter(run, check=False)
        if reporter is not None:
            for moment, type_, target, data in look.events_kept:
                reporter.event(Event(type_, moment, target, data))
            reporter.end(outcome)
        self._told(outcome)

    def _reporter(self, run: Run, check: bool) -> Reporter | None:
        """Tells the daemon of this run, where one is configured."""
        root = os.geteuid() == 0
        if not os.environ.get("FAZAI_URL") and not setup.local_socket(root):
            return None  # without paying for the import
        from fazai.cli.reporting import reporter

        return reporter(os.environ, root=root, state=self.config.state, run=run, check=check)

    async def _carry_out(
        self,
        store: Store,
        run: Run,
        works: tuple[Work, ...],
        check: bool,
        expected: Mapping[str, Expected] | None,
        deletable: frozenset[str] | None,
        report: TextReport | None,
        emits: Sequence[Callable[[Event], None]],
    ) -> RunOutcome:
        import asyncio

        from fazai.apply import Engine
        from fazai.cli.labs import with_lab

        def ignore(_: TargetOutcome) -> None:
            pass

        def emit(event: Event) -> None:
            for one in emits:
                one(event)

        engine = Engine(
            store=store,
            provider=self.registry.provider,
            run=run,
            emit=emit,
            finished=report.target if report else ignore,
            forks=self.options["forks"] or self.config.forks,
            check=check,
            expected=expected,
            deletable=deletable,
            secrets=self.secrets.texts,
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupted, engine.interrupt)
        async with with_lab(works, self.config.lab) as reachable:
            return await engine.carry_out(reachable)

    def _interrupted(self, interrupt: Callable[[], None]) -> None:
        self._interrupts += 1
        what = "stopping now" if self._interrupts > 1 else "finishing what is in flight (again: stop now)"
        click.echo(f"\ninterrupted: {what}", err=True)
        interrupt()

    # -- approval ---------------------------------------------------------------------------------------

    def _approve(self, preview: RunOutcome) -> frozenset[str]:
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
        if not sys.stdin.isatty() or self.options["output"] != "text":
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

    def _text(self, check: bool) -> TextReport:
        import shutil

        from fazai.cli.terminal import Terminal
        from fazai.report.text import TextReport

        terminal = Terminal.of(sys.stdout, os.environ, self.options["color"])
        report = TextReport(
            out=sys.stdout,
            noun=self._noun,
            paint=terminal.paint,
            live=terminal.live and not self.options["quiet"],
            every_change=terminal.live or check or self.options["verbose"],
            diff=self.options["diff"],
            explain=self.options["explain"],
            quiet=self.options["quiet"],
            recorded=self._recorded,
            columns=shutil.get_terminal_size().columns if terminal.live else 160,
        )
        plays: dict[str, dict[str, int]] = {}
        alike: dict[str, str] = {}  # ssh and local are both hosts
        for work in self.works:
            counts = plays.setdefault(work.name, {})
            for item in work.targets:
                name = alike.setdefault(self._noun(item.target.provider, 1), item.target.provider)
                counts[name] = counts.get(name, 0) + 1
        resources = {work.name: sum(len(item.resources) for item in work.targets) for work in self.works}
        names = max((len(item.target.name) for work in self.works for item in work.targets), default=0)
        report.begin(plays, resources, names)
        return report

    def _told(self, outcome: RunOutcome) -> None:
        """The report of a run that was silent."""
        self._machine(outcome)
        if self.options["output"] == "text":
            report = self._text(check=True)  # it had no room for progress: all that is known is shown
            for target in outcome.targets:
                report.target(target)
            report.end(outcome)

    def _noun(self, provider: str, number: int) -> str:
        noun: str = getattr(self.registry.provider(provider), "noun", "target")
        return count(number, noun)

    def _machine(self, outcome: RunOutcome) -> None:
        self._ended(outcome)
        if self.options["output"] == "text":
            return
        from fazai.report import machine

        if self.options["output"] == "json":
            click.echo(machine.as_json(machine.run_record(outcome, self.name)), nl=False)
        elif self.options["output"] == "junit":
            click.echo(machine.as_junit(outcome, self.name), nl=False)
        else:
            click.echo(machine.as_markdown(outcome, self.name), nl=False)


def _words(option: str, values: Sequence[str]) -> tuple[str, ...]:
    """The words of an option, separated by commas. Raises UsageError for an empty one: what was meant to be a
    part of the resources would be all of them."""
    words = tuple(word.strip() for value in values for word in value.split(","))
    if not all(words):
        raise UsageError(f"{option} has an empty word", hint="an empty variable of the shell?")
    return words


def _may_delete(works: Sequence[Work]) -> bool:
    return any(
        item.target.options.get("prune") or any(r.state == "absent" for r in item.resources)
        for work in works
        for item in work.targets
    )


def _read_only(work: Work) -> Work:
    """The same work on targets that are not writable: what only looks cannot write by mistake either."""
    return replace(
        work,
        targets=tuple(replace(item, target=replace(item.target, mode="read")) for item in work.targets),
    )
