"""What the comparison of one item says and counts: places, hints, who adopts.

Each case stands for a change of the code that no other test noticed (docs/testing.md, "Mutation checks").
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from fazai.lab import LabFirewall
from fazai.model import Change, Diff, Resource
from tests.opnsense.helpers import Start, apply, plan, resource, run, target


def alias(name: str, *, state: str = "present", adopt: bool | None = None, line: int = 0) -> Resource:
    return resource("opnsense.alias", {"name": name, "type": "host"}, state=state, adopt=adopt, line=line)


def seeded(firewall: LabFirewall, name: str) -> None:
    """An alias that others made."""
    fields = {"alias": {"enabled": "1", "name": name, "type": "host"}}
    assert firewall.call("POST", "/api/firewall/alias/addItem", fields)["result"] == "saved"


def only_refusal(diff: Diff) -> tuple[str, str, str | None]:
    assert diff.steps == ()
    ((_, error),) = diff.refused
    return error.message, str(error.where), error.hint


def test_what_is_absent_and_not_there_is_unchanged(firewall: LabFirewall) -> None:
    diff = run(plan(target(firewall), [alias("gone", state="absent")]))
    assert (diff.steps, diff.unchanged) == ((), 1)


@pytest.mark.parametrize("adopt", [None, True])
def test_an_item_of_others_is_deleted_only_where_it_is_adopted(
    firewall: LabFirewall, adopt: bool | None
) -> None:
    seeded(firewall, "theirs")
    diff = run(plan(target(firewall), [alias("theirs", state="absent", adopt=adopt, line=4)]))
    if adopt:
        change = diff.steps[0]
        assert isinstance(change, Change)
        assert (change.adopts, str(change.mark), change.activates) == (True, "play.yml:4:3", ("alias",))
        assert str(change.origins["name"]) == "play.yml:5:7"
    else:
        assert only_refusal(diff) == (
            '"theirs" on fw-01 was not made by fazai and is not deleted',
            "play.yml:4:3",
            "adopt: true on the resource or the firewall takes it over",
        )


def test_a_refusal_of_what_no_file_declares_names_the_item(firewall: LabFirewall) -> None:
    seeded(firewall, "theirs")
    _, where, _ = only_refusal(run(plan(target(firewall), [alias("theirs", state="absent")])))
    assert where == "fw-01/opnsense.alias/theirs"


def test_what_is_protected_says_who_protects_it(firewall: LabFirewall) -> None:
    run(apply(target(firewall), [alias("kept")]))
    diff = run(plan(target(firewall, protected=["kept"]), [alias("kept", state="absent")]))
    assert only_refusal(diff) == (
        '"kept" is protected and is not deleted',
        "fw-01/opnsense.alias/kept",
        "protected: of the firewall, or fazai itself, says so",
    )


def test_what_another_owner_made_says_what_adopting_means(firewall: LabFirewall) -> None:
    run(apply(target(firewall, owner="team"), [alias("theirs")]))
    diff = run(plan(target(firewall), [alias("theirs", state="absent")]))
    message, where, hint = only_refusal(diff)
    assert where == "fw-01/opnsense.alias/theirs"
    assert message.startswith('"theirs" on fw-01 is managed by fazai for another owner, whose uuids begin')
    assert message.endswith(", and is not deleted")
    assert hint == "change it where that owner lists it; adopt: true takes it over, and then both do"


def test_what_is_built_in_is_never_deleted(firewall: LabFirewall) -> None:
    diff = run(plan(target(firewall), [alias("bogons", state="absent", adopt=True)]))
    message, where, _ = only_refusal(diff)
    assert (message, where) == (
        '"bogons" is built into fw-01 and cannot be deleted',
        "fw-01/opnsense.alias/bogons",
    )


@pytest.mark.parametrize(
    ("line", "where"), [(0, "fw-01/opnsense.user/ann"), (9, "play.yml:9:3")], ids=["no file", "a file"]
)
def test_what_cannot_be_made_without_a_field_says_where(firewall: LabFirewall, line: int, where: str) -> None:
    diff = run(plan(target(firewall), [resource("opnsense.user", {"name": "ann"}, line=line)]))
    (error,) = diff.errors
    assert (error.message, str(error.where)) == (
        'password is missing: "ann" does not exist on fw-01 and cannot be made without it',
        where,
    )


@pytest.mark.parametrize(
    ("line", "where"), [(0, "fw-01/opnsense.rule/one"), (9, "play.yml:11:7")], ids=["no file", "a file"]
)
def test_a_field_of_a_later_release_says_where_and_what_to_do(start: Start, line: int, where: str) -> None:
    firewall = start(release="26.1.11")
    run(apply(target(firewall), [resource("opnsense.rule", {"description": "one", "interface": ["lan"]})]))
    fields = {"description": "one", "max-pkt-rate-number": 10, "interface": ["lan"]}
    (error,) = run(plan(target(firewall), [resource("opnsense.rule", fields, line=line)])).errors
    assert (str(error.where), error.hint) == (where, "leave the field out for this firewall, or update it")


def test_a_name_is_found_whatever_its_case(firewall: LabFirewall) -> None:
    host = {"hostname": "nas", "domain": "example.org", "rr": "A", "server": "192.0.2.1"}
    alias_of = {"host": "NAS.Example.ORG", "hostname": "files", "domain": "example.org"}
    wanted = [resource("opnsense.unbound_host", host), resource("opnsense.unbound_alias", alias_of)]
    done = run(apply(target(firewall), wanted))
    assert (done.diff.errors, done.after.steps, done.after.unchanged) == ((), (), 2)


def test_a_name_with_capitals_is_the_one_that_has_them(firewall: LabFirewall) -> None:
    named = {"description": "one", "interface": ["lan"], "categories": ["Managed"]}
    wanted = [resource("opnsense.category", {"name": "Managed"}), resource("opnsense.rule", named)]
    done = run(apply(target(firewall), wanted))
    assert (done.diff.errors, done.after.steps, done.after.unchanged) == ((), (), 2)


def test_a_name_that_tells_items_apart_and_is_none_is_an_error_of_the_kind(firewall: LabFirewall) -> None:
    def card(subnet: str) -> Resource:
        address = subnet.replace("0/24", "40")
        fields = {"subnet": subnet, "hw_address": "52:54:00:11:22:33", "ip_address": address}
        made = resource("opnsense.kea_reservation", fields)
        return replace(made, label=made.identity, identity=f"{made.identity} (subnet {subnet})")

    subnet = resource("opnsense.kea_subnet", {"subnet": "10.20.0.0/24"})
    run(apply(target(firewall), [subnet, card("10.20.0.0/24")]))
    (error,) = run(plan(target(firewall), [subnet, card("10.99.0.0/24"), card("10.20.0.0/24")])).errors
    assert (error.message, str(error.where)) == (
        'there is no kea subnet "10.99.0.0/24" on this firewall',
        "fw-01/opnsense.kea_reservation",
    )
