"""fazai diff"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import click

from fazai.cli.commands.importing import ask_for_items, full_name
from fazai.cli.host_targets import prepare_hosts
from fazai.cli.options import HOSTS, OUTPUT, add_options
from fazai.errors import ExitCode, UsageError, count_noun
from fazai.findings import Findings

_Key = tuple[str, str]


@click.command(
    "diff",
    epilog="\b\nExamples:\n  fazai diff inventory.yml fw-01 fw-02"
    "\n  fazai diff inventory.yml fw-01 fw-02 --kind alias --kind rule"
    "\n  fazai plan inventory.yml --playbook fw-01.yml      a firewall and a file",
)
@add_options(HOSTS)
@click.option("--kind", "kinds", multiple=True, help="Only items of this kind; more than once.")
@OUTPUT
def diff_command(kinds: tuple[str, ...], output: str, **options: Any) -> int:
    """Compare what two firewalls hold. Exit 2 when it is not the same.

    Secrets are not compared: no firewall says its own. What an import leaves out is left out here, and
    counted.
    """
    prepared = prepare_hosts("diff", options)
    items = [item for work in prepared.works for item in work.targets]
    if len({item.target.name for item in items}) != 2:
        text = f"the inventory has {count_noun(len(items), 'target')}, and two are compared"
        raise UsageError(text, hint="name them: fazai diff inventory.yml fw-01 fw-02")
    known = prepared.registry.provider(items[0].target.provider).kinds
    found = ask_for_items(prepared, items, [full_name(one, known) for one in kinds])
    first, second = (item.target.name for item in items)
    rows = list(_differences(found[first], found[second]))
    left = {name: len(one.left) for name, one in found.items()}
    if output == "json":
        shown = {"first": first, "second": second, "differences": rows, "left_out": left}
        click.echo(json.dumps(shown, indent=1, ensure_ascii=False))
    else:
        _print_text(first, second, rows, left)
    return ExitCode.PENDING if rows else ExitCode.OK


def _differences(first: Findings, second: Findings) -> Iterator[dict[str, Any]]:
    """Yield each item that only one of them has, and each field that differs."""
    ours, theirs = _by_name(first), _by_name(second)
    for key in dict.fromkeys([*ours, *theirs]):
        kind, identity = key
        row: dict[str, Any] = {"kind": kind, "identity": identity}
        if key not in theirs:
            yield {**row, "only": "first"}
        elif key not in ours:
            yield {**row, "only": "second"}
        elif ours[key] != theirs[key]:
            yield {**row, "fields": dict(_fields(ours[key], theirs[key]))}


def _by_name(found: Findings) -> dict[_Key, Mapping[str, Any]]:
    """Return the fields of each item; of those that only a uuid names, none is the same on two firewalls."""
    return {(one.kind, one.identity): one.fields for one in found.items}


def _fields(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    for name in dict.fromkeys([*first, *second]):
        if first.get(name) != second.get(name):
            yield name, [first.get(name), second.get(name)]


def _print_text(first: str, second: str, rows: list[dict[str, Any]], left: Mapping[str, int]) -> None:
    click.echo(f"--- {first}\n+++ {second}")
    for row in rows:
        name = _one_line(f"{row['kind'].rpartition('.')[2]} {row['identity']}")
        if "only" in row:
            click.echo(f"{'-' if row['only'] == 'first' else '+'} {name}")
            continue
        click.echo(f"~ {name}")
        for field, (ours, theirs) in row["fields"].items():
            click.echo(f"    {field}: {_show(ours)} | {_show(theirs)}")
    more = "".join(f", {count} left out of {name}" for name, count in left.items() if count)
    click.echo(f"{count_noun(len(rows), 'difference')}{more}", err=True)


def _show(value: Any) -> str:
    """Return a value as text; nothing stands for the default."""
    if value is None:
        return "(default)"
    return _one_line(json.dumps(value, ensure_ascii=False))


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
