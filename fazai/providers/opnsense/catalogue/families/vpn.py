"""Rows of WireGuard, OpenVPN, IPsec and certificates."""

from __future__ import annotations

from typing import Any

from fazai.providers.opnsense.catalogue.rows import KindRow

VPN: tuple[KindRow, ...] = ()

#: Facts by kind and field, beyond the device's own.
VPN_EXTRA: dict[str, dict[str, dict[str, Any]]] = {}
