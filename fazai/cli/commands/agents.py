"""fazai agents status, restart, logs, rotate-key"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fazai.cli import environment as setup
from fazai.cli.passwords import password_options
from fazai.errors import ExitCode, FazaiError, UsageError, worst_exit
from fazai.model import Resource, TargetWork, Work

if TYPE_CHECKING:
    from fazai.cli.run_options import Command
    from fazai.providers.hosts.agent.health import AgentReport
    from fazai.providers.hosts.session import HostSession

__all__ = ["KIND", "Fleet", "agents_command"]

KIND = "host.telemetry_agent"
_LOG_BYTES = 262_144
_Found = TypeVar("_Found")
_Decorated = Callable[..., Any]


@click.group(
    "agents",
    epilog="\b\nExamples:\n  fazai agents status inventory.yml"
    "\n  fazai agents status inventory.yml 'edge:!edge-03' --output json"
    "\n  fazai agents restart inventory.yml web-01\n  fazai agents logs inventory.yml web-01 --lines 20"
    "\n  fazai agents rotate-key inventory.yml web-01",
)
def agents_command() -> None:
    """The telemetry agents of hosts that declare host.telemetry_agent."""


def _common(function: _Decorated) -> _Decorated:
    options = [
        click.argument("words", nargs=-1, metavar="[INVENTORY]... [PATTERN]..."),
        click.option("-i", "--inventory", "more", multiple=True, type=click.Path(), help="Another source."),
        click.option("-f", "--forks", type=click.IntRange(1, 4096), help="Hosts at once."),
        click.option("-e", "--extra-vars", multiple=True, metavar="NAME=VALUE|@FILE", help="More variables."),
        click.option("--vault-password-file", multiple=True, type=click.Path(), help="Or label@file."),
        password_options,
        click.option("--allow-scripts", is_flag=True, help="Run inventories that are programs."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


@agents_command.command("status")
@_common
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def status(output: str, **options: Any) -> int:
    """Version, running, last delivery, spool. Exit 2 when an agent is not there or does not deliver."""
    fleet = Fleet(options)
    found = fleet.reports()
    rows = {name: _row(one) for name, one in found.items()}
    if output == "json":
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
    else:
        click.echo("\n".join(_table(rows)))
    codes = [e.exit_code for e in found.values() if isinstance(e, FazaiError)]
    bad = any(not row["well"] for row in rows.values() if "well" in row)
    return worst_exit([*codes, ExitCode.PENDING if bad else ExitCode.OK])


@agents_command.command("restart")
@_common
def restart(**options: Any) -> int:
    """Restart agents. Journaled as every write; a host whose other settings differ gets them as well."""
    fleet = Fleet(options)
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
    codes = [e.exit_code for e in failed.values()]
    return worst_exit([*codes, code, ExitCode.FAILED if missing or left else ExitCode.OK])


@agents_command.command("logs")
@_common
@click.option("-n", "--lines", type=click.IntRange(1, 10_000), default=50, show_default=True)
def logs(lines: int, **options: Any) -> int:
    """The last lines of the agents' logs, as the journal or the log file has them."""
    from fazai.providers.hosts.agent.scripts import tail_script
    from fazai.providers.hosts.shell.questions import Output, OutputOf
    from fazai.report.lines import clean

    fleet = Fleet(options)

    async def ask(item: TargetWork, session: HostSession) -> bytes:
        question = OutputOf(tail_script(item.target.options.get("root") or "", lines, _LOG_BYTES))
        answer = (await session.ask(question))[question]
        return answer.out if isinstance(answer, Output) else b""

    found = fleet.each(ask)
    for name, said in found.items():
        if isinstance(said, FazaiError):
            click.echo(f"{name}: {said}", err=True)
            continue
        for line in said.decode("utf-8", "replace").splitlines() or ["(no log)"]:
            click.echo(f"{name}  {clean(line)}")
    return worst_exit(e.exit_code for e in found.values() if isinstance(e, FazaiError))


@agents_command.command("rotate-key")
@_common
@click.option("--timeout", "timeout_s", type=click.IntRange(1, 3600), default=60, show_default=True)
def rotate_key(timeout_s: int, **options: Any) -> int:
    """Give agents new keys: the daemon first, then the host; the old key goes once the new one was taken.

    Each step can be repeated: after a crash, run it again.
    """
    from fazai.cli.commands.agent_keys import rotate

    return rotate(Fleet(options), float(timeout_s))


class Fleet:
    """The hosts of an inventory that declare an agent."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        from fazai.cli.lab_targets import with_folders
        from fazai.cli.run_options import command_of

        sources, limit = setup.split_words(options["words"], options["more"])
        shown = {"output": "text", "color": "auto", "verbose": False, "diff": False, "explain": False}
        given = {**options, **shown, "inventory": sources, "limit": limit, "quiet": True}
        self.command: Command = command_of("apply", given)
        works = with_folders(self.command.works, self.command.config.lab)
        self.works = tuple(found for work in works if (found := _agents_of(work)) is not None)
        self.forks: int = options["forks"] or self.command.config.forks
        if not self.works:
            raise UsageError(
                "none of these hosts declares a telemetry agent", hint=f"- {KIND}: {{server: https://…}}"
            )

    @property
    def items(self) -> dict[str, TargetWork]:
        return {item.target.name: item for work in self.works for item in work.targets}

    def reports(self, names: Iterable[str] | None = None) -> dict[str, AgentReport | FazaiError | None]:
        """What each host says of its agent; None: there is none."""

        async def look(item: TargetWork, session: HostSession) -> AgentReport | FazaiError | None:
            (resource,) = item.resources
            found = (await session.observe(item.resources)).items[resource.kind, resource.identity]
            if found is None or isinstance(found, FazaiError):
                return found
            report: AgentReport = found["report"]
            return report if "settings" in found else None  # else nothing of it is there

        return self.each(look, names)

    def each(
        self,
        work: Callable[[TargetWork, HostSession], Awaitable[_Found]],
        names: Iterable[str] | None = None,
    ) -> dict[str, _Found | FazaiError]:
        """What is found out on each host, or why not."""
        chosen = self.items if names is None else {name: self.items[name] for name in names}
        return asyncio.run(self._each(work, list(chosen.values())))

    async def _each(
        self, work: Callable[[TargetWork, HostSession], Awaitable[_Found]], items: Sequence[TargetWork]
    ) -> dict[str, _Found | FazaiError]:
        gate = asyncio.Semaphore(self.forks)

        async def one(item: TargetWork) -> _Found | FazaiError:
            provider: Any = self.command.registry.provider(item.target.provider)
            try:
                # deadline: the target's connect_timeout and timeout
                async with gate, provider.connect(item.target) as session:
                    return await work(item, session)
            except FazaiError as error:
                return error

        said = await asyncio.gather(*(one(item) for item in items))
        return {item.target.name: found for item, found in zip(items, said, strict=True)}

    def write(self, more: Mapping[str, Mapping[str, Any]]) -> int:
        """Bring the agents of these hosts to their declared state with these fields changed: through the
        engine, in the plays' waves. Returns the exit code."""
        works = (_with_fields(work, more) for work in self.works)
        self.command.works = tuple(work for work in works if work.targets)
        return self.command.execute(check=False, approved=True) if self.command.works else ExitCode.OK


def _agents_of(work: Work) -> Work | None:
    """The same work with nothing but agents."""
    targets = []
    for item in work.targets:
        found = tuple(r for r in item.resources if r.kind == KIND and r.state == "present")
        if found:
            targets.append(TargetWork(item.target, tuple(replace(r, notify=()) for r in found), whole=False))
    return replace(work, targets=tuple(targets)) if targets else None


def _with_fields(work: Work, more: Mapping[str, Mapping[str, Any]]) -> Work:
    def changed(resource: Resource, fields: Mapping[str, Any]) -> Resource:
        return replace(resource, fields={**resource.fields, **fields})

    targets = tuple(
        replace(item, resources=tuple(changed(r, more[item.target.name]) for r in item.resources))
        for item in work.targets
        if item.target.name in more
    )
    return replace(work, targets=targets)


def _row(report: AgentReport | FazaiError | None) -> dict[str, Any]:
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


_HEAD = ("host", "version", "running", "delivered", "spool", "dropped", "")


def _table(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    from fazai.report.lines import clean

    lines = [_HEAD]
    for name, row in rows.items():
        if "error" in row:
            lines.append((name, "-", "-", "-", "-", "-", f"error: {row['error']}"))
            continue
        lines.append(
            (
                name,
                row.get("version") or "-",
                {True: "yes", False: "no", None: "-"}[row.get("running")],
                _ago(row.get("last_delivery_s")),
                _shown(row.get("spool")),
                _shown(row.get("dropped")),
                row["trouble"] or row.get("last_error") or "",
            )
        )
    widths = [max(len(clean(str(line[n]))) for line in lines) for n in range(len(_HEAD))]
    return [
        "  ".join(clean(str(t)).ljust(w) for t, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def _shown(value: int | None) -> str:
    return "-" if value is None else str(value)


def _ago(seconds: int | None) -> str:
    if seconds is None:
        return "-"
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"
