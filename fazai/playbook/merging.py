"""From pieces to the resources of one target: by kind and identity, the specific over the general."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fazai.errors import Mark, PlaybookError
from fazai.model import Resource, Value
from fazai.playbook.expanding import problem_error
from fazai.playbook.problems import Problems
from fazai.playbook.sources import Piece

__all__ = ["Merger"]

#: What is said of one item, the least specific first.
Chain = tuple[Piece, ...]
#: Kind, identity, and to what it listens: a handler may name an item that is a resource, too.
_Key = tuple[str, str, tuple[str, ...]]


class Merger:
    """Merges pieces; a resource that is the same for several hosts is made once."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._made: dict[tuple[int, ...], tuple[Chain, Resource | None]] = {}

    def merge(self, host: str, layers: Iterable[Sequence[Piece]]) -> tuple[Resource, ...]:
        """The resources of a host, each where its identity comes first. Layers: least specific first."""
        chains: dict[_Key, Chain] = {}
        for pieces in layers:
            seen: dict[_Key, Piece] = {}
            for piece in pieces:
                key = (piece.source.kind.name, piece.identity, piece.listen)
                other = seen.get(key)
                if other is not None and other is not piece:
                    self._check_twice(host, other, piece)
                seen[key] = piece
                chains[key] = (*chains.get(key, ()), piece)
        found = [self._resource(host, chain) for chain in chains.values()]
        return tuple(resource for resource in found if resource is not None)

    def _check_twice(self, host: str, first: Piece, second: Piece) -> None:
        """The same item twice in one list must not say two things of one field."""
        both = f'{first.source.kind.name} "{first.identity}" stands twice in this list'
        hint = f"the other one is at {first.mark}"
        for name, value in second.fields.items():
            if name in first.fields and first.fields[name] != value:
                place = second.origins.get(name, second.mark)
                self._problems.add(
                    PlaybookError(
                        f"{both}, with different values for {name}",
                        where=place,
                        hint=f"the other one is at {first.origins.get(name, first.mark)}",
                        excerpt=second.source.excerpt(name),
                    ),
                    host,
                )
                return
        if first.state != second.state:
            message = f"{both}, once {first.state} and once {second.state}"
            excerpt = second.source.excerpt()
            self._problems.add(PlaybookError(message, where=second.mark, hint=hint, excerpt=excerpt), host)

    def _resource(self, host: str, chain: Chain) -> Resource | None:
        if not all(piece.shared for piece in chain):
            return self._make(host, chain)
        key = tuple([id(piece) for piece in chain])
        known = self._made.get(key)
        if known is None:
            known = self._made[key] = (chain, self._make(None, chain))  # the chain is kept: ids stay theirs
        return known[1]

    def _make(self, host: str | None, chain: Chain) -> Resource | None:
        last = chain[-1]
        kind = last.source.kind
        fields, owners = _overlaid(chain)
        canonical, problems = kind.normalise(fields, "notified" if last.listen else last.state)
        if problems:
            label = f'{kind.name} "{last.identity}"'
            for problem in problems:
                owner = owners.get(problem.field or "") or owners.get((problem.field or "").partition(".")[0])
                piece = owner or last
                self._problems.add(problem_error(piece.source, problem, piece.origins, label), host)
            return None
        state = last.state
        if "state" in canonical and "absent" in kind.fields["state"].choices:
            state = canonical.pop("state")  # where Ansible has it: among the fields
        return Resource(
            kind=kind.name,
            identity=last.identity,
            fields=canonical,
            state=state,
            mark=last.mark,
            origins=_origins(chain, owners, canonical),
            name=next((piece.name for piece in reversed(chain) if piece.name is not None), None),
            tags=_tags(chain),
            adopt=next((piece.adopt for piece in reversed(chain) if piece.adopt is not None), None),
            notify=next((piece.notify for piece in reversed(chain) if piece.notify), ()),
            listen=last.listen,
        )


def _overlaid(chain: Chain) -> tuple[Mapping[str, Value], dict[str, Piece]]:
    """The fields, and the piece that each comes from."""
    if len(chain) == 1:
        return chain[0].fields, dict.fromkeys(chain[0].fields, chain[0])
    fields: dict[str, Value] = {}
    owners: dict[str, Piece] = {}
    for piece in chain:
        fields.update(piece.fields)
        owners.update(dict.fromkeys(piece.fields, piece))
    return fields, owners


def _origins(chain: Chain, owners: Mapping[str, Piece], canonical: Mapping[str, Value]) -> Mapping[str, Mark]:
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


def _tags(chain: Chain) -> tuple[str, ...]:
    if len(chain) == 1:
        return chain[0].source.tags
    return tuple(dict.fromkeys(tag for piece in chain for tag in piece.source.tags))
