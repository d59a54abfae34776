"""fazai facts"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import click

from fazai.cli import environment
from fazai.cli.lab_targets import with_lab_folders
from fazai.cli.passwords import password_options
from fazai.cli.preparing import prepare_run
from fazai.cli.run_options import RunOptions, RunSelection
from fazai.errors import FazaiError, UsageError, worst_exit
from fazai.model import Describing, Provider, Target, Work


@click.command(
    "facts",
    epilog="\b\nExamples:\n  fazai facts inventory.yml\n  fazai facts inventory.yml web-01 'edge:!edge-03'"
    "\n  fazai facts -i inventory.yml --output json",
)
@click.argument("words", nargs=-1, metavar="[INVENTORY]... [HOST]...")
@click.option("-i", "--inventory", "more", multiple=True, type=click.Path(), help="Another inventory source.")
@click.option("-f", "--forks", type=click.IntRange(1, 4096), help="Hosts at once.")
@click.option("-e", "--extra-vars", multiple=True, metavar="NAME=VALUE|@FILE", help="More variables.")
@click.option("--vault-password-file", multiple=True, type=click.Path(), help="For !vault; or label@file.")
@password_options
@click.option("--allow-scripts", is_flag=True, help="Run inventories that are programs.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def facts_command(words: tuple[str, ...], output: str, **options: Any) -> int:
    """Show what hosts are: system, kernel, CPUs, memory, disks, addresses, init, package manager."""
    sources, limit = environment.split_words(words, options["more"])
    selection = RunSelection.from_click({**options, "inventory": sources, "limit": limit})
    prepared = prepare_run("facts", selection, RunOptions.from_click(options))
    config = environment.read_config()
    targets = _list_targets(with_lab_folders(prepared.works, config.lab))
    forks = prepared.options.forks or config.forks
    found = asyncio.run(_ask_facts(targets, prepared.registry.provider, forks))
    if output == "json":
        shown = {name: _facts_record(facts) for name, facts in found.items()}
        click.echo(json.dumps(shown, indent=1, ensure_ascii=False))
    else:
        for name, facts in found.items():
            click.echo("\n".join(_facts_lines(name, facts)))
    return worst_exit(e.exit_code for e in found.values() if isinstance(e, FazaiError))


def _list_targets(works: tuple[Work, ...]) -> list[Target]:
    return [item.target for work in works for item in work.targets]


async def _ask_facts(
    targets: list[Target], provider: Any, forks: int
) -> dict[str, Mapping[str, Any] | FazaiError]:
    """Ask each host for its facts; returns them, or why there are none."""
    gate = asyncio.Semaphore(forks)

    async def one(target: Target) -> Mapping[str, Any] | FazaiError | None:
        own: Provider = provider(target.provider)
        async with gate, own.connect(target) as session:  # deadline: the target's connect_timeout and timeout
            if not isinstance(session, Describing):
                return None
            try:
                return await session.facts()
            except FazaiError as error:
                return error

    answers = await asyncio.gather(*(one(target) for target in targets))
    found = {t.name: facts for t, facts in zip(targets, answers, strict=True) if facts is not None}
    if not found:
        raise UsageError("none of these targets is a host", hint="facts are of provider: ssh and local")
    return found


def _facts_record(facts: Mapping[str, Any] | FazaiError) -> Mapping[str, Any]:
    return (
        {"error": str(facts), "exit_code": int(facts.exit_code)} if isinstance(facts, FazaiError) else facts
    )


def _facts_lines(name: str, facts: Mapping[str, Any] | FazaiError) -> list[str]:
    if isinstance(facts, FazaiError):
        return [f"{name}", f"  error: {facts}"]
    lines = [name]
    for key, value in facts.items():
        if key == "os":
            value = value.get("name", "")
        elif key == "disks":
            value = ", ".join(f"{d['mount']} {d['free_mib']} of {d['size_mib']} MiB free" for d in value)
        elif isinstance(value, list):
            value = ", ".join(value)
        lines.append(f"  {key:<14} {value}")
    return lines
