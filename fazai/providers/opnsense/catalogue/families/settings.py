"""Rows of settings: one item each, of which nothing is created or deleted."""

from __future__ import annotations

from typing import Any

from fazai.providers.opnsense.catalogue.rows import SETTINGS, KindRow

SETTINGS_KINDS: tuple[KindRow, ...] = (
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
)

#: Facts by kind and field, beyond the device's own.
SETTINGS_EXTRA: dict[str, dict[str, dict[str, Any]]] = {}
