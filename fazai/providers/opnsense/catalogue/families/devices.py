"""Rows of interfaces that are made, routing, the shaper, and the system."""

from __future__ import annotations

from typing import Any

from fazai.providers.opnsense.catalogue.rows import KindRow, verbs_of

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

#: Facts by kind and field, beyond the device's own.
DEVICES_EXTRA: dict[str, dict[str, dict[str, Any]]] = {
    "loopback": {
        "deviceId": {
            "required": False,
            "filled": True,
            "doc": "the number of the device lo…; chosen by the firewall when left out",
        }
    },
}
