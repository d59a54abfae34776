"""Plays and resources as they are written: read, checked for their shape, not yet rendered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fazai.errors import Mark
from fazai.model import Value
from fazai.yamltext import YamlList, YamlMap


@dataclass(frozen=True, slots=True, eq=False)
class DeclaredResource:
    """One item of a list of resources. What is None was not written.

    `fields` is the mapping below the kind, or a template that gives one. `node` is the whole item.
    """

    kind: str
    fields: YamlMap | str
    node: YamlMap
    mark: Mark
    tags: tuple[str, ...] = ()
    name: str | None = None
    state: str | None = None
    when: Value = None
    loop: Value = None
    loop_var: str = "item"
    index_var: str | None = None
    vars: YamlMap | None = None
    adopt: Value = None
    notify: Value = None
    listen: Value = None


@dataclass(frozen=True, slots=True, eq=False)
class Play:
    """One play: hosts, their resources, and the waves they are done in. `serial`, `max_fail`: as written."""

    name: str
    hosts: tuple[str, ...]
    resources: tuple[DeclaredResource, ...]
    path: Path
    node: YamlMap
    tags: tuple[str, ...] = ()
    vars: YamlMap | None = None
    serial: tuple[int | str, ...] = ()
    max_fail: int | str | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """The part of the inventory that is meant: host patterns, tags, globs of kinds. Empty: everything."""

    limit: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    skip_tags: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()

    @property
    def filters(self) -> bool:
        """Tell whether some of a target's resources may be left out."""
        return bool(self.tags or self.skip_tags or self.kinds)


def split_texts(value: Value) -> tuple[str, ...] | None:
    """Split a text at its commas, or take a list of texts; None for anything else."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, YamlList | list) and all(isinstance(part, str) for part in value):
        return tuple(part.strip() for part in value if part.strip())
    return None
