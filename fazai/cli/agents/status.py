"""The words of `fazai agents status` on each agent: as records, and as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fazai.cli.agents.fleet import REMOTE, TELEMETRY, RegistryRow
from fazai.errors import FazaiError

if TYPE_CHECKING:
    from fazai.providers.hosts.agent.health import AgentReport
    from fazai.providers.hosts.agent.remote.report import RemoteReport

#: The states of the life cycle in which an agent is connected.
CONNECTED = ("execution", "observation")
#: Host -> record, of the agents of one kind.
Records = Mapping[str, Mapping[str, Any]]


def status_record(kind: str, report: Any) -> dict[str, Any]:
    """Return the record of one agent; `report` may also be why there is none (`AgentFleet.reports`)."""
    if isinstance(report, FazaiError):
        return {"error": str(report), "exit_code": int(report.exit_code)}
    if isinstance(report, RegistryRow):
        return _registry_record(report)
    if report is None:
        return {"well": False, "installed": False, "trouble": "not installed"}
    return _remote_record(report) if kind == REMOTE else _telemetry_record(report)


def _telemetry_record(report: AgentReport) -> dict[str, Any]:
    trouble = report.trouble()
    stopped = report.running is False
    return {
        "well": trouble is None and not stopped,
        "installed": True,
        "version": report.version,
        "init": None if report.folder else report.init,
        "running": report.running,
        "last_delivery_s": report.age("last_delivery_at"),
        "spool": report.number("spool_depth"),
        "dropped": report.number("dropped"),
        "key": report.status.get("key"),
        "last_error": report.status.get("last_error") or None,
        "trouble": trouble or ("not running" if stopped else None),
    }


def _remote_record(report: RemoteReport) -> dict[str, Any]:
    row = report.row or {}
    failed = report.failed_trial
    trouble = report.trouble() or ("not running" if report.running is False else None)
    return {
        "well": trouble is None and report.is_connected and not failed,
        "installed": True,
        "version": report.version,
        "init": None if report.folder else report.init,
        "running": report.running,
        "connected": report.is_connected,
        "state": row.get("state"),
        "latency_ms": row.get("latency_ms"),
        "last_outcome": row.get("last_outcome"),
        "certificate_days": report.days_left,
        "update_failed": failed or None,
        "last_error": report.reason() or None,
        "trouble": trouble or (f"update taken back: {failed}" if failed else None),
    }


def _registry_record(known: RegistryRow) -> dict[str, Any]:
    """Return the record of an agent that was installed by hand: what stands on its host nobody looked at."""
    row = known.row or {}
    connected = row.get("state") in CONNECTED
    trouble = None if connected else row.get("last_error") or f"it is in the state {row.get('state')}"
    if known.row is None:
        trouble = f"the daemon knows no agent {known.agent_id}: it never connected (fazai pki list)"
    return {
        "well": connected,
        "installed": None,
        "version": row.get("version"),
        "init": None,
        "running": True if connected else None,
        "connected": connected,
        "state": row.get("state"),
        "latency_ms": row.get("latency_ms"),
        "last_outcome": row.get("last_outcome"),
        "certificate_days": None,
        "update_failed": None,
        "last_error": None if connected else row.get("last_error"),
        "trouble": trouble,
    }


def combine_records(found: Mapping[str, Records]) -> dict[str, dict[str, Any]]:
    """Return the records of all kinds by host: that of a remote agent stands in `remote`."""
    rows: dict[str, dict[str, Any]] = {host: dict(row) for host, row in found.get(TELEMETRY, {}).items()}
    for host, row in found.get(REMOTE, {}).items():
        rows.setdefault(host, {})["remote"] = row
    return rows


_HEADINGS: Mapping[str, tuple[str, ...]] = {
    TELEMETRY: ("host", "version", "running", "delivered", "spool", "dropped", ""),
    REMOTE: ("remote agent of", "version", "running", "state", "latency", "certificate", "last outcome", ""),
}


def status_table(kind: str, rows: Records) -> list[str]:
    """Return the lines of the table of one kind."""
    headings = _HEADINGS[kind]
    lines: list[Sequence[str]] = [headings]
    for name, row in rows.items():
        if "error" in row:
            lines.append((name, *["-"] * (len(headings) - 2), f"error: {row['error']}"))
            continue
        running = {True: "yes", False: "no", None: "-"}[row.get("running")]
        cells = _remote_cells(row) if kind == REMOTE else _telemetry_cells(row)
        trouble = row["trouble"] or row.get("last_error") or ""
        lines.append((name, row.get("version") or "-", running, *cells, trouble))
    return align_lines(lines)


def _telemetry_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    counts = (or_dash(row.get(key)) for key in ("spool", "dropped"))
    return (format_age(row.get("last_delivery_s")), *counts)


def _remote_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    latency, days = row.get("latency_ms"), row.get("certificate_days")
    return (
        or_dash(row.get("state") or ("connected" if row.get("connected") else None)),
        "-" if latency is None else f"{latency:.1f} ms",
        "-" if days is None else "expired" if days < 0 else f"{days} d",
        or_dash(row.get("last_outcome")),
    )


def or_dash(value: object) -> str:
    """Return a cell of a table: a dash for what is not known."""
    return "-" if value is None else str(value)


def align_lines(lines: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table, its columns below one another, with nothing that steers a terminal."""
    from fazai.report.lines import escape_controls

    shown = [[escape_controls(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in shown]


def format_age(seconds: int | None) -> str:
    """Return an age as people read it; a dash where it is not known."""
    if seconds is None:
        return "-"
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"
