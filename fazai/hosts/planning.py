"""From what is wanted and what was seen to the steps of one host. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fazai.errors import FazaiError
from fazai.hosts.kind import HostKind, Want
from fazai.hosts.quoting import quoted as word
from fazai.model import Activate, Change, Diff, Resource, Step

__all__ = ["UNDONE", "labels", "word", "work_out"]

#: The note of a change that takes another one back.
UNDONE = "undone"

Items = Mapping[tuple[str, str], Mapping[str, Any] | FazaiError | None]


def work_out(
    host: str,
    kinds: Mapping[str, HostKind],
    wants: Sequence[Want],
    items: Items,
    handlers: Mapping[str, Resource],
    pending: frozenset[str],
) -> Diff:
    """Changes in the order of the list, then each handler that they (or an earlier run) notified, once, in
    the order in which the handlers are declared."""
    errors: list[FazaiError] = []
    changes: list[Change] = []
    unchanged = 0
    for want in wants:
        found = items[want.resource.kind, want.resource.identity]
        if isinstance(found, FazaiError):
            errors.append(found)
            continue
        change = _change(host, kinds[want.resource.kind], want, found, handlers)
        if change is None:
            unchanged += 1
        else:
            changes.append(change)
    due = pending.union(*(change.activates for change in changes))
    names = [*(name for name in handlers if name in due), *sorted(due - set(handlers))]
    steps: list[Step] = [*changes, *(Activate(host, name) for name in names)]
    gone = (
        f'an earlier run notified "{name}", which is no handler now' for name in sorted(due - set(handlers))
    )
    return Diff(tuple(steps), unchanged, errors=tuple(errors), notes=tuple(gone))


def labels(handlers: Sequence[Resource]) -> dict[str, Resource]:
    """The handlers by the name under which they are shown and remembered."""
    found: dict[str, Resource] = {}
    for handler in handlers:
        label = handler.name or handler.listen[0]
        found[label if label not in found else f"{label} ({handler.kind} {handler.identity})"] = handler
    return found


def _change(
    host: str,
    kind: HostKind,
    want: Want,
    have: Mapping[str, Any] | None,
    handlers: Mapping[str, Resource],
) -> Change | None:
    found = kind.compare(want, have)
    if found is None:
        return None
    verb, before, after = found
    resource = want.resource
    notified = frozenset(resource.notify)
    return Change(
        target=host,
        kind=kind.name,
        identity=resource.identity,
        verb=verb,
        before=before,
        after=after,
        ref=resource.identity,
        activates=tuple(label for label, each in handlers.items() if notified.intersection(each.listen)),
        mark=resource.mark,
        origins=resource.origins,
        options={name: resource.fields[name] for name in sorted(kind.options) if name in resource.fields},
    )
