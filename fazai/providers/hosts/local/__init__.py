"""This machine itself, or a folder of it. `PROVIDER` is what the registry looks for."""

from __future__ import annotations

from fazai.providers.hosts.local.provider import LocalProvider

__all__ = ["PROVIDER"]

PROVIDER = LocalProvider()
