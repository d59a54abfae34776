"""fazai history, fazai show"""

from __future__ import annotations

import json
import os
from typing import Any

import click

from fazai.cli.commands.completion import complete_run
from fazai.cli.options import OUTPUT
from fazai.errors import InputError
from fazai.outcome import change_record, json_value
from fazai.report.lines import printable
from fazai.store.base import Action, Run, Store
from fazai.timestamps import format_time, timestamp

#: The parts of a run that are shown as they are, in order.
_SHOWN = ("run_id", "command", "sources", "user", "host", "pid", "started", "finished", "exit_code")


@click.command("history", epilog="\b\nExample:\n  fazai history --limit 5")
@click.option("--limit", "-n", type=click.IntRange(1, 10_000), default=20, show_default=True)
@OUTPUT
def history_command(limit: int, output: str) -> None:
    """List earlier runs, the newest first."""
    import asyncio

    from fazai.cli.environment import read_store

    with read_store() as store:
        runs = asyncio.run(store.history(limit))
    if output == "json":
        click.echo(json.dumps([_ledger_record(run) for run in runs], indent=1))
        return
    if not runs:
        click.echo("no runs yet")
    for run in runs:
        click.echo(_run_line(run))


@click.command("show", epilog="\b\nExample:\n  fazai show 01JDXK3M8Q")
@click.argument("run", required=False, shell_complete=complete_run)
@OUTPUT
def show_command(run: str | None, output: str) -> None:
    """Show one run: what was done, in order. RUN is the beginning (or the end) of its id; without it, the
    latest."""
    import asyncio

    from fazai.cli.environment import read_store

    with read_store() as store:
        found, actions, events = asyncio.run(_read_run(store, run))
    if output == "json":
        body = _ledger_record(found) | {"actions": list(map(_action_record, actions)), "events": events}
        click.echo(json.dumps(body, indent=1))
        return
    click.echo(_run_line(found))
    for event in events:
        click.echo(_ledger_line(event))


async def _read_run(store: Store, run: str | None) -> tuple[Run, list[Action], list[dict[str, Any]]]:
    """Return a run with its actions and events. Raises InputError where there is none, StateError."""
    found = next(iter(await store.history(1)), None) if run is None else await store.find_run(run)
    if found is None and run is None:
        raise InputError("there is no run yet", hint="fazai apply inventory.yml")
    if found is None:
        raise InputError(f'there is no run "{run}"', hint="see: fazai history")
    return found, await store.actions(found.run_id), await store.events(found.run_id)


def _action_record(action: Action) -> dict[str, Any]:
    ended = {name: getattr(action, name) for name in ("status", "error", "started", "finished")}
    return {"action_id": action.action_id, **change_record(action.change), **ended}


def _run_state(run: Run) -> str:
    if run.exit_code is not None:
        return f"exit {run.exit_code}"
    try:
        os.kill(run.pid, 0)
    except ProcessLookupError:
        return "cut off"
    except PermissionError:
        pass
    return "running"


def _run_line(run: Run) -> str:
    when = format_time(run.started)
    what = ", ".join(f"{count} {_plural(name, count)}" for name, count in run.summary.items() if count)
    sources = " ".join(os.path.basename(source) for source in run.sources)
    return (
        f"{run.run_id}  {when}  {run.user:<8}  {run.command:<6} {sources:<20}  {_run_state(run):<8}  {what}"
    )


def _plural(name: str, count: int) -> str:
    return name.removesuffix("s") if count == 1 and name in ("targets", "resources") else name


def _format_nested(value: object) -> object:
    """Format lists and mappings as people write them."""
    if isinstance(value, list):
        return "; ".join(str(_format_nested(item)) for item in value)
    if isinstance(value, dict):
        return " ".join(f"{name}={_format_nested(item)}" for name, item in value.items())
    return value


def _ledger_line(event: dict[str, object]) -> str:
    when = timestamp(float(str(event["time"]))).strftime("%H:%M:%S.%f")[:-3]
    hidden = ("id", "time", "type", "target", "ref", "before", "after", "action_id")
    rest = "  ".join(
        f"{name} {_format_nested(value)}" for name, value in event.items() if name not in hidden and value
    )
    first, *more = f"{event['type']:<9} {event['target'] or '-':<16} {rest}".splitlines()
    return "\n".join([f"  {when}  {printable(first)}", *(f"{'':<16}{printable(line)}" for line in more)])


def _ledger_record(run: Run) -> dict[str, object]:
    shown = {name: json_value(getattr(run, name)) for name in _SHOWN}
    return {**shown, "state": _run_state(run), "summary": dict(run.summary)}
