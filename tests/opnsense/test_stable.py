"""What must never change from release to release: the uuids of what fazai made, and how numbers are spread.

Each case stands for a change of the code that no other test noticed (docs/testing.md, "Mutation checks").
"""

from __future__ import annotations

import pytest

from fazai.providers.opnsense.catalogue.ownership import add_mark, mark_of, other_owner, own_ref, split_mark
from fazai.providers.opnsense.planning.ordering import assign_sequences

#: kind, identity, and the uuid under which firewalls already have such items.
MADE = [
    ("opnsense.alias", "dns_servers", "fa2a1000-2bc0-4611-9d01-d1df20928fac"),
    ("opnsense.rule", "allow dns", "fa2a1000-9a39-4b33-9134-40884d19f385"),
    ("opnsense.category", "managed", "fa2a1000-4480-44eb-b99c-c833e0561fba"),
    ("opnsense.vlan", "vtnet3 tag 100", "fa2a1000-449c-4436-958f-30c4efb9fb7e"),
]


@pytest.mark.parametrize(("kind", "identity", "ref"), MADE)
def test_a_uuid_stays(kind: str, identity: str, ref: str) -> None:
    """With another one, fazai would take what it made for somebody else's."""
    assert own_ref(mark_of("fazai"), kind, identity) == ref


@pytest.mark.parametrize(("owner", "mark"), [("team", "767628b9"), ("Fazai", "67211c76")])
def test_the_mark_of_an_owner_stays(owner: str, mark: str) -> None:
    """With another one, fazai would take what this owner has for somebody else's."""
    assert own_ref(mark_of(owner), "opnsense.alias", "web") == f"{mark}-b040-4a61-aeb4-b813f8fd97ac"


def test_another_owner_is_named() -> None:
    ours, theirs = (own_ref(mark_of(owner), "opnsense.alias", "web") for owner in ("fazai", "team"))
    assert other_owner(ours, "opnsense.alias", ["", "web"]) == 'the owner "fazai"'
    assert other_owner(theirs, "opnsense.alias", ["web"]) == (
        f"another owner, whose uuids begin with {mark_of('team')}"
    )
    assert other_owner(theirs, "opnsense.rule", ["web"]) == ""
    assert other_owner(theirs, "opnsense.alias", ["", "db"]) == ""
    assert other_owner(own_ref(mark_of("team"), "opnsense.alias", ""), "opnsense.alias", [""]) == ""


def test_the_mark_is_taken_off_once_and_at_the_end() -> None:
    assert add_mark("web", "fazai") == "web [fazai]"
    assert split_mark("web [fazai]", "fazai") == ("web", True)
    assert split_mark("web [fazai] [fazai]", "fazai") == ("web [fazai]", True)
    assert split_mark("[fazai] web", "fazai") == ("[fazai] web", False)
    assert split_mark("web [team]", "fazai") == ("web [team]", False)


@pytest.mark.parametrize(
    ("end", "between"),
    [
        (200, [125, 150, 175]),  # a wide gap: evenly, as if nobody else stood in it
        (117, [104, 108, 112]),
        (116, [104, 109, 113]),  # a narrow one: evenly over the numbers that are free
    ],
)
def test_a_gap_with_a_foreign_item_in_it(end: int, between: list[int]) -> None:
    assert assign_sequences([100, None, None, None, end], [102]) == [100, *between, end]
