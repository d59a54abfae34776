"""What holds for every kind, whatever is wanted: applied is found unchanged, changed converges, gone is
gone, undone
is as before. Against the lab, over real HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fazai.lab import LabThread
from fazai.model import Resource, Verb
from fazai.providers.opnsense.provider import PROVIDER
from tests.opnsense.catalogue.strategies import ALL_KINDS, GROUND, Fields, several
from tests.opnsense.helpers import FakeClock, apply_in, resource, run, session, target, undo

QUICK = settings(
    max_examples=2,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # a failure is shown at once, not made small over minutes
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
    ],
)
THOROUGH = settings(QUICK, max_examples=60)
BASE = [resource(kind, fields) for kind, fields in GROUND]
ORDERED = [name for name in ALL_KINDS if PROVIDER.kinds[name].ordered]


def many(kind: str, fields: Sequence[Fields], state: str = "present") -> list[Resource]:
    return [resource(kind, one, state=state) for one in fields]


def check_life(lab: LabThread, kind: str, first: list[Fields], second: list[Fields]) -> None:
    """Create, change to something else, undo that, delete; each time the second look finds nothing."""
    firewall = lab.start(f"life-{kind.partition('.')[2].replace('_', '-')}")

    async def live() -> None:
        async with session(target(firewall, max_prune="100%", adopt=True), FakeClock()) as work:
            if kind != "opnsense.source_nat_mode":
                await apply_in(
                    work, many(kind, [*first, *second], "absent")
                )  # what a failed example left behind
            await apply_in(work, BASE)
            made = await apply_in(work, [*BASE, *many(kind, first)])
            assert (made.after.steps, made.after.errors, made.after.refused) == ((), (), ())
            if kind != "opnsense.source_nat_mode":
                assert [change.verb for change in made.diff.changes] == [Verb.CREATE] * len(first)
            changed = await apply_in(work, [*BASE, *many(kind, second)])
            assert (changed.after.steps, changed.after.errors) == ((), ())
            await undo(work, changed)
            again = await work.observe([*BASE, *many(kind, first), *many(kind, second)])
            undone = work.diff([*BASE, *many(kind, first)], again)
            assert undone.steps == ()
            if kind != "opnsense.source_nat_mode":
                gone = await apply_in(work, many(kind, [*first, *second], "absent"))
                assert gone.after.steps == ()
                assert {change.verb for change in gone.diff.changes} <= {Verb.DELETE}

    run(live())


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_life(lab: LabThread, kind: str) -> None:
    identify = PROVIDER.kinds[kind].identify

    @QUICK
    @given(first=several(kind, identify), second=several(kind, identify))
    def holds(first: list[Fields], second: list[Fields]) -> None:
        check_life(lab, kind, first, second)

    holds()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_life_thoroughly(lab: LabThread, kind: str) -> None:
    identify = PROVIDER.kinds[kind].identify

    @THOROUGH
    @given(first=several(kind, identify), second=several(kind, identify))
    def holds(first: list[Fields], second: list[Fields]) -> None:
        check_life(lab, kind, first, second)

    holds()


def ordered_items(kind: str) -> list[Fields]:
    name = PROVIDER.kinds[kind].identity[0]
    more: dict[str, Fields] = {
        "opnsense.rule": {"interface": ["lan"]},
        "opnsense.source_nat": {"interface": "wan", "target": "wanip"},
        "opnsense.one_to_one": {"interface": "wan", "external": "192.0.2.20", "source_net": "192.168.1.20"},
        "opnsense.npt": {"interface": "wan", "source_net": "fd00:1::/64", "destination_net": "fd00:2::/64"},
        "opnsense.dnat": {"interface": ["wan"], "target": "192.168.1.5", "protocol": "tcp"},
    }
    return [{name: f"item {number}", **more[kind]} for number in range(7)]


@pytest.mark.parametrize("kind", ORDERED)
def test_the_list_is_the_order(lab: LabThread, kind: str) -> None:
    items = ordered_items(kind)
    name = PROVIDER.kinds[kind].identity[0]
    path = PROVIDER.kinds[kind].row.path
    firewall = lab.start(f"order-{kind.partition('.')[2].replace('_', '-')}")
    firewall.call("POST", "/api/firewall/source_nat/set", {"filter": {"general": {"snat_mode": "hybrid"}}})

    def rows() -> list[tuple[int, str]]:
        listed = firewall.call("POST", f"/api/{path}/searchRule", {})["rows"]
        return sorted((int(row["sequence"]), row[name]) for row in listed if not row.get("is_automatic"))

    @QUICK
    @given(st.permutations(items), st.integers(1, len(items)), st.permutations(items))
    def holds(first: list[Fields], count: int, second: list[Fields]) -> None:
        async def live() -> None:
            async with session(target(firewall), FakeClock()) as work:
                for wanted in (first[:count], second):
                    foreign = [row for row in rows() if not row[1].startswith("item")]
                    done = await apply_in(work, many(kind, wanted))
                    assert done.after.steps == ()
                    seen = rows()
                    names = [text for _, text in seen if text in {one[name] for one in wanted}]
                    assert names == [one[name] for one in wanted]
                    assert len({number for number, _ in seen}) == len(seen)
                    assert [row for row in seen if not row[1].startswith("item")] == foreign
                await apply_in(work, many(kind, items, "absent"))

        run(live())

    holds()
