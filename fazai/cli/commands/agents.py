"""fazai agents list, status, update, restart, logs, remove, rotate-key"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from fazai.cli.agents.fleet import KINDS, REMOTE, TELEMETRY, AgentFleet, ask_for_rows
from fazai.cli.agents.known import fetch_agents
from fazai.cli.agents.listing import STATES, choose_agents, list_table
from fazai.cli.agents.status import combine_records, status_record, status_table
from fazai.cli.host_targets import ask_hosts
from fazai.cli.options import HOSTS, OUTPUT, add_options
from fazai.errors import ExitCode, FazaiError, UsageError, worst_exit
from fazai.model import TargetWork

if TYPE_CHECKING:
    from fazai.providers.hosts.session import HostSession

_LOG_BYTES = 262_144
_SORTS = {"telemetry": (TELEMETRY,), "remote": (REMOTE,)}
_ONLY = click.option("--only", type=click.Choice(list(_SORTS)), help="Leave the other agents alone.")
_YES = click.option("--yes", is_flag=True, help="Remove without asking.")


@click.group(
    "agents",
    epilog="\b\nExamples:\n  fazai agents list 'edge-*' --state away\n  fazai agents status inventory.yml"
    "\n  fazai agents status inventory.yml 'edge:!edge-03' --output json"
    "\n  fazai agents update inventory.yml --waves 1,5,25"
    "\n  fazai agents restart inventory.yml web-01\n  fazai agents logs inventory.yml web-01 --lines 20"
    "\n  fazai agents remove inventory.yml web-01 --only remote"
    "\n  fazai agents rotate-key inventory.yml web-01",
)
def agents_command() -> None:
    """Agents: all that the daemon knows (list), or those that hosts declare with host.agent and its like."""


def _read_fleet(only: str | None, options: dict[str, Any]) -> AgentFleet:
    return AgentFleet.read(options, _SORTS[only] if only else tuple(KINDS))


@agents_command.command("list")
@click.argument("patterns", nargs=-1, metavar="[NAME]...")
@click.option(
    "--state", "states", multiple=True, type=click.Choice(STATES), help="Only these; may be repeated."
)
@click.option(
    "--all", "all_sorts", is_flag=True, help="Also those removed; the daemon, its worker, telemetry hosts."
)
@OUTPUT
def list_command(output: str, patterns: tuple[str, ...], states: tuple[str, ...], all_sorts: bool) -> None:
    """The remote agents that the daemon knows, however they were installed: who is connected, since when.

    NAME may be a pattern, such as 'edge-*'; '!edge-3' leaves one out.
    """
    known = fetch_agents(removed=all_sorts or "removed" in states)
    rows = choose_agents(known.rows, patterns, states, all_sorts=all_sorts)
    if output == "json":
        click.echo(json.dumps(rows, indent=1))
        return
    if not rows:
        ready = "" if known.port else ": the daemon hears none, as it has no CA (fazai pki init)"
        click.echo(
            f"no agent is in such a state{ready}" if states else f"no agent has connected yet{ready}",
            err=True,
        )
        return
    click.echo("\n".join(list_table(rows, time.time())))


@agents_command.command("status")
@add_options(HOSTS)
@_ONLY
@OUTPUT
def status(output: str, only: str | None, **options: Any) -> int:
    """Version, running, last delivery; connection, latency, certificate. Exit 2 when an agent is not there,
    does not deliver or is not connected. Of hosts with `provider: agent` it is what their daemon knows."""
    fleet = AgentFleet.read(options, _SORTS[only] if only else tuple(KINDS), by_hand=True)
    found = {part.kinds[0]: part.reports() for part in fleet.each_kind()}
    if fleet.by_hand:
        found[REMOTE] = {**found.get(REMOTE, {}), **ask_for_rows(fleet)}
    rows = {
        kind: {name: status_record(kind, one) for name, one in part.items()} for kind, part in found.items()
    }
    if output == "json":
        click.echo(json.dumps(combine_records(rows), indent=1, ensure_ascii=False))
    else:
        click.echo("\n\n".join("\n".join(status_table(kind, part)) for kind, part in rows.items()))
    reports = [one for part in found.values() for one in part.values()]
    codes = [e.exit_code for e in reports if isinstance(e, FazaiError)]
    bad = any(not row["well"] for part in rows.values() for row in part.values() if "well" in row)
    return worst_exit([*codes, ExitCode.PENDING if bad else ExitCode.OK])


@agents_command.command("update")
@add_options(HOSTS)
@_ONLY
@click.option(
    "--waves",
    default="1,5,25",
    show_default=True,
    metavar="N,…",
    help="Hosts in the first wave, the second, …; the last repeats.",
)
def update(only: str | None, waves: str, **options: Any) -> int:
    """Bring agents to this fazai's version, wave by wave; stops at the first that does not come back with it.

    An agent that is not accepted gives way to the one before by itself. What else of an agent differs from
    what is declared is put right as well.
    """
    try:
        sizes = tuple(int(size) for size in waves.split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise UsageError(f"--waves {waves!r} is no list of sizes", hint="such as 1,5,25")
    fleet = _read_fleet(only, options)
    codes = []
    for part in fleet.each_kind():
        codes.append(part.write_in_waves(part.items, sizes))
        if codes[-1] != ExitCode.OK:
            break
    return worst_exit(codes)


@agents_command.command("restart")
@add_options(HOSTS)
@_ONLY
def restart(only: str | None, **options: Any) -> int:
    """Restart agents. Journaled as every write; a host whose other settings differ gets them as well."""
    return worst_exit(_restart_part(part) for part in _read_fleet(only, options).each_kind())


def _restart_part(fleet: AgentFleet) -> int:
    from fazai.report.lines import escape_controls

    found = fleet.reports()
    failed = {name: e for name, e in found.items() if isinstance(e, FazaiError)}
    missing = [name for name, one in found.items() if one is None]
    noun = KINDS[fleet.kinds[0]]
    for name, error in failed.items():
        click.echo(f"{name}: {escape_controls(str(error))}", err=True)
    for name in missing:
        click.echo(f"{name}: no {noun} is installed; install it with: fazai apply", err=True)
    moments = {
        name: {"not_pid": one.pid}
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
@_ONLY
@click.option("-n", "--lines", type=click.IntRange(1, 10_000), default=50, show_default=True)
def logs(lines: int, only: str | None, **options: Any) -> int:
    """The last lines of the agents' logs, as the journal or the log file has them."""
    return worst_exit(_show_logs(part, lines) for part in _read_fleet(only, options).each_kind())


def _show_logs(fleet: AgentFleet, lines: int) -> int:
    from fazai.providers.hosts.agent import files
    from fazai.providers.hosts.agent.remote import places
    from fazai.providers.hosts.agent.scripts import tail_script
    from fazai.providers.hosts.shell.questions import Output, OutputOf
    from fazai.report.lines import escape_controls

    layout = places.REMOTE if fleet.kinds == (REMOTE,) else files.TELEMETRY

    async def ask(item: TargetWork, session: HostSession) -> bytes:
        question = OutputOf(tail_script(layout, item.target.options.get("root") or "", lines, _LOG_BYTES))
        answer = (await session.ask(question))[question]
        return answer.out if isinstance(answer, Output) else b""

    found = ask_hosts(fleet.prepared, fleet.items.values(), ask)
    for name, output in found.items():
        if isinstance(output, FazaiError):
            click.echo(f"{name}: {escape_controls(str(output))}", err=True)
            continue
        for line in output.decode("utf-8", "replace").splitlines() or ["(no log)"]:
            click.echo(f"{name}  {escape_controls(line)}")
    return worst_exit(e.exit_code for e in found.values() if isinstance(e, FazaiError))


@agents_command.command("remove")
@add_options(HOSTS)
@_ONLY
@_YES
def remove(only: str | None, yes: bool, **options: Any) -> int:
    """Remove agents: service, files, keys, user; the certificate of a remote agent is revoked first.

    Where the inventory still declares them, the next apply installs them again.
    """
    return _read_fleet(only, options).remove(approved=yes)


@agents_command.command("rotate-key")
@add_options(HOSTS)
@click.option("--timeout", "timeout_s", type=click.IntRange(1, 3600), default=60, show_default=True)
def rotate_key(timeout_s: int, **options: Any) -> int:
    """Give telemetry agents new keys: the daemon first, then the host; the old key goes once the new one was
    taken. Remote agents renew their certificates themselves.

    Each step can be repeated: after a crash, run it again.
    """
    from fazai.cli.agents.keys import rotate_keys

    return rotate_keys(AgentFleet.read(options, (TELEMETRY,)), float(timeout_s))
