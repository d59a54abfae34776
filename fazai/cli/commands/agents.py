"""fazai agents status, restart, logs, rotate-key"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from fazai.cli.commands.agent_fleet import AgentFleet
from fazai.cli.host_targets import ask_hosts
from fazai.cli.options import HOSTS, OUTPUT, add_options
from fazai.errors import ExitCode, FazaiError, worst_exit
from fazai.model import TargetWork

if TYPE_CHECKING:
    from fazai.providers.hosts.agent.health import AgentReport
    from fazai.providers.hosts.session import HostSession

_LOG_BYTES = 262_144


@click.group(
    "agents",
    epilog="\b\nExamples:\n  fazai agents status inventory.yml"
    "\n  fazai agents status inventory.yml 'edge:!edge-03' --output json"
    "\n  fazai agents restart inventory.yml web-01\n  fazai agents logs inventory.yml web-01 --lines 20"
    "\n  fazai agents rotate-key inventory.yml web-01",
)
def agents_command() -> None:
    """The telemetry agents of hosts that declare host.telemetry_agent."""


@agents_command.command("status")
@add_options(HOSTS)
@OUTPUT
def status(output: str, **options: Any) -> int:
    """Version, running, last delivery, spool. Exit 2 when an agent is not there or does not deliver."""
    fleet = AgentFleet.read(options)
    found = fleet.reports()
    rows = {name: _status_record(one) for name, one in found.items()}
    if output == "json":
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
    else:
        click.echo("\n".join(_status_table(rows)))
    codes = [e.exit_code for e in found.values() if isinstance(e, FazaiError)]
    bad = any(not row["well"] for row in rows.values() if "well" in row)
    return worst_exit([*codes, ExitCode.PENDING if bad else ExitCode.OK])


@agents_command.command("restart")
@add_options(HOSTS)
def restart(**options: Any) -> int:
    """Restart agents. Journaled as every write; a host whose other settings differ gets them as well."""
    fleet = AgentFleet.read(options)
    found = fleet.reports()
    failed = {name: e for name, e in found.items() if isinstance(e, FazaiError)}
    missing = [name for name, one in found.items() if one is None]
    for name, error in failed.items():
        click.echo(f"{name}: {error}", err=True)
    for name in missing:
        click.echo(f"{name}: no agent is installed; install it with: fazai apply", err=True)
    moments = {
        name: {"not_pid": one.number("pid")}
        for name, one in found.items()
        if one is not None and not isinstance(one, FazaiError) and one.restartable
    }
    code = fleet.write(moments)
    left = [name for name, one in found.items() if one is not None and name not in {*moments, *failed}]
    for name in left:
        click.echo(f"{name}: nothing runs there that could be restarted", err=True)
    codes = [error.exit_code for error in failed.values()]
    return worst_exit([*codes, code, ExitCode.FAILED if missing or left else ExitCode.OK])


@agents_command.command("logs")
@add_options(HOSTS)
@click.option("-n", "--lines", type=click.IntRange(1, 10_000), default=50, show_default=True)
def logs(lines: int, **options: Any) -> int:
    """The last lines of the agents' logs, as the journal or the log file has them."""
    from fazai.providers.hosts.agent.scripts import tail_script
    from fazai.providers.hosts.shell.questions import Output, OutputOf
    from fazai.report.lines import escape_controls

    fleet = AgentFleet.read(options)

    async def ask(item: TargetWork, session: HostSession) -> bytes:
        question = OutputOf(tail_script(item.target.options.get("root") or "", lines, _LOG_BYTES))
        answer = (await session.ask(question))[question]
        return answer.out if isinstance(answer, Output) else b""

    found = ask_hosts(fleet.prepared, fleet.items.values(), ask)
    for name, output in found.items():
        if isinstance(output, FazaiError):
            click.echo(f"{name}: {output}", err=True)
            continue
        for line in output.decode("utf-8", "replace").splitlines() or ["(no log)"]:
            click.echo(f"{name}  {escape_controls(line)}")
    return worst_exit(e.exit_code for e in found.values() if isinstance(e, FazaiError))


@agents_command.command("rotate-key")
@add_options(HOSTS)
@click.option("--timeout", "timeout_s", type=click.IntRange(1, 3600), default=60, show_default=True)
def rotate_key(timeout_s: int, **options: Any) -> int:
    """Give agents new keys: the daemon first, then the host; the old key goes once the new one was taken.

    Each step can be repeated: after a crash, run it again.
    """
    from fazai.cli.commands.agent_keys import rotate_keys

    return rotate_keys(AgentFleet.read(options), float(timeout_s))


def _status_record(report: AgentReport | FazaiError | None) -> dict[str, Any]:
    if isinstance(report, FazaiError):
        return {"error": str(report), "exit_code": int(report.exit_code)}
    if report is None:
        return {"well": False, "installed": False, "trouble": "not installed"}
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


_STATUS_HEADINGS = ("host", "version", "running", "delivered", "spool", "dropped", "")


def _status_table(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    from fazai.report.lines import escape_controls

    lines: list[tuple[str, ...]] = [_STATUS_HEADINGS]
    for name, row in rows.items():
        if "error" in row:
            lines.append((name, "-", "-", "-", "-", "-", f"error: {row['error']}"))
            continue
        running = {True: "yes", False: "no", None: "-"}[row.get("running")]
        counts = ("-" if row.get(key) is None else str(row[key]) for key in ("spool", "dropped"))
        age, trouble = _format_age(row.get("last_delivery_s")), row["trouble"] or row.get("last_error") or ""
        lines.append((name, row.get("version") or "-", running, age, *counts, trouble))
    shown = [[escape_controls(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in shown]


def _format_age(seconds: int | None) -> str:
    if seconds is None:
        return "-"
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"
