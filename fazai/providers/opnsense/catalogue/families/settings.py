"""Rows of settings (one item each, never created or deleted), intrusion detection, captive portal."""

from __future__ import annotations

from typing import Any

from fazai.providers.opnsense.catalogue.rows import SETTINGS, KindRow, Verbs, verbs_of

#: Names under `Verbs` where a controller says `getconfig`.
_CONFIG = Verbs("getconfig", "getconfig", "setconfig", "setconfig", "setconfig")

SETTINGS_KINDS: tuple[KindRow, ...] = (
    KindRow(
        short="settings",
        path="",
        verbs=SETTINGS,
        settings=True,
        any_path=True,
        label="{path}",
        phase=114,
        own_privilege="page-all",
        summary=(
            "Settings of any controller that has `get` and `set` of its whole model, for what has no kind of"
            " its own. The service of its module is activated where a kind of this list has the same."
        ),
        example=(
            "opnsense.settings: {path: monit/settings, set: {monit.general.interval: 60,\n"
            "                    monit: {general: {mailserver: [mail.example.org]}}}}"
        ),
    ),
    KindRow(
        short="interface_settings",
        path="interfaces/settings",
        root="settings",
        verbs=SETTINGS,
        settings=True,
        label="interfaces",
        phase=10,
        own_privilege="page-system-advanced-network",
        summary="What holds for all interfaces: hardware offloading, IPv6, the DHCPv6 client.",
        example="opnsense.interface_settings: {disablevlanhwfilter: 1, dhcp6_norelease: true}",
    ),
    KindRow(
        short="trust_settings",
        path="trust/settings",
        root="trust",
        verbs=SETTINGS,
        settings=True,
        label="trust",
        phase=15,
        own_privilege="page-all",
        summary="TLS versions and ciphers of the firewall itself, and lists of revoked certificates.",
        example="opnsense.trust_settings: {MinProtocol: TLSv1.2, install_crls: true}",
    ),
    KindRow(
        short="wireguard_settings",
        path="wireguard/general",
        root="general",
        verbs=SETTINGS,
        settings=True,
        label="WireGuard",
        phase=85,
        summary="Whether WireGuard runs.",
        example="opnsense.wireguard_settings: {enabled: true}",
    ),
    KindRow(
        short="ipsec_settings",
        path="ipsec/settings",
        root="ipsec",
        verbs=SETTINGS,
        settings=True,
        label="IPsec",
        phase=86,
        own_privilege="page-all",
        omit=("general.enabled",),  # answered with "saved", and nothing is
        summary="Settings of IPsec (charon). Whether it runs is none of them: the API does not have it here.",
        example=(
            "opnsense.ipsec_settings: {charon: {threads: 32, syslog: {daemon: {ike: 2}}},\n"
            "                          general: {disablevpnrules: true}}"
        ),
    ),
    KindRow(
        short="unbound_settings",
        path="unbound/settings",
        root="unbound",
        verbs=SETTINGS,
        settings=True,
        label="Unbound DNS",
        phase=89,
        summary="Settings of Unbound DNS.",
        example=(
            "opnsense.unbound_settings: {general: {dnssec: true, active_interface: [lan]},\n"
            "                            advanced: {hideidentity: true, logverbosity: 2}}"
        ),
    ),
    KindRow(
        short="syslog_settings",
        path="syslog/settings",
        root="syslog.general",
        verbs=SETTINGS,
        settings=True,
        label="logging",
        phase=100,
        summary="Whether the firewall logs on its own disk, and how much of it is kept.",
        example="opnsense.syslog_settings: {loglocal: true, maxpreserve: 14}",
    ),
    KindRow(
        short="kea4_settings",
        path="kea/dhcpv4",
        root="dhcpv4",
        verbs=SETTINGS,
        settings=True,
        label="Kea DHCPv4",
        phase=101,
        summary="Settings of Kea's DHCPv4 server.",
        example="opnsense.kea4_settings: {general: {enabled: true, interfaces: [lan], valid_lifetime: 7200}}",
    ),
    KindRow(
        short="kea6_settings",
        path="kea/dhcpv6",
        root="dhcpv6",
        verbs=SETTINGS,
        settings=True,
        label="Kea DHCPv6",
        phase=101,
        own_privilege="page-dhcp-kea-v6",
        summary="Settings of Kea's DHCPv6 server. Its subnets are only valid on interfaces that stand here.",
        example="opnsense.kea6_settings: {general: {enabled: true, interfaces: [lan]}}",
    ),
    KindRow(
        short="kea_ctrl_agent_settings",
        path="kea/ctrl_agent",
        root="ctrlagent.general",
        verbs=SETTINGS,
        settings=True,
        label="Kea control agent",
        phase=101,
        own_privilege="page-dhcp-kea-ctrl-agent",
        summary="Kea's control agent, over which two servers keep each other up to date.",
        example="opnsense.kea_ctrl_agent_settings: {enabled: true, http_host: 192.168.1.1, http_port: 8000}",
    ),
    KindRow(
        short="kea_ddns_settings",
        path="kea/ddns",
        root="ddns.general",
        verbs=SETTINGS,
        settings=True,
        label="Kea DDNS",
        phase=101,
        own_privilege="page-dhcp-kea-ddns",
        summary="Kea's agent that puts leases into the DNS.",
        example="opnsense.kea_ddns_settings: {enabled: true, server_port: 53001}",
    ),
    KindRow(
        short="dnsmasq_settings",
        path="dnsmasq/settings",
        root="dnsmasq",
        verbs=SETTINGS,
        settings=True,
        label="Dnsmasq",
        phase=103,
        summary="Settings of Dnsmasq. Its port may not be Unbound's while it is enabled.",
        example=(
            "opnsense.dnsmasq_settings: {enable: true, interface: [lan], domain_needed: true,\n"
            "                            dhcp: {authoritative: true}}"
        ),
    ),
    KindRow(
        short="monit_settings",
        path="monit/settings",
        root="monit.general",
        verbs=SETTINGS,
        settings=True,
        label="Monit",
        phase=104,
        summary="Settings of Monit: how often it looks, and by which server it sends mail.",
        example="opnsense.monit_settings: {enabled: true, interval: 60, mailserver: [mail.example.org]}",
    ),
    KindRow(
        short="ids_settings",
        path="ids/settings",
        root="ids.general",
        verbs=SETTINGS,
        settings=True,
        label="intrusion detection",
        phase=108,
        summary="Settings of intrusion detection (Suricata).",
        example=(
            "opnsense.ids_settings: {enabled: true, mode: pcap, interfaces: [wan], homenet: [192.168.0.0/16]}"
        ),
    ),
    KindRow(
        short="ids_user_rule",
        path="ids/settings",
        verbs=verbs_of("UserRule"),
        label="{description}",
        tiebreak=("source", "destination", "fingerprint"),
        phase=109,
        summary="A rule of one's own for intrusion detection: by addresses or a certificate's fingerprint.",
        example=(
            "opnsense.ids_user_rule: {description: known bad, destination: 198.51.100.0/24, action: drop}"
        ),
    ),
    KindRow(
        short="ids_policy",
        path="ids/settings",
        verbs=verbs_of("Policy"),
        label="{description}",
        tiebreak=("prio",),
        phase=109,
        omit=("rulesets", "content"),  # uuids and metadata of files that the firewall downloads
        summary=(
            "What intrusion detection does with rules of certain actions, of whatever rule file. Of several"
            " policies the one with the lowest number counts."
        ),
        example="opnsense.ids_policy: {description: block, prio: 10, action: [alert], new_action: drop}",
    ),
    KindRow(
        short="ids_policy_rule",
        path="ids/settings",
        verbs=verbs_of("PolicyRule"),
        label="{sid}",
        phase=110,
        summary="What intrusion detection does with one rule of a downloaded file, before any policy.",
        example="opnsense.ids_policy_rule: {sid: 2000001, action: drop}",
    ),
    KindRow(
        short="captive_portal_zone",
        path="captiveportal/settings",
        verbs=verbs_of("Zone", "Zones"),
        label="{description}",
        tiebreak=("interfaces",),
        phase=112,
        unique=("zoneid",),
        omit=("certificate", "template"),  # of a kind, and by an upload, that are not there
        summary="A zone of the captive portal: who comes from its interfaces logs in first.",
        example=(
            "opnsense.captive_portal_zone: {description: guests, interfaces: [opt1], authservers: [Local"
            " Database],\n"
            "                               idletimeout: 30, allowedAddresses: [192.0.2.7]}"
        ),
    ),
    KindRow(
        short="hasync_settings",
        path="core/hasync",
        root="hasync",
        verbs=SETTINGS,
        settings=True,
        label="high availability",
        phase=112,
        summary="With which firewall states and configuration are kept the same.",
        example=(
            "opnsense.hasync_settings: {pfsyncinterface: opt1, synchronizetoip: 10.20.0.2, username: root,\n"
            "                           password: !env PEER_PASSWORD, syncitems: [aliases, rules]}"
        ),
    ),
    KindRow(
        short="hostdiscovery_settings",
        path="hostdiscovery/settings",
        root="hostdiscovery.general",
        verbs=SETTINGS,
        settings=True,
        label="host discovery",
        phase=112,
        summary="Whether and where the firewall learns which hosts there are.",
        example="opnsense.hostdiscovery_settings: {enabled: true, interface: [lan]}",
    ),
    KindRow(
        short="netflow_settings",
        path="diagnostics/netflow",
        root="netflow",
        verbs=_CONFIG,
        settings=True,
        label="NetFlow",
        phase=112,
        summary="Which flows are captured, and where they are sent.",
        example=(
            "opnsense.netflow_settings: {capture: {interfaces: [lan, wan], egress_only: [wan],\n"
            '                            targets: ["192.168.1.70:2055"]}, collect: {enable: true}}'
        ),
    ),
    KindRow(
        short="health_settings",
        path="diagnostics/systemhealth",
        root="systemhealth",
        verbs=SETTINGS,
        settings=True,
        label="system health",
        phase=112,
        summary="Whether the firewall keeps graphs of its health (since release 26.7).",
        example="opnsense.health_settings: {enabled: true}",
    ),
    KindRow(
        short="firmware_settings",
        path="core/firmware",
        root="firmware",
        verbs=SETTINGS,
        settings=True,
        label="firmware",
        phase=113,
        own_privilege="page-system-firmware-manualupdate",
        saved=("status", "ok"),
        summary="From where the firewall gets its updates. Nothing is updated by it.",
        example='opnsense.firmware_settings: {mirror: "https://pkg.example.org", flavour: latest}',
    ),
)

#: Facts by kind and field, beyond the device's own.
SETTINGS_EXTRA: dict[str, dict[str, dict[str, Any]]] = {
    "settings": {
        "path": {
            "type": "text",
            "api": "Text",
            "required": True,
            "doc": "module and controller, as monit/settings",
        },
        "set": {
            "type": "text",
            "api": "Any",
            "doc": "values by name as the controller's `get` shows them, from the model's root on; names may"
            " be dotted or nested, lists are compared without their order, of a secret reference nothing is"
            " shown",
        },
    },
    "trust_settings": {
        "MinProtocol_DTLS": {
            "choices": ("", "DTLSv1", "DTLSv1.1", "DTLSv1.2"),
            "doc": "DTLSv1.1 up to release 26.1, DTLSv1.2 since 26.7",
        }
    },
    "monit_settings": {
        "password": {"secret": True},
        "httpdPassword": {"secret": True},
        "httpdAllow": {
            "type": "text",
            "secret": True,
            "doc": "with commas; user:password is one of the forms",
        },
        "mmonitUrl": {"secret": True, "doc": "it holds user and password"},
    },
    "firmware_settings": {"subscription": {"secret": True}},
    "hasync_settings": {"password": {"secret": True}},
    "ids_settings": {
        "UpdateCron": {
            "type": "reference",
            "reference": "opnsense.cron_job",
            "doc": "the description of the cron job that updates the rules",
        }
    },
    "ids_policy": {"description": {"required": True, "default": None}},
    "captive_portal_zone": {
        "zoneid": {
            "required": False,
            "filled": True,
            "doc": "the number of the zone; chosen by the firewall when left out",
        },
        "interfaces": {"required": True, "default": None},
        "authservers": {"doc": "names of authentication servers"},
        "authEnforceGroup": {
            "type": "reference",
            "reference": "opnsense.group",
            "key": "gid",
            "doc": "only members of this group may log in",
        },
    },
    "netflow_settings": {
        "capture.targets": {
            "own": ("127.0.0.1:2056",),
            "doc": "address:port; the firewall's own collector is added and compared by nobody",
        }
    },
}
