"""OPNsense: firewalls over their REST API."""

from __future__ import annotations

#: The name in an inventory's `provider:`, and the module of this package that holds its `PROVIDER`.
PROVIDERS = {"opnsense": "provider"}
KINDS = "opnsense"  # the first word of its kinds
