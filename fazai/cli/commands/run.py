"""fazai apply, plan, drift, validate"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from fazai.cli.commands.completion import complete_kind, complete_pattern
from fazai.cli.execution import execute_run
from fazai.cli.options import (
    ALLOW_SCRIPTS,
    COLOR,
    EXTRA_VARS,
    PASSWORDS,
    PATH,
    SOURCES,
    VAULT_PASSWORDS,
    add_options,
)
from fazai.cli.planfile import plan_folder, plan_selection, refuse_secrets
from fazai.cli.preparing import PreparedRun, prepare_run
from fazai.cli.run_options import OUTPUTS, RunOptions, RunSelection
from fazai.errors import ExitCode, InputError, UsageError, count_noun

if TYPE_CHECKING:
    from fazai.outcome import RunOutcome
    from fazai.plan import SavedPlan

#: Options of `RunSelection`: the files that are read, and the part of them that is meant.
_SELECTION_OPTIONS: Final = (
    click.argument("inventory", nargs=-1, type=PATH),
    SOURCES,
    click.option("-p", "--playbook", multiple=True, type=PATH, help="Another playbook."),
    click.option(
        "-l",
        "--limit",
        multiple=True,
        metavar="PATTERN",
        shell_complete=complete_pattern,
        help="Only these hosts or groups.",
    ),
    click.option("-t", "--tags", multiple=True, help="Only resources with one of these tags."),
    click.option("--skip-tags", multiple=True, help="Not the resources with one of these tags."),
    click.option(
        "--kind",
        multiple=True,
        metavar="GLOB",
        shell_complete=complete_kind,
        help="Only resources of these kinds.",
    ),
    EXTRA_VARS,
    click.option("--entries", multiple=True, type=PATH, help="Addresses of aliases; see docs/rules.md."),
    VAULT_PASSWORDS,
    ALLOW_SCRIPTS,
)
#: Options of `RunOptions`: the way targets are contacted, and the output.
_RUN_OPTIONS: Final = (
    click.option("-f", "--forks", type=click.IntRange(1, 4096), help="Targets at once."),
    *PASSWORDS,
    click.option("-D", "--diff", is_flag=True, help="Show each change as a unified diff."),
    click.option("--explain", is_flag=True, help="Show where each field comes from."),
    click.option("-q", "--quiet", is_flag=True, help="Say nothing when all is converged."),
    click.option("-v", "--verbose", is_flag=True, help="A line a change also when piped."),
    click.option("--output", type=click.Choice(OUTPUTS), default="text", show_default=True),
    COLOR,
)
#: Options that only apply has.
_APPLY_OPTIONS: Final = (
    click.option("--textfile", type=click.Path(dir_okay=False), help="Metrics for node_exporter: X.prom."),
    click.option("-C", "--check", is_flag=True, help="Write nothing; exit 2 when something would be."),
    click.option("-y", "--yes", is_flag=True, help="Delete without asking."),
    click.option("--plan", "plan_file", type=click.Path(dir_okay=False), help="A plan saved before."),
    click.option("--plan-hash", metavar="HASH", help="The hash that was approved: another plan is refused."),
)


@click.command(
    "apply",
    epilog="\b\nExamples:\n  fazai apply inventory.yml\n  fazai apply inventory.yml --check --diff"
    "\n  fazai apply inventory.yml --limit 'edge:!fw-03' --tags dns\n  fazai apply --plan change-42.json",
)
@add_options(_SELECTION_OPTIONS, _RUN_OPTIONS, _APPLY_OPTIONS)
def apply_command(
    check: bool, yes: bool, plan_file: str | None, plan_hash: str | None, textfile: str | None, **options: Any
) -> int:
    """Bring the targets of INVENTORY to their declared state, and verify it."""
    from fazai.cli.textfile import MetricsTextfile

    with MetricsTextfile.of(textfile, check=check) as figures:
        if plan_file is not None:
            return figures.exit(_apply_plan(Path(plan_file), plan_hash, options, check, figures.outcome))
        if plan_hash is not None:
            raise UsageError("--plan-hash is the hash of a saved plan", hint="name the file: --plan FILE")
        prepared = _prepare("apply", options)
        code = execute_run(prepared, check=check, approved=yes, on_outcome=figures.outcome)
        return figures.exit(code)


@click.command(
    "plan",
    epilog="\b\nExamples:\n  fazai plan inventory.yml --diff\n  fazai plan inventory.yml -o change-42.json"
    "\n  fazai plan inventory.yml --output markdown > comment.md",
)
@add_options(_SELECTION_OPTIONS, _RUN_OPTIONS)
@click.option("-o", "--out", type=click.Path(dir_okay=False), help="Save the plan for: apply --plan.")
def plan_command(out: str | None, **options: Any) -> int:
    """Show what apply would change. Exit 2 when something would."""
    if out is not None:
        refuse_secrets(options["extra_vars"])
    return execute_run(_prepare("plan", options), check=True, out=out)


@click.command(
    "drift", epilog="\b\nExample (cron):\n  */15 * * * * fazai drift /etc/fazai/inventory.yml --quiet"
)
@add_options(_SELECTION_OPTIONS, _RUN_OPTIONS)
def drift_command(**options: Any) -> int:
    """Look for differences between declared and actual state. Can never write. Exit 2 when there are any."""
    return execute_run(_prepare("drift", options), check=True)


@click.command("validate", epilog="\b\nExample:\n  fazai validate inventory.yml")
@add_options(_SELECTION_OPTIONS)
@click.option("-q", "--quiet", is_flag=True, help="Say nothing when all is well.")
def validate_command(quiet: bool, **options: Any) -> int:
    """Check inventory, playbooks, templates and every field, without contacting anything."""
    works = _prepare("validate", {**options, "quiet": quiet}).works
    targets = sum(len(work.targets) for work in works)
    resources = sum(len(item.resources) for work in works for item in work.targets)
    if not quiet:
        click.echo(f"valid: {count_noun(targets, 'target')}, {count_noun(resources, 'resource')}")
    return ExitCode.OK


def _prepare(command: str, options: Mapping[str, Any]) -> PreparedRun:
    """Prepare a run from click's parameters. Raises InputError, Errors."""
    return prepare_run(command, RunSelection.from_click(options), RunOptions.from_click(options))


def _apply_plan(
    path: Path,
    approved: str | None,
    options: Mapping[str, Any],
    check: bool,
    on_outcome: Callable[[RunOutcome], object],
) -> int:
    """Apply a saved plan, if it is the approved one and nothing that it was made from has moved on."""
    from fazai.plan import read_plan

    given = RunSelection.from_click(options)
    if replace(given, vault_password_file=(), allow_scripts=False) != RunSelection():
        text = "a saved plan brings its own inventory and selection"
        raise UsageError(text, hint="leave out everything but --plan")
    plan: SavedPlan = read_plan(path)
    if approved is not None:
        plan.check_hash(approved, path)
    selection = replace(plan_selection(plan.arguments, plan_folder(path)), allow_scripts=given.allow_scripts)
    if given.vault_password_file:
        selection = replace(selection, vault_password_file=given.vault_password_file)
    try:
        prepared = prepare_run("apply", selection, RunOptions.from_click(options), (plan, path))
    except InputError as error:
        error.hint = error.hint or "edited or moved? paths in a plan start at its own folder"
        raise
    return execute_run(prepared, check=check, expected=plan.targets, on_outcome=on_outcome)
