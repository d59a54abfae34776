"""Reads the services of a firewall: `core/service/search`, as recorded (`core`)."""

from __future__ import annotations

from fazai.providers.opnsense.api.client import Api
from fazai.providers.opnsense.reading.values import Row, first_rows, flag_at, search_rows, text_at
from fazai.wire.opn import OpnService, OpnServicesAnswer

_MOST = 500


async def read_services(api: Api) -> OpnServicesAnswer:
    """Read name, description and state of each service. Raises as `Api.get`."""
    rows, total = await search_rows(api, "core/service/search", _MOST)
    kept, _ = await first_rows(rows, parse_service, _MOST)
    return OpnServicesAnswer(data=kept, total=total)


def parse_service(row: Row) -> OpnService | None:
    """Parse one row; None for what has no name."""
    name = text_at(row, "id", "name")
    if name is None:
        return None
    return OpnService(
        name=name,
        description=text_at(row, "description"),
        running=flag_at(row, "running"),
        locked=flag_at(row, "locked"),
    )
