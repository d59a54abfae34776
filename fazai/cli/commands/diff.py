"""fazai diff"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import click

from fazai.cli.host_targets import ask_for_items, full_kind_name, prepare_hosts
from fazai.cli.options import HOSTS, OUTPUT, add_options
from fazai.errors import ExitCode, UsageError, count_noun
from fazai.findings import Findings, FoundItem
from fazai.report.lines import escape_controls

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

    Items are compared by kind and name, lists without their order, rules with theirs. Secrets are not
    compared: no firewall says its own. What an import leaves out is left out here, and counted.
    """
    prepared = prepare_hosts("diff", options)
    items = [item for work in prepared.works for item in work.targets]
    if len({item.target.name for item in items}) != 2:
        text = f"the inventory has {count_noun(len(items), 'target')}, and two are compared"
        raise UsageError(text, hint="name them: fazai diff inventory.yml fw-01 fw-02")
    known = prepared.registry.provider(items[0].target.provider).kinds
    found = ask_for_items(prepared, items, [full_kind_name(one, known) for one in kinds])
    first, second = (item.target.name for item in items)
    rows = list(_differences(found[first], found[second]))
    left = {name: len(one.left) + sum(len(item.left) for item in one.items) for name, one in found.items()}
    if output == "json":
        shown = {"first": first, "second": second, "differences": rows, "left_out": left}
        click.echo(json.dumps(shown, indent=1))
    else:
        _print_text(first, second, rows, left)
    return ExitCode.PENDING if rows else ExitCode.OK


def _differences(first: Findings, second: Findings) -> Iterator[dict[str, Any]]:
    """Yield each item that only one of them has, each field that differs, each kind in another order."""
    ours, theirs = _by_name(first), _by_name(second)
    for key in dict.fromkeys([*ours, *theirs]):
        kind, identity = key
        left, right = _unlike(ours.get(key, []), theirs.get(key, []))
        if len(left) == len(right) == 1:
            fields = dict(_fields(left[0].fields, right[0].fields))
            yield {"kind": kind, "identity": identity, "fields": fields}
            continue
        for side, items in (("first", left), ("second", right)):
            for item in items:
                named = f"{identity} ({item.apart})" if item.apart else identity
                yield {"kind": kind, "identity": named, "only": side}
    for kind in dict.fromkeys(one.kind for one in first.items if one.ordered):
        if _order(first, second, kind) != _order(second, first, kind):
            yield {"kind": kind, "identity": "", "order": True}


def _by_name(found: Findings) -> dict[_Key, list[FoundItem]]:
    """Return the items of each name: several of one name have nothing else that two firewalls share."""
    named: dict[_Key, list[FoundItem]] = {}
    for one in found.items:
        named.setdefault((one.kind, one.identity), []).append(one)
    return named


def _unlike(first: list[FoundItem], second: list[FoundItem]) -> tuple[list[FoundItem], list[FoundItem]]:
    """Return the items of one name that have no like on the other side."""
    rest = list(second)
    left = []
    for item in first:
        like = next((one for one in rest if not dict(_fields(item.fields, one.fields))), None)
        if like is None:
            left.append(item)
        else:
            rest.remove(like)
    return left, rest


def _order(found: Findings, other: Findings, kind: str) -> list[str]:
    """Return the names of a kind that both have, in order."""
    both = {one.identity for one in other.items if one.kind == kind}
    return list(dict.fromkeys(i.identity for i in found.items if i.kind == kind and i.identity in both))


def _fields(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    """Yield the fields that differ; the uuid is each firewall's own, and most lists are sets."""
    for name in dict.fromkeys([*first, *second]):
        ours, theirs = first.get(name), second.get(name)
        if name != "uuid" and _like(ours) != _like(theirs):
            yield name, [ours, theirs]


def _like(value: Any) -> Any:
    return sorted(map(str, value)) if isinstance(value, list | tuple) else value


def _print_text(first: str, second: str, rows: list[dict[str, Any]], left: Mapping[str, int]) -> None:
    click.echo(f"--- {first}\n+++ {second}")
    for row in rows:
        name = escape_controls(f"{row['kind'].rpartition('.')[2]} {row['identity']}")
        if "order" in row:
            click.echo(f"~ {name.strip()}: in another order")
            continue
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
    return escape_controls(json.dumps(value, ensure_ascii=False))
