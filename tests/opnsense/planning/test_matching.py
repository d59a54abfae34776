"""Which item a resource means, case by case, without a firewall.

Each case stands for a change of the code that no other test noticed (docs/testing.md, "Mutation checks").
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fazai.errors import DeviceError
from fazai.model import Resource
from fazai.providers.opnsense.catalogue.ownership import mark_of, own_ref
from fazai.providers.opnsense.catalogue.values import to_api
from fazai.providers.opnsense.planning.matching import Matcher
from fazai.providers.opnsense.planning.snapshot import Collection
from fazai.providers.opnsense.provider import PROVIDER
from tests.opnsense.helpers import resource

KIND = "opnsense.rule"
MARK = mark_of("fazai")
MINE = own_ref(MARK, KIND, "one")
OURS = own_ref(MARK, KIND, "as it was called before")
A, B = "aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002"


def row(ref: str, interface: str = "lan", **more: Any) -> dict[str, Any]:
    given = {"description": "one", "ipprotocol": "inet", "direction": "in", **more}
    return {"uuid": ref, "interface": interface, **given}


def matcher(*rows: dict[str, Any], adopted: frozenset[str] = frozenset()) -> Matcher:
    collection = Collection.of(PROVIDER.kinds[KIND], rows, "fazai")
    return Matcher(collection, "fw-01", MARK, adopted, to_api)


def rule(interface: str = "lan", *, line: int = 0, state: str = "present", **more: Any) -> Resource:
    fields = {"description": "one", "interface": [interface], **more}
    return resource(KIND, fields, line=line, state=state)


@pytest.mark.parametrize(
    ("rows", "adopted", "found"),
    [
        ((), (), (MINE, True)),
        ((row(A),), (), (A, False)),
        ((row(A),), (A,), (A, True)),
        ((row(A, "wan"), row(B, "lan")), (), (B, False)),
        ((row(MINE, "wan"), row(A, "lan")), (), (MINE, True)),  # what others made is not preferred to ours
        ((row(MINE, "wan"), row(A, "lan")), (A,), (A, True)),  # but where it is ours by now
        ((row(OURS, "wan"), row(A, "wan")), (), (OURS, True)),  # neither is like it: the one that is ours
        ((row(A, "wan"), row(OURS, "wan")), (), (OURS, True)),
    ],
)
def test_the_item_of_a_name(
    rows: tuple[dict[str, Any], ...], adopted: tuple[str, ...], found: tuple[str, bool]
) -> None:
    assert matcher(*rows, adopted=frozenset(adopted)).match(rule()) == found


@pytest.mark.parametrize(("line", "where"), [(0, f"fw-01/{KIND}/one"), (3, "play.yml:3:3")])
def test_several_that_are_alike_are_an_error_with_their_uuids(line: int, where: str) -> None:
    with pytest.raises(DeviceError) as unclear:
        matcher(row(B), row(A)).match(rule(line=line))
    assert (unclear.value.message, str(unclear.value.where), unclear.value.hint) == (
        '2 items on fw-01 are called "one": which one is meant is not clear',
        where,
        f"say which with uuid: or match:, or rename the others: {A}, {B}",
    )


@pytest.mark.parametrize(("line", "where"), [(0, f"fw-01/{KIND}/one (uuid {B})"), (3, "play.yml:6:7")])
def test_a_uuid_that_is_not_there(line: int, where: str) -> None:
    with pytest.raises(DeviceError) as missing:
        matcher(row(A)).match(rule(line=line, uuid=B))
    assert (missing.value.message, str(missing.value.where), missing.value.hint) == (
        f"there is no {KIND} with the uuid {B} on fw-01",
        where,
        "uuid: names an item that is there; leave it out to have one made",
    )
    assert matcher(row(A)).match(rule(uuid=B, state="absent")) == (B, False)
    assert matcher(row(A)).match(rule(uuid=A)) == (A, False)


def test_an_item_is_found_by_all_that_match_names() -> None:
    wanted = rule(direction="in", match={"interface": ["lan"], "direction": "in"})
    rows = (row(A, "lan", direction="out"), row(B, "lan"), row(OURS, "wan"))
    assert matcher(*rows).match(wanted) == (B, False)
    mine = matcher().own_ref(wanted)
    assert matcher(*rows[::2]).match(wanted) == (mine, True)  # none: it is made
    assert matcher(*rows, row(mine, "wan", direction="out")).match(wanted) == (mine, True)
    with pytest.raises(DeviceError, match="which one is meant is not clear"):
        matcher(*rows, row(A[:-1] + "9", "lan")).match(wanted)


def shared(interface: str) -> Resource:
    """One of several rules of a list that are called "one"."""
    return replace(rule(interface), label="one", identity=f"one ({interface})")


def test_of_two_that_are_alike_ours_is_taken() -> None:
    lan, wan = shared("lan"), shared("wan")
    assert matcher(row(A, "lan"), row(OURS, "lan")).match_all([lan, wan]) == {
        lan.identity: OURS,
        wan.identity: own_ref(MARK, KIND, wan.identity),
    }


def test_what_was_made_for_one_stays_with_it() -> None:
    """The other one gets what is left of ours, never what others made."""
    lan, wan = shared("lan"), shared("wan")
    made = own_ref(MARK, KIND, lan.identity)
    rows = (row(OURS, "opt1"), row(made, "opt2"), row(A, "opt3"))
    assert matcher(*rows).match_all([lan, wan]) == {lan.identity: made, wan.identity: OURS}
    assert matcher(*rows[1:]).match_all([lan, wan]) == {
        lan.identity: made,
        wan.identity: own_ref(MARK, KIND, wan.identity),
    }


def test_no_two_get_the_same_item() -> None:
    lan, wan = shared("lan"), shared("wan")
    assert matcher(row(OURS, "opt1")).match_all([lan, wan]) == {
        lan.identity: OURS,
        wan.identity: own_ref(MARK, KIND, wan.identity),
    }


def test_the_one_that_is_to_be_absent_takes_none_that_is_not_like_it() -> None:
    """It would be deleted."""
    gone = replace(shared("lan"), state="absent")
    assert matcher(row(OURS, "opt1")).match_all([gone]) == {gone.identity: own_ref(MARK, KIND, gone.identity)}
    assert matcher(row(OURS, "lan")).match_all([gone]) == {gone.identity: OURS}


def test_what_others_made_is_taken_where_it_is_like_it() -> None:
    lan, wan = shared("lan"), shared("wan")
    assert matcher(row(A, "wan"), row(B, "lan")).match_all([lan, wan]) == {lan.identity: B, wan.identity: A}


def test_only_those_that_share_a_name_are_shared_out() -> None:
    named = [replace(shared("lan"), fields={**shared("lan").fields, **more}) for more in ({"uuid": A},)]
    matched = [
        replace(shared("lan"), fields={**shared("lan").fields, "match": {"interface": ("lan",)}}),
    ]
    assert matcher(row(A)).match_all([rule(), *named, *matched]) == {}


def test_a_label_is_matched_as_well_where_there_is_one() -> None:
    wanted = replace(rule(match={"interface": ["lan"]}), label="one")
    assert matcher(row(A, "lan", description="other"), row(B, "lan")).match(wanted) == (B, False)


def test_of_several_that_are_ours_the_one_that_is_like_it() -> None:
    other = own_ref(MARK, KIND, "another name")
    assert matcher(row(other, "wan"), row(A, "lan"), row(OURS, "lan")).match(rule()) == (OURS, True)
