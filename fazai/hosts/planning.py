"""From what is wanted and what was seen to the steps of one host. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fazai.errors import FazaiError
from fazai.hosts.kind import HostKind, Want
from fazai.hosts.quoting import quoted as word
from fazai.model import Activate, Change, Diff, Step

__all__ = ["UNDONE", "word", "work_out"]

#: The note of a change that takes another one back.
UNDONE = "undone"

Items = Mapping[tuple[str, str], Mapping[str, Any] | FazaiError | None]


def work_out(
    host: str, kinds: Mapping[str, HostKind], wants: Sequence[Want], items: Items, pending: frozenset[str]
) -> Diff:
    """Changes in the order of the list, then each handler that they (or an earlier run) notified, once."""
    errors: list[FazaiError] = []
    changes: list[Change] = []
    unchanged = 0
    for want in wants:
        found = items[want.resource.kind, want.resource.identity]
        if isinstance(found, FazaiError):
            errors.append(found)
            continue
        change = _change(host, kinds[want.resource.kind], want, found)
        if change is None:
            unchanged += 1
        else:
            changes.append(change)
    notified = dict.fromkeys([*sorted(pending), *(name for c in changes for name in c.activates)])
    steps: list[Step] = [*changes, *(Activate(host, name) for name in notified)]
    return Diff(tuple(steps), unchanged, errors=tuple(errors))


def _change(host: str, kind: HostKind, want: Want, have: Mapping[str, Any] | None) -> Change | None:
    found = kind.compare(want, have)
    if found is None:
        return None
    verb, before, after = found
    resource = want.resource
    return Change(
        target=host,
        kind=kind.name,
        identity=resource.identity,
        verb=verb,
        before=before,
        after=after,
        ref=resource.identity,
        activates=resource.notify,
        mark=resource.mark,
        origins=resource.origins,
    )
