"""Reads the state table of pf: `diagnostics/firewall/queryStates`.

The recording (`diagnostics`) has its envelope and no states; the rows are those of
`scripts/filter/lib/states.py` and the controller `Diagnostics/Api/FirewallController.php` of opnsense/core.
The firewall itself searches and counts, so that a table of millions of states is never sent.
"""

from __future__ import annotations

import re
from typing import Any

from fazai.providers.opnsense.api.client import Api
from fazai.providers.opnsense.reading.values import (
    Row,
    cut_text,
    first_rows,
    parse_count,
    search_rows,
    text_at,
)
from fazai.wire.opn import OpnState, OpnStatesAnswer, OpnStatesQuery

_PATH = "diagnostics/firewall/queryStates"
_DURATION = re.compile(r"([0-9]{1,6}):([0-5][0-9]):([0-5][0-9])")


async def read_states(api: Api, query: OpnStatesQuery) -> OpnStatesAnswer:
    """Read the first states that match. Raises as `Api.get`."""
    rows, total = await search_rows(api, _PATH, query.limit, {"searchPhrase": query.search or ""})
    kept, found = await first_rows(rows, parse_state, query.limit)
    return OpnStatesAnswer(data=kept, total=max(total, found))


def parse_state(row: Row) -> OpnState | None:
    """Parse one row; None for what names no address."""
    source, destination = text_at(row, "src_addr"), text_at(row, "dst_addr")
    if source is None or destination is None:
        return None
    return OpnState(
        interface=text_at(row, "interface", "iface"),
        protocol=text_at(row, "proto"),
        direction=text_at(row, "direction"),
        source=source,
        source_port=_port(row, "src_port"),
        destination=destination,
        port=_port(row, "dst_port"),
        nat=_joined(text_at(row, "nat_addr"), _port(row, "nat_port")),
        gateway=text_at(row, "gateway"),
        state=text_at(row, "state"),
        age_s=_seconds(row.get("age")),
        expires_s=_seconds(row.get("expires")),
        packets=_sum(row.get("pkts")),
        bytes=_sum(row.get("bytes")),
        rule=text_at(row, "descr"),
        rule_id=text_at(row, "label"),
    )


def _port(row: Row, name: str) -> str | None:
    port = text_at(row, name)
    return None if port == "0" else port  # of a protocol without ports


def _joined(address: str | None, port: str | None) -> str | None:
    if address is None or port is None:
        return address
    text = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return cut_text(text)


def _seconds(value: Any) -> int | None:
    """Parse `00:01:30`."""
    found = _DURATION.fullmatch(value) if isinstance(value, str) and len(value) <= 16 else None
    if found is None:
        return None
    hours, minutes, seconds = (int(part) for part in found.groups())
    return (hours * 60 + minutes) * 60 + seconds


def _sum(value: Any) -> int | None:
    """Sum up both directions."""
    if not isinstance(value, list) or not 1 <= len(value) <= 2:
        return None
    counts = [parse_count(one) for one in value]
    known = [count for count in counts if count is not None]
    return parse_count(sum(known)) if len(known) == len(value) else None
