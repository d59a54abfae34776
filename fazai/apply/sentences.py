"""What is said of one target, and how an action is named: pure."""

from __future__ import annotations

import hashlib
import json

from fazai.errors import Refused, VerifyError
from fazai.model import Activate, Change, Diff, LookAgain, TargetWork, Verb
from fazai.outcome import record
from fazai.plan import changes_digest
from fazai.store.base import TargetMemory

__all__ = ["action_id", "found", "how_far", "not_stuck", "open_ends", "read_only", "unasked"]


def found(memory: TargetMemory, check: bool) -> list[str]:
    """What an earlier run left behind, in sentences."""
    then = "apply activates them" if check else "this run activates them"
    notes = [
        f"run {run_id} saved changes of {service} and never activated them; {then}"
        for service, run_id in memory.pending.items()
    ]
    for action in memory.unfinished:
        notes.append(
            f"run {action.run_id} was cut off during {action.verb} of {action.kind} {action.identity};"
            " the target was looked at again"
        )
    return notes


def open_ends(diff: Diff) -> list[str]:
    """What a plan cannot say of resources that are as wanted now."""
    changed = {(change.kind, change.identity) for change in diff.changes}
    count = sum(1 for resource in diff.later if (resource.kind, resource.identity) not in changed)
    after = next((step.after for step in diff.steps if isinstance(step, LookAgain)), "")
    if not count:
        return []
    be = "is" if count == 1 else "are"
    return [f"{count} that {be} as wanted now {be} looked at again after {after}"]


def how_far(diff: Diff, handlers: bool) -> str:
    """Say what has become of changes that were written before an interrupt."""
    if not any(isinstance(step, Activate) for step in diff.steps):
        return "are made and stay"
    return (
        "are made, and what they notified has not run yet" if handlers else "are saved and not yet activated"
    )


def unasked(diff: Diff, deletable: frozenset[str] | None) -> Refused | None:
    """What would be deleted though nobody was asked: when the question was put it was not there, or not as it
    is now, or the target could not be reached."""
    if deletable is None:
        return None
    for change in diff.changes:
        if change.verb is Verb.DELETE and changes_digest((change,)) not in deletable:
            name = f"{change.kind} {change.identity}"
            what = f"{name} would be deleted as it is now, and nobody was asked about that"
            return Refused(what, where=change.target, hint="run it again to be asked, or say --yes")
    return None


def read_only(item: TargetWork, count: int) -> Refused:
    target = item.target
    changes = f"{count} change{'' if count == 1 else 's'} pending" if count else "an activation pending"
    return Refused(
        f"{target.name} is read-only, {changes}",
        where=target.where("mode"),
        hint="to allow writing: mode: write",
    )


def not_stuck(change: Change) -> VerifyError:
    fields = ", ".join(
        f"{name} reads {record(change.before.get(name))!r}, {record(change.after[name])!r} was sent"
        for name in change.after
    )
    known = {Verb.DELETE: "is still there", Verb.CREATE: "is not there"}
    known[Verb.RUN] = "what it is run for still is not so"
    what = known.get(change.verb, fields or change.note)
    hint = "does it make what creates:, removes: or unless: look at?" if change.verb is Verb.RUN else None
    message = f"after writing, {change.kind} {change.identity}: {what}"
    return VerifyError(message, where=change.where, hint=hint)


def action_id(run_id: str, change: Change, undo: bool) -> str:
    """Idempotent: a hash of run, target, resource and desired content (design.md)."""
    parts = [
        run_id,
        change.target,
        change.kind,
        change.identity,
        str(change.verb),
        record(change.after),
        undo,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]
