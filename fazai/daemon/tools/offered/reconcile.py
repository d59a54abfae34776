"""Tools `reconcile.plan` and `reconcile.apply`: what a configured playbook would change, and the proposal
to do it. The plan is the reconciler's own, of a run as anybody can start it; its hash is what it is applied
by."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from fazai.daemon.http.refusal import Refusal
from fazai.daemon.runs.config import Job
from fazai.daemon.tools.call import ToolCall
from fazai.errors import ExitCode, InputError, spelling_hint
from fazai.loop.effects import Effect
from fazai.loop.tools import EffectTool, Observation, PlaybookName, TargetName, Tool, ToolArgs
from fazai.plan import SavedPlan, parse_plan
from fazai.policy.planned import plan_changes
from fazai.store.daemon import RunRecord

_SHOWN = 40  # changes that an observation lists
_VALUE_CHARS = 200


class ReconcileArgs(ToolArgs, frozen=True, kw_only=True):
    """A playbook of the daemon's configuration; `targets`: of its targets, those alone."""

    playbook: PlaybookName
    targets: Annotated[tuple[TargetName, ...], Meta(max_length=8)] = ()


_WHY: dict[int, str] = {
    ExitCode.UNREACHABLE: "a target does not answer",
    ExitCode.LOCKED: "another run holds a target",
    ExitCode.REFUSED: "a guard refuses it",
}


@Tool(
    "reconcile.plan",
    "Says what a playbook would change on its targets, or on some of them. Changes nothing.",
    timeout_s=600.0,
)
async def plan_playbook(call: ToolCall, args: ReconcileArgs) -> Observation:
    """Plan a playbook as a run of the daemon, and return its changes."""
    record = await _plan(call, args)
    if record.plan_hash is None:
        return Observation(
            note=f"run {record.run_id}: nothing is to be changed", data={"changes": []}, same_as="none"
        )
    saved = await _saved_plan(call, record)
    shown = [_shown_change(change) for change in saved.changes[:_SHOWN]]
    left = len(saved.changes) - len(shown)
    note = f"run {record.run_id}: {len(saved.changes)} changes on {', '.join(saved.targets)}"
    return Observation(
        note=note + (f", the first {_SHOWN} shown" if left else ""),
        data={"run": record.run_id, "playbook": args.playbook, "changes": shown},
        same_as=saved.digest,
    )


@EffectTool("reconcile.apply", "Applies a playbook to its targets, or to some of them.", timeout_s=4000.0)
async def prepare_apply(call: ToolCall, args: ReconcileArgs) -> Effect:
    """Plan the playbook now, and return its plan as an effect. Raises FazaiError, where nothing is to be
    changed, too."""
    job = _job(call, args.playbook)
    if "approve" not in job.modes:
        raise Refusal("not_allowed", f"the configuration lets nobody approve plans of {job.name}")
    record = await _plan(call, args)
    if record.plan_hash is None:
        raise InputError("nothing is to be changed: all is as declared")
    saved = await _saved_plan(call, record)
    return Effect(
        tool="reconcile.apply",
        changes=plan_changes(saved.changes),
        base=saved.digest,
        inventory=saved.inventory,
        policy=call.policy_generation,
        expires=time.time() + min(job.plan_ttl_s, call.approval_ttl_s),
        ref=record.run_id,
    )


async def _apply(call: ToolCall, effect: Effect) -> Observation:
    """Approve the plan by its own hash, and wait for the run that applies it: it looks anew first, and writes
    nothing where anything moved (exit 6)."""
    queue = call.services.run_queue
    planned = queue.records.get(effect.ref)
    if planned is None:
        raise InputError(f"the plan of run {effect.ref} is gone", hint="propose it again")
    by = call.approved_by or call.who.name
    taken = await queue.approve(planned, effect.base, by, "approved in a session")
    return _outcome(await queue.wait_ended(taken.run_id))


async def _settle(call: ToolCall, effect: Effect) -> Observation:
    """Return what became of an apply that had begun: the run's record says whether there was one."""
    queue = call.services.run_queue
    applied = await queue.find_apply(effect.ref)
    if applied is None:
        return Observation(note="it was interrupted before it began: nothing was changed", failed=True)
    return _outcome(await queue.wait_ended(applied))


apply_playbook = prepare_apply.carried_out_by(_apply).settled_by(_settle)


async def _plan(call: ToolCall, args: ReconcileArgs) -> RunRecord:
    """Make a plan as a run of the daemon, and wait for its end. Raises FazaiError."""
    job, queue = _job(call, args.playbook), call.services.run_queue
    if "check" not in job.modes:
        raise Refusal("not_allowed", f"the configuration does not allow check for {job.name}")
    taken = await queue.enqueue(job, "check", "session", call.who.name, limit=args.targets)
    record = await queue.wait_ended(taken.run_id)
    if record.exit_code not in (ExitCode.OK, ExitCode.PENDING):
        code = record.exit_code or 0
        why = record.error or f"{_WHY.get(code, 'it failed')} (exit code {code})"
        hint = f"see: fazai show {record.run_id}"
        if code == ExitCode.UNREACHABLE:
            hint += "; `targets` names those to plan for"
        raise InputError(f"run {record.run_id} could not plan: {why}", hint=hint)
    return record


def _job(call: ToolCall, name: str) -> Job:
    jobs = call.services.run_queue.jobs
    if name not in jobs:
        hint = spelling_hint(name, jobs) or "see: GET /runs/schedule"
        raise Refusal("not_found", f"the configuration has no playbook {name[:64]!r}", hint=hint)
    return jobs[name]


async def _saved_plan(call: ToolCall, record: RunRecord) -> SavedPlan:
    data = await call.services.store.plan(record.run_id)
    if data is None:
        raise InputError(f"the plan of run {record.run_id} is gone", hint="plan again")
    return parse_plan(data, Path(f"{record.run_id}.plan"))


def _shown_change(change: Any) -> dict[str, Any]:
    """Return a change as a model reads it: short, and no longer than it need be."""
    shown = {name: change[name] for name in ("target", "kind", "identity", "verb")}
    for side in ("before", "after"):
        fields = change.get(side) or {}
        if fields:
            shown[side] = {name: _short(value) for name, value in fields.items()}
    return shown


def _short(value: Any) -> Any:
    text = value if isinstance(value, str) else None
    if text is None:
        text = str(value) if isinstance(value, list | dict) else None
    if text is None or len(text) <= _VALUE_CHARS:
        return value
    return f"{text[:_VALUE_CHARS]}… ({len(text)} characters)"


def _outcome(record: RunRecord) -> Observation:
    code = record.exit_code
    data = {"run": record.run_id, "exit_code": code}
    if code == ExitCode.OK:
        return Observation(note=f"run {record.run_id} applied it", data=data)
    if code == ExitCode.STALE:
        note = f"nothing was written: something moved since it was planned ({record.error or 'see the run'})"
        return Observation(note=f"{note}. Plan again", data=data, failed=True)
    why = record.error or f"exit code {code}"
    return Observation(note=f"run {record.run_id} did not end well: {why}", data=data, failed=True)


TOOLS = (plan_playbook, apply_playbook)
