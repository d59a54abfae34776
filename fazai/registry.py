"""Finds providers and kinds by name.

Each package of `fazai.providers` says in its `PROVIDERS` which names an inventory may give, and which of its
modules holds the `PROVIDER` of each; and in `KINDS` the first word of its kinds. There is no list to edit; a
provider is imported when a target or a resource names it. A package without `PROVIDERS` is a client and
nothing more: it has neither targets nor kinds, and is offered to nobody.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import ModuleType
from typing import cast

from fazai.errors import InputError, spelling_hint
from fazai.model import AgentRegistry, Kind, Provider, Registering


@dataclass(frozen=True, slots=True)
class _Index:
    """The modules of providers and the owners of kinds, by name."""

    #: The module of a provider, by the provider's name.
    modules: dict[str, str] = field(default_factory=dict)
    #: The provider that is asked for kinds, by their first word.
    families: dict[str, str] = field(default_factory=dict)
    #: First words of kinds that are still read, and the new ones.
    old_words: dict[str, str] = field(default_factory=dict)

    def add(self, package: ModuleType) -> None:
        """Enter what a package says that it provides."""
        for name, module in cast("Mapping[str, str]", package.PROVIDERS).items():
            self.modules[name] = f"{package.__name__}.{module}"
            self.families.setdefault(package.KINDS, name)
        for word in getattr(package, "OLD_KINDS", ()):
            self.old_words[word] = package.KINDS


class Registry:
    """Providers and kinds by name, imported when they are asked for. Built by a shell and handed down."""

    def __init__(self, agents: AgentRegistry | None = None) -> None:
        self._agents = agents
        #: Old names of kinds that were asked for, and what they are called now.
        self.renamed: dict[str, str] = {}
        self._providers: dict[str, Provider] = {}

    @cached_property
    def _index(self) -> _Index:
        """The names that the packages of `fazai.providers` offer, read when the first is asked for."""
        index = _Index()
        package = importlib.import_module("fazai.providers")
        for found in sorted(module.name for module in pkgutil.iter_modules(package.__path__)):
            index.add(importlib.import_module(f"fazai.providers.{found}"))
        return index

    def names(self) -> list[str]:
        """All names that an inventory's `provider:` may have, in the order of the alphabet."""
        return sorted(self._index.modules)

    def provider(self, name: str) -> Provider:
        """Import and return a provider. Raises InputError with did-you-mean."""
        if name not in self._index.modules:
            raise InputError(f'there is no provider "{name}"', hint=_name_hint(name, self.names()))
        if name not in self._providers:
            module = importlib.import_module(self._index.modules[name])
            provider = cast("Provider", module.PROVIDER)
            if self._agents is not None and isinstance(provider, Registering):
                provider = provider.with_agents(self._agents)
            self._providers[name] = provider
        return self._providers[name]

    def kind(self, name: str) -> Kind:
        """Return a kind by its full name (`opnsense.alias`). Raises InputError with did-you-mean.

        An old name (`ssh.file`) is read as the new one, and noted in `renamed`.
        """
        current = self.current_name(name)
        first = current.partition(".")[0]
        if first not in self._index.families:
            known = [kind.name for kind in self.kinds()]
            raise InputError(f'there is no kind "{name}"', hint=_kind_hint(name, known))
        kinds = self.provider(self._index.families[first]).kinds
        if current not in kinds:
            raise InputError(f'there is no kind "{name}"', hint=_kind_hint(current, kinds))
        self.note_renamed(name)
        return kinds[current]

    def current_name(self, name: str) -> str:
        """Return the name of a kind, or a pattern of such names, with the first word that it has today."""
        first, dot, rest = name.partition(".")
        return f"{self._index.old_words.get(first, first)}{dot}{rest}"

    def note_renamed(self, name: str) -> str:
        """Return the current name, and remember in `renamed` that an old one was used."""
        current = self.current_name(name)
        if current != name:
            self.renamed[name] = current
        return current

    def kinds(self) -> Iterator[Kind]:
        """Iterate over all kinds in the order of their names; this imports all providers."""
        for first in sorted(self._index.families):
            kinds = self.provider(self._index.families[first]).kinds
            for name in sorted(kinds):
                yield kinds[name]


def _name_hint(word: str, known: Iterable[str]) -> str:
    names = list(known)
    same = [name for name in names if name.partition(".")[2] == word]
    return f'did you mean "{same[0]}"?' if same else spelling_hint(word, names) or "see: fazai kinds"


def _kind_hint(name: str, known: Iterable[str]) -> str:
    from fazai.playbook.modules import module_hint

    return module_hint(name) or _name_hint(name, known)
