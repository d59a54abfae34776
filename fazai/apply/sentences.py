"""Notes and errors about one target, and the ids of its actions: pure."""

from __future__ import annotations

import hashlib
import json

from fazai.errors import Interrupted, Refused, VerifyError, count_noun
from fazai.model import Activate, Change, Diff, LookAgain, TargetWork, Verb
from fazai.outcome import json_value
from fazai.plan import changes_digest
from fazai.store.base import TargetMemory


def leftover_notes(memory: TargetMemory, check: bool) -> list[str]:
    """Return a sentence for each thing that an earlier run left behind."""
    then = "apply activates them" if check else "this run activates them"
    notes = [
        f"run {run_id} saved changes of {service} and never activated them; {then}"
        for service, run_id in memory.pending.items()
    ]
    for action in memory.unfinished:
        what = f"{action.change.verb} of {action.change.kind} {action.change.identity}"
        notes.append(f"run {action.run_id} was cut off during {what}; the target was looked at again")
    return notes


def later_notes(diff: Diff) -> list[str]:
    """Return a note about resources that are as wanted now and may not be after the first changes."""
    changed = {(change.kind, change.identity) for change in diff.changes}
    count = sum(1 for resource in diff.later if (resource.kind, resource.identity) not in changed)
    after = next((step.after for step in diff.steps if isinstance(step, LookAgain)), "")
    if not count:
        return []
    be = "is" if count == 1 else "are"
    return [f"{count} that {be} as wanted now {be} looked at again after {after}"]


def interrupted_error(item: TargetWork, diff: Diff, written: int, left: int, handlers: bool) -> Interrupted:
    """Return the error of an interrupt, which says what has become of the changes that were written."""
    what = (
        "are made, and what they notified has not run yet" if handlers else "are saved and not yet activated"
    )
    if not any(isinstance(step, Activate) for step in diff.steps):
        what = "are made and stay"
    text = f"interrupted: {written} of {written + left} changes {what}" if written else "interrupted"
    return Interrupted(text, where=item.target.name, hint="run it again: it goes on from there")


def hint_after_interrupt(command: str) -> str:
    """Return what to do after an interrupt in the middle of a step: a program is never looked at first."""
    if command == "exec":
        return "what was in flight was ended: look at the host before it is run again"
    return "run it again: what was in flight is looked at first"


def unconfirmed_deletion(diff: Diff, deletable: frozenset[str] | None) -> Refused | None:
    """Return the refusal of a deletion that nobody was asked about: when the question was put it was not
    there, or not as it is now, or the target could not be reached."""
    if deletable is None:
        return None
    for change in diff.changes:
        if change.verb is Verb.DELETE and changes_digest((change,)) not in deletable:
            name = f"{change.kind} {change.identity}"
            what = f"{name} would be deleted as it is now, and nobody was asked about that"
            return Refused(what, where=change.target, hint="run it again to be asked, or say --yes")
    return None


def read_only_error(item: TargetWork, count: int) -> Refused:
    changes = f"{count_noun(count, 'change')} pending" if count else "an activation pending"
    text = f"{item.target.name} is read-only, {changes}"
    return Refused(text, where=item.target.where("mode"), hint="to allow writing: mode: write")


def not_stuck_error(change: Change) -> VerifyError:
    fields = ", ".join(
        f"{name} reads {json_value(change.before.get(name))!r}, {json_value(change.after[name])!r} was sent"
        for name in change.after
    )
    known = {Verb.DELETE: "is still there", Verb.CREATE: "is not there"}
    known[Verb.RUN] = "what it is run for still is not so"
    what = known.get(change.verb, fields or change.note)
    hint = "does it make what creates:, removes: or unless: look at?" if change.verb is Verb.RUN else None
    message = f"after writing, {change.kind} {change.identity}: {what}"
    return VerifyError(message, where=change.where, hint=hint)


def make_action_id(run_id: str, change: Change, undo: bool) -> str:
    """Return a hash: the same id for the same run, target, resource and desired content."""
    item = (change.target, change.kind, change.identity, str(change.verb))
    parts = [run_id, *item, json_value(change.after), undo]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]
