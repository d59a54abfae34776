"""Rows of DHCP, router advertisements and DNS blocklists."""

from __future__ import annotations

from typing import Any

from fazai.providers.opnsense.catalogue.rows import KindRow

DHCP: tuple[KindRow, ...] = ()

#: Facts by kind and field, beyond the device's own.
DHCP_EXTRA: dict[str, dict[str, dict[str, Any]]] = {}
