"""fazai store"""

from __future__ import annotations

from pathlib import Path

import click

from fazai.cli.options import FILE, OUTPUT


@click.group(
    "store",
    epilog="\b\nExamples:\n  fazai store check"
    "\n  fazai store backup /var/backups/fazai-$(date +%F).sqlite3     while the daemon runs"
    "\n  systemctl stop fazai && fazai store restore FILE",
)
def store_command() -> None:
    """Look after the state file: runs, journal, events, telemetry, notes."""


@store_command.command("check")
@OUTPUT
def check_command(output: str) -> None:
    """Read through the whole file; exit 1 when something is wrong. Works while it is used."""
    import json

    from fazai.errors import FazaiError, count_noun
    from fazai.store import maintenance

    found = maintenance.check(_state_folder())
    if output == "json":
        record = {
            "ok": not found.problems,
            "bytes": found.size_bytes,
            "version": found.version,
            "rows": found.rows,
            "problems": found.problems,
        }
        click.echo(json.dumps(record, indent=1))
    else:
        click.echo(f"{_format_size(found.size_bytes)}, version {found.version}")
        click.echo("  ".join(f"{name} {count}" for name, count in found.rows.items() if count))
        for problem in found.problems:
            click.echo(f"  {problem}")
    if found.problems:
        text = f"the state file cannot be used: {count_noun(len(found.problems), 'finding')}"
        raise FazaiError(text, hint=found.hint)
    if output == "text":
        click.echo("ok")


@store_command.command("vacuum")
def vacuum_command() -> None:
    """Give the room of what was dropped back to the disk. Others wait meanwhile."""
    from fazai.store import maintenance

    before, after = maintenance.vacuum(_state_folder())
    click.echo(f"{_format_size(before)} -> {_format_size(after)}")


@store_command.command("reindex", short_help="Build the index of notes anew; the daemon must not run.")
def reindex_command() -> None:
    """Build the index of the knowledge base anew from its notes, which are checked first; the daemon must not
    run."""
    from fazai.errors import count_noun
    from fazai.kb.content import words_of_note
    from fazai.store import maintenance

    click.echo(f"the index has {count_noun(maintenance.reindex(_state_folder(), words_of_note), 'note')}")


@store_command.command("backup", short_help="Copy the state file to FILE, while it is used.")
@click.argument("file", type=FILE)
def backup_command(file: Path) -> None:
    """Copy the state file to FILE as it is at one moment, while it is used."""
    from fazai.store import maintenance

    click.echo(f"{file}: {_format_size(maintenance.backup(_state_folder(), file))}")


@store_command.command("restore", short_help="Put a backup in its place; the daemon must not run.")
@click.argument("file", type=FILE)
def restore_command(file: Path) -> None:
    """Put the backup FILE in place of the state file; the daemon must not run. The old one is kept."""
    from fazai.store import maintenance

    kept = maintenance.restore(_state_folder(), file)
    click.echo("restored" if kept is None else f"restored; the old file is {kept}")


def _state_folder() -> Path:
    from fazai.cli import environment

    return environment.read_config().state


def _format_size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError
