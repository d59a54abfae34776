"""fazai rules check, test"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fazai.cli.options import FILE, OUTPUT
from fazai.errors import InputError, count_noun, missing_file

if TYPE_CHECKING:
    from fazai.rules.values import RuleSet

_LINE_BYTES = 16 << 20


@click.group(
    "rules",
    epilog="\b\nExamples:\n  fazai rules check --config /etc/fazai/daemon.yml"
    "\n  fazai rules test rules.yml records.ndjson     what would have been done?"
    "\n  fazai rules entries                           what is blocked, and until when?",
)
def rules_command() -> None:
    """Check event rules, and try them on records. Contacts nobody."""


_CONFIG = click.option("--config", type=FILE, help="The daemon's configuration, whose jobs rules name.")


@rules_command.command("check")
@click.argument("file", type=FILE, required=False)
@_CONFIG
def check_command(file: Path | None, config: Path | None) -> None:
    """Read event rules as the daemon does.

    FILE is by default $FAZAI_RULES, else /etc/fazai/rules.yml. Exit 3: with it no rule acts.
    """
    rules = _read_rules(file, config)
    names = ", ".join(rule.name for rule in rules.rules)
    click.echo(f"{rules.file} is good: {count_noun(len(rules.rules), 'rule')}{': ' if names else ''}{names}")


@rules_command.command("test")
@click.argument("file", type=FILE)
@click.argument("records", type=FILE)
@_CONFIG
@OUTPUT
def test_command(file: Path, records: Path, config: Path | None, output: str) -> None:
    """Say what the rules in FILE would have done with RECORDS.

    It has one JSON object a line: telemetry as it is sent, or events as GET /events has them (with `type`).
    The time of a record is its `timestamp`. Addresses of firewalls and of the daemon are not known here.
    """
    import json

    from fazai.rules.trying import try_rules

    found = list(try_rules(_read_rules(file, config), _read_records(records)))
    if output == "json":
        click.echo(json.dumps([action.row() for action in found], indent=1))
        return
    for action in found:
        click.echo(action.text())
    click.echo(f"{count_noun(len(found), 'action')}")


@rules_command.command("entries")
@OUTPUT
def entries_command(output: str) -> None:
    """List what event rules put into aliases: addresses, until when, and why. Reads the state folder."""
    import json
    import time

    from fazai.cli.environment import read_config
    from fazai.rules.entries import read_entry_rows

    folder, rows = read_config().state / "entries", []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        try:
            rows += read_entry_rows(path.read_bytes(), str(path), path.stem, time.time())
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if output == "json":
        click.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        click.echo(f"{row['alias']:<24} {row['address']:<39} until {row['until']}  {row['why']}")
    click.echo(f"{len(rows)} {'entry' if len(rows) == 1 else 'entries'}")


def _read_rules(file: Path | None, config: Path | None) -> RuleSet:
    """Read the rules. Raises InputError, Errors."""
    from fazai.rules.reading import read_rules

    jobs: Mapping[str, bool] | None = None
    if config is not None:
        from fazai.daemon.runs.config_file import read_daemon_config

        jobs = {name: job.entries for name, job in read_daemon_config(config).jobs.items()}
    path = file or rules_path()
    if file is None and not path.exists():
        hint = "without it there are no rules; fazai rules check FILE reads another"
        raise missing_file(InputError, "file of event rules", path, hint)
    return read_rules(path, jobs)


def rules_path() -> Path:
    """Return the file of event rules that the environment names, or the default one."""
    from fazai.rules.reading import DEFAULT_RULES

    return Path(os.environ.get("FAZAI_RULES") or DEFAULT_RULES)


def _read_records(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the records with their lines. Raises InputError."""
    import msgspec

    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(_LINE_BYTES), b""), 1):
                if not line.strip():
                    continue
                try:
                    record = msgspec.json.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    raise InputError(f"this is not JSON: {error}", where=f"{path}:{number}") from None
                if not isinstance(record, dict):
                    raise InputError("a record is an object", where=f"{path}:{number}")
                yield number, record
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
