"""fazai apply, plan, drift, validate"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fazai.cli import setup
from fazai.errors import ExitCode, FazaiError, InputError, Interrupted, StateError, UsageError
from fazai.model import Provider, Verb, Warming, Work

if TYPE_CHECKING:
    from fazai.cli.reporting import Reporter
    from fazai.inventory import Inventory
    from fazai.outcome import Event, RunOutcome, TargetOutcome
    from fazai.plan import Expected, SavedPlan
    from fazai.registry import Registry
    from fazai.report.text import TextReport
    from fazai.store.base import Run, Store

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _options(*, writes: bool = False, shows: bool = True) -> _Decorator:
    """The options that the four commands share."""
    path = click.Path(dir_okay=True)
    options = [
        click.argument("inventory", nargs=-1, type=path),
        click.option("-i", "--inventory", "more", multiple=True, type=path, help="Another inventory source."),
        click.option("-p", "--playbook", multiple=True, type=path, help="Another playbook."),
        click.option("-l", "--limit", multiple=True, metavar="PATTERN", help="Only these hosts or groups."),
        click.option("-t", "--tags", multiple=True, help="Only resources with one of these tags."),
        click.option("--skip-tags", multiple=True, help="Not the resources with one of these tags."),
        click.option("--kind", multiple=True, metavar="GLOB", help="Only resources of these kinds."),
        click.option("-e", "--extra-vars", multiple=True, metavar="NAME=VALUE|@FILE", help="More variables."),
        click.option("--vault-password-file", multiple=True, type=path, help="For !vault; or label@file."),
    ]
    if shows:
        options += [
            click.option("-f", "--forks", type=click.IntRange(1, 4096), help="Targets at once."),
            click.option("-D", "--diff", is_flag=True, help="Show each change as a unified diff."),
            click.option("--explain", is_flag=True, help="Show where each field comes from."),
            click.option("-q", "--quiet", is_flag=True, help="Say nothing when all is converged."),
            click.option("-v", "--verbose", is_flag=True, help="A line a change also when piped."),
            click.option(
                "--output",
                type=click.Choice(["text", "json", "junit", "markdown"]),
                default="text",
                show_default=True,
            ),
            click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto"),
        ]
    if writes:
        options += [
            click.option(
                "-C", "--check", is_flag=True, help="Write nothing; exit 2 when something would be."
            ),
            click.option("-y", "--yes", is_flag=True, help="Delete without asking."),
            click.option("--plan", "plan_file", type=click.Path(dir_okay=False), help="A plan saved before."),
        ]

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


@click.command(
    "apply",
    epilog="\b\nExamples:\n  fazai apply inventory.yml\n  fazai apply inventory.yml --check --diff"
    "\n  fazai apply inventory.yml --limit 'edge:!fw-03' --tags dns\n  fazai apply --plan change-42.json",
)
@_options(writes=True)
def apply_command(check: bool, yes: bool, plan_file: str | None, **options: Any) -> int:
    """Bring the targets of INVENTORY to their declared state, and verify it."""
    if plan_file is not None:
        return _apply_plan(Path(plan_file), options, check)
    return _Command("apply", options).execute(check=check, approved=yes)


@click.command(
    "plan",
    epilog="\b\nExamples:\n  fazai plan inventory.yml --diff\n  fazai plan inventory.yml -o change-42.json"
    "\n  fazai plan inventory.yml --output markdown > comment.md",
)
@_options()
@click.option("-o", "--out", type=click.Path(dir_okay=False), help="Save the plan for: apply --plan.")
def plan_command(out: str | None, **options: Any) -> int:
    """Show what apply would change. Exit 2 when something would."""
    if out is not None:
        _no_secrets(options["extra_vars"])
    return _Command("plan", options).execute(check=True, out=out)


@click.command(
    "drift", epilog="\b\nExample (cron):\n  */15 * * * * fazai drift /etc/fazai/inventory.yml --quiet"
)
@_options()
def drift_command(**options: Any) -> int:
    """Look for differences between declared and actual state. Can never write. Exit 2 when there are any."""
    return _Command("drift", options).execute(check=True)


@click.command("validate", epilog="\b\nExample:\n  fazai validate inventory.yml")
@_options(shows=False)
@click.option("-q", "--quiet", is_flag=True, help="Say nothing when all is well.")
def validate_command(quiet: bool, **options: Any) -> int:
    """Check inventory, playbooks, templates and every field, without contacting anything."""
    command = _Command("validate", options)
    works = command.works
    targets = sum(len(work.targets) for work in works)
    resources = sum(len(item.resources) for work in works for item in work.targets)
    if not quiet:
        click.echo(f"valid: {_count(targets, 'target')}, {_count(resources, 'resource')}")
    return ExitCode.OK


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def command_of(name: str, options: Mapping[str, Any]) -> _Command:
    """A command that only needs to know the targets."""
    unset = dict.fromkeys(("playbook", "tags", "skip_tags", "kind"), ())
    return _Command(name, {**unset, **options})


class _Command:
    """One invocation, from options to work: all that can be wrong is found here, before any contact."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        from fazai.registry import Registry

        self.name = name
        self.options = options
        self.config = setup.config()
        self.registry: Registry = Registry()
        self.sources = setup.sources_of(options["inventory"], options["more"])
        self.secrets = setup.secret_reader(options["vault_password_file"])
        self.inventory: Inventory = setup.load_inventory(self.sources, self.secrets)
        self.works: tuple[Work, ...] = self._resolve()

    def _resolve(self) -> tuple[Work, ...]:
        from fazai.playbook import Selection, load_playbooks, resolve

        paths = [path for path, _ in self.inventory.playbooks]
        plays = load_playbooks(
            [*paths, *(Path(path) for path in self.options["playbook"])], decrypt=self.secrets.open_file
        )
        return resolve(
            self.inventory,
            plays,
            providers=self._provider,
            kinds=self.registry.kind,
            selection=Selection(
                limit=tuple(self.options["limit"]),
                tags=_words(self.options["tags"]),
                skip_tags=_words(self.options["skip_tags"]),
                kinds=_words(self.options["kind"]),
            ),
            extra_vars=setup.extra_vars(self.options["extra_vars"]),
            secrets=self.secrets,
        )

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
        with self._store(writes) as store:
            if expected is not None:
                preview = self._run(store, check=True, expected=expected, silent=True)
                if preview.exit_code not in (ExitCode.OK, ExitCode.PENDING):
                    self._told(preview)
                    return preview.exit_code
            elif writes and not approved and _may_delete(self.works):
                preview = self._run(store, check=True, silent=True)
                if preview.interrupted:
                    raise Interrupted("interrupted; nothing was written")
                deletable = self._approve(preview)
            outcome = self._run(store, check=check, expected=expected, deletable=deletable)
        self._machine(outcome)
        if out is not None and outcome.exit_code in (ExitCode.OK, ExitCode.PENDING):
            self._save(outcome, Path(out))
        return outcome.exit_code

    @contextlib.contextmanager
    def _store(self, writes: bool) -> Iterator[Store]:
        from fazai.store.null import NullStore
        from fazai.store.sqlite import SqliteStore

        store: Store
        try:
            store = SqliteStore(self.config.state)
        except StateError as error:
            if writes:
                raise
            click.echo(f"warning: {error.message}; this run is not recorded", err=True)
            store = NullStore()
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
        *,
        check: bool,
        expected: Mapping[str, Expected] | None = None,
        deletable: frozenset[str] | None = None,
        silent: bool = False,
    ) -> RunOutcome:
        run = setup.new_run("check" if silent else self.name, self.sources)
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
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupted, engine.interrupt)
        async with with_lab(works, self.config.lab) as reachable:
            return await engine.carry_out(reachable)

    def _interrupted(self, interrupt: Callable[[], None]) -> None:
        click.echo("\ninterrupted: finishing what is in flight (again: stop now)", err=True)
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
        what = f"{_count(len(deletes), 'item')} on {_count(targets, 'target')}"
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
        return frozenset(change.where for change in deletes)

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
            columns=shutil.get_terminal_size().columns if terminal.live else 160,
        )
        plays: dict[str, dict[str, int]] = {}
        for work in self.works:
            counts = plays.setdefault(work.name, {})
            for item in work.targets:
                counts[item.target.provider] = counts.get(item.target.provider, 0) + 1
        resources = {work.name: sum(len(item.resources) for item in work.targets) for work in self.works}
        names = max((len(item.target.name) for work in self.works for item in work.targets), default=0)
        report.begin(plays, resources, names)
        return report

    def _told(self, outcome: RunOutcome) -> None:
        """The report of a run that was silent."""
        self._machine(outcome)
        if self.options["output"] == "text":
            report = self._text(check=True)
            for target in outcome.targets:
                report.target(target)
            report.end(outcome)

    def _noun(self, provider: str, count: int) -> str:
        noun = getattr(self.registry.provider(provider), "noun", "target")
        return _count(count, noun)

    def _machine(self, outcome: RunOutcome) -> None:
        if self.options["output"] == "text":
            return
        from fazai.report import machine

        if self.options["output"] == "json":
            click.echo(machine.as_json(machine.run_record(outcome, self.name)), nl=False)
        elif self.options["output"] == "junit":
            click.echo(machine.as_junit(outcome, self.name), nl=False)
        else:
            click.echo(machine.as_markdown(outcome, self.name), nl=False)

    def _save(self, outcome: RunOutcome, path: Path) -> None:
        from fazai import __version__
        from fazai.outcome import change_record
        from fazai.plan import Expected, SavedPlan, changes_digest, write_plan

        changes = {t.target: [action.change for action in t.actions] for t in outcome.targets}
        plan = SavedPlan(
            arguments=_arguments(self.sources, self.options),
            inventory=_digest(self.inventory, self.options),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            version=__version__,
            targets={
                t.target: Expected(t.observed, changes_digest(changes[t.target])) for t in outcome.targets
            },
            changes=tuple(change_record(change) for found in changes.values() for change in found),
        )
        write_plan(plan, path)
        if self.options["output"] == "text" and not self.options["quiet"]:
            click.echo(f"plan {plan.digest[:12]} saved, apply it with: fazai apply --plan {path}")


def _words(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(word.strip() for value in values for word in value.split(",") if word.strip())


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


# -- saved plans ----------------------------------------------------------------------------------------

_KEPT = ("playbook", "limit", "tags", "skip_tags", "kind", "extra_vars", "vault_password_file")


def _arguments(sources: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """What the plan has to be made with again, wherever that is done."""
    kept = {name: list(options[name]) for name in _KEPT}
    kept["playbook"] = [os.path.abspath(path) for path in options["playbook"]]
    kept["extra_vars"] = [
        f"@{os.path.abspath(word[1:])}" if word.startswith("@") else word for word in options["extra_vars"]
    ]
    kept["vault_password_file"] = [
        f"{label}{at}{os.path.abspath(os.path.expanduser(file))}"
        for label, at, file in (word.rpartition("@") for word in options["vault_password_file"])
    ]
    return {"inventory": [_absolute(source) for source in sources], **kept}


def _no_secrets(extra_vars: Sequence[str]) -> None:
    """A plan keeps the command line's variables. Raises UsageError when one of them looks like a secret."""
    from fazai.inventory.show import TELLTALE

    for word in extra_vars:
        if not word.startswith("@") and (found := TELLTALE.search(word)):
            raise UsageError(
                f'a saved plan holds no secret, and --extra-vars speaks of "{found[0]}"',
                hint="give it as -e @file, or by reference (!env, !file, !cmd, !vault)",
            )


def _absolute(source: str) -> str:
    """A list of names with a comma in it is no path."""
    return source if "," in source and not os.path.exists(source) else os.path.abspath(source)


def _digest(inventory: Inventory, options: Mapping[str, Any]) -> str:
    """Of the inventory, of the playbooks and of the selection; not of where the vault's password is."""
    import hashlib

    digest = hashlib.sha256(inventory.digest.encode())
    for path in [path for path, _ in inventory.playbooks] + [Path(p) for p in options["playbook"]]:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    arguments = _arguments((), options)
    digest.update(repr([arguments[name] for name in _KEPT if name != "vault_password_file"]).encode())
    return digest.hexdigest()


def _apply_plan(path: Path, options: Mapping[str, Any], check: bool) -> int:
    from fazai.plan import read_plan

    given = [
        name for name in ("inventory", "more", *_KEPT) if options[name] and name != "vault_password_file"
    ]
    if given:
        raise UsageError(
            "a saved plan brings its own inventory and selection", hint="leave out everything but --plan"
        )
    plan: SavedPlan = read_plan(path)
    merged = {**options, **{name: tuple(plan.arguments.get(name, ())) for name in _KEPT}}
    merged["inventory"] = tuple(plan.arguments.get("inventory", ()))
    if options["vault_password_file"]:
        merged["vault_password_file"] = options["vault_password_file"]
    try:
        command = _Command("apply", merged)
    except FazaiError as error:
        error.hint = error.hint or "the plan's inventory was edited or moved"
        raise
    plan.check_inventory(_digest(command.inventory, merged))
    command.works = tuple(
        replace(w, targets=tuple(i for i in w.targets if i.target.name in plan.targets))
        for w in command.works
    )
    return command.execute(check=check, expected=plan.targets)
