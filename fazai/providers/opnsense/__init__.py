"""OPNsense: firewalls over their REST API."""

from __future__ import annotations

__all__ = ["KINDS", "PROVIDERS"]

#: The name in an inventory's `provider:`, and the module of this package that holds its `PROVIDER`.
PROVIDERS = {"opnsense": "provider"}
KINDS = "opnsense"  # the first word of its kinds
