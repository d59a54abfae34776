"""DHCP, router advertisements, blocklists: each kind's life on both releases, and the traps of each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fazai.errors import DeviceError, Rejected
from fazai.lab import LabFirewall
from fazai.model import Resource, Verb
from fazai.providers.opnsense.provider import PROVIDER
from tests.opnsense.helpers import Start, apply, plan, resource, run, target
from tests.opnsense.kinds.lifecycle import RELEASES, Case, check_lifecycle, lives

LAN6 = ("opnsense.kea6_subnet", {"subnet": "2001:db8:1::/64", "interface": "lan"})
VOIP = ("opnsense.dnsmasq_tag", {"tag": "voip"})
TFTP = (
    "opnsense.kea_option",
    {"description": "tftp", "code": 66, "encoding": "string", "data": "tftp.example.org"},
)
CORE = ("opnsense.dhcp_relay_destination", {"name": "core", "server": ["192.0.2.67"]})

CASES = [
    Case(
        "opnsense.kea_option",
        {"description": "tftp", "code": 66, "encoding": "string", "data": "tftp.example.org"},
        {"data": "boot.example.org", "force": True},
    ),
    Case(
        "opnsense.kea_peer",
        {"name": "fw1", "url": "http://192.0.2.2:8001/"},
        {"role": "standby", "url": "http://192.0.2.3:8001/"},
    ),
    Case(
        "opnsense.kea6_option",
        {"description": "dns", "code": 23, "encoding": "ipv6-address", "data": "2001:db8::53"},
        {"data": "2001:db8::54"},
    ),
    Case(
        "opnsense.kea6_peer",
        {"name": "fw1", "url": "http://192.0.2.2:8001/"},
        {"role": "standby"},
    ),
    Case(
        "opnsense.kea6_subnet",
        {
            "subnet": "2001:db8:1::/64",
            "interface": "lan",
            "pools": ["2001:db8:1::100-2001:db8:1::1ff", "2001:db8:1::/112"],
            "option": ["dns"],
        },
        {"option": [], "valid_lifetime": 600, "option_data": {"dns_servers": ["2001:db8::53"]}},
        needs=[
            (
                "opnsense.kea6_option",
                {"description": "dns", "code": 23, "encoding": "ipv6-address", "data": "2001:db8::53"},
            )
        ],
    ),
    Case(
        "opnsense.kea6_reservation",
        {
            "subnet": "2001:db8:1::/64",
            "ip_address": "2001:db8:1::31",
            "duid": "00:03:00:01:52:54:00:AA:00:31",
        },
        {"ip_address": "2001:db8:1::32", "hostname": "printer"},
        needs=[LAN6],
    ),
    Case(
        "opnsense.kea6_pd_pool",
        {"subnet": "2001:db8:1::/64", "prefix": "2001:db8:100::", "prefix_len": 48, "delegated_len": 56},
        {"delegated_len": 60, "description": "branch offices"},
        needs=[LAN6],
    ),
    Case(
        "opnsense.dnsmasq_range",
        {
            "interface": "lan",
            "start_addr": "192.168.1.100",
            "end_addr": "192.168.1.150",
            "set_tag": "voip",
        },
        {"end_addr": "192.168.1.160", "lease_time": 3600},
        needs=[VOIP],
    ),
    Case(
        "opnsense.dnsmasq_option",
        {"option": 42, "interface": "lan", "value": "192.168.1.1", "tag": ["voip"]},
        {"value": "192.168.1.2", "force": True},
        needs=[VOIP],
    ),
    Case(
        "opnsense.dnsmasq_boot",
        {"interface": "lan", "filename": "pxe.0", "tag": ["voip"]},
        {"servername": "boot", "address": "192.168.1.9"},
        needs=[VOIP],
    ),
    Case(
        "opnsense.dnsmasq_domain",
        {"domain": "corp.example.org", "ip": "10.1.1.53"},
        {"port": 5353, "descr": "head office"},
    ),
    Case(
        "opnsense.kea_subnet",
        {"subnet": "192.168.1.0/24", "option_data_autocollect": False, "option": ["tftp"]},
        {"option": [], "description": "office"},
        needs=[TFTP],
    ),
    Case(
        "opnsense.kea_reservation",
        {"subnet": "192.168.1.0/24", "hw_address": "52:54:00:00:00:31", "ip_address": "192.168.1.31"},
        {"option": ["tftp"]},
        needs=[TFTP, ("opnsense.kea_subnet", {"subnet": "192.168.1.0/24", "option_data_autocollect": False})],
    ),
    Case(
        "opnsense.dnsmasq_host",
        {"host": "phone", "domain": "example.org", "hwaddr": ["52:54:00:00:00:41"], "set_tag": "voip"},
        {"set_tag": "", "ip": ["192.168.1.41"]},
        needs=[VOIP],
    ),
    Case(
        "opnsense.unbound_dnsbl",
        {"description": "guests", "type": ["hgz002", "atf"], "source_nets": ["10.20.0.0/24"]},
        {"type": ["atf"], "allowlists": ["ok.example.org"], "wildcards": ["ads.example.org"]},
    ),
    Case(
        "opnsense.dhcp_relay_destination",
        {"name": "core", "server": ["192.0.2.67"]},
        {"server": ["192.0.2.67", "192.0.2.68"]},
    ),
    Case(
        "opnsense.dhcp_relay",
        {"interface": "lan", "destination": "core", "enabled": True},
        {"agent_info": True},
        needs=[CORE],
    ),
    Case(
        "opnsense.radvd_entry",
        {"interface": "lan", "mode": "assist", "RDNSS": ["2001:db8:1::54", "2001:db8:1::53"]},
        {"mode": "managed", "RDNSS": ["2001:db8:1::53"], "enabled": False},
    ),
]


def prepared(start: Start) -> Start:
    """Firewalls whose DHCPv6 server listens on an interface, without which there can be no subnet."""

    def begin(**settings: Any) -> LabFirewall:
        firewall = start(**settings)
        body = {"dhcpv6": {"general": {"interfaces": "lan"}}}
        assert firewall.call("POST", "/api/kea/dhcpv6/set", body) == {"result": "saved"}
        return firewall

    return begin


@pytest.mark.parametrize(("case", "release"), lives(CASES))
def test_life(start: Start, case: Case, release: str) -> None:
    check_lifecycle(prepared(start), case, release)


@pytest.mark.parametrize("release", RELEASES)
def test_a_tag_goes_with_what_it_is_given_to(start: Start, release: str) -> None:
    """A tag has nothing but its name; it is made before the range that names it, and deleted after it."""
    to = target(start(release=release))
    span = {"interface": "lan", "start_addr": "192.168.1.100", "end_addr": "192.168.1.150"}
    tag, ranged = resource(*VOIP), resource("opnsense.dnsmasq_range", {**span, "set_tag": "voip"})
    made = run(apply(to, [ranged, tag]))
    assert [(change.kind, change.verb) for change, _ in made.written] == [
        ("opnsense.dnsmasq_tag", Verb.CREATE),
        ("opnsense.dnsmasq_range", Verb.CREATE),
    ]
    assert not run(plan(to, [ranged, tag])).steps
    gone = [
        resource("opnsense.dnsmasq_tag", {"tag": "voip"}, state="absent"),
        resource("opnsense.dnsmasq_range", {**span, "set_tag": "voip"}, state="absent"),
    ]
    deleted = run(apply(to, gone))
    assert [change.kind for change, _ in deleted.written] == [
        "opnsense.dnsmasq_range",
        "opnsense.dnsmasq_tag",
    ]
    assert not run(plan(to, gone)).steps


def test_a_tag_in_use_is_not_deleted(start: Start) -> None:
    to = target(start())
    span = {"interface": "lan", "start_addr": "192.168.1.100", "end_addr": "192.168.1.150"}
    run(apply(to, [resource(*VOIP), resource("opnsense.dnsmasq_range", {**span, "set_tag": "voip"})]))
    with pytest.raises(DeviceError, match="in use by"):
        run(apply(to, [resource("opnsense.dnsmasq_tag", {"tag": "voip"}, state="absent")]))


def apart(kind: str, fields: dict[str, Any], more: str) -> Resource:
    """One of several resources of a list that have the same identity, as a playbook tells them apart."""
    one = resource(kind, fields)
    return replace(one, identity=f"{one.identity} ({more})", label=one.identity)


def test_options_of_one_number_are_told_apart_by_their_tags(start: Start) -> None:
    to = target(start())
    option = {"option": 6, "interface": "lan", "type": "set"}
    wanted = [
        resource(*VOIP),
        apart("opnsense.dnsmasq_option", {**option, "value": "192.168.1.53", "tag": ["voip"]}, "tag voip"),
        apart("opnsense.dnsmasq_option", {**option, "value": "192.168.1.54"}, "tag"),
        resource("opnsense.dnsmasq_option", {"option6": 6, "interface": "lan", "value": "x"}),
    ]
    assert len(run(apply(to, wanted)).written) == 4
    assert not run(plan(to, wanted)).steps


def problems_of(kind: str, fields: dict[str, Any], state: str = "present") -> list[str]:
    """What is wrong with fields before any firewall is asked."""
    _, problems = PROVIDER.kinds[kind].normalise(fields, state)
    return [f"{problem.field}: {problem.message}" for problem in problems]


EITHER = [
    (
        "opnsense.kea6_reservation",
        {"subnet": "2001:db8:1::/64", "ip_address": "2001:db8:1::31"},
        "duid",
        "hw_address",
    ),
    ("opnsense.dnsmasq_option", {"value": "x"}, "option", "option6"),
]
VALUES = {"duid": "00:03:00:01", "hw_address": "52:54:00:00:00:31", "option": 6, "option6": 23}


@pytest.mark.parametrize(("kind", "fields", "first", "second"), EITHER)
def test_exactly_one_of_the_fields_that_name_an_item_is_declared(
    kind: str, fields: dict[str, Any], first: str, second: str
) -> None:
    one = {**fields, first: VALUES[first]}
    assert problems_of(kind, one) == []
    assert problems_of(kind, {**fields, second: VALUES[second]}) == []
    assert problems_of(kind, fields) == [f"{first}: is missing: it or {second} names the item"]
    assert problems_of(kind, {}, "absent") == [f"{first}: is missing: it or {second} names the item"]
    assert problems_of(kind, {**one, second: VALUES[second]}) == [f"{second}: excludes {first}"]


REFUSED = [
    (
        "kea6_subnet",
        {"subnet": "2001:db8:2::/64", "interface": "opt1"},
        "interface: Interface is not selected",
    ),
    (
        "kea6_subnet",
        {"subnet": "2001:db8:2::/64", "interface": "lan", "pools": ["2001:db8:3::1-2001:db8:3::9"]},
        "pools: Pool .* not in specified subnet",
    ),
    (
        "kea6_reservation",
        {"subnet": "2001:db8:1::/64", "ip_address": "2001:db8:9::1", "duid": "00:01"},
        "ip_address: Address not in specified subnet",
    ),
    (
        "kea6_pd_pool",
        {"subnet": "2001:db8:1::/64", "prefix": "2001:db8:100::", "prefix_len": 56, "delegated_len": 48},
        "delegated_len: Delegated length must be longer",
    ),
    (
        "kea_option",
        {"description": "x", "code": 42, "encoding": "ipv4-address", "data": "x"},
        "data: Invalid IPv4 address: x",
    ),
    (
        "dnsmasq_option",
        {"option": 6, "value": "2001:db8::53"},
        "value: Only IPv4 addresses are allowed",
    ),
    (
        "dnsmasq_range",
        {"interface": "lan", "start_addr": "192.168.1.100"},
        "end_addr: End address may only be left empty",
    ),
    (
        "dhcp_relay_destination",
        {"name": "mixed", "server": ["192.0.2.1", "2001:db8::1"]},
        "server: You cannot mix address families",
    ),
    (
        "unbound_dnsbl",
        {"description": "x", "source_nets": ["10.20.0.1/24"]},
        "source_nets: Please specify a valid network",
    ),
    (
        "radvd_entry",
        {"interface": "lan", "MinRtrAdvInterval": 500},
        "MinRtrAdvInterval: Value cannot be greater than 450",
    ),
]


@pytest.mark.parametrize(("kind", "fields", "message"), REFUSED)
def test_what_the_firewall_refuses_is_said_with_its_field(
    start: Start, kind: str, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(Rejected, match=message):
        run(apply(target(prepared(start)()), [resource(*LAN6), resource(f"opnsense.{kind}", fields)]))


def test_a_relay_is_made_only_where_it_is_said_whether_it_is_on(start: Start) -> None:
    """The firewall's own default is off."""
    wanted = [resource(*CORE), resource("opnsense.dhcp_relay", {"interface": "lan", "destination": "core"})]
    (error,) = run(plan(target(start()), wanted)).errors
    assert "enabled is missing" in error.message


def test_a_relay_to_each_address_family(start: Start) -> None:
    to = target(start())
    six = {"name": "core6", "server": ["2001:db8::67"]}
    relay = {"interface": "lan", "enabled": True}
    wanted = [
        resource(*CORE),
        resource("opnsense.dhcp_relay_destination", six),
        apart("opnsense.dhcp_relay", {**relay, "destination": "core"}, "destination core"),
        apart("opnsense.dhcp_relay", {**relay, "destination": "core6"}, "destination core6"),
    ]
    assert len(run(apply(to, wanted)).written) == 4
    assert not run(plan(to, wanted)).steps


def test_a_relay_depends_on_a_virtual_address_by_its_name(start: Start) -> None:
    to = target(start())
    vip = {"interface": "lan", "network": "192.168.1.250/24", "mode": "carp", "vhid": 1, "password": "x"}
    address = resource("opnsense.vip", vip)
    relay = {"interface": "lan", "destination": "core", "enabled": True, "carp_depend_on": address.identity}
    wanted = [address, resource(*CORE), resource("opnsense.dhcp_relay", relay)]
    assert [change.verb for change, _ in run(apply(to, wanted)).written] == [Verb.CREATE] * 3
    assert not run(plan(to, wanted)).steps


def test_the_key_of_dynamic_dns_is_in_no_plan(start: Start) -> None:
    secret = "c2VjcmV0IG9mIHRlc3Rz"
    fields = {
        **LAN6[1],
        "ddns_forward_zone": "example.org",
        "ddns_dns_server": "192.0.2.53",
        "ddns_domain_key_name": "key",
        "ddns_domain_key_secret": secret,
        "ddns_domain_key_algorithm": "hmac-sha256",
    }
    firewall = prepared(start)()
    to = target(firewall)
    wanted = [resource("opnsense.kea6_subnet", fields)]
    assert secret not in repr(run(plan(to, wanted)))
    done = run(apply(to, wanted))
    assert secret not in repr(done)
    assert not done.after.steps
    (subnet,) = firewall.call("POST", "/api/kea/dhcpv6/searchSubnet", {})["rows"]
    assert subnet["ddns_domain_key_secret"] == secret
