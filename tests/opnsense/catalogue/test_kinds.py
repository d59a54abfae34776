"""Kinds: what they accept, how they write it, and what they say of what is wrong."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from fazai.errors import Mark
from fazai.model import Problem, Secret, SecretRef
from fazai.providers.opnsense.provider import PROVIDER

NAMES = list(PROVIDER.kinds)


def test_the_catalogue_has_what_it_must() -> None:
    wanted = {
        "alias",
        "category",
        "rule",
        "source_nat",
        "one_to_one",
        "npt",
        "dnat",
        "interface_group",
        "route",
        "gateway",
        "vlan",
        "vip",
        "unbound_host",
        "unbound_alias",
        "unbound_forward",
        "unbound_acl",
        "cron_job",
        "syslog_destination",
        "user",
        "group",
        "source_nat_mode",
    }
    assert {f"opnsense.{name}" for name in wanted} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_example_validates(name: str) -> None:
    kind = PROVIDER.kinds[name]

    class Loader(yaml.SafeLoader):
        """Knows the tag of a secret from the environment."""

    Loader.add_constructor(
        "!env", lambda loader, node: SecretRef("env", str(node.value), Mark("example", 1, 1))
    )
    ((found, fields),) = yaml.load(kind.example, Loader).items()
    assert found == name
    assert kind.normalise(fields, "present")[1] == []
    assert isinstance(kind.identify(fields), str)
    assert kind.summary.endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_fields_are_described(name: str) -> None:
    kind = PROVIDER.kinds[name]
    assert kind.fields
    assert set(kind.identity) <= set(kind.fields)
    for field in kind.fields.values():
        assert field.type in {"text", "secret", "boolean", "integer", "number", "choice", "list", "reference"}
        assert field.type != "choice" or field.choices
        assert field.reference is None or field.reference in NAMES
        assert field.secret == (field.type == "secret")


CANONICAL: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("rule", {"protocol": "tcp"}, {"protocol": "TCP"}),
    ("dnat", {"protocol": "TCP"}, {"protocol": "tcp"}),
    ("rule", {"log": True, "quick": "no", "enabled": 1}, {"log": "1", "quick": "0", "enabled": "1"}),
    ("rule", {"interface": "lan, opt1"}, {"interface": ("lan", "opt1")}),
    ("rule", {"interface": []}, {"interface": ()}),
    ("rule", {"destination_port": 443}, {"destination_port": "443"}),
    ("rule", {"gateway": None}, {"gateway": ""}),
    ("rule", {"max": 10.0}, {"max": "10"}),
    ("alias", {"content": "192.0.2.1\n192.0.2.2\n"}, {"content": ("192.0.2.1", "192.0.2.2")}),
    ("alias", {"content": ["a", "b", "a", " b "]}, {"content": ("a", "b")}),
    ("alias", {"updatefreq": 0.5}, {"updatefreq": "0.5"}),
    ("alias", {"proto": ["ipv4", "IPv6"]}, {"proto": ("IPv4", "IPv6")}),
    ("alias", {"password": "x"}, {"password": Secret("x")}),
    ("alias", {"description": Secret("x")}, {"description": Secret("x")}),
    ("alias", {"content": [Secret("192.0.2.9")]}, {"content": (Secret("192.0.2.9"),)}),
    (
        "dnat",
        {"destination": {"network": "wanip", "port": 443}},
        {"destination.network": "wanip", "destination.port": "443"},
    ),
    ("dnat", {"destination.network": "wanip"}, {"destination.network": "wanip"}),
    ("kea_subnet", {"option_data": {"routers": ["10.0.0.1"]}}, {"option_data.routers": ("10.0.0.1",)}),
]


@pytest.mark.parametrize(("kind", "fields", "wanted"), CANONICAL)
def test_canonical_values(kind: str, fields: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert PROVIDER.kinds[f"opnsense.{kind}"].normalise(fields, "absent") == (wanted, [])


WRONG: list[tuple[str, dict[str, Any], str, str, str | None]] = [
    ("alias", {"nam": "x"}, "nam", "opnsense.alias has no such field", 'did you mean "name"?'),
    ("alias", {"type": "hosts"}, "type", 'is not one of the choices, not "hosts"', 'did you mean "host"?'),
    ("alias", {"enabled": "maybe"}, "enabled", 'must be true or false, not "maybe"', None),
    ("alias", {"expire": 5}, "expire", 'must be at least 60, not "5"', None),
    ("alias", {"expire": True}, "expire", "must be a whole number, not true", None),
    ("alias", {"content": {"a": 1}}, "content", "takes a list, not a map", None),
    (
        "alias",
        {"content": [True]},
        "content",
        "holds true or false where text is expected",
        "put the entry in quotes",
    ),
    ("alias", {"name": ["a"]}, "name", "takes one value, not a list", None),
    (
        "alias",
        {"name": True},
        "name",
        "must be text, not true",
        'put it in quotes if the word "true" or "false" is meant',
    ),
    ("alias", {"name": None}, "name", "needs a value", None),
    (
        "rule",
        {"destination_port": "8000:8100"},
        "destination_port",
        'writes a port range as from-to, not "8000:8100"',
        'write "8000-8100"',
    ),
    ("vlan", {"tag": 5000}, "tag", 'must be at most 4094, not "5000"', None),
    ("rule", {"log": Secret("hunter")}, "log", "must be true or false", None),
]


@pytest.mark.parametrize(("kind", "fields", "field", "message", "hint"), WRONG)
def test_what_is_wrong_is_said(
    kind: str, fields: dict[str, Any], field: str, message: str, hint: str | None
) -> None:
    _, problems = PROVIDER.kinds[f"opnsense.{kind}"].normalise(fields, "absent")
    assert problems == [Problem(field, message, hint)]


MISSING = [
    ("alias", {"name": "x"}, {"type"}),
    ("rule", {}, {"description"}),
    ("route", {"network": "10.0.0.0/8"}, {"gateway"}),
    ("unbound_host", {"domain": "x"}, {"server"}),
    ("unbound_host", {"domain": "x", "rr": "MX"}, {"mx", "mxprio"}),
    ("unbound_host", {"domain": "x", "rr": "txt"}, {"txtdata"}),
    ("cron_job", {"description": "x"}, {"command"}),
    ("vip", {"interface": "lan", "network": "192.0.2.1"}, {"network"}),
]


@pytest.mark.parametrize(("kind", "fields", "wanted"), MISSING)
def test_what_is_missing_is_said(kind: str, fields: dict[str, Any], wanted: set[str]) -> None:
    _, problems = PROVIDER.kinds[f"opnsense.{kind}"].normalise(fields, "present")
    assert {problem.field for problem in problems} == wanted


CONTENT = [
    (
        "host",
        ["192.0.2.1", "!192.0.2.2", "2001:db8::1", "192.0.2.1-192.0.2.9", "www.example.org", "other_alias"],
        [],
    ),
    ("host", ["192.0.2.0/24", "foo bar", "300.1.1.1"], ["192.0.2.0/24", "foo bar", "300.1.1.1"]),
    (
        "network",
        ["10.0.0.0/8", "!10.1.0.0/16", "2001:db8::/32", "192.0.2.1", "nested", "10.0.0.0/0.0.255.255"],
        [],
    ),
    ("network", ["10.0.0.0/40", "nonsense!", "10.0.0.0/x"], ["10.0.0.0/40", "nonsense!", "10.0.0.0/x"]),
    ("port", ["80", "8000:8100", "p_web", "https"], []),
    ("port", ["99999", "90:80", "80-90", "0"], ["99999", "90:80", "80-90", "0"]),
    ("mac", ["52:54:00", "52:54:00:AA:bb:cc"], []),
    ("mac", ["zz:zz"], ["zz:zz"]),
    ("geoip", ["NL"], []),
    ("geoip", ["Netherlands"], ["Netherlands"]),
    ("asn", ["64500"], []),
    ("asn", ["AS64500"], ["AS64500"]),
    ("urltable", ["not even a url"], []),
]


@pytest.mark.parametrize(("kind", "entries", "wrong"), CONTENT)
def test_entries_of_an_alias(kind: str, entries: list[str], wrong: list[str]) -> None:
    _, problems = PROVIDER.kinds["opnsense.alias"].normalise(
        {"name": "x", "type": kind, "content": entries}, "present"
    )
    assert [problem.message.split('"')[1] for problem in problems] == wrong


@pytest.mark.parametrize("name", ["9lives", "a" * 32, "with space", "dash-ed"])
def test_names_that_an_alias_cannot_have(name: str) -> None:
    _, problems = PROVIDER.kinds["opnsense.alias"].normalise({"name": name, "type": "host"}, "present")
    assert [problem.field for problem in problems] == ["name"]


IDENTITIES = [
    ("alias", {"name": "Web"}, "Web"),
    ("route", {"network": "10.0.0.0/8", "gateway": "GW"}, "10.0.0.0/8"),
    ("route", {"network": "2001:DB8:0::/48"}, "2001:db8::/48"),
    ("vlan", {"if": "vtnet3", "tag": 100}, "vtnet3 tag 100"),
    ("vip", {"interface": "lan", "network": "192.168.1.5/32"}, "lan 192.168.1.5"),
    ("unbound_host", {"hostname": "NAS", "domain": "Home.Example.org"}, "nas.home.example.org A"),
    (
        "unbound_host",
        {"domain": "example.org", "rr": "MX", "mx": "m.example.org"},
        "example.org MX m.example.org",
    ),
    ("unbound_forward", {"domain": "corp", "server": "10.1.1.53"}, "corp to 10.1.1.53"),
    ("syslog_destination", {"hostname": "log", "transport": "udp4"}, "log:514 udp4"),
    ("source_nat_mode", {"mode": "hybrid"}, "mode"),
    ("kea_reservation", {"hw_address": "52:54:00:AA:BB:CC"}, "52:54:00:aa:bb:cc"),
]


@pytest.mark.parametrize(("kind", "fields", "wanted"), IDENTITIES)
def test_identities(kind: str, fields: dict[str, Any], wanted: str) -> None:
    assert PROVIDER.kinds[f"opnsense.{kind}"].identify(fields) == wanted


def test_identity_that_is_missing_is_a_problem() -> None:
    assert PROVIDER.kinds["opnsense.rule"].identify({"descripton": "x"}) == Problem(
        "description", "is missing: it names the item", '"descripton" was given'
    )


def test_a_setting_cannot_be_absent() -> None:
    _, problems = PROVIDER.kinds["opnsense.source_nat_mode"].normalise({}, "absent")
    assert "cannot be absent" in problems[0].message
