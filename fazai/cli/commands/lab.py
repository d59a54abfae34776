"""fazai lab"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from fazai.cli import environment
from fazai.errors import InputError


@click.group(
    "lab",
    epilog="\b\nExamples:\n  fazai lab up                      two firewalls, until Ctrl-C"
    "\n  fazai lab up edge-1 --release 26.1.11 --tls\n  fazai lab status\n  fazai lab reset fw-01",
)
def lab_command() -> None:
    """Run the embedded lab: an OPNsense over real HTTP on loopback, to try things on.

    A firewall of an inventory with base_url lab://NAME is served by it, also without `lab up`.
    """


def _lab_folder() -> Path:
    return environment.read_config().lab


@lab_command.command("up")
@click.argument("names", nargs=-1)
@click.option("--release", type=click.Choice(["26.7.2", "26.1.11"]), default="26.7.2", show_default=True)
@click.option("--tls", is_flag=True, help="Serve HTTPS with a certificate of the lab's own authority.")
@click.option("--settings", type=click.Path(dir_okay=False), help="More settings and faults, in YAML.")
def up_command(names: tuple[str, ...], release: str, tls: bool, settings: str | None) -> None:
    """Keep firewalls NAMES up (fw-01 fw-02 when none is named), and print their addresses and keys."""
    from fazai.lab import LabSettings
    from fazai.lab.command import serve_lab

    wanted: dict[str, Any] = {"release": release}
    if tls:
        wanted["tls"] = {"variant": "valid"}
    if settings is not None:
        from fazai.yamltext import load_yaml

        found = load_yaml(Path(settings), what="file of settings")
        if not isinstance(found, dict):
            raise InputError("settings of the lab are a mapping", where=settings, hint="see docs/lab.md")
        wanted |= found
    parsed = LabSettings.parse(wanted, settings or "lab")
    asyncio.run(serve_lab(_lab_folder(), list(names) or ["fw-01", "fw-02"], parsed, click.echo))


@lab_command.command("status")
def status_command() -> None:
    """Say which firewalls of the lab exist and which are up."""
    from fazai.lab.command import describe_lab

    for line in describe_lab(_lab_folder()) or ["no firewall was ever up here"]:
        click.echo(line)


@lab_command.command("reset")
@click.argument("names", nargs=-1)
def reset_command(names: tuple[str, ...]) -> None:
    """Put firewalls NAMES (all when none is named) back to their first state."""
    from fazai.lab.command import reset_lab

    for line in reset_lab(_lab_folder(), list(names)) or ["there was nothing to reset"]:
        click.echo(line)
