"""Merging of pieces to the resources of one target: by kind and identity, the specific over the general."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fazai.errors import Mark, PlaybookError
from fazai.model import Kind, Resource, Telling, Value
from fazai.playbook.expanding import field_error
from fazai.playbook.prepared import ExpandedResource
from fazai.playbook.problems import ProblemCollector

#: All pieces for one item, the least specific first.
PieceChain = tuple[ExpandedResource, ...]
#: Kind, identity, and to what it listens: a handler may name an item that is a resource, too.
_Key = tuple[str, str, tuple[str, ...]]
#: Identities of several items, with the fields that tell these apart.
_Apart = Mapping[_Key, tuple[str, ...]]


class ResourceMerger:
    """Merges pieces; a resource that is the same for several hosts is made once."""

    def __init__(self, problems: ProblemCollector) -> None:
        self._problems = problems
        self._made: dict[tuple[object, ...], tuple[PieceChain, Resource | None]] = {}

    def merge(
        self, host: str | None, layers: Sequence[Sequence[ExpandedResource]], apart: _Apart | None = None
    ) -> tuple[Resource, ...]:
        """Return the resources of a host, each where its identity comes first. Layers: least specific first.
        `apart` is found on the way (`_find_alike`)."""
        chains: dict[_Key, PieceChain] = {}
        twice: list[tuple[ExpandedResource, ExpandedResource]] = []
        for pieces in layers:
            seen: dict[_Key, ExpandedResource] = {}
            for piece in pieces:
                key = _merge_key(piece, apart or {})
                other = seen.get(key)
                if other is not None and other is not piece:
                    twice.append((other, piece))
                seen[key] = piece
                chains[key] = (*chains.get(key, ()), piece)
        if twice and not apart and (apart := _find_alike(layers)):
            return self.merge(host, layers, apart)
        for first, second in twice:
            self._check_twice(host, first, second)
        found = [self._share_resource(host, chain, key[1]) for key, chain in chains.items()]
        return tuple(resource for resource in found if resource is not None)

    def _check_twice(self, host: str | None, first: ExpandedResource, second: ExpandedResource) -> None:
        """Report an item that stands twice in one list with two values of one field."""
        both = f'{first.source.kind.name} "{first.identity}" stands twice in this list'

        def report(how: str, where: Mark, other: Mark, excerpt: str | None) -> None:
            hint = f"the other one is at {other}"
            error = PlaybookError(f"{both}, {how}", where=where, hint=hint, excerpt=excerpt)
            self._problems.add(error, host)

        for name, value in second.fields.items():
            if name in first.fields and first.fields[name] != value:
                where, other = (each.origins.get(name, each.mark) for each in (second, first))
                report(f"with different values for {name}", where, other, second.source.excerpt(name))
                return
        if first.state != second.state:
            how = f"once {first.state} and once {second.state}"
            report(how, second.mark, first.mark, second.source.excerpt())

    def _share_resource(self, host: str | None, chain: PieceChain, identity: str) -> Resource | None:
        if not all(piece.shared for piece in chain):
            return self._build_resource(host, chain, identity)
        key = (identity, *[id(piece) for piece in chain])
        known = self._made.get(key)
        if known is None:
            made = self._build_resource(None, chain, identity)
            known = self._made[key] = (chain, made)  # the chain is kept: ids stay theirs
        return known[1]

    def _build_resource(self, host: str | None, chain: PieceChain, identity: str) -> Resource | None:
        last = chain[-1]
        kind = last.source.kind
        fields, owners = _overlay_fields(chain)
        canonical, problems = kind.normalise(fields, "notified" if last.listen else last.state)
        if problems:
            label = f'{kind.name} "{identity}"'
            for problem in problems:
                owner = owners.get(problem.field or "") or owners.get((problem.field or "").partition(".")[0])
                piece = owner or last
                self._problems.add(field_error(piece.source, problem, piece.origins, label), host)
            return None
        state = last.state
        if "state" in canonical and "absent" in kind.fields["state"].choices:
            state = canonical.pop("state")  # where Ansible has it: among the fields
        return Resource(
            kind=kind.name,
            identity=identity,
            fields=canonical,
            state=state,
            mark=last.mark,
            origins=_field_origins(chain, owners, canonical),
            name=next((piece.name for piece in reversed(chain) if piece.name is not None), None),
            tags=_merge_tags(chain),
            adopt=next((piece.adopt for piece in reversed(chain) if piece.adopt is not None), None),
            notify=next((piece.notify for piece in reversed(chain) if piece.notify), ()),
            listen=last.listen,
            label=_item_label(kind, canonical, last.identity if identity != last.identity else ""),
        )


def _find_alike(layers: Iterable[Sequence[ExpandedResource]]) -> dict[_Key, tuple[str, ...]]:
    """The identities that one list has several times for different items, and the fields that differ."""
    found: dict[_Key, tuple[str, ...]] = {}
    for pieces in layers:
        alike: dict[_Key, list[ExpandedResource]] = {}
        for piece in pieces:
            if isinstance(piece.source.kind, Telling):
                alike.setdefault(_merge_key(piece, {}), []).append(piece)
        for key, several in alike.items():
            kind = several[0].source.kind
            if len(several) > 1 and isinstance(kind, Telling):
                texts = {
                    name: {kind.apart_text(each.fields, name) for each in several} for name in kind.apart
                }
                if names := [name for name, values in texts.items() if len(values) > 1]:
                    found[key] = tuple(dict.fromkeys((*found.get(key, ()), *names)))
    return found


def _merge_key(piece: ExpandedResource, apart: _Apart) -> _Key:
    kind = piece.source.kind
    key = (kind.name, piece.identity, piece.listen)
    if not apart or key not in apart or not isinstance(kind, Telling):
        return key
    more = ", ".join(f"{name} {kind.apart_text(piece.fields, name)}".strip() for name in apart[key])
    return (kind.name, f"{piece.identity} ({more})", piece.listen)


def _item_label(kind: Kind, fields: Mapping[str, Value], base: str) -> str:
    """Return the name of the item on the target where its identity holds more than that, else no text."""
    return base or (kind.label_in(fields) if isinstance(kind, Telling) else "")


def _overlay_fields(chain: PieceChain) -> tuple[Mapping[str, Value], dict[str, ExpandedResource]]:
    """The fields, and the piece that each comes from."""
    if len(chain) == 1:
        return chain[0].fields, dict.fromkeys(chain[0].fields, chain[0])
    fields: dict[str, Value] = {}
    owners: dict[str, ExpandedResource] = {}
    for piece in chain:
        fields.update(piece.fields)
        owners.update(dict.fromkeys(piece.fields, piece))
    return fields, owners


def _field_origins(
    chain: PieceChain, owners: Mapping[str, ExpandedResource], canonical: Mapping[str, Value]
) -> Mapping[str, Mark]:
    """The place of every field; the mapping of the source itself where that says it all."""
    first = chain[0]
    if len(chain) == 1 and all(name in first.origins for name in canonical):
        return first.origins
    found: dict[str, Mark] = {}
    for name in canonical:
        given = name if name in owners else name.partition(".")[0]
        piece = owners.get(given)
        if piece is not None and given in piece.origins:
            found[name] = piece.origins[given]
    return found


def _merge_tags(chain: PieceChain) -> tuple[str, ...]:
    if len(chain) == 1:
        return chain[0].source.tags
    return tuple(dict.fromkeys(tag for piece in chain for tag in piece.source.tags))
