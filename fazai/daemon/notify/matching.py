"""Which events are worth a notice, and what it says. Pure but for what is asked of the ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from fazai.daemon.runs.config import Job
from fazai.daemon.southbound.registry import UNKNOWN
from fazai.errors import ExitCode, count_noun
from fazai.notify.message import NoticeKind, make_line
from fazai.outcome import ONCE_COMMANDS
from fazai.store.daemon import RunRecord, StoredEvent

_NO_FAILURES = (ExitCode.OK, ExitCode.PENDING, ExitCode.INTERRUPTED)
_BAD = ("failed", "unreachable", "refused", "locked", "stale")
_SHOWN_TARGETS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One thing that is worth a notice. `key` is the same for the same thing; `line` says it in one line."""

    kind: NoticeKind
    key: str
    line: str
    target: str | None = None
    run_id: str | None = None
    session_id: str | None = None
    action_id: str | None = None


class ShownEffect(NamedTuple):
    """An effect of a session that was shown, and what it is in one line."""

    action_id: str
    summary: str


class _Fact(msgspec.Struct):
    """The fields of `run` and `agent` events that are read."""

    state: str = ""
    command: str | None = None
    exit_code: int | None = None
    reason: str | None = None


class _Rest(msgspec.Struct):
    """The field `result` of a `done` event of the action loop (SPEC.md, 2.1)."""

    stop_reason: str = ""
    action_id: str | None = None
    note: str | None = None


class _Done(msgspec.Struct):
    result: _Rest = msgspec.field(default_factory=_Rest)


class _Change(msgspec.Struct):
    target: str = ""
    kind: str = ""
    identity: str = ""
    verb: str = ""


class _Action(msgspec.Struct):
    """The fields of an `action` event with an effect that are read."""

    action_id: str
    changes: tuple[_Change, ...] = ()


def may_matter(event: StoredEvent) -> bool:
    """Return whether an event is to be looked at; cheap, for it is asked of every one."""
    if event.type == "agent":
        return event.level in ("warning", "error") and event.target not in (None, UNKNOWN)
    if event.type == "action":
        return b'"plan_hash"' in event.data
    return event.type == "run" or (event.type == "done" and event.session is not None)


def read_silence(event: StoredEvent) -> Draft | None:
    """Return what an agent's event says of a machine that went silent: a host, a firewall, a remote agent."""
    fact = msgspec.json.decode(event.data, type=_Fact)
    if event.type != "agent" or fact.state != "closing" or event.target is None:
        return None
    line = make_line(f"{event.target} is silent: {fact.reason or 'no reason is known'}")
    return Draft(kind="silent_host", key=f"silent_host:{event.target}", line=line, target=event.target)


def read_effect(event: StoredEvent) -> ShownEffect | None:
    """Return the effect that an `action` event shows; None for other events."""
    if event.type != "action":
        return None
    try:
        found = msgspec.json.decode(event.data, type=_Action)
    except msgspec.DecodeError:
        return None
    texts = [f"{one.verb} of {one.kind} {one.identity} on {one.target}" for one in found.changes]
    more = f"; … and {len(texts) - _SHOWN_TARGETS} more" if len(texts) > _SHOWN_TARGETS else ""
    return ShownEffect(found.action_id, make_line("; ".join(texts[:_SHOWN_TARGETS]) + more))


def read_rest(event: StoredEvent, effects: Mapping[str, str]) -> Draft | None:
    """Return what the end of a session's stream is worth: an effect waits for an approval, or the session is
    stuck. `effects`: the summaries of what was shown, by action."""
    try:
        rest = msgspec.json.decode(event.data, type=_Done).result
    except msgspec.DecodeError:  # of a plain session: its result is whatever it is
        return None
    session = event.session or ""
    if rest.stop_reason == "approval" and rest.action_id is not None:
        what = effects.get(rest.action_id) or f"action {rest.action_id}"
        return Draft(
            kind="approval_waits",
            key=f"approval_waits:{session}:{rest.action_id}",
            line=make_line(f"session {session} waits for an approval: {what}"),
            session_id=session,
            action_id=rest.action_id,
        )
    if rest.stop_reason == "stuck":
        return Draft(
            kind="loop_stuck",
            key=f"loop_stuck:{session}",
            line=make_line(f"session {session} is stuck: {rest.note or 'no reason is known'}"),
            session_id=session,
        )
    return None


def read_run_end(event: StoredEvent) -> _Fact | None:
    """Return what a run's event says of its end; None where it did not end, or is none of the reconciler."""
    fact = msgspec.json.decode(event.data, type=_Fact)
    ended = event.type == "run" and fact.state == "finished" and fact.exit_code is not None
    return fact if ended and fact.command not in ONCE_COMMANDS else None


def judge_run(
    run_id: str,
    end: _Fact,
    record: RunRecord | None,
    jobs: Mapping[str, Job],
    outcomes: Sequence[Mapping[str, Any]],
) -> list[Draft]:
    """Return what the end of a run is worth. `record`: of the daemon's own runs; `outcomes`: its events of
    that type."""
    what = f"{record.mode} of {record.job}" if record is not None else (end.command or "a run")
    if end.exit_code not in _NO_FAILURES:
        bad = _list_targets(outcomes, lambda one: one.get("status") in _BAD, _describe_failure)
        line = make_line(f"{what} failed with exit code {end.exit_code}{': ' if bad else ''}{bad}")
        key = f"failed_run:{what}:{end.exit_code}"
        return [Draft(kind="failed_run", key=key, line=line, run_id=run_id)]
    if end.exit_code != ExitCode.PENDING:
        return []
    drafts: list[Draft] = []
    if record is not None and record.plan_hash is not None and _may_be_approved(record, jobs):
        found = _list_targets(outcomes, _is_pending, _describe_changes)
        line = make_line(f"a plan of {record.job} waits for approval ({record.plan_hash[:12]}): {found}")
        key = f"approval_waits:{record.job}:{record.plan_hash}"
        drafts.append(Draft(kind="approval_waits", key=key, line=line, run_id=run_id))
    if end.command == "drift" or (record is not None and record.trigger in ("schedule", "webhook")):
        drafts += [
            Draft(
                kind="drift",
                key=f"drift:{one['target']}",
                line=make_line(f"{one['target']} differs from what is declared: {_describe_changes(one)}"),
                target=str(one["target"]),
                run_id=run_id,
            )
            for one in outcomes
            if _is_pending(one)
        ]
    return drafts


def _may_be_approved(record: RunRecord, jobs: Mapping[str, Job]) -> bool:
    """Return whether a plan waits for somebody; one that a session made is the session's to tell."""
    job = jobs.get(record.job)
    waits = job is not None and "approve" in job.modes and record.approved is None
    return waits and record.trigger != "session"


def _is_pending(outcome: Mapping[str, Any]) -> bool:
    return outcome.get("status") == "pending"


def _describe_changes(outcome: Mapping[str, Any]) -> str:
    return count_noun(int(outcome.get("pending") or 0), "change")


def _describe_failure(outcome: Mapping[str, Any]) -> str:
    errors = outcome.get("errors") or ()
    return f"{outcome.get('status')}{f', {errors[0]}' if errors else ''}"


def _list_targets(
    outcomes: Sequence[Mapping[str, Any]],
    chosen: Callable[[Mapping[str, Any]], bool],
    describe: Callable[[Mapping[str, Any]], str],
) -> str:
    found = [f"{one['target']}: {describe(one)}" for one in outcomes if chosen(one)]
    more = f"; … and {len(found) - _SHOWN_TARGETS} more" if len(found) > _SHOWN_TARGETS else ""
    return "; ".join(found[:_SHOWN_TARGETS]) + more


#: What several of a kind are called in one subject.
SUBJECTS: Mapping[str, str] = {
    "drift": "{count} targets differ from what is declared",
    "failed_run": "{count} runs failed",
    "silent_host": "{count} machines are silent",
    "approval_waits": "{count} approvals are waited for",
    "loop_stuck": "{count} sessions are stuck",
}
