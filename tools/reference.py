"""Writes the pages that are made from the code: docs/kinds.md, docs/commands.md. --check: are they true?"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from fazai.cli.commands.kinds import describe
from fazai.cli.main import COMMANDS, root
from fazai.registry import Registry
from fazai.report.document import Document

DOCS = Path(__file__).parent.parent / "docs"
MADE = "<!-- made by `make docs` from the code; edit there -->\n"


def kinds_page() -> Iterator[str]:
    """One section a kind: summary, identity, fields, example."""
    registry = Registry()
    kinds = list(registry.kinds())
    yield "# Kinds of resources\n"
    yield MADE
    yield (
        "A resource is `kind: {fields}`. What is not declared stays as it is on a host; on a firewall an item"
        " that fazai made has the device's default in it (see"
        " [OPNsense](opnsense.md#fields-that-are-not-declared)). The fields of the identity name the item."
        " `fazai kinds KIND` shows the same.\n"
    )
    yield "| kind | what it is | identity |\n|---|---|---|"
    for kind in kinds:
        anchor = kind.name.replace(".", "")
        identity = ", ".join(f"`{name}`" for name in kind.identity)
        yield f"| [`{kind.name}`](#{anchor}) | {kind.summary} | {identity} |"
    for kind in kinds:
        yield f"\n## {kind.name}\n\n{kind.summary}\n"
        if kind.ordered:
            yield "Ordered: the order in the playbook is the order on the target.\n"
        yield "| field | |\n|---|---|"
        for spec in kind.fields.values():
            yield f"| `{spec.name}` | {describe(spec).replace('|', chr(92) + '|')} |"
        yield f"\n```yaml\n{kind.example.strip()}\n```"


def commands_page() -> Iterator[str]:
    """The help of every command, as it is printed."""
    yield "# Commands\n"
    yield MADE
    for path in ([], *([name] for name in COMMANDS)):
        yield from _help(path)


def _help(path: list[str]) -> Iterator[str]:
    context = click.Context(root, info_name="fazai", terminal_width=96, max_content_width=96)
    command: click.Command = root
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(context, name)
        assert found is not None
        command = found
        context = click.Context(command, info_name=name, parent=context, terminal_width=96)
    # Releases of click put the optional command of the root in brackets, or do not.
    text = command.get_help(context).rstrip().replace("[COMMAND] [ARGS]...", "COMMAND [ARGS]...")
    yield f"## fazai {' '.join(path)}".rstrip() + f"\n\n```text\n{text}\n```\n"
    if isinstance(command, click.Group) and path:
        for name in command.list_commands(context):
            yield from _help([*path, name])


def _in_order(value: Any) -> Any:
    """Put the alternatives of a schema in one order, null last: releases of msgspec differ in it."""
    if isinstance(value, list):
        return [_in_order(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: _in_order(item) for key, item in value.items()}
    if isinstance(alternatives := found.get("anyOf"), list):
        found["anyOf"] = sorted(alternatives, key=lambda one: (one == {"type": "null"}, json.dumps(one)))
    return found


def output_schema() -> Iterator[str]:
    """The JSON Schema of `--output json`."""
    schema = _in_order(msgspec.json.schema(Document))
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "fazai run", **schema}
    yield json.dumps(_dedented(schema), indent=1)


def _dedented(value: object) -> object:
    """Strip the indentation of docstrings from all descriptions: releases of msgspec differ in it."""
    if isinstance(value, dict):
        return {
            key: inspect.cleandoc(item) if key == "description" and isinstance(item, str) else _dedented(item)
            for key, item in value.items()
        }
    return [_dedented(item) for item in value] if isinstance(value, list) else value


def main() -> int:
    pages = {"kinds.md": kinds_page, "commands.md": commands_page, "output.schema.json": output_schema}
    stale = []
    for name, make in pages.items():
        text = "\n".join(make()).rstrip() + "\n"
        path = DOCS / name
        if "--check" not in sys.argv:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(name)
    if stale:
        print(f"docs/ is not what the code says: {', '.join(stale)}; run: make docs")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
