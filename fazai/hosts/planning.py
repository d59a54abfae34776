"""From what is wanted and what was seen to the steps of one host. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from fazai.errors import AccessDenied, FazaiError, Mark, NotAvailable, VerifyError
from fazai.hosts.effects import Names, Touched, reads
from fazai.hosts.kind import HostKind, Want
from fazai.hosts.quoting import quoted as word
from fazai.model import Activate, Change, Diff, LookAgain, Resource, Step, Verb

__all__ = ["PROOF_S", "UNDONE", "Seen", "labels", "title", "unproved", "word", "work_out"]

#: The note of a change that takes another one back.
UNDONE = "undone"
#: How long what was written may take to show that it works, in seconds.
PROOF_S: Final = 15.0
_SHORT: Final = 40  # characters of a name that stands in a note

Items = Mapping[tuple[str, str], Mapping[str, Any] | FazaiError | None]


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen: the items by resource (None: not there), or why one could not be seen. `places`: where
    those paths end on whose way there are links."""

    items: Mapping[tuple[str, str], Mapping[str, Any] | FazaiError | None]
    places: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        text = "\0".join(f"{key}{_stable(item)}" for key, item in sorted(self.items.items()))
        text += "".join(f"\0{path}\0{place}" for path, place in sorted(self.places.items()))
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _stable(item: Mapping[str, Any] | FazaiError | None) -> str:
    if not isinstance(item, Mapping):
        return repr(item)
    return repr([(k, getattr(v, "sha256", None) or repr(v)) for k, v in sorted(item.items())])


def work_out(
    host: str,
    kinds: Mapping[str, HostKind],
    wants: Sequence[Want],
    items: Items,
    handlers: Mapping[str, Resource],
    pending: frozenset[str],
    named: Names,
) -> Diff:
    """Changes in the order of the list, then each handler that they (or an earlier run) notified, once, in
    the order in which the handlers are declared. Before the first resource that changes before it may have
    altered stands a LookAgain for all from there on."""
    errors: list[FazaiError] = []
    steps: list[Step] = []
    changes: list[Change] = []
    claims: list[tuple[str, Mark | str]] = []
    unchanged = 0
    touched, titles = Touched(named), list[str]()
    looked = False
    for number, want in enumerate(wants):
        kind, found = kinds[want.resource.kind], items[want.resource.kind, want.resource.identity]
        last, unknown = _last(touched, kind, want, found) if titles else (0, 0)
        if last and not looked:
            rest = tuple(each.resource for each in wants[number:])
            steps.append(LookAgain(host, rest, titles[last - 1]))
            looked = True
        if isinstance(found, FazaiError):
            if not unknown:
                errors.append(found)
                continue
            found = None  # as far as can be known
        if claim := kind.claim(want, found):
            claims.append((claim, want.resource.mark or host))
        change = _change(host, kind, want, found, handlers)
        if change is not None or last:  # what is as wanted now may not be so at its turn
            touched.add(kind, want, Verb.CREATE if change is None else change.verb)
            titles.append(title(want.resource))
        if change is None:
            unchanged += 1
            continue
        if unknown:
            change = replace(change, note=f"after {titles[unknown - 1]}")
        changes.append(change)
        steps.append(change)
    due = pending.union(*(change.activates for change in changes))
    names = [*(name for name in handlers if name in due), *sorted(due - set(handlers))]
    steps += [Activate(host, name) for name in names]
    gone = (
        f'an earlier run notified "{name}", which is no handler now' for name in sorted(due - set(handlers))
    )
    return Diff(tuple(steps), unchanged, errors=tuple(errors), notes=tuple(gone), claims=tuple(claims))


def _last(touched: Touched, kind: HostKind, want: Want, found: object) -> tuple[int, int]:
    """The last change that may have altered what was found, and the one behind which alone that can be known:
    where programs may do anything, and where what is there now could not be told."""
    failed = isinstance(found, FazaiError) and not isinstance(found, NotAvailable)
    denied = isinstance(found, AccessDenied)
    last = touched.last(reads(kind, want), failed=failed, denied=denied, below=kind.spans(want))
    if isinstance(found, FazaiError):
        return last, min(last, touched.anything or last) if failed else 0
    return last, min(last, touched.anything)


def title(resource: Resource) -> str:
    """A resource in a few words, for people."""
    name = resource.identity.split("\n")[0]
    return f"{resource.kind.rpartition('.')[2]} {name if len(name) <= _SHORT else name[: _SHORT - 1] + '…'}"


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


def unproved(
    kinds: Mapping[str, HostKind], want: Want, seen: Seen, late: bool, host: str, failed: list[FazaiError]
) -> bool:
    """Whether it is still to be waited for until what was written works; a failure goes into `failed`."""
    name = want.resource.kind, want.resource.identity
    found = seen.items[name]
    if isinstance(found, FazaiError):
        failed.append(found)
        return False
    said = kinds[want.resource.kind].proof(want, found)
    if said is None or (not said and not late):
        return said is not None
    failed.append(
        VerifyError(
            f"{name[0]} {name[1]}: {said or f'it does not deliver within {PROOF_S:.0f} s'}",
            where=want.resource.mark or host,
            hint="what was written stays; look at: fazai agents status",
        )
    )
    return False
