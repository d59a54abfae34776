"""The embedded lab: an OPNsense over real HTTP on loopback that behaves as the recordings do.

`Lab` runs firewalls inside the caller's asyncio loop, `LabThread` in a thread of its own, and
`fazai lab up` (`fazai.lab.command`) in a process of its own. Nothing is imported before it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fazai.lab.command import LabAddress, find_firewall
    from fazai.lab.lab import Lab, LabFirewall
    from fazai.lab.server.thread import LabThread
    from fazai.lab.settings import Fault, LabSettings, Tls

__all__ = ["Fault", "Lab", "LabAddress", "LabFirewall", "LabSettings", "LabThread", "Tls", "find_firewall"]

_HOME = {
    "Fault": "settings",
    "Lab": "lab",
    "LabAddress": "command",
    "LabFirewall": "lab",
    "LabSettings": "settings",
    "LabThread": "server.thread",
    "Tls": "settings",
    "find_firewall": "command",
}


def __getattr__(name: str) -> Any:
    """Import the public names lazily, so that `import fazai.lab` costs nothing."""
    if name not in _HOME:
        raise AttributeError(f"module 'fazai.lab' has no attribute {name!r}")
    return getattr(import_module(f"fazai.lab.{_HOME[name]}"), name)
