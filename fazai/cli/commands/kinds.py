"""fazai kinds"""

from __future__ import annotations

import json

import click

from fazai.cli.commands.completion import complete_kind
from fazai.cli.options import OUTPUT
from fazai.model import FieldSpec, Kind
from fazai.outcome import json_value

#: The parts of a field that are shown, in order.
_SHOWN = (
    *("name", "type", "required", "default", "choices"),
    *("minimum", "maximum", "reference", "secret", "doc"),
)


@click.command("kinds", epilog="\b\nExamples:\n  fazai kinds\n  fazai kinds opnsense.alias")
@click.argument("kind", required=False, shell_complete=complete_kind)
@OUTPUT
def kinds_command(kind: str | None, output: str) -> None:
    """List the kinds of resources; with a KIND, its fields and an example."""
    from fazai.registry import Registry

    registry = Registry()
    if kind is None:
        found = list(registry.kinds())
        if output == "json":
            click.echo(json.dumps([{"name": k.name, "summary": k.summary} for k in found], indent=1))
            return
        width = max((len(k.name) for k in found), default=0)
        for one in found:
            click.echo(f"{one.name:<{width}}  {one.summary}")
        return
    one = registry.kind(kind)
    click.echo(json.dumps(_kind_record(one), indent=1) if output == "json" else _kind_text(one))


def _kind_record(kind: Kind) -> dict[str, object]:
    return {
        "name": kind.name,
        "summary": kind.summary,
        "identity": list(kind.identity),
        "ordered": kind.ordered,
        "fields": [
            {name: json_value(getattr(spec, name)) for name in _SHOWN} for spec in kind.fields.values()
        ],
        "example": kind.example,
    }


def _kind_text(kind: Kind) -> str:
    lines = [f"{kind.name}: {kind.summary}", f"identity: {', '.join(kind.identity)}"]
    if kind.ordered:
        lines.append("ordered: the order in the playbook is the order on the target")
    width = max(len(name) for name in kind.fields)
    lines += ["", "fields:"]
    lines += [f"  {spec.name:<{width}}  {describe_field(spec)}" for spec in kind.fields.values()]
    return "\n".join([*lines, "", "example:", *(f"  {line}" for line in kind.example.strip().splitlines())])


def describe_field(spec: FieldSpec) -> str:
    """Describe a field in one line, as `fazai kinds` and the reference page say it."""
    words = [spec.type if spec.reference is None else f"{spec.type} to {spec.reference}"]
    if spec.required:
        words.append("required")
    if spec.choices:
        shown = ", ".join(repr(c) if c == "" else c for c in spec.choices[:12])
        words.append(f"one of {shown}{', …' if len(spec.choices) > 12 else ''}")
    if spec.minimum is not None or spec.maximum is not None:
        low = "" if spec.minimum is None else spec.minimum
        high = "" if spec.maximum is None else spec.maximum
        words.append(f"{low}..{high}")
    if spec.default not in (None, "", ()):
        words.append(f"the device's default is {json_value(spec.default)}")
    if spec.secret:
        words.append("secret")
    return ", ".join(words) + (f". {spec.doc}" if spec.doc else "")
