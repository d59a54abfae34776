"""Reads once more: resources after handlers, which may change what is declared, and what was taken back."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from fazai.apply.progress import TakenBack
from fazai.errors import FazaiError, VerifyError
from fazai.model import Change, Diff, Following, Resource, Session, TargetWork, Verb


async def find_undone_by_handlers(session: Session, item: TargetWork, ran: Sequence[str]) -> list[str]:
    """Compare once more the resources that handlers that ran can have undone; return a warning for each that
    they did undo. That they run is as declared, so it is no failure."""
    wanted = session.exposed(item.resources) if ran and isinstance(session, Following) else ()
    if not wanted:
        return []
    wanted = (*wanted, *item.handlers)
    with suppress(FazaiError):  # a handler may have restarted what our connection goes through
        diff = session.diff(wanted, await session.observe(wanted))
        return [_undone_note(change, ran, item.handlers) for change in diff.changes]
    return []


async def read_undone(
    session: Session, item: TargetWork, back: TakenBack, promised: Diff, adopted: frozenset[str]
) -> list[FazaiError]:
    """Read what was taken back: a target may say that it did so, and have done nothing. Such changes become
    `still`; return an error for each, or the reason why it cannot be told. Only what was found at the first
    look (`promised`) must be wanted anew: the rest may have come of other changes of the run."""
    whole = not (back.stuck or back.lasting)
    if isinstance(session, Following) and not whole:  # what stays may be why the rest is as wanted
        return []
    first = {id(change) for change in promised.changes}
    try:
        seen = await session.observe(item.wanted)
        diff = session.diff(item.wanted, seen, adopted=adopted, prune=item.whole)
    except FazaiError as error:
        text = f"whether it was taken back could not be read: {error.message}"
        return [VerifyError(text, where=item.target.name, hint="run it again: it looks first")]
    again = {(c.kind, c.identity): c for c in (*diff.changes, *(change for change, _ in diff.refused))}
    unknown = {str(error.where) for error in diff.errors}

    def stands(change: Change) -> bool:
        """Tell whether it is not wanted anew, or less of it."""
        if id(change) not in first or str(change.mark) in unknown:
            return False
        if change.verb is Verb.MOVE and not whole:  # the order of what is there may ask for other moves
            return False
        new = again.get((change.kind, change.identity))
        if new is None:
            return True
        return new.verb is change.verb is Verb.UPDATE and not change.after.keys() <= new.after.keys()

    back.still = [change for change in back.undone if stands(change)]
    back.undone = [change for change in back.undone if change not in back.still]
    back.stuck += back.still
    return [_still_error(change) for change in back.still]


def _still_error(change: Change) -> VerifyError:
    text = f"{change.kind} {change.identity}: {change.target} said that it was taken back, and it was not"
    return VerifyError(text, where=change.where, hint="look at it there; the next run compares it anew")


def _undone_note(change: Change, ran: Sequence[str], handlers: Sequence[Resource]) -> str:
    marks = {each.name or each.listen[0]: each.mark for each in handlers}
    names = " or ".join(f"{name} ({marks[name]})" if marks.get(name) else name for name in ran)
    return (
        f"{change.kind} {change.identity} ({change.mark or change.where}) is not as declared any more since"
        f" the handler {names} ran: the next run changes it back; let one of the two alone say what is there"
    )
