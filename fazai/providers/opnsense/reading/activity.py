"""Reads what runs on a firewall: `diagnostics/activity/getActivity`.

No recording has it. The answer is what `scripts/system/activity.py` of opnsense/core prints: the head lines
of `top -aHSTn -d2`, and a row for each thread under the names of top's columns. It takes about two seconds.
"""

from __future__ import annotations

from fazai.errors import DeviceError
from fazai.providers.opnsense.api.client import Api
from fazai.providers.opnsense.api.masking import as_one_line
from fazai.providers.opnsense.reading.values import (
    MAX_ROWS,
    Row,
    count_at,
    cut_text,
    first_rows,
    percent_at,
    rows_of,
    size_at,
    text_at,
)
from fazai.wire.opn import OpnActivityAnswer, OpnActivityQuery, OpnProcess

_PATH = "diagnostics/activity/getActivity"
_MOST_HEADERS = 20


async def read_activity(api: Api, query: OpnActivityQuery) -> OpnActivityAnswer:
    """Read the threads that take most of the CPU. Raises as `Api.get`."""
    answer = await api.get(_PATH)
    details = answer.get("details") if isinstance(answer, dict) else None
    if not isinstance(details, list):
        raise DeviceError("the firewall listed no processes", where=api.settings.target)
    listed, total = await first_rows(rows_of(details), parse_process, MAX_ROWS)
    busiest = sorted(listed, key=lambda one: -(one.cpu_percent or 0.0))
    headers = answer.get("headers")
    return OpnActivityAnswer(
        data=tuple(busiest[: query.limit]),
        total=total,
        headers=tuple(
            cut_text(as_one_line(line))
            for line in (headers if isinstance(headers, list) else ())[:_MOST_HEADERS]
            if isinstance(line, str)
        ),
    )


def parse_process(row: Row) -> OpnProcess | None:
    """Parse one row; None for the idle threads of the kernel, which take what nobody wants."""
    command = text_at(row, "COMMAND")
    if command is None or command.startswith("[idle"):
        return None
    return OpnProcess(
        command=command,
        pid=count_at(row, "PID"),
        user=text_at(row, "USERNAME"),
        cpu_percent=percent_at(row, "WCPU"),
        resident_bytes=size_at(row, "RES"),
        state=text_at(row, "STATE"),
        time=text_at(row, "TIME"),
    )
