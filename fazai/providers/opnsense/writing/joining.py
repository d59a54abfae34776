"""Several changes of one kind in one call: a `set` of the whole model with the items' uuids, a deletion with
several of them. One entry of the firewall's history, and a hundredth of its time (docs/adr/0048).

A set of the whole model checks only the fields that are sent, and does nothing of what the call for one item
does besides. So only fields go through it that stand for themselves, never one that names the item. What it
did is read back at once; whatever is not as sent is written again, one by one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from fazai.errors import DeviceError, FazaiError, Unreachable, Unsure
from fazai.model import Change, Verb
from fazai.providers.opnsense.api.calls import ApiCall
from fazai.providers.opnsense.api.client import Api
from fazai.providers.opnsense.catalogue.kinds import CatalogueKind
from fazai.providers.opnsense.catalogue.ownership import is_uuid
from fazai.providers.opnsense.catalogue.values import is_same, text_of
from fazai.providers.opnsense.planning.snapshot import Collection
from fazai.providers.opnsense.writing.bodies import nest_fields, nest_under
from fazai.providers.opnsense.writing.rehearsal import TRIALS

MOST_JOINED = 100  # in one call
_MOST_CHARS = 1 << 20
#: Fields that no check of the product holds against another one.
_ALONE = frozenset(("enabled", "disabled", "description", "descr", "categories", "content", "counters"))
#: Kinds that one call may change: those of which nothing is a valid item without its name. A set of the whole
#: model makes an item of what is not there any more: of a rule, one that passes everything.
_SET_TOGETHER = frozenset(
    ("alias", "category", "interface_group", "route", "unbound_acl", "monit_service", "monit_test")
)
#: Kinds of which one call deletes several; the other controllers take one, or were not seen to take more.
_DELETED_TOGETHER = frozenset(
    (
        *("alias", "category", "rule", "source_nat", "one_to_one", "npt", "dnat", "route"),
        *("syslog_destination", "monit_service", "monit_test"),
        *("unbound_alias", "unbound_acl", "dnsmasq_host"),
    )
)

Body = Callable[[CatalogueKind, Change], Awaitable[Mapping[str, str]]]


def count_joined(kinds: Mapping[str, CatalogueKind], changes: Sequence[Change]) -> int:
    """Return how many of these, from the first on, go in one call; 1: each goes by itself."""
    first = changes[0]
    kind = kinds[first.kind]
    fits = {Verb.UPDATE: _is_set_together, Verb.DELETE: _is_deleted_together}.get(first.verb)
    count = size = 0
    for change in changes[:MOST_JOINED]:
        size += sum(len(text_of(value)) for value in change.after.values())
        alike = change.kind == first.kind and change.verb is first.verb
        if not alike or fits is None or not fits(kind, change) or size > _MOST_CHARS:
            break
        count += 1
    return max(count, 1)


def _is_set_together(kind: CatalogueKind, change: Change) -> bool:
    alone = _ALONE.difference(kind.row.identity, (kind.row.mark_field,))
    return kind.row.short in _SET_TOGETHER and is_uuid(change.ref) and alone.issuperset(change.after)


def _is_deleted_together(kind: CatalogueKind, change: Change) -> bool:
    return kind.row.short in _DELETED_TOGETHER and is_uuid(change.ref)


async def write_together(
    api: Api,
    kind: CatalogueKind,
    changes: Sequence[Change],
    *,
    body_of: Body,
    look: Callable[[], Awaitable[Collection]],
    write: Callable[[Change], Awaitable[str]],
) -> tuple[list[str], FazaiError | None]:
    """Carry the changes out in one call, and by `write` what that did not (`model.Joining`). Where one of
    these fails and later ones went with the call, the error is Unsure: all of them may have been done."""
    try:
        await _call_once(api, kind, changes, body_of)
    except (Unreachable, Unsure) as error:
        return [], error
    done: list[str] = []
    none_went = False
    try:
        left = await _find_left(kind, changes, look, body_of)
        none_went = len(left) == len(changes)
        for change in changes:
            done.append(await write(change) if change.ref in left else change.ref)
    except (Unreachable, Unsure) as error:
        return done, error
    except FazaiError as error:
        return done, error if none_went else Unsure(error.message, where=error.where, hint=error.hint)
    return done, None


async def _call_once(api: Api, kind: CatalogueKind, changes: Sequence[Change], body_of: Body) -> None:
    """Make the call. What it refuses is said by the calls for each; an answer that was lost, too: both look
    at what is there. Raises Unreachable, Unsure."""
    if changes[0].verb is Verb.DELETE:
        path = f"{kind.row.path}/{kind.row.verbs.delete}/{','.join(change.ref for change in changes)}"
        body: Mapping[str, Any] = {}
    else:
        trial = TRIALS[kind.row.short]
        path = trial.path
        items = {change.ref: nest_fields(await body_of(kind, change)) for change in changes}
        body = nest_under(trial.tree, items)
    try:
        await api.call(ApiCall("POST", path, body, repeatable=False, privilege=kind.row.privilege))
    except Unsure:
        raise
    except Unreachable as error:
        if error.stage != "answer":  # it answers, and not as agreed: an item in use ends all of a deletion
            raise
    except DeviceError:
        return


async def _find_left(
    kind: CatalogueKind, changes: Sequence[Change], look: Callable[[], Awaitable[Collection]], body_of: Body
) -> set[str]:
    """Return the refs of the items that are not as they should be."""
    collection = await look()
    left: set[str] = set()
    for change in changes:
        row = collection.rows.get(change.ref)
        if change.verb is Verb.DELETE:
            if row is not None:
                left.add(change.ref)
        elif row is None or not all(
            is_same(kind.rows[name], text, collection.text(row, kind.rows[name]))
            for name, text in (await body_of(kind, change)).items()
        ):
            left.add(change.ref)
    return left
