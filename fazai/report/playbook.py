"""Playbooks as text: resources in YAML that fazai reads back as the same values, the same bytes each time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from fazai.report.lines import escape_controls

_WIDTH = 100
_PLAIN = re.compile(
    r"[A-Za-z][A-Za-z0-9_./-]*(?: [A-Za-z0-9_./-]+)*|[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?:/[0-9]{1,2})?"
)
#: Words that some reader of YAML takes for something else than text.
_WORDS = frozenset(["true", "false", "yes", "no", "on", "off", "null", "none", "y", "n", "nan", "inf"])
_TEMPLATE = re.compile(r"\{(?=[{%#])")


class _Writer(yaml.SafeDumper):
    """Writes texts plain where no reader could take them for anything else, else in double quotes."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(writer: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS
    return writer.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Writer.add_representer(str, _represent_text)


def write_comment(text: str, indent: int = 0) -> str:
    """Return a comment of one line: no text of a device begins another."""
    return f"{' ' * indent}# {escape_controls(text)}\n"


def write_resource(kind: str, fields: Mapping[str, Any], indent: int = 4) -> str:
    """Return a resource as an entry of a list. Texts are no templates, whatever they hold."""
    given = _escape(fields)
    lead = " " * indent
    line = f"{lead}- {kind}: {_dump(given, flow=True)}"
    if len(line) <= _WIDTH and line.count("\n") == 1:
        return line
    block = "".join(_dump({name: value}, flow=_block_style(value)) for name, value in given.items())
    inner = "".join(f"{lead}    {one}\n" for one in block.splitlines())
    return f"{lead}- {kind}:\n{inner}"


def _block_style(value: Any) -> bool | None:
    """Return PyYAML's style with which a field has a line of its own, and a list of texts stands on it."""
    return None if isinstance(value, Mapping | list) else False


def _dump(value: Any, *, flow: bool | None) -> str:
    text: str = yaml.dump(
        value,
        Dumper=_Writer,
        default_flow_style=flow,  # None: lists of single values on one line
        sort_keys=False,
        width=1 << 30,
        allow_unicode=_is_printable(value),  # else one that turns the line round would do so here
    )
    return text


def _is_printable(value: Any) -> bool:
    if isinstance(value, str):
        return value.isprintable()
    if isinstance(value, Mapping):
        return all(_is_printable(one) for one in value.values())
    return all(map(_is_printable, value)) if isinstance(value, list) else True


def write_play(name: str, host: str, blocks: Iterable[str]) -> str:
    """Return a playbook with one play for one host."""
    first, *rest = _dump(_escape({"name": name, "hosts": host}), flow=False).splitlines()
    body = "".join(blocks)
    tail = f"  resources:\n{body}" if body else "  resources: []\n"
    return f"- {first}\n" + "".join(f"  {line}\n" for line in rest) + tail


def _escape(value: Any) -> Any:
    """Return a value in which no text is a template."""
    if isinstance(value, str):
        return _TEMPLATE.sub("{{ '{' }}", value)
    if isinstance(value, Mapping):
        return {str(name): _escape(one) for name, one in value.items()}
    return [_escape(one) for one in value] if isinstance(value, list | tuple) else value
