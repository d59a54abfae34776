"""The trial before the first write: it judges what the writes will send, and can save nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import yaml

from fazai.errors import DeviceError
from fazai.lab import Fault, LabFirewall
from fazai.lab.server.wire import LabReply, LabRequest
from fazai.model import Resource, Verb
from fazai.providers.opnsense.provider import PROVIDER
from fazai.providers.opnsense.writing.rehearsal import TRIALS
from tests.opnsense.helpers import apply, resource, run, session, target

EXTRA = resource("opnsense.alias", {"name": "beside", "type": "host", "content": ["192.0.2.1"]})
#: A value that only the firewall can judge, for kinds that have such fields.
WRONG: Mapping[str, tuple[str, Any]] = {
    "alias": ("interface", "nowhere"),
    "interface_group": ("members", ["nowhere"]),
    "rule": ("source_net", "nobody"),
    "source_nat": ("interface", "nowhere"),
    "one_to_one": ("interface", "nowhere"),
    "npt": ("destination_net", "2001:db8:1::/48"),
    "dnat": ("interface", ["nowhere"]),
    "gateway": ("interface", "nowhere"),
    "route": ("gateway", "NO_GW"),
    "unbound_host": ("hostname", "a b"),
    "unbound_alias": ("hostname", "a b"),
    "unbound_forward": ("server", "no address"),
    "unbound_dot": ("server", "no address"),
    "unbound_acl": ("networks", ["192.0.2.1"]),
    "cron_job": ("command", "no such command"),
    "kea_subnet": ("subnet", "no network"),
    "dnsmasq_host": ("ip", ["no address"]),
    "monit_service": ("interface", "nowhere"),
    "kea_reservation": ("ip_address", "10.0.0.9"),
    "ids_user_rule": ("source", "nonsense"),
    "captive_portal_zone": ("interfaces", ["nowhere"]),
    "vlan": ("if", "nowhere"),
    "vip": ("interface", "nowhere"),
    "user": ("priv", ["page-nope"]),
    "group": ("priv", ["page-nope"]),
}


def example(short: str) -> dict[str, Any]:
    text = PROVIDER.kinds[f"opnsense.{short}"].example.replace("!env OPERATOR_PASSWORD", "Placeholder-1")
    (found,) = yaml.safe_load(text).values()
    assert isinstance(found, dict)
    return found


def tried(firewall: LabFirewall, short: str, fields: Mapping[str, Any]) -> list[str]:
    """What is said of an item beside another one; nothing is written, nothing but trials is sent."""
    needs = {
        "unbound_alias": [("unbound_host", example("unbound_host"))],
        "source_nat": [("source_nat_mode", {"mode": "hybrid"})],
        "kea_reservation": [("kea_subnet", example("kea_subnet"))],
    }.get(short, [])
    if needs:
        run(apply(target(firewall), [resource(f"opnsense.{kind}", more) for kind, more in needs]))
    wanted = [resource(f"opnsense.{short}", fields, line=5), EXTRA]
    if short == "category":
        wanted.append(resource("opnsense.category", {"name": "second"}))

    async def rehearse() -> list[str]:
        async with session(target(firewall)) as work:
            diff = work.diff(wanted, await work.observe(wanted))
            assert {change.verb for change in diff.changes} == {Verb.CREATE}
            before = firewall.box.config.state, firewall.box.config.writes
            firewall.requests.clear()
            found = await work.rehearse(diff.changes)
            assert (firewall.box.config.state, firewall.box.config.writes) == before
            assert firewall.box.config.state is before[0]
            return [str(error) for error in found]

    found = run(rehearse())
    asked = {path.removeprefix("/api/").partition("/fa2a1000-")[0] for _, path, _ in firewall.requests}
    assert asked == {TRIALS[short].path, TRIALS["alias"].path}
    return found


@pytest.mark.parametrize("short", TRIALS)
def test_an_item_that_is_right_is_tried_and_not_saved(firewall: LabFirewall, short: str) -> None:
    assert tried(firewall, short, example(short)) == []


@pytest.mark.parametrize("short", WRONG)
def test_an_item_that_is_wrong_is_said_at_its_field(firewall: LabFirewall, short: str) -> None:
    field, value = WRONG[short]
    (error,) = tried(firewall, short, {**example(short), field: value})
    assert error.startswith("play.yml:")
    assert f"{field}: " in error
    assert "boolean" not in error


def test_every_item_of_a_trial_is_wrong_on_purpose(firewall: LabFirewall) -> None:
    """Even an answer that takes the good ones could save none."""
    bodies: list[Any] = []
    handle = firewall._site.handle

    def listen(request: LabRequest) -> LabReply:
        if request.path.endswith("/set"):
            bodies.append(json.loads(request.body))
        return handle(request)

    firewall._site.handle = listen  # type: ignore[method-assign]
    wanted = [
        resource("opnsense.alias", {"name": f"a{n}", "type": "host", "content": ["192.0.2.1"]})
        for n in range(250)
    ]

    async def rehearse() -> None:
        async with session(target(firewall)) as work:
            diff = work.diff(wanted, await work.observe(wanted))
            assert await work.rehearse(diff.changes) == []

    run(rehearse())
    sizes = []
    for body in bodies:
        items = body["alias"]["aliases"]["alias"]
        sizes.append(len(items))
        *tried_, never = items.values()
        assert {item["enabled"] for item in tried_} == {"2"}
        assert set(never.values()) == {"zz bad !"}
    assert sizes == [101, 101, 51]


def test_a_release_without_the_field_that_is_wrong_still_saves_nothing(firewall: LabFirewall) -> None:
    """Unknown fields are ignored; then what is said cannot be told apart, and nothing is."""
    handle = firewall._site.handle

    def unknowing(request: LabRequest) -> LabReply:
        if request.path.endswith("/set"):
            body = request.body.replace(b'"enabled":"2"', b'"unknown":"2"')
            request = replace(request, body=body)
        return handle(request)

    firewall._site.handle = unknowing  # type: ignore[method-assign]
    wrong = {"name": "web", "type": "networkgroup", "content": ["nobody"]}
    assert tried(firewall, "alias", wrong) == []


def test_a_change_of_an_item_is_tried_under_its_uuid(firewall: LabFirewall) -> None:
    run(
        apply(
            target(firewall), [EXTRA, resource("opnsense.rule", {"description": "r", "interface": ["lan"]})]
        )
    )
    wanted = [
        resource("opnsense.alias", {"name": "beside", "type": "host", "content": ["192.0.2.2"]}),
        resource("opnsense.rule", {"description": "r", "interface": ["nowhere"]}, line=7),
    ]

    async def rehearse() -> list[str]:
        async with session(target(firewall)) as work:
            diff = work.diff(wanted, await work.observe(wanted))
            assert {change.verb for change in diff.changes} == {Verb.UPDATE}
            return [str(error) for error in await work.rehearse(diff.changes)]

    (error,) = run(rehearse())
    assert error.startswith('play.yml:9:7: fw-01 refused "r": interface: ')


VLAN = {"if": "vtnet3", "tag": 100}
VIP = {"interface": "lan", "mode": "ipalias", "network": "192.168.1.5/32"}


def test_items_whose_set_is_their_own_are_tried_one_by_one(firewall: LabFirewall) -> None:
    """What is not declared, and yet wanted by the firewall, is sent along as the write does."""
    user = {"name": "ops", "password": "Placeholder-1"}
    run(
        apply(
            target(firewall),
            [
                resource("opnsense.vlan", {**VLAN, "descr": "a"}),
                resource("opnsense.user", user),
                resource("opnsense.group", {"name": "ops"}),
            ],
        )
    )
    wanted = [
        resource("opnsense.vlan", {**VLAN, "vlanif": "igb0"}, line=1),
        resource("opnsense.user", {**user, "expires": "zz bad !"}, line=10),
        resource("opnsense.group", {"name": "ops", "member": ["root"], "priv": ["page-nope"]}, line=20),
    ]
    found, asked = rehearsed(firewall, wanted)
    assert [error.partition(":")[2] for error in found] == [
        '4:7: fw-01 refused "vtnet3 tag 100": vlanif: The device name prefix "vlan" is required.',
        '13:7: fw-01 refused "ops": expires: Invalid expiration date format; use MM/DD/YYYY instead.',
        '23:7: fw-01 refused "ops": priv: Option [page-nope] not in list.',
    ]
    assert [path.partition("/fa2a1000")[0] for path in asked] == [
        "/api/interfaces/vlan_settings/setItem",
        "/api/auth/user/set",
        "/api/auth/group/set",
    ]


def test_a_virtual_address_that_is_there_is_not_tried(firewall: LabFirewall) -> None:
    """Its call notes the address for removal before it judges what was sent."""
    run(apply(target(firewall), [resource("opnsense.vip", VIP)]))
    wanted = [
        resource("opnsense.vip", {**VIP, "descr": "changed"}),
        resource("opnsense.vip", {**VIP, "network": "192.168.1.6/32", "advbase": 2}, line=3),
    ]
    found, asked = rehearsed(firewall, wanted)
    assert found == []
    assert len(asked) == 1


def test_a_firewall_that_saves_the_trial_of_one_item_is_stopped_at(firewall: LabFirewall) -> None:
    firewall.inject(Fault(kind="status", path="auth/group/set*", status=200, body='{"result":"saved"}'))
    with pytest.raises(
        DeviceError, match=r"saved what it should have refused: a trial of 1 items of opnsense\.g"
    ):
        rehearsed(firewall, [resource("opnsense.group", {"name": "a"}), EXTRA])


def rehearsed(firewall: LabFirewall, wanted: Sequence[Resource]) -> tuple[list[str], list[str]]:
    """What is said of these, and what was asked for it; nothing is written."""

    async def rehearse() -> list[str]:
        async with session(target(firewall)) as work:
            diff = work.diff(wanted, await work.observe(wanted))
            before = firewall.box.config.state
            firewall.requests.clear()
            found = await work.rehearse(diff.changes)
            assert firewall.box.config.state is before
            return [str(error) for error in found]

    return run(rehearse()), [path for _, path, _ in firewall.requests]
