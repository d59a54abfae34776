"""Fields that the list does not say: of what fazai made they have their default, whoever changes them."""

from __future__ import annotations

from typing import Any

import pytest

from fazai.errors import Refused
from fazai.lab import LabFirewall
from fazai.model import Verb
from fazai.providers.opnsense.provider import PROVIDER
from fazai.providers.opnsense.writing.bodies import nest_body
from tests.opnsense.helpers import Start, apply, plan, resource, run, target

LAN_RULE = "Default allow LAN to any rule"
RULE = {"description": "r", "interface": ["lan"], "action": "pass"}
ALIAS = {"name": "a", "type": "host", "content": ["192.0.2.1"]}
SNAT = {"description": "s", "interface": "wan", "target": "wanip"}
DNAT = {"descr": "d", "interface": ["wan"], "protocol": "tcp", "target": "192.168.1.50", "local-port": "80"}
BINAT = {"description": "b", "interface": "wan", "source_net": "192.168.1.9", "external": "192.0.2.9"}
NPT = {"description": "n", "interface": "wan", "source_net": "2001:db8:1::/64", "trackif": "lan"}
HOST = {"hostname": "h", "domain": "example.org", "server": "192.0.2.7"}
FORWARD = {"type": "forward", "domain": "example.org", "server": "192.0.2.53"}
GATEWAY = {"name": "GW", "interface": "lan", "gateway": "192.168.1.254"}
SYSLOG = {"hostname": "192.0.2.60", "transport": "udp4"}
PIPE = {"description": "p", "bandwidth": 10}
CRON = {"description": "c", "command": "firmware poll"}
USER = {"name": "u", "password": "pw-of-a-test"}

#: Kind, what is declared, the field that somebody changes by hand, to what, and what it has by default.
BY_HAND: list[tuple[str, dict[str, Any], str, str, Any]] = [
    ("rule", RULE, "enabled", "0", "1"),
    ("rule", RULE, "quick", "0", "1"),
    ("rule", RULE, "direction", "out", "in"),
    ("rule", RULE, "source_net", "192.168.1.7", ("any",)),
    ("rule", RULE, "source_not", "1", "0"),
    ("rule", RULE, "destination_net", "192.0.2.1", ("any",)),
    ("rule", RULE, "destination_not", "1", "0"),
    ("rule", RULE, "ipprotocol", "inet46", "inet"),
    ("rule", RULE, "protocol", "TCP", "any"),
    ("rule", RULE, "gateway", "WAN_GW", ""),
    ("rule", RULE, "log", "1", "0"),
    ("rule", RULE, "tagged", "vip", ""),
    ("alias", ALIAS, "enabled", "0", "1"),
    ("alias", ALIAS, "description", "by hand", ""),
    ("source_nat", SNAT, "enabled", "0", "1"),
    ("source_nat", SNAT, "nonat", "1", "0"),
    ("source_nat", SNAT, "source_net", "10.0.0.0/8", "any"),
    ("one_to_one", BINAT, "enabled", "0", "1"),
    ("one_to_one", BINAT, "destination_net", "192.0.2.1", "any"),
    ("npt", NPT, "enabled", "0", "1"),
    ("dnat", DNAT, "disabled", "1", "0"),
    ("dnat", DNAT, "nordr", "1", "0"),
    ("dnat", DNAT, "source.network", "192.0.2.0/24", ""),
    ("dnat", DNAT, "pass", "pass", ""),
    ("unbound_host", HOST, "enabled", "0", "1"),
    ("unbound_forward", FORWARD, "enabled", "0", "1"),
    ("unbound_forward", FORWARD, "port", "5353", ""),
    ("unbound_acl", {"name": "l", "networks": ["192.0.2.0/24"]}, "enabled", "0", "1"),
    ("unbound_acl", {"name": "l", "networks": ["192.0.2.0/24"]}, "action", "deny", "allow"),
    ("route", {"network": "10.9.0.0/16", "gateway": "WAN_GW"}, "enabled", "0", "1"),
    ("gateway", GATEWAY, "disabled", "1", "0"),
    ("gateway", GATEWAY, "priority", "10", "255"),
    ("syslog_destination", SYSLOG, "enabled", "0", "1"),
    ("shaper_pipe", PIPE, "enabled", "0", "1"),
    ("cron_job", CRON, "enabled", "0", "1"),
    ("user", USER, "disabled", "1", "0"),
    ("user", USER, "priv", "page-all", ()),
    ("group", {"name": "g"}, "priv", "page-all", ()),
    ("interface_group", {"ifname": "grp", "members": ["lan"]}, "nogroup", "1", "0"),
    ("vip", {"interface": "lan", "network": "192.168.1.5/32"}, "nobind", "1", "0"),
]
IDS = [f"{kind}.{field}" for kind, _, field, _, _ in BY_HAND]


def change_by_hand(firewall: LabFirewall, short: str, ref: str, fields: dict[str, str]) -> None:
    row = PROVIDER.kinds[f"opnsense.{short}"].row
    answer = firewall.call("POST", f"/api/{row.path}/{row.verbs.set}/{ref}", nest_body(row.root, fields))
    assert answer == {"result": "saved"}


@pytest.mark.parametrize(("short", "fields", "field", "by_hand", "default"), BY_HAND, ids=IDS)
def test_what_somebody_changes_by_hand_is_drift(
    firewall: LabFirewall, short: str, fields: dict[str, Any], field: str, by_hand: str, default: Any
) -> None:
    wanted = [resource(f"opnsense.{short}", fields)]
    ((_, ref),) = run(apply(target(firewall), wanted)).written
    along = {"network": fields["network"]} if short == "vip" else {}  # the API wants it with every set
    change_by_hand(firewall, short, ref, {**along, field: by_hand})
    spared = target(firewall, unmanaged={f"opnsense.{short}": [field]})
    assert not PROVIDER.check(spared)
    assert run(plan(spared, wanted)).steps == ()
    alone = resource(f"opnsense.{short}", {**fields, "unmanaged": [field]})
    assert run(plan(target(firewall), [alone])).steps == ()
    done = run(apply(target(firewall), wanted))
    (change,) = done.diff.changes
    assert (change.verb, change.after) == (Verb.UPDATE, {field: default})
    assert change.note == f"not declared, so as by default: {field}"
    assert done.after.steps == ()


@pytest.mark.parametrize(
    ("short", "fields", "field", "by_hand"),
    [
        ("rule", RULE, "sequence", "900"),
        ("alias", {"name": "a", "type": "host"}, "content", "192.0.2.66"),
        ("group", {"name": "g"}, "member", "0"),
        ("user", USER, "landing_page", "/ui/"),
        ("kea_subnet", {"subnet": "192.168.1.0/24"}, "option_data.routers", "192.168.1.1"),
    ],
)
def test_what_others_or_the_firewall_fill_in_is_left(
    firewall: LabFirewall, short: str, fields: dict[str, Any], field: str, by_hand: str
) -> None:
    wanted = [resource(f"opnsense.{short}", fields)]
    ((_, ref),) = run(apply(target(firewall), wanted)).written
    change_by_hand(firewall, short, ref, {field: by_hand})
    assert run(plan(target(firewall), wanted)).steps == ()


def test_a_field_that_is_taken_out_of_the_list_goes_back_to_its_default(firewall: LabFirewall) -> None:
    rule = {**RULE, "source_net": "192.168.1.7", "log": True}
    run(apply(target(firewall), [resource("opnsense.rule", rule)]))
    (change,) = run(apply(target(firewall), [resource("opnsense.rule", RULE)])).diff.changes
    assert change.before == {"source_net": ("192.168.1.7",), "log": "1"}
    assert change.after == {"source_net": ("any",), "log": "0"}


def test_a_rule_of_others_that_is_switched_off_is_not_what_was_declared(firewall: LabFirewall) -> None:
    firewall.seed("rule", [{"description": "r", "interface": "lan", "enabled": "0", "source_net": "lan"}])
    wanted = [resource("opnsense.rule", RULE)]
    ((change, reason),) = run(plan(target(firewall), wanted)).refused
    assert isinstance(reason, Refused)
    assert "was not made by fazai and is not changed" in reason.message
    assert (change.after, change.note) == ({"enabled": "1"}, "not declared, so as by default: enabled")
    off = [resource("opnsense.rule", {**RULE, "enabled": False})]
    assert (run(plan(target(firewall), off)).steps, run(plan(target(firewall), off)).refused) == ((), ())
    done = run(apply(target(firewall, adopt=True), wanted))
    (change,) = done.diff.changes
    assert (change.adopts, change.after) == (True, {"enabled": "1"})  # and its source stays what it was
    change_by_hand(firewall, "rule", change.ref, {"enabled": "0"})
    (again,) = run(plan(target(firewall), wanted, adopted=frozenset({change.ref}))).changes
    assert again.after == {"enabled": "1"}


@pytest.mark.in_turn("release")
@pytest.mark.parametrize("release", ["26.7.2", "26.1.11"])
@pytest.mark.parametrize("short", sorted({kind for kind, *_ in BY_HAND}))
def test_what_is_made_has_its_defaults(start: Start, release: str, short: str) -> None:
    fields = next(fields for kind, fields, *_ in BY_HAND if kind == short)
    done = run(apply(target(start(release=release)), [resource(f"opnsense.{short}", fields)]))
    assert done.after.steps == ()


@pytest.mark.parametrize(
    ("unmanaged", "message"),
    [
        ({"opnsense.rul": ["log"]}, 'names no kind: "opnsense.rul"'),
        ({"opnsense.rule": ["lg"]}, 'of opnsense.rule names no field: "lg"'),
        ({"opnsense.rule": [{"log": 1}]}, "of opnsense.rule names no field: \"{'log': 1}\""),
        ({"opnsense.rule": "log"}, "of opnsense.rule must be a list of fields"),
        (["log"], "must be a map of kinds to lists of fields"),
    ],
)
def test_what_cannot_be_spared(firewall: LabFirewall, unmanaged: Any, message: str) -> None:
    (problem,) = PROVIDER.check(target(firewall, unmanaged=unmanaged))
    assert problem.message == f"fw-01: unmanaged {message}"


@pytest.mark.parametrize(
    ("unmanaged", "message", "hint"),
    [
        (["lg"], 'names no field: "lg"', 'did you mean "log"?'),
        ("log", "takes a list of fields", "[log]"),
        ([["log"]], "names no field: \"['log']\"", 'did you mean "log"?'),
    ],
)
def test_what_cannot_be_spared_in_one_resource(unmanaged: Any, message: str, hint: str) -> None:
    _, (problem,) = PROVIDER.kinds["opnsense.rule"].normalise({**RULE, "unmanaged": unmanaged}, "present")
    assert (problem.field, problem.message, problem.hint) == ("unmanaged", message, hint)
