"""Planning: works out the steps of one host from what is wanted and what was seen. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import Any, Final, Union

from fazai.compat.language import dataclass
from fazai.errors import AccessDenied, FazaiError, Mark, NotAvailable, VerifyError
from fazai.model import Activate, Change, Diff, LookAgain, Resource, Step, Verb
from fazai.providers.hosts import KINDS, OLD_KINDS
from fazai.providers.hosts.effects import PathNames, TouchedPaths, paths_read
from fazai.providers.hosts.kind import HostKind, Want

#: The note of a change that takes another one back.
UNDONE_NOTE = "undone"
#: How long what was written may take to show that it works, in seconds.
PROOF_S: Final = 15.0
_SHORT: Final = 40  # characters of a name that stands in a note

#: The fields of an item that was observed (None: it is not there), or why it could not be seen.
Item = Union[Mapping[str, Any], FazaiError, None]


@dataclass(frozen=True, slots=True)
class HostObservation:
    """The observed items by kind and identity. `places`: where those paths end on whose way there are
    links."""

    items: Mapping[tuple[str, str], Item]
    places: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        text = "\0".join(f"{key}{_stable_text(item)}" for key, item in sorted(self.items.items()))
        text += "".join(f"\0{path}\0{place}" for path, place in sorted(self.places.items()))
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


class SeenFields(dict[str, Any]):
    """The fields of an item that may stand on many hosts: what says them in the digest is made once."""

    __slots__ = ("_stable_text",)

    def __init__(self, fields: Mapping[str, Any]) -> None:
        super().__init__(fields)
        self._stable_text = ""

    @property
    def stable_text(self) -> str:
        if not self._stable_text:
            self._stable_text = _text_of(self)
        return self._stable_text


def _stable_text(item: Item) -> str:
    return item.stable_text if isinstance(item, SeenFields) else _text_of(item)


def _text_of(item: Item) -> str:
    if not isinstance(item, Mapping):
        return repr(item)
    return repr([(k, getattr(v, "sha256", None) or repr(v)) for k, v in sorted(item.items())])


def plan_host_steps(
    host: str,
    kinds: Mapping[str, HostKind],
    wants: Sequence[Want],
    items: Mapping[tuple[str, str], Item],
    handlers: Mapping[str, Resource],
    pending: frozenset[str],
    named: PathNames,
) -> Diff:
    """Return the changes in the order of the list, then each handler that they (or an earlier run) notified,
    once, in the order in which the handlers are declared. Before the first resource that changes before it
    may have altered stands a LookAgain for all from there on."""
    errors: list[FazaiError] = []
    steps: list[Step] = []
    claims: list[tuple[str, Mark | str]] = []
    unchanged = 0
    touched, titles = TouchedPaths(named), list[str]()
    looked = False
    for number, want in enumerate(wants):
        kind, found = kinds[want.resource.kind], items[want.key]
        last, unknown = _last_effects(touched, kind, want, found) if titles else (0, 0)
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
        change = plan_change(host, kind, want, found, handlers)
        if change is not None or last:  # what is as wanted now may not be so at its turn
            touched.add(kind, want, Verb.CREATE if change is None else change.verb)
            titles.append(_short_title(want.resource))
        if change is None:
            unchanged += 1
            continue
        if unknown:
            change = replace(change, note=f"after {titles[unknown - 1]}")
        steps.append(change)
    due = pending.union(*(step.activates for step in steps if isinstance(step, Change)))
    gone = sorted(due - handlers.keys())
    steps += [Activate(host, name) for name in (*(name for name in handlers if name in due), *gone)]
    notes = tuple(f'an earlier run notified "{name}", which is no handler now' for name in gone)
    return Diff(tuple(steps), unchanged, errors=tuple(errors), notes=notes, claims=tuple(claims))


def _last_effects(touched: TouchedPaths, kind: HostKind, want: Want, found: object) -> tuple[int, int]:
    """Return the number of the last change that may have altered what was found, and of the one behind which
    alone that can be known: where programs may do anything, and where what is there now could not be told."""
    failed = isinstance(found, FazaiError) and not isinstance(found, NotAvailable)
    denied = isinstance(found, AccessDenied)
    last = touched.last(paths_read(kind, want), failed=failed, denied=denied, below=kind.spans_below(want))
    if isinstance(found, FazaiError):
        return last, min(last, touched.anything or last) if failed else 0
    return last, min(last, touched.anything)


def _short_title(resource: Resource) -> str:
    """Return a resource in a few words, for people."""
    name = resource.identity.split("\n")[0]
    return f"{resource.kind.rpartition('.')[2]} {name if len(name) <= _SHORT else name[: _SHORT - 1] + '…'}"


def label_handlers(handlers: Sequence[Resource], pending: frozenset[str]) -> dict[str, Resource]:
    """Map the name under which a handler is shown and remembered to the handler.

    A second one of the same name has its kind in it. Where an earlier run left it `pending` under an old name
    of that kind, this is the name until it has run.
    """
    found: dict[str, Resource] = {}
    for handler in handlers:
        label = handler.name or handler.listen[0]
        if label in found:
            kind = handler.kind.partition(".")[2]
            names = [f"{label} ({word}.{kind} {handler.identity})" for word in (KINDS, *OLD_KINDS)]
            label = next((name for name in names if name in pending), names[0])
        found[label] = handler
    return found


def plan_change(
    host: str, kind: HostKind, want: Want, have: Mapping[str, Any] | None, handlers: Mapping[str, Resource]
) -> Change | None:
    """Return the change that an item needs; None where it is as wanted."""
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


def check_proof(kind: HostKind, want: Want, found: Item, late: bool, host: str) -> FazaiError | bool:
    """Tell whether what was written works, or why it does not; False while that is open."""
    if isinstance(found, FazaiError):
        return found
    said = kind.proof(want, found)
    if said is None or (not said and not late):
        return said is None
    text = f"{' '.join(want.key)}: {said or f'{kind.describe_unproven(found)} within {PROOF_S:.0f} s'}"
    hint = "what was written stays; look at: fazai agents status"
    return VerifyError(text, where=want.resource.mark or host, hint=hint)
