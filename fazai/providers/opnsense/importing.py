"""Everything that a firewall holds, read kind by kind, as it would be declared (`findings.Importing`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from fazai.errors import AccessDenied, NotAvailable
from fazai.findings import Findings
from fazai.model import Diff, Resource
from fazai.providers.opnsense.catalogue.kinds import CatalogueKind
from fazai.providers.opnsense.planning.declaring import check_declared, declare_collection
from fazai.providers.opnsense.planning.policy import TargetPolicy
from fazai.providers.opnsense.planning.snapshot import Collection, Snapshot
from fazai.providers.opnsense.planning.steps import plan_firewall

_HIDDEN = "the firewall hides its items in the present mode of source NAT"
#: Reads the items of a kind; what was read before tells whether they are hidden.
Look = Callable[[CatalogueKind, Mapping[str, Collection]], Awaitable[Collection]]


async def find_items(
    known: Mapping[str, CatalogueKind], wanted: Sequence[str], policy: TargetPolicy, look: Look
) -> Findings:
    """Return all items of the wanted kinds, or of all, as they would be declared. What a playbook cannot say,
    so that applying it would change it, is told with the reason. Raises Unreachable, DeviceError, among them
    AccessDenied for a kind that the key may not read."""
    left: list[tuple[str, str, str]] = []
    collections: dict[str, Collection] = {}
    for name, kind in known.items():
        if kind.row.any_path or (wanted and name not in wanted and not _is_named_by(known, wanted, name)):
            continue
        try:
            collections[name] = await look(kind, collections)
        except NotAvailable as error:
            left.append((name, "", error.message))
        except AccessDenied as error:  # what a key may not read is not nothing
            error.hint = error.hint or "--kind names what the key may read"
            raise
    chosen = [one for name, one in collections.items() if not wanted or name in wanted]
    left += [(one.kind.name, "", _HIDDEN) for one in chosen if not one.complete]
    snapshot = Snapshot(collections)

    def plan(resources: Sequence[Resource]) -> Diff:
        nothing: frozenset[str] = frozenset()
        taking = replace(policy, adopt=True)
        return plan_firewall(
            taking, known, resources, snapshot, adopted=nothing, pending=nothing, prune=False
        )

    found = [each for one in chosen for each in declare_collection(snapshot, one)]
    return check_declared(found, plan, left)


def _is_named_by(known: Mapping[str, CatalogueKind], wanted: Sequence[str], name: str) -> bool:
    """Return whether items of a kind are named by those of the wanted ones, or tell whether these are
    hidden."""
    rows = [known[one] for one in wanted]
    return any(name == one.row.hidden_by for one in rows) or any(
        name in (row.reference, row.also) for one in rows for row in one.keyed.values()
    )
