"""Rows of interfaces that are made, routing, the shaper, and the system."""

from __future__ import annotations

from typing import Any

from fazai.providers.opnsense.catalogue.rows import PLAIN, KindRow, verbs_of

DEVICES: tuple[KindRow, ...] = (
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
        example="opnsense.gateway_group: {name: UPLINKS, item: [WAN_GW], item2: [LTE_GW], trigger: downloss}",
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

_TIERS = {
    name: {"reference": "opnsense.gateway", "key": "name", "doc": f"the gateways of tier {tier}"}
    for tier, name in enumerate(("item", "item2", "item3", "item4", "item5"), 1)
}

#: Facts by kind and field, beyond the device's own.
DEVICES_EXTRA: dict[str, dict[str, dict[str, Any]]] = {
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
