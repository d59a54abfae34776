"""Names of other items: which one is meant, and what is said when it is none or several."""

from __future__ import annotations

from typing import Any

import pytest

from fazai.errors import Mark
from fazai.lab import LabFirewall
from fazai.model import Resource, Verb
from fazai.providers.opnsense.provider import PROVIDER
from tests.opnsense.helpers import apply, plan, resource, run, target

A = resource(
    "opnsense.unbound_host", {"hostname": "nas", "domain": "example.org", "rr": "A", "server": "192.0.2.1"}
)
AAAA = resource(
    "opnsense.unbound_host",
    {"hostname": "nas", "domain": "example.org", "rr": "AAAA", "server": "2001:db8::1"},
)


def alias_to(host: str) -> Any:
    fields = {"host": host, "hostname": "files", "domain": "example.org"}
    return resource("opnsense.unbound_alias", fields, line=10)


# -- resolvers: plain and over TLS


def test_a_resolver_over_tls_is_made_changed_and_deleted_with_its_own_verbs(firewall: LabFirewall) -> None:
    fields = {"server": "9.9.9.9", "port": 853, "verify": "dns.quad9.net"}
    done = run(apply(target(firewall), [resource("opnsense.unbound_dot", fields)]))
    assert [(change.verb, change.kind) for change in done.diff.changes] == [
        (Verb.CREATE, "opnsense.unbound_dot")
    ]
    assert done.after.steps == ()
    done = run(apply(target(firewall), [resource("opnsense.unbound_dot", {**fields, "description": "q"})]))
    assert done.after.steps == ()
    done = run(apply(target(firewall), [resource("opnsense.unbound_dot", fields, state="absent")]))
    assert done.after.steps == ()
    asked = [path.rpartition("settings/")[2].partition("/")[0] for _, path, _ in firewall.requests]
    assert [verb for verb in asked if verb.endswith("Dot")] == [
        *("searchDot", "setDot", "searchDot"),
        *("searchDot", "setDot", "searchDot"),
        *("searchDot", "delDot", "searchDot"),
    ]
    assert not any("Forward" in verb for verb in asked)


def test_a_plain_resolver_beside_one_over_tls_of_the_same_address(firewall: LabFirewall) -> None:
    both = [
        resource("opnsense.unbound_forward", {"domain": "corp.example.org", "server": "10.1.1.53"}),
        resource("opnsense.unbound_dot", {"domain": "corp.example.org", "server": "10.1.1.53"}),
    ]
    done = run(apply(target(firewall), both))
    assert (len(done.diff.changes), done.after.steps, done.after.unchanged) == (2, (), 2)


def test_the_type_dot_of_a_forward_is_refused_with_the_kind_that_is_meant() -> None:
    kind = PROVIDER.kinds["opnsense.unbound_forward"]
    _, (problem,) = kind.normalise({"server": "9.9.9.9", "type": "dot"}, "present")
    assert problem.message == 'is not one of the choices, not "dot"'
    assert problem.hint == "one of forward; a server over TLS is an opnsense.unbound_dot"


# -- several items of one name


def test_an_alias_of_a_name_with_a_and_aaaa_must_say_which(firewall: LabFirewall) -> None:
    (error,) = run(plan(target(firewall), [A, AAAA, alias_to("nas.example.org")])).errors
    text = 'items of the kind unbound host are called "nas.example.org": which one is meant is not clear'
    assert error.message == f"2 {text}"
    assert error.hint == "write one of: nas.example.org A, nas.example.org AAAA"
    assert error.where == Mark("play.yml", 11, 7)
    assert firewall.counters["writes"] == 0


@pytest.mark.parametrize("record", ["A", "AAAA"])
def test_an_alias_by_name_and_record_type_converges(firewall: LabFirewall, record: str) -> None:
    wanted = [A, AAAA, alias_to(f"nas.example.org {record}")]
    done = run(apply(target(firewall), wanted))
    assert (len(done.diff.changes), done.after.steps, done.after.errors) == (3, (), ())
    sent = firewall.call("POST", "/api/unbound/settings/searchHostOverride", {})["rows"]
    host = next(row for row in sent if row["rr"] == record and not row["isAlias"])
    assert [child["hostname"] for child in host["_children"]] == ["files"]
    other = "AAAA" if record == "A" else "A"
    done = run(apply(target(firewall), [A, AAAA, alias_to(f"nas.example.org {other}")]))
    (change,) = done.diff.changes
    assert (change.before, change.after) == (
        {"host": f"nas.example.org {record}"},
        {"host": f"nas.example.org {other}"},
    )
    assert done.after.steps == ()


def test_a_name_that_only_one_record_keeps_is_clear(firewall: LabFirewall) -> None:
    run(apply(target(firewall), [A, AAAA]))
    gone = resource(
        "opnsense.unbound_host", {"hostname": "nas", "domain": "example.org", "rr": "AAAA"}, state="absent"
    )
    done = run(apply(target(firewall), [A, gone, alias_to("nas.example.org")]))
    assert (len(done.diff.changes), done.after.steps) == (2, ())


def test_items_of_one_name_on_the_firewall_are_told_apart_by_uuid(firewall: LabFirewall) -> None:
    made = [
        firewall.call(
            "POST",
            "/api/trafficshaper/settings/addPipe",
            {"pipe": {"bandwidth": "10", "bandwidthMetric": "Mbit", "description": "guests"}},
        )["uuid"]
        for _ in range(2)
    ]

    def rule(pipe: str) -> Any:
        fields = {"description": "slow", "interface": ["lan"], "shaper1": pipe}
        return resource("opnsense.rule", fields, line=1)

    (error,) = run(plan(target(firewall), [rule("guests")])).errors
    assert 'items of the kind shaper pipe are called "guests"' in error.message
    assert error.hint == f"write one of: {', '.join(made)}"
    done = run(apply(target(firewall), [rule(made[1])]))
    assert (len(done.diff.changes), done.after.steps) == (1, ())


# -- names of nothing

SOME_UUID = "00000000-0000-4000-8000-000000000001"
_UUID = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b"  # of a needed item that is not asked about
NEEDED: dict[str, dict[str, Any]] = {
    "alias": {"name": "a", "type": "host", "content": ["192.0.2.1"]},
    "rule": {"description": "r", "interface": ["lan"]},
    "source_nat": {"description": "s", "interface": "wan", "target": "wanip"},
    "one_to_one": {"description": "o", "interface": "wan", "external": "192.0.2.9", "source_net": "10.0.0.9"},
    "npt": {"description": "n", "interface": "wan", "source_net": "fd00:1::/64"},
    "unbound_alias": {"hostname": "files", "domain": "example.org"},
    "kea_reservation": {"hw_address": "52:54:00:00:00:01", "subnet": _UUID},
    "monit_service": {"name": "m", "type": "custom"},
    "group": {"name": "g"},
    "ids_settings": {},
    "captive_portal_zone": {"description": "z", "interfaces": ["lan"]},
    "trust_ca": {"descr": "c"},
    "trust_cert": {"descr": "c"},
    "openvpn_instance": {"description": "i", "server": "10.90.0.0/24"},
    "openvpn_override": {"common_name": "o"},
    "ipsec_connection": {"description": "c"},
    "ipsec_local": {"description": "l", "connection": SOME_UUID},
    "ipsec_remote": {"description": "r", "connection": SOME_UUID},
    "ipsec_child": {"description": "c", "connection": SOME_UUID},
    "ipsec_manual_spd": {"source": "10.80.0.0/24"},
    "wireguard_server": {"name": "w", "privkey": "YQ=="},
    "wireguard_peer": {"name": "p", "pubkey": "YQ==", "tunneladdress": ["10.9.0.3/32"]},
    "kea_subnet": {"subnet": "192.168.1.0/24"},
    "dnsmasq_host": {"host": "printer", "domain": "example.org", "ip": ["192.168.1.9"]},
    "kea6_subnet": {"subnet": "2001:db8:1::/64", "interface": "lan"},
    "kea6_reservation": {"subnet": _UUID, "ip_address": "2001:db8:1::31", "duid": "00:01"},
    "kea6_pd_pool": {"prefix": "2001:db8:100::", "prefix_len": 48},
    "dnsmasq_range": {"interface": "lan", "start_addr": "192.168.1.9", "end_addr": "192.168.1.99"},
    "dnsmasq_option": {"option": 6, "value": "192.168.1.53"},
    "dnsmasq_boot": {"interface": "lan", "filename": "pxe.0"},
    "dhcp_relay": {"interface": "lan", "enabled": True, "destination": _UUID},
    "shaper_queue": {"description": "q"},
    "shaper_rule": {"description": "r"},
}
REFERENCES = [
    (kind.name, field.name, field.multiple)
    for kind in PROVIDER.kinds.values()
    for field in kind.keyed.values()
]


def test_every_kind_with_references_is_tried() -> None:
    assert {name.partition(".")[2] for name, _, _ in REFERENCES} <= {*NEEDED, "dnat"}


@pytest.mark.parametrize(("kind", "field", "several"), REFERENCES)
@pytest.mark.parametrize("also", ["alone", "beside another"])
def test_a_reference_to_nothing_is_one_error_at_its_field(
    firewall: LabFirewall, kind: str, field: str, several: bool, also: str
) -> None:
    fields = {**NEEDED[kind.partition(".")[2]]}
    fields.pop(field, None)
    fields[field] = ["nope"] if several else "nope"
    wanted = [resource(kind, fields, line=20)]
    if also == "beside another":
        good = resource("opnsense.rule", {"description": "first", "interface": ["lan"]})
        wanted = [good, *wanted, resource("opnsense.rule", {"description": "last", "interface": ["lan"]})]
    diff = run(plan(target(firewall), wanted))
    (error,) = diff.errors
    assert error.message.startswith("there is no ")
    assert error.message.endswith(' "nope" on this firewall')
    assert error.where == Mark("play.yml", 20 + len(fields), 7)


def test_a_misspelt_category_of_a_rule_is_met_with_the_nearest(firewall: LabFirewall) -> None:
    wanted = [
        resource("opnsense.category", {"name": "managed"}),
        resource("opnsense.rule", {"description": "r", "interface": ["lan"], "categories": ["manged"]}),
    ]
    (error,) = run(plan(target(firewall), wanted)).errors
    assert (error.message, error.hint) == (
        'there is no category "manged" on this firewall',
        'did you mean "managed"?',
    )


def _host(name: str, **more: Any) -> Resource:
    fields = {"hostname": name, "domain": "example.org", "rr": "A", "server": "192.0.2.1"}
    return resource("opnsense.unbound_host", fields, **more)


def _alias(**more: Any) -> Resource:
    fields = {"host": "nas.example.org", "hostname": "files", "domain": "example.org"}
    return resource("opnsense.unbound_alias", fields, **more)


@pytest.mark.parametrize("prune", [False, True])
def test_a_host_whose_aliases_others_made_is_not_deleted_with_them(
    firewall: LabFirewall, prune: bool
) -> None:
    """The firewall deletes a host's aliases with it, whoever made them."""
    to = target(firewall, prune=prune, max_prune="100%")
    run(apply(to, [_host("nas"), _host("other")]))
    (ref,) = [row["uuid"] for row in _rows(firewall, "Override") if row["hostname"] == "nas"]
    theirs = {"alias": {"host": ref, "hostname": "theirs", "domain": "example.org"}}
    assert firewall.call("POST", "/api/unbound/settings/addHostAlias", theirs)["result"] == "saved"
    gone = [_host("other")] if prune else [_host("nas", state="absent")]
    diff = run(plan(to, gone, prune=prune))
    assert diff.changes == ()
    ((change, error),) = diff.refused
    assert (change.identity, error.message) == (
        "nas.example.org A",
        'with "nas.example.org A" fw-01 would delete the opnsense.unbound_alias of it that this run does'
        " not: theirs.example.org",
    )


def test_a_host_goes_with_aliases_that_the_same_run_deletes_or_moves(firewall: LabFirewall) -> None:
    to = target(firewall)
    run(apply(to, [_host("nas"), _host("other"), _alias()]))
    assert run(plan(to, [_host("nas", state="absent")])).refused
    moved = resource(
        "opnsense.unbound_alias",
        {"host": "other.example.org", "hostname": "files", "domain": "example.org"},
    )
    done = run(apply(to, [_host("nas", state="absent"), _host("other"), moved]))
    assert (done.after.steps, done.after.refused) == ((), ())
    assert [row["hostname"] for row in _rows(firewall, "Alias")] == ["files"]
    back = resource(
        "opnsense.unbound_alias",
        {"host": "other.example.org", "hostname": "files", "domain": "example.org"},
        state="absent",
    )
    done = run(apply(to, [_host("other", state="absent"), back]))
    assert (done.after.steps, _rows(firewall, "Alias"), _rows(firewall, "Override")) == ((), [], [])


def _rows(firewall: LabFirewall, what: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = firewall.call("POST", f"/api/unbound/settings/searchHost{what}", {})["rows"]
    return found


def test_a_hidden_source_nat_rule_is_found_by_its_uuid(firewall: LabFirewall) -> None:
    fields = {"description": "theirs", "interface": "wan", "source_net": "10.0.0.0/8", "target": "wanip"}
    ref = firewall.call("POST", "/api/firewall/source_nat/addRule", {"rule": fields})["uuid"]
    wanted = resource("opnsense.source_nat", {"uuid": ref, **fields, "log": True})
    diff = run(plan(target(firewall, adopt=True), [wanted]))
    assert diff.errors == ()
    assert [(change.ref, change.after) for change in diff.changes] == [(ref, {"log": "1"})]
