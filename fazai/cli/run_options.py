"""The options of a run, typed: what is selected, and how it is carried out and shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

OutputFormat = Literal["text", "json", "junit", "markdown"]
OUTPUTS: tuple[OutputFormat, ...] = get_args(OutputFormat)
ColorChoice = Literal["auto", "always", "never"]


@dataclass(frozen=True, slots=True)
class RunSelection:
    """The files that are read, and the part of what they say that is meant. Empty: everything.

    The names are those of the command line and of the arguments in a saved plan. `inventory` holds the
    sources as they were given; none stands for FAZAI_INVENTORY.
    """

    inventory: tuple[str, ...] = ()
    playbook: tuple[str, ...] = ()
    limit: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    skip_tags: tuple[str, ...] = ()
    kind: tuple[str, ...] = ()
    extra_vars: tuple[str, ...] = ()
    entries: tuple[str, ...] = ()
    vault_password_file: tuple[str, ...] = ()
    allow_scripts: bool = False

    @classmethod
    def from_click(cls, given: Mapping[str, Any]) -> RunSelection:
        """Take what concerns the selection from click's parameters; `more` are further inventories (-i)."""
        sources = (*given.get("inventory", ()), *given.get("more", ()))
        return cls(**{**_named_as(cls, given), "inventory": sources})


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The way targets are contacted, and the output. `forks` None: as many as the machine allows."""

    forks: int | None = None
    ask_pass: bool = False
    ask_become_pass: bool = False
    diff: bool = False
    explain: bool = False
    quiet: bool = False
    verbose: bool = False
    output: OutputFormat = "text"
    color: ColorChoice = "auto"

    @classmethod
    def from_click(cls, given: Mapping[str, Any]) -> RunOptions:
        """Take what concerns the carrying out from click's parameters."""
        return cls(**_named_as(cls, given))


def _named_as(class_: type[RunSelection] | type[RunOptions], given: Mapping[str, Any]) -> dict[str, Any]:
    return {each.name: given[each.name] for each in fields(class_) if each.name in given}
