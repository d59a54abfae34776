"""Tool `run.show`: what a run of the reconciler found and did."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from fazai.daemon.fleet import read_changes
from fazai.daemon.http.refusal import Refusal
from fazai.daemon.runs.routes import read_run, read_runs
from fazai.daemon.tools.call import ToolCall
from fazai.daemon.tools.fitting import MOST_BYTES, as_compact, cut_note, failed_observation, fit_rows
from fazai.loop.tools import Observation, Tool, ToolArgs
from fazai.wire.fleet import RunChangesQuery

_MOST_CHANGES = 500


class RunArgs(ToolArgs, frozen=True, kw_only=True):
    """`run`: its id; empty: the newest. `target`: changes of this one alone."""

    run: Annotated[str, Meta(max_length=64)] = ""
    target: Annotated[str, Meta(max_length=256)] = ""


@Tool("run.show", "A run: its state, outcome of each target, and changes.")
async def show_run(call: ToolCall, args: RunArgs) -> Observation:
    """Return state, outcomes and changes of a run."""
    try:
        run_id = args.run or await _newest_run(call)
        found = await read_run(call.services, run_id)
        query = RunChangesQuery(target=args.target or None, limit=_MOST_CHANGES)
        changes = await read_changes(call.services, run_id, query)
    except Refusal as refusal:
        return failed_observation(refusal)
    targets = [row for row in found.targets if args.target in ("", row.target)]
    shown_targets = fit_rows(targets, MOST_BYTES // 3)
    shown = fit_rows(changes.changes, MOST_BYTES // 2)
    data: dict[str, Any] = {
        "run": as_compact(found.run),
        "targets": shown_targets,
        "changes": shown,
    }
    run = found.run
    said = f"{run.command}, {run.state}" + (
        f", exit code {run.exit_code}" if run.exit_code is not None else ""
    )
    note = f"run {run.run_id}: {said}; {len(targets)} targets, {changes.total} changes"
    left = len(targets) - len(shown_targets), changes.total - len(shown)
    if any(left):
        note += f"; {left[0]} targets and {left[1]} changes are left out: name a target"
    return Observation(note=cut_note(note), data=data, citations=(run.run_id,))


async def _newest_run(call: ToolCall) -> str:
    """Return the id of the newest run. Raises Refusal(not_found)."""
    runs = (await read_runs(call.services, 1)).runs
    if not runs:
        raise Refusal("not_found", "there was no run yet")
    return runs[0].run_id


TOOLS = (show_run,)
