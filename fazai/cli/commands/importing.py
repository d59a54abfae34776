"""fazai import"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from fazai.cli.host_targets import ask_for_items, full_kind_name, prepare_hosts
from fazai.cli.options import HOSTS, add_options
from fazai.errors import StateError, UsageError, count_noun
from fazai.files import replace_file
from fazai.findings import Findings
from fazai.report.playbook import write_comment, write_play, write_resource


@click.command(
    "import",
    epilog="\b\nExamples:\n  fazai import inventory.yml fw-01 > fw-01.yml"
    "\n  fazai import inventory.yml fw-01 --kind alias --kind rule"
    "\n  fazai import inventory.yml fw-01 --split fw-01/"
    "\n  fazai plan inventory.yml --playbook fw-01.yml      0 changes",
)
@add_options(HOSTS)
@click.option("--kind", "kinds", multiple=True, help="Only items of this kind; more than once.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write the playbook to this file.")
@click.option(
    "--split", type=click.Path(path_type=Path), help="Write a playbook for each kind to this folder."
)
def import_command(kinds: tuple[str, ...], out: Path | None, split: Path | None, **options: Any) -> int:
    """Write what a firewall holds as a playbook.

    The playbook declares each item as it is: references by name, no secrets, no defaults. Applied to the same
    firewall it changes nothing. What cannot be declared is said in comments, with the reason.
    """
    if out is not None and split is not None:
        raise UsageError("--out and --split are two ways to write", hint="give one of them")
    prepared = prepare_hosts("import", options)
    items = [item for work in prepared.works for item in work.targets]
    if len({item.target.name for item in items}) != 1:
        text = f"the inventory has {count_noun(len(items), 'target')}, and one is imported at a time"
        raise UsageError(text, hint="name it: fazai import inventory.yml fw-01")
    item = items[0]
    known = prepared.registry.provider(item.target.provider).kinds
    found = ask_for_items(prepared, [item], [full_kind_name(one, known) for one in kinds])[item.target.name]
    if split is not None:
        kinds_there = dict.fromkeys([one.kind for one in found.items] + [one[0] for one in found.left])
        parts = {
            f"{kind.rpartition('.')[2]}.yml": _playbook(item.target.name, found, [kind])
            for kind in kinds_there
        }
        _check_folder(split, parts)
        for name, text in parts.items():
            _write(split / name, text)
    elif out is not None and str(out) != "-":
        _write(out, _playbook(item.target.name, found, ()))
    else:
        click.echo(_playbook(item.target.name, found, ()), nl=False)
    said = f"{item.target.name}: {count_noun(len(found.items), 'item')}"
    if found.left:
        said += f", {len(found.left)} left out: see the comments"
    click.echo(said, err=True)
    return 0


def _playbook(target: str, found: Findings, kinds: Iterable[str]) -> str:
    """Return the playbook of these kinds, or of all."""
    only = set(kinds)
    blocks: list[str] = []
    kind = ""
    for item in found.items:
        if only and item.kind not in only:
            continue
        if kind and item.kind != kind:
            blocks.append("\n")
        kind = item.kind
        for name, why in item.left:
            blocks.append(write_comment(f"{name}: not here, {why}", 4))
        blocks.append(write_resource(item.kind, item.fields))
    text = write_play(f"{target} as it was found", target, blocks)
    for kind, name, why in found.left:
        if not only or kind in only:
            what = f'{kind} "{name}"' if name else kind
            text += write_comment(f"left out: {what}: {why}")
    return text


def _check_folder(folder: Path, parts: Iterable[str]) -> None:
    """Refuse a folder with other playbooks: what was there before would come back. Raises UsageError."""
    others = sorted(path.name for path in folder.glob("*.yml") if path.name not in set(parts))
    if others:
        text = f"{folder} holds {others[0]}, which this import does not write"
        raise UsageError(text, hint="give a folder of its own, or remove what is there")


def _write(path: Path, text: str) -> None:
    """Write a file, through links, and nothing that is no file. Raises UsageError, StateError."""
    path = path.resolve()
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no file", hint="a playbook is written to a file, or to standard output")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text.encode(), 0o600)
    except OSError as error:
        raise StateError(f"{path} cannot be written: {error.strerror}") from None
