"""The table of all tools. A module adds its tools with one line here."""

from __future__ import annotations

from fazai.daemon.tools.offered import fleet, host, kb, logs, opn, output, probe, reconcile, runs
from fazai.loop.tools import AnyTool

TABLE: tuple[AnyTool, ...] = (
    *fleet.TOOLS,
    *host.TOOLS,
    *logs.TOOLS,
    *opn.TOOLS,
    *reconcile.TOOLS,
    *runs.TOOLS,
    *output.TOOLS,
    *probe.TOOLS,
    *kb.TOOLS,
)
