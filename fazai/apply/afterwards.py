"""Detects resources that handlers undid: they run when all is as declared, and may change it once more."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from fazai.errors import FazaiError
from fazai.model import Change, Following, Resource, Session, TargetWork

__all__ = ["find_undone_by_handlers"]


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


def _undone_note(change: Change, ran: Sequence[str], handlers: Sequence[Resource]) -> str:
    marks = {each.name or each.listen[0]: each.mark for each in handlers}
    names = " or ".join(f"{name} ({marks[name]})" if marks.get(name) else name for name in ran)
    return (
        f"{change.kind} {change.identity} ({change.mark or change.where}) is not as declared any more since"
        f" the handler {names} ran: the next run changes it back; let one of the two alone say what is there"
    )
