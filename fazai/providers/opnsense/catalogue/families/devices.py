"""Rows of interfaces that are made, routing, the shaper, and the system."""

from __future__ import annotations

from typing import Any

from fazai.providers.opnsense.catalogue.rows import PLAIN, KindRow, verbs_of

DEVICES: tuple[KindRow, ...] = (
    KindRow(
        short="lagg",
        path="interfaces/lagg_settings",
        label="{laggif}",
        phase=18,
        before_use=True,  # VLANs take devices that exist
        summary="Network cards that work as one device. Members must not be assigned as interfaces.",
        example="opnsense.lagg: {laggif: lagg0, members: [vtnet3], proto: lacp, descr: to the switch}",
    ),
    KindRow(
        short="gif",
        path="interfaces/gif_settings",
        label="{gifif}",
        phase=22,
        omit=("if", "ipaddr"),
        summary="A tunnel of the kind GIF (IP in IP).",
        example=(
            "opnsense.gif: {gifif: gif0, local-addr: wan, remote-addr: 203.0.113.1,\n"
            "               tunnel-local-addr: 10.99.0.1, tunnel-remote-addr: 10.99.0.2}"
        ),
    ),
    KindRow(
        short="gre",
        path="interfaces/gre_settings",
        label="{greif}",
        phase=23,
        omit=("if", "ipaddr"),
        summary="A tunnel of the kind GRE.",
        example=(
            "opnsense.gre: {greif: gre0, local-addr: wan, remote-addr: 203.0.113.1,\n"
            "               tunnel-local-addr: 10.99.0.1, tunnel-remote-addr: 10.99.0.2}"
        ),
    ),
    KindRow(
        short="vxlan",
        path="interfaces/vxlan_settings",
        label="{vxlanid}",
        tiebreak=("vxlanlocal", "vxlanremote", "vxlangroup"),
        phase=24,
        unique=("deviceId",),
        summary="A VXLAN: to one remote address, or to a multicast group through an interface (`vxlandev`).",
        example="opnsense.vxlan: {vxlanid: 100, vxlanlocal: 192.0.2.2, vxlanremote: 203.0.113.1}",
    ),
    KindRow(
        short="bridge",
        path="interfaces/bridge_settings",
        label="{bridgeif}",
        phase=25,
        summary="Interfaces that work as one network. Members are interfaces (lan, opt1), not their devices.",
        example="opnsense.bridge: {bridgeif: bridge0, members: [lan, opt1], descr: house}",
    ),
    KindRow(
        short="interface",
        path="interfaces/assignment",
        label="{if}",
        phase=26,
        create="add",
        unmarked=True,
        protected=("wan", "lan"),
        omit=("identifier",),
        summary=(
            "A device that is an interface. The firewall chooses the name (opt2) by which rules know it, and"
            " rules keep that name when it is deleted. Since release 26.7."
        ),
        example="opnsense.interface: {if: vtnet3, descr: GUEST, lock: false}",
    ),
    KindRow(
        short="neighbor",
        path="interfaces/neighbor_settings",
        label="{ipaddress}",
        phase=35,
        summary="A static entry of the ARP or NDP table.",
        example='opnsense.neighbor: {ipaddress: 192.168.1.40, etheraddr: "52:54:00:11:22:33", descr: nas}',
    ),
    KindRow(
        short="loopback",
        path="interfaces/loopback_settings",
        label="{description}",
        phase=21,
        unique=("deviceId",),
        summary="A loopback device.",
        example="opnsense.loopback: {description: router id}",
    ),
    KindRow(
        short="tunable",
        path="core/tunables",
        root="sysctl",
        label="{tunable}",
        phase=12,
        lists_defaults=True,  # setting one of them by its id makes a tunable without a name
        summary="A setting of the kernel (sysctl or loader). Without it the product's default counts.",
        example='opnsense.tunable: {tunable: net.inet.ip.ttl, value: "64", descr: one hop less is seen}',
    ),
    KindRow(
        short="gateway_group",
        path="routing/group_settings",
        root="gateway_group",
        verbs=PLAIN,
        label="{name}",
        phase=41,
        summary=(
            "Gateways that stand in for each other: those of the first tier (`item`) that work, else those of"
            " `item2`, … Rules name it as their gateway. Its name cannot be changed. Since release 26.7."
        ),
        example="opnsense.gateway_group: {name: UPLINKS, item: [WAN_GW], item2: [LAB_GW], trigger: downloss}",
    ),
    KindRow(
        short="shaper_queue",
        path="trafficshaper/settings",
        verbs=verbs_of("Queue", "Queues"),
        label="{description}",
        phase=71,
        create="add",
        mark_field="description",
        omit=("number", "origin"),
        summary=(
            "A queue of the traffic shaper: a share of a pipe. Its description carries the owner's mark, as"
            " that of the pipe."
        ),
        example="opnsense.shaper_queue: {description: calls, pipe: guests, weight: 80}",
    ),
    KindRow(
        short="shaper_rule",
        path="trafficshaper/settings",
        verbs=verbs_of("Rule", "Rules"),
        label="{description}",
        phase=72,
        omit=("origin",),
        summary=(
            "What goes through a pipe or a queue of the traffic shaper. The lowest `sequence` that matches"
            " decides."
        ),
        example=(
            "opnsense.shaper_rule: {description: calls go first, sequence: 10, interface: wan, proto: udp,\n"
            "                       dst_port: sip, target: calls}"
        ),
    ),
    KindRow(
        short="monit_alert",
        path="monit/settings",
        verbs=verbs_of("Alert"),
        label="{recipient}",
        tiebreak=("description",),
        phase=107,
        summary="Whom Monit tells: without an alert a test tells nobody.",
        example=(
            "opnsense.monit_alert: {recipient: ops@example.org, enabled: true, events: [timeout, nonexist]}"
        ),
    ),
)

_LINK = {
    "type": "text",
    "api": "LinkAddress",
    "required": True,
    "fold": "address",
    "doc": "an address of this firewall, or the name of an interface (wan)",
}
_TIERS = {
    name: {"reference": "opnsense.gateway", "key": "name", "doc": f"the gateways of tier {tier}"}
    for tier, name in enumerate(("item", "item2", "item3", "item4", "item5"), 1)
}

#: Facts by kind and field, beyond the device's own.
DEVICES_EXTRA: dict[str, dict[str, dict[str, Any]]] = {
    "tunable": {
        "tunable": {"required": True},
        "value": {"required": True, "doc": "as the kernel has it; some take effect with the next boot"},
    },
    "lagg": {"laggif": {"pattern": r"^lagg\d+$", "doc": "the name of the device, lagg0 or the like"}},
    "gif": {"gifif": {"doc": "the name of the device, gif0 or the like"}, "local-addr": _LINK},
    "gre": {"greif": {"doc": "the name of the device, gre0 or the like"}, "local-addr": _LINK},
    "vxlan": {
        "deviceId": {
            "required": False,
            "filled": True,
            "doc": "the number of the device vxlan…; chosen by the firewall when left out",
        }
    },
    "interface": {
        "if": {"doc": "the device"},
        "descr": {"pattern": "^[A-Za-z0-9_]{0,255}$", "wanted": "only letters, digits and underscores"},
        "lock": {"doc": "one that is locked is not deleted: set it to false first"},
    },
    "bridge": {"bridgeif": {"pattern": r"^bridge\d+$", "doc": "the name of the device, bridge0 or the like"}},
    "neighbor": {"ipaddress": {"fold": "address"}},
    "gateway_group": _TIERS,
    "shaper_queue": {"pipe": {"reference": "opnsense.shaper_pipe"}},
    "shaper_rule": {
        "target": {
            "reference": "opnsense.shaper_pipe",
            "also": "opnsense.shaper_queue",
            "doc": "the description of a pipe or a queue",
        },
        "description": {"required": True},
    },
    "loopback": {
        "deviceId": {
            "required": False,
            "filled": True,
            "doc": "the number of the device lo…; chosen by the firewall when left out",
        }
    },
}
