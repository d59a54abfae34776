"""OPNsense: firewalls over their REST API. `PROVIDER` is what the registry looks for."""

from __future__ import annotations

from fazai.providers.opnsense.provider import OpnsenseProvider

__all__ = ["PROVIDER"]

PROVIDER = OpnsenseProvider()
