"""Settings, intrusion detection, captive portal: each kind's life on both releases."""

from __future__ import annotations

from typing import Any

import pytest

from fazai.errors import Rejected
from fazai.model import Resource, Secret
from fazai.providers.opnsense.provider import PROVIDER
from tests.opnsense.helpers import Start, apply, plan, resource, run, target
from tests.opnsense.kinds.lifecycle import Case, check_lifecycle, lives

CASES = [
    Case(
        "opnsense.interface_settings",
        {"disablevlanhwfilter": 1, "disablesegmentationoffloading": False, "dhcp6_ratimeout": 20},
        {"disablevlanhwfilter": 0, "dhcp6_duid": "00:03:00:01:52:54:00:00:00:02"},
    ),
    Case(
        "opnsense.trust_settings",
        {"MinProtocol": "TLSv1.2", "Ciphersuites": ["TLS_AES_128_GCM_SHA256"], "install_crls": True},
        {"MinProtocol": "TLSv1.3", "Ciphersuites": []},
    ),
    Case(
        "opnsense.settings",
        {
            "path": "monit/settings",
            "set": {
                "monit.general.interval": 60,
                "monit": {"general": {"mailserver": ["b.example.org", "a.example.org"], "ssl": True}},
            },
        },
        {"set": {"monit.general.mailserver": ["a.example.org", "b.example.org"], "monit.general.port": 587}},
    ),
    Case("opnsense.wireguard_settings", {"enabled": True}, {"enabled": False}),
    Case(
        "opnsense.ipsec_settings",
        {
            "general": {"passthrough_networks": ["192.168.1.0/24"], "user_source": ["Local Database"]},
            "charon": {"threads": 32, "syslog": {"daemon": {"ike": 2, "net": -1}}},
        },
        {"charon": {"threads": 16, "plugins": {"attr": {"dns": ["192.0.2.53", "192.0.2.54"]}}}},
    ),
    Case(
        "opnsense.unbound_settings",
        {
            "general": {"dnssec": True, "active_interface": ["lan"], "dns64prefix": "64:ff9b::/96"},
            "advanced": {"logverbosity": 2, "privatedomain": ["a.example.org", "b.example.org"]},
        },
        {"general": {"active_interface": ["lan", "opt1"], "port": 5353}, "advanced.cachemaxttl": 300},
    ),
    Case("opnsense.syslog_settings", {"maxpreserve": 14}, {"loglocal": False, "maxfilesize": 50}),
    Case(
        "opnsense.kea4_settings",
        {"general": {"enabled": True, "interfaces": ["lan", "opt1"], "valid_lifetime": 7200}},
        {"general": {"interfaces": ["lan"], "valid_lifetime": 3600}, "ha": {"this_server_name": "one"}},
    ),
    Case(
        "opnsense.kea6_settings",
        {"general": {"enabled": True, "interfaces": ["lan"], "mac_sources": ["duid", "remote-id"]}},
        {"general": {"enabled": False}, "lexpire.max_reclaim_time": 5},
    ),
    Case(
        "opnsense.kea_ctrl_agent_settings",
        {"enabled": True, "http_host": "192.168.1.1", "http_port": 8001},
        {"http_port": 8000},
    ),
    Case("opnsense.kea_ddns_settings", {"enabled": True, "server_port": 53002}, {"manual_config": True}),
    Case(
        "opnsense.dnsmasq_settings",
        {"port": 53053, "interface": ["lan"], "domain_needed": True, "dhcp": {"authoritative": True}},
        {"interface": [], "dhcp": {"domain": "lan.example.org", "authoritative": False}},
    ),
    Case(
        "opnsense.monit_settings",
        {"enabled": True, "interval": 60, "mailserver": ["mail.example.org"], "httpdPassword": "s3cret"},
        {"mailserver": ["mail.example.org", "192.0.2.25"], "httpdEnabled": True, "httpdAllow": "a,b"},
    ),
    Case(
        "opnsense.ids_settings",
        {
            "enabled": True,
            "interfaces": ["wan", "lan"],
            "homenet": ["192.168.0.0/16"],
            "detect": {"Profile": "high"},
            "eveLog": {"http": {"enable": True}, "tls": {"custom": ["sni", "ja3"]}},
        },
        {"interfaces": ["lan"], "eveLog": {"http": {"enable": False, "dumpAllHeaders": "both"}}},
    ),
    Case(
        "opnsense.hasync_settings",
        {"pfsyncinterface": "opt1", "username": "root", "password": "s3cret", "syncitems": ["rules"]},
        {"password": "other", "syncitems": ["aliases", "rules"], "pfsyncpeerip": "10.20.0.2"},
    ),
    Case(
        "opnsense.hostdiscovery_settings",
        {"interface": ["lan"], "skip_nets": ["192.0.2.0/24"]},
        {"interface": [], "expire4_interval": 7200},
    ),
    Case(
        "opnsense.netflow_settings",
        {
            "capture": {"interfaces": ["lan", "wan"], "egress_only": ["wan"], "targets": ["192.0.2.7:2055"]},
            "collect": {"enable": True},
        },
        {"capture": {"interfaces": ["lan", "wan"], "targets": []}, "activeTimeout": 600},
    ),
    Case("opnsense.health_settings", {"enabled": False}, {"enabled": True}, releases=["26.7.2"]),
    Case(
        "opnsense.firmware_settings",
        {"mirror": "https://pkg.example.org", "flavour": "latest"},
        {"flavour": "", "reboot": True},
    ),
    Case(
        "opnsense.ids_user_rule",
        {"description": "known bad", "destination": "198.51.100.0/24", "action": "drop"},
        {"destination": "", "fingerprint": ":".join(["0a"] * 20), "bypass": True},
    ),
    Case(
        "opnsense.ids_policy",
        {"description": "drop alerts", "prio": 10, "action": ["alert"], "new_action": "drop"},
        {"prio": 5, "action": ["alert", "drop"], "enabled": False},
    ),
    Case("opnsense.ids_policy_rule", {"sid": 2000001, "action": "drop"}, {"enabled": False}),
    Case(
        "opnsense.captive_portal_zone",
        {
            "description": "guests",
            "interfaces": ["opt1"],
            "authservers": ["Local Database"],
            "allowedAddresses": ["192.0.2.7", "192.0.2.8"],
            "authEnforceGroup": "guests",
        },
        {
            "idletimeout": 30,
            "zoneid": 7,
            "allowedMACAddresses": ["52:54:00:00:00:41"],
            "authEnforceGroup": "",
        },
        needs=[("opnsense.group", {"name": "guests"})],
    ),
]


@pytest.mark.parametrize(("case", "release"), lives(CASES))
def test_life(start: Start, case: Case, release: str) -> None:
    check_lifecycle(start, case, release)


def test_the_firewalls_own_collector_of_flows_is_left_alone(start: Start) -> None:
    firewall = start()
    to = target(firewall)
    wanted = {"collect": {"enable": True}, "capture": {"interfaces": ["lan"], "targets": ["127.0.0.1:2056"]}}
    run(apply(to, [resource("opnsense.netflow_settings", wanted)]))
    shown = firewall.call("GET", "/api/diagnostics/netflow/getconfig")["netflow"]["capture"]["targets"]
    assert list(shown) == ["127.0.0.1:2056"]
    for targets in ([], ["127.0.0.1:2056"]):
        same = {**wanted, "capture": {"targets": targets}}
        assert not run(plan(to, [resource("opnsense.netflow_settings", same)])).steps


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("opnsense.hasync_settings", "password"),
        ("opnsense.monit_settings", "password"),
        ("opnsense.monit_settings", "httpdPassword"),
    ],
)
def test_passwords_are_compared_and_never_shown(start: Start, kind: str, field: str) -> None:
    to = target(start())
    run(apply(to, [resource(kind, {field: "first-s3cret"})]))
    found = run(plan(to, [resource(kind, {field: "second-s3cret"})]))
    assert [list(change.after) for change in found.changes] == [[field]]
    assert "s3cret" not in "".join(map(str, found.steps))
    assert PROVIDER.kinds[kind].fields[field].secret


@pytest.mark.parametrize(("release", "version"), [("26.7.2", "DTLSv1.2"), ("26.1.11", "DTLSv1.1")])
def test_versions_of_dtls_are_those_of_the_release(start: Start, release: str, version: str) -> None:
    to = target(start(release=release))
    wanted = resource("opnsense.trust_settings", {"MinProtocol_DTLS": version})
    assert not run(apply(to, [wanted])).after.steps
    other = {"DTLSv1.2": "DTLSv1.1", "DTLSv1.1": "DTLSv1.2"}[version]
    with pytest.raises(Rejected, match=r"refused .*MinProtocol_DTLS: Option \[\] not in list"):
        run(apply(to, [resource("opnsense.trust_settings", {"MinProtocol_DTLS": other})]))


REFUSED = [
    ("opnsense.unbound_settings", {"general": {"dns64prefix": "192.0.2.0/24"}}, "general.dns64prefix"),
    ("opnsense.dnsmasq_settings", {"enable": True, "port": 53}, "port"),
    ("opnsense.dnsmasq_settings", {"dhcp": {"log_dhcp": True, "log_quiet": True}}, "dhcp.log_quiet"),
    ("opnsense.monit_settings", {"httpdEnabled": True}, "httpdPassword"),
    ("opnsense.ids_settings", {"homenet": ["nonsense"]}, "homenet"),
    ("opnsense.trust_settings", {"enable_config_constraints": True}, "enable_config_constraints"),
    ("opnsense.ipsec_settings", {"charon": {"plugins": {"attr": {"dns": ["x"]}}}}, "charon.plugins.attr.dns"),
    ("opnsense.netflow_settings", {"capture": {"egress_only": ["wan"]}}, "capture.interfaces"),
    ("opnsense.interface_settings", {"dhcp6_duid": "zz"}, "dhcp6_duid"),
    ("opnsense.ids_user_rule", {"description": "x", "source": "nonsense"}, "source"),
    ("opnsense.captive_portal_zone", {"description": "x", "interfaces": ["opt9"]}, "interfaces"),
]


@pytest.mark.parametrize(("kind", "fields", "name"), REFUSED)
def test_what_the_firewall_refuses_is_said_with_the_name_of_the_field(
    start: Start, kind: str, fields: dict[str, Any], name: str
) -> None:
    with pytest.raises(Rejected, match=rf"refused .*{name}: ") as caught:
        run(apply(target(start()), [resource(kind, fields)]))
    assert list(caught.value.fields or ()) == [name]


@pytest.mark.parametrize(
    ("kind", "fields", "wrong"),
    [
        ("opnsense.interface_settings", {"disablevlanhwfilter": 3}, "disablevlanhwfilter"),
        ("opnsense.ipsec_settings", {"general": {"enabled": True}}, "general.enabled"),
        ("opnsense.unbound_settings", {"hosts": {}}, "hosts"),
        ("opnsense.ids_settings", {"eveLog": {"http": {"nope": True}}}, "eveLog.http.nope"),
        ("opnsense.dnsmasq_settings", {"dns_port": 53}, "dns_port"),
    ],
)
def test_what_is_no_setting_is_refused_before_anything_is_sent(
    kind: str, fields: dict[str, Any], wrong: str
) -> None:
    _, problems = PROVIDER.kinds[kind].normalise(fields, "present")
    assert [problem.field for problem in problems] == [wrong]


def test_the_job_that_updates_the_rules_is_named_by_its_description(start: Start) -> None:
    firewall = start()
    to = target(firewall)
    run(apply(to, [resource("opnsense.ids_settings", {"AlertSaveLogs": 5})]))  # the first time makes the job
    named = resource("opnsense.ids_settings", {"UpdateCron": "ids rule updates"})
    assert not run(plan(to, [named])).steps
    other = run(plan(to, [resource("opnsense.ids_settings", {"UpdateCron": "nonsense"})]))
    assert 'there is no cron job "nonsense" on this firewall' in str(other.errors[0])


def of_monit(**values: Any) -> Resource:
    return resource("opnsense.settings", {"path": "monit/settings", "set": {"monit": {"general": values}}})


def test_settings_of_any_controller_send_what_differs_and_activate_its_service(start: Start) -> None:
    firewall = start()
    run(apply(target(firewall), [of_monit(interval=60, startdelay=120)]))
    posted = [path for method, path, _ in firewall.requests if method == "POST"]
    assert posted == ["/api/monit/settings/set", "/api/monit/service/reconfigure"]


def test_settings_of_several_controllers_are_apart(start: Start) -> None:
    firewall = start()
    other = resource(
        "opnsense.settings", {"path": "interfaces/settings", "set": {"settings.disablevlanhwfilter": 1}}
    )
    done = run(apply(target(firewall), [of_monit(interval=60), other]))
    assert {change.ref for change, _ in done.written} == {"monit/settings", "interfaces/settings"}
    assert not done.after.steps
    found = run(plan(target(firewall), [of_monit(interval=61), other]))
    assert [(change.before, change.after) for change in found.changes] == [
        ({"monit.general.interval": "60"}, {"monit.general.interval": "61"})
    ]


def test_settings_that_are_given_as_secrets_are_never_shown(start: Start) -> None:
    firewall = start()
    run(apply(target(firewall), [of_monit(password="old-s3cret")]))
    found = run(plan(target(firewall), [of_monit(password=Secret("new-s3cret"))]))
    assert len(found.changes) == 1
    assert "s3cret" not in "".join(map(str, found.steps))
    run(apply(target(firewall), [of_monit(password=Secret("new-s3cret"))]))
    shown = firewall.call("GET", "/api/monit/settings/get")["monit"]["general"]["password"]
    assert shown == "new-s3cret"


def test_settings_that_the_firewall_refuses_or_does_not_have_are_said_by_name(start: Start) -> None:
    to = target(start())
    with pytest.raises(Rejected, match=r"refused .*monit\.general\.interval: Polling Interval"):
        run(apply(to, [of_monit(interval="soon")]))
    (error,) = run(plan(to, [of_monit(nope=1)])).errors
    assert "has no field monit.general.nope" in str(error)


OF_AN_ITEM = "ids.policies.policy.00000000-0000-4000-8000-000000000001.prio"


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"path": "monit/settings"}, "set"),
        ({"path": "monit/settings", "set": "interval"}, "set"),
        *(
            ({"path": path, "set": {"monit.general.interval": 1}}, "path")
            for path in (
                "../settings",
                "monit/settings/../../auth/user",
                "monit/settings?x=1",
                "monit/settings\n",
                "monit/" + "x" * 2000,
                "Monit/Settings",
                "monit",
            )
        ),
        (
            {
                "path": "ids/settings",
                "set": {OF_AN_ITEM: 1},
            },
            OF_AN_ITEM,
        ),
    ],
)
def test_what_is_no_setting_of_a_controller_is_refused(fields: dict[str, Any], wrong: str) -> None:
    _, problems = PROVIDER.kinds["opnsense.settings"].normalise(fields, "present")
    assert [problem.field for problem in problems] == [wrong]
