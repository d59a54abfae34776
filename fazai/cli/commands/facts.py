"""fazai facts"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from fazai.cli.host_targets import ask_hosts, prepare_hosts
from fazai.cli.lab_targets import lab_names
from fazai.cli.options import HOSTS, OUTPUT, add_options
from fazai.errors import FazaiError, UsageError, worst_exit
from fazai.model import Describing, Session, TargetWork


@click.command(
    "facts",
    epilog="\b\nExamples:\n  fazai facts inventory.yml\n  fazai facts inventory.yml web-01 'edge:!edge-03'"
    "\n  fazai facts -i inventory.yml --output json",
)
@add_options(HOSTS)
@OUTPUT
def facts_command(output: str, **options: Any) -> int:
    """Show what hosts are: system, kernel, CPUs, memory, disks, addresses, init, package manager."""
    prepared = prepare_hosts("facts", options)
    aside = lab_names(prepared.works)  # firewalls that are started for a run alone: none of them is a host
    items = (item for work in prepared.works for item in work.targets if item.target.name not in aside)
    answers = ask_hosts(prepared, items, _ask_facts)
    found = {name: facts for name, facts in answers.items() if facts is not None}
    if not found:
        raise UsageError("none of these targets is a host", hint="facts are of provider: ssh and local")
    if output == "json":
        shown = {name: _facts_record(facts) for name, facts in found.items()}
        click.echo(json.dumps(shown, indent=1, ensure_ascii=False))
    else:
        for name, facts in found.items():
            click.echo("\n".join(_facts_lines(name, facts)))
    return worst_exit(e.exit_code for e in found.values() if isinstance(e, FazaiError))


async def _ask_facts(item: TargetWork, session: Session) -> Mapping[str, Any] | None:
    """Ask for the facts of a host; None for what is none."""
    return await session.facts() if isinstance(session, Describing) else None


def _facts_record(facts: Mapping[str, Any] | FazaiError) -> Mapping[str, Any]:
    if isinstance(facts, FazaiError):
        return {"error": str(facts), "exit_code": int(facts.exit_code)}
    return facts


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
