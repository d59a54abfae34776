"""The life of an item of a kind: made, unchanged, changed, unchanged, removed, gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from fazai.model import Change, Resource, Verb
from fazai.providers.opnsense.provider import PROVIDER
from tests.opnsense.helpers import Pass, Start, apply, plan, resource, run, target

RELEASES = ("26.7.2", "26.1.11")


@dataclass(frozen=True)
class Case:
    """One kind: the fields of an item, what is changed in it, and the resources that both need."""

    kind: str
    fields: Mapping[str, Any]
    change: Mapping[str, Any]
    needs: Sequence[tuple[str, Mapping[str, Any]]] = ()
    releases: Sequence[str] = RELEASES
    more: Mapping[str, Any] = field(default_factory=dict)  # settings of the lab

    def __str__(self) -> str:
        return self.kind.removeprefix("opnsense.")


def lives(cases: Sequence[Case]) -> list[Any]:
    """Each case with each release that has its kind, for `parametrize(("case", "release"), …)`."""
    return [
        pytest.param(case, one, id=f"{one}-{case}")
        for one in RELEASES
        for case in cases
        if one in case.releases
    ]


def check_lifecycle(start: Start, case: Case, release: str) -> None:
    """Go through the whole life of the item; nothing is written twice."""
    to = target(start(release=release, **case.more))
    needs = [resource(kind, fields) for kind, fields in case.needs]
    settings = PROVIDER.kinds[case.kind].row.settings

    adopted: set[str] = set()  # what the store remembers

    def once(wanted: Resource, verb: Verb) -> None:
        done: Pass = run(apply(to, [*needs, wanted], adopted=frozenset(adopted)))
        adopted.update(ref for change, ref in done.written if change.adopts)
        assert not done.diff.errors
        own = [change for change, _ in done.written if change.kind == case.kind]
        assert [change.verb for change in own] == [verb]
        assert not done.after.steps, [str(step) for step in done.after.steps]
        again = run(plan(to, [*needs, wanted], adopted=frozenset(adopted)))
        assert not again.errors
        assert not again.steps

    once(resource(case.kind, case.fields), Verb.UPDATE if settings else Verb.CREATE)
    once(resource(case.kind, {**case.fields, **case.change}), Verb.UPDATE)
    if not settings:
        names = {name: case.fields[name] for name in case.fields if name in _naming(case.kind)}
        once(resource(case.kind, names, state="absent"), Verb.DELETE)


def _naming(kind: str) -> set[str]:
    row = PROVIDER.kinds[kind].row
    return {*row.identity, *(name.partition(".")[0] for name in row.identity), *row.tiebreak}


def changes_of(done: Pass, kind: str) -> list[Change]:
    """The changes of one kind in a pass."""
    return [change for change, _ in done.written if change.kind == kind]
