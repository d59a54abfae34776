"""Tool `fleet.list`: every machine that the daemon knows."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from fazai.daemon.fleet import read_fleet
from fazai.daemon.tools.call import ToolCall
from fazai.loop.tools import Observation, Tool, ToolArgs
from fazai.wire.fleet import FleetRow


class FleetListArgs(ToolArgs, frozen=True, kw_only=True):
    """`only_wrong`: machines that are down or differ from what is declared, and no others."""

    only_wrong: bool = False
    limit: Annotated[int, Meta(ge=1, le=500)] = 50


@Tool("fleet.list", "Lists firewalls, hosts and targets: up, last seen, drift, version.")
async def list_fleet(call: ToolCall, args: FleetListArgs) -> Observation:
    """Return a row for every machine, those that need somebody first."""
    rows = [
        row
        for row in await read_fleet(call.services)
        if not args.only_wrong or row.up is False or (row.drift is not None and row.drift.pending)
    ]
    rows.sort(key=lambda row: (row.up is not False, not (row.drift is not None and row.drift.pending)))
    what = "machines that are down or have drifted" if args.only_wrong else "machines"
    shown = [_shown_row(row) for row in rows[: args.limit]]
    more = f", the first {args.limit} shown" if len(rows) > args.limit else ""
    return Observation(note=f"{len(rows)} {what}{more}", data=shown)


def _shown_row(row: FleetRow) -> dict[str, Any]:
    """Return what of a machine a model needs: nothing that is another at each look."""
    drift = None
    if row.drift is not None:
        drift = f"{row.drift.status}, {row.drift.pending} changes pending"
    facts = {"name": row.name, "kind": row.kind, "up": row.up, "drift": drift}
    facts |= {"version": row.version, "error": row.error}
    return {name: value for name, value in facts.items() if value is not None}


TOOLS = (list_fleet,)
