"""Builds the bodies of writes, and the errors for those that the firewall does not take. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fazai.errors import Rejected
from fazai.model import Change, Secret
from fazai.providers.opnsense.api.masking import as_one_line
from fazai.providers.opnsense.catalogue.kinds import CatalogueKind

TOLD_FIELDS, TOLD_TEXTS = 20, 10  # of one refusal


def rejection_error(target: str, kind: CatalogueKind, change: Change, found: Mapping[str, Any]) -> Rejected:
    """Return the refusal of a change, each message with our field's name, at the place of the first."""
    prefix = f"{kind.row.root}." if kind.row.root else ""
    sources = {row.source: name for name, row in kind.rows.items() if row.source}
    fields: dict[str, tuple[str, ...]] = {}
    for key, value in list(found.items())[:TOLD_FIELDS]:
        name = as_one_line(str(key).removeprefix(prefix))
        texts = value[:TOLD_TEXTS] if isinstance(value, list) else [value]
        fields[sources.get(name, name)] = tuple(
            dict.fromkeys(hide_secrets(str(text), change) for text in texts)
        )
    places = (change.origins.get(name) or change.origins.get(name.partition(".")[0]) for name in fields)
    text = "; ".join(f"{name}: {as_one_line(' '.join(texts))}" for name, texts in fields.items())
    return Rejected(
        f'{target} refused "{change.identity}": {text}',
        fields=fields,
        where=next((place for place in places if place), None) or change.mark or change.where,
    )


def nest_body(root: str, body: Mapping[str, str]) -> dict[str, Any]:
    """Put the fields of an item under its root key."""
    return nest_under(root, nest_fields(body))


def nest_fields(body: Mapping[str, Any]) -> dict[str, Any]:
    """Make nested objects of dotted names: `destination.network` is `destination: {network: …}`."""
    found: dict[str, Any] = {}
    for name, text in body.items():
        *parents, last = name.split(".")
        node = found
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = text
    return found


def nest_under(tree: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """Put a value below a dotted name."""
    for part in reversed(tree.split(".") if tree else ()):
        value = {part: value}
    return dict(value)


def hide_secrets(text: str, change: Change) -> str:
    """Return the firewall's text without a secret that it may quote."""
    for value in change.after.values():
        if isinstance(value, Secret) and value.reveal() and value.reveal() in text:
            text = text.replace(value.reveal(), "***")
    return as_one_line(text)
