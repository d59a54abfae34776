"""/runs: the reconciler's ledger, and the queue of the daemon's runs: requests, plans, approvals,
schedules."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec

from fazai.daemon.events.announcer import AUDIT, log_event, row_of
from fazai.daemon.http.refusal import Refusal
from fazai.daemon.http.routing import HttpReply, Route, RouteCall, read_body, require_role
from fazai.daemon.runs import webhooks
from fazai.daemon.runs.config import Hook, Job
from fazai.daemon.runs.queue import QueuedRun, RunQueue
from fazai.daemon.services import Services
from fazai.errors import FazaiError, InputError, spelling_hint
from fazai.outcome import WRITING_COMMANDS
from fazai.plan import SavedPlan, parse_plan
from fazai.store.base import Action, Run
from fazai.store.daemon import DaemonStore, Nonce, RunRecord
from fazai.timestamps import timestamp
from fazai.wire import daemon as wire
from fazai.wire.base import convert_fields, decode_body, encode

_WRITES = "apply"
_STATUS = {"begun": "planned", "done": "done", "failed": "failed", "refused": "refused", "left": "left"}


@dataclass(frozen=True, slots=True)
class _KnownRun:
    """A run as the ledger and the queue know it."""

    run: Run | None
    record: RunRecord | None


@Route("GET", "/runs", "Runs, the newest first.")
async def list_runs(call: RouteCall, query: wire.RunsQuery) -> wire.RunsAnswer:
    """Return the latest runs, the newest first."""
    return await read_runs(call.services, query.limit)


async def read_runs(services: Services, limit: int) -> wire.RunsAnswer:
    """Return the latest runs, the newest first."""
    run_queue = services.run_queue
    rows = {
        run.run_id: _KnownRun(run, run_queue.records.get(run.run_id))
        for run in await services.store.ledger.history(limit)
    }
    for number, record in enumerate(run_queue.records):
        if number == limit:
            break
        rows.setdefault(record.run_id, _KnownRun(None, record))
    newest = sorted(rows, reverse=True)[:limit]
    return wire.RunsAnswer(runs=tuple(_run_row(rows[run_id], run_queue) for run_id in newest))


@Route("GET", "/runs/{id}", "One run.")
async def show_run(call: RouteCall) -> wire.RunAnswer:
    """Return one run, with what became of its targets and actions. Raises Refusal(not_found)."""
    return await read_run(call.services, call.path["id"])


async def read_run(services: Services, wanted: str) -> wire.RunAnswer:
    """Return one run, with what became of its targets and actions. Raises Refusal(not_found)."""
    ledger, run_queue = services.store.ledger, services.run_queue
    found = (await ledger.find_run(wanted)) if len(wanted) == 26 else None
    run = found if found is not None and found.run_id == wanted else None
    row = _KnownRun(run, run_queue.records.get(wanted))
    if row.run is None and row.record is None:
        raise Refusal("not_found", f"there is no run {wanted[:64]!r}", hint="see: GET /runs")
    events = (await ledger.events(wanted)) if row.run is not None else []
    return wire.RunAnswer(
        run=_run_row(row, run_queue),
        targets=tuple(convert_fields(one, wire.TargetRow) for one in events if one["type"] == "outcome"),
        actions=_action_rows((await ledger.actions(wanted)) if row.run is not None else [], events),
    )


def _find_record(call: RouteCall) -> RunRecord | None:
    return call.services.run_queue.records.get(call.path["id"])


def _run_row(row: _KnownRun, run_queue: RunQueue) -> wire.RunRow:
    if row.record is None:
        assert row.run is not None
        return _ledger_row(row.run)
    record = row.record
    base = _ledger_row(row.run) if row.run is not None else _queued_row(record)
    planned = record.plan_hash is not None
    state, _ = run_queue.records.plan_state(record, run_queue.jobs, time.time()) if planned else (None, None)
    applied = run_queue.records.get(record.applies) if record.applies else None
    return msgspec.structs.replace(
        base,
        playbook=record.job,
        trigger=record.trigger,
        by=record.by,
        reason=record.reason,
        error=record.error,
        plan_hash=record.plan_hash or (applied.plan_hash if applied is not None else None),
        plan_state=state,
    )


def _ledger_row(run: Run) -> wire.RunRow:
    return wire.RunRow(
        run_id=run.run_id,
        command=run.command,
        state="finished" if run.exit_code is not None else "started",
        started_at=timestamp(run.started),
        check=run.command not in WRITING_COMMANDS,
        finished_at=timestamp(run.finished),
        exit_code=run.exit_code,
        totals=cast("dict[str, int]", dict(run.summary)) or None,
    )


def _queued_row(record: RunRecord) -> wire.RunRow:
    """Return the row of a run that has not told of itself yet, or never will."""
    ended = record.finished is not None
    return wire.RunRow(
        run_id=record.run_id,
        command="plan" if record.mode == "check" else _WRITES,
        state="finished" if ended else "queued" if record.started is None else "started",
        started_at=timestamp(record.started or record.asked),
        check=record.mode == "check",
        finished_at=timestamp(record.finished),
        exit_code=record.exit_code if ended else None,
    )


def _action_rows(recorded: list[Action], events: list[dict[str, Any]]) -> tuple[wire.ActionRow, ...]:
    """Return the actions from the journal, else (of a run elsewhere) from what it reported."""
    if recorded:
        return tuple(
            wire.ActionRow(
                action_id=one.action_id,
                target=one.change.target,
                kind=one.change.kind,
                identity=one.change.identity,
                verb=one.change.verb,
                status=cast("Any", _STATUS.get(one.status, "planned")),
                error=one.error or None,
            )
            for one in recorded
        )
    return tuple(
        convert_fields(event, wire.ActionRow)
        for event in events
        if event["type"] == "change" and event.get("action_id")
    )


# -- plans


@Route("GET", "/runs/{id}/plan", "The plan that a run left.")
async def show_plan(call: RouteCall) -> wire.PlanAnswer:
    """Return the plan that a run left. Raises Refusal(not_found)."""
    record, run_queue = _find_record(call), call.services.run_queue
    if record is None or record.plan_hash is None:
        raise Refusal("not_found", f"run {call.path['id'][:64]!r} left no plan", hint="see: GET /runs")
    try:
        saved = await _read_kept_plan(call.services.store, record.run_id)
    except FazaiError as error:
        raise Refusal("not_found", error.message) from None
    state, why = run_queue.records.plan_state(record, run_queue.jobs, time.time())
    row = wire.PlanRow(
        run_id=record.run_id,
        playbook=record.job,
        plan_hash=saved.digest,
        state=state,
        created_at=timestamp(record.finished or record.asked),
        targets=tuple(saved.targets),
        changes=tuple(dict(change) for change in saved.changes),
        stale=why,
        approved_by=record.approved_by,
        approved_at=timestamp(record.approved),
        apply_run_id=record.approved_run,
    )
    return wire.PlanAnswer(plan=row)


async def _read_kept_plan(store: DaemonStore, run_id: str) -> SavedPlan:
    """Return the plan of a run from the store. Raises InputError, StateError."""
    data = await store.plan(run_id)
    if data is None:
        raise InputError(f"the plan of run {run_id} is gone")
    return await asyncio.to_thread(parse_plan, data, Path(f"{run_id}.plan"))


@Route(
    "POST",
    "/runs/{id}/approve",
    "Apply that plan.",
    role="operator",
    status=202,
    codes=("conflict", "plan_mismatch", "not_allowed", "unavailable"),
)
async def approve_plan(call: RouteCall, body: wire.ApproveRunBody) -> wire.RunStartedAnswer:
    """Approve the plan that a run left, and apply it. Raises Refusal."""
    record = _find_record(call)
    if record is None:
        raise Refusal("not_found", f"run {call.path['id'][:64]!r} left no plan", hint="see: GET /runs")
    return _started_answer(
        await call.services.run_queue.approve(record, body.plan_hash, call.who.name, body.reason)
    )


# -- asking


@Route(
    "POST",
    "/runs",
    "Start a run: a person with a token, or a git host with its signature.",
    role="operator",
    signed=True,
    by_hand=True,
    body=wire.RunBody,
    others=((200, wire.IgnoredAnswer),),
    status=202,
    codes=(
        *("conflict", "not_allowed", "plan_mismatch", "bad_signature", "replayed"),
        *("overloaded", "unavailable"),
    ),
    limit_bytes=2 * 1024 * 1024,
)
async def start_run(call: RouteCall) -> wire.RunStartedAnswer | HttpReply:
    """Start a run for a person or a git host. Raises Refusal, WireError."""
    if webhooks.is_delivery(call.header):
        return await _start_from_webhook(call)
    require_role(call.who, "operator")
    body = decode_body(await read_body(call, start_run), wire.RunBody, limit_bytes=start_run.limit_bytes)
    run_queue = call.services.run_queue
    job = run_queue.jobs.get(body.playbook)
    if job is None:
        hint = spelling_hint(body.playbook, run_queue.jobs) or "see: GET /runs/schedule"
        raise Refusal("not_found", f"the configuration has no {body.playbook[:64]!r}", hint=hint)
    if body.plan_hash is not None:
        return await _approve_named_plan(run_queue, job, body, body.plan_hash, call.who.name)
    _check_asked(job, body)
    return _started_answer(
        await run_queue.enqueue(job, body.mode, "api", call.who.name, limit=body.limit, reason=body.reason)
    )


async def _approve_named_plan(
    run_queue: RunQueue, job: Job, body: wire.RunBody, plan_hash: str, by: str
) -> wire.RunStartedAnswer:
    """Approve the plan that an apply names by its hash. Raises Refusal."""
    if body.mode != "apply":
        raise Refusal("bad_request", "`plan_hash`: only an apply has one")
    for record in run_queue.records:
        if record.job == job.name and record.plan_hash == plan_hash and record.limit == body.limit:
            return _started_answer(await run_queue.approve(record, plan_hash, by, body.reason))
    raise Refusal("plan_mismatch", f"{job.name} has no such plan", hint="plan first: the mode check")


def _check_asked(job: Job, body: wire.RunBody) -> None:
    if body.mode not in job.modes:
        raise Refusal("not_allowed", f"the configuration does not allow {body.mode} for {job.name}")
    for name in body.limit:
        if not all(letter.isalnum() or letter in "._-" for letter in name) or not name.isascii():
            raise Refusal("bad_request", f"`limit`: {name[:64]!r} is no name of a host or group")


async def _verify_delivery(call: RouteCall) -> tuple[webhooks.Delivery, bytes, list[Hook]]:
    """Return a delivery, its body, and the webhooks whose secret it knows. Raises Refusal; wrong signatures
    are limited as wrong tokens are."""
    hooks = call.services.settings.config.hooks
    try:
        delivery = webhooks.delivery_of(call.header)
        if not any(hook.host == delivery.host for hook in hooks):
            raise Refusal("bad_signature", f"no webhook of {delivery.host} is configured")
        body = await read_body(call, start_run)
        return delivery, body, webhooks.verified_hooks(hooks, delivery, body, uid=os.geteuid())
    except Refusal as refusal:
        if refusal.code == "bad_signature":
            call.services.guard.count_wrong_signature(call.connection)
        raise


async def _start_from_webhook(call: RouteCall) -> wire.RunStartedAnswer | HttpReply:
    """Start the job of a webhook, or say why the delivery starts none. Raises Refusal, WireError."""
    services = call.services
    delivery, body, good = await _verify_delivery(call)
    why = {hook.name: webhooks.reason_not_to(hook, delivery, body) for hook in good}
    now_us = int(time.time() * 1e6)
    until_us = now_us + int(services.settings.config.retention.deliveries_s * 1e6)
    for nonce in webhooks.delivery_nonces(delivery, body):
        if not await services.store.use_nonce(Nonce(f"hook:{delivery.host}", nonce, until_us, now_us)):
            raise Refusal("replayed", "this delivery came before", status=409)
    hook = next((one for one in good if why[one.name] is None), None)
    if hook is None:
        return HttpReply(encode(wire.IgnoredAnswer(ignored=str(next(iter(why.values()))))))
    text = f"webhook {hook.name}: delivery {delivery.id[:64]} of {delivery.host}"
    event = log_event("info", text, AUDIT)
    services.announcer.write_log("info", event, AUDIT)
    await services.store.publish([row_of(event)])
    job = services.run_queue.jobs[hook.job]
    return _started_answer(
        await services.run_queue.enqueue(job, hook.mode, "webhook", f"webhook:{hook.name}", reason=text)
    )


def _started_answer(taken: QueuedRun) -> wire.RunStartedAnswer:
    return wire.RunStartedAnswer(run_id=taken.run_id, coalesced=taken.coalesced)


# -- what may be run


@Route("GET", "/runs/schedule", "What may be run, and when it will be.")
async def show_schedule(call: RouteCall) -> wire.ScheduleAnswer:
    """Return what may be run, and when it will be."""
    run_queue = call.services.run_queue
    return wire.ScheduleAnswer(jobs=tuple(_job_row(job, call) for job in run_queue.jobs.values()))


def _job_row(job: Job, call: RouteCall) -> wire.JobRow:
    run_queue, rhythm = call.services.run_queue, job.schedule.rhythm if job.schedule is not None else None
    pending = run_queue.pending_plan(job.name)
    last = next((one for one in run_queue.records if one.job == job.name and one.finished is not None), None)
    return wire.JobRow(
        playbook=job.name,
        modes=job.modes,
        every_s=rhythm.every_s if rhythm is not None else None,
        jitter_s=rhythm.jitter_s if rhythm is not None else None,
        windows=tuple(f"{window} {rhythm.zone}" for window in rhythm.windows) if rhythm is not None else (),
        mode=job.schedule.mode if job.schedule is not None else None,
        next_at=call.services.scheduler.next_at(job.name),
        running=run_queue.running_run(job.name),
        queued=run_queue.queued_runs(job.name),
        last_run=last.run_id if last is not None else None,
        pending_plan=pending.run_id if pending is not None else None,
    )


ROUTES = (list_runs, start_run, show_schedule, show_run, show_plan, approve_plan)
