"""Finds providers and kinds by name.

Each package of `fazai.providers` says in its `PROVIDERS` which names an inventory may give, and which of its
modules holds the `PROVIDER` of each; and in `KINDS` the first word of its kinds. There is no list to edit; a
provider is imported when a target or a resource names it. A package without `PROVIDERS` is a client and
nothing more: it has neither targets nor kinds, and is offered to nobody.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import cast

from fazai.errors import InputError, did_you_mean
from fazai.model import Kind, Provider

__all__ = ["Registry"]


class Registry:
    """Built by a shell and handed down; remembers what it imported."""

    def __init__(self) -> None:
        self._modules: dict[str, str] = {}  # of a provider, by its name
        self._families: dict[str, str] = {}  # the provider that is asked for kinds, by their first word
        self._old_words: dict[str, str] = {}  # first words of kinds that are still read, and the new ones
        #: Old names of kinds that were asked for, and what they are called now.
        self.renamed: dict[str, str] = {}
        self._providers: dict[str, Provider] = {}
        package = importlib.import_module("fazai.providers")
        for found in sorted(module.name for module in pkgutil.iter_modules(package.__path__)):
            self._register(importlib.import_module(f"fazai.providers.{found}"))

    def _register(self, package: ModuleType) -> None:
        for name, module in cast("Mapping[str, str]", package.PROVIDERS).items():
            self._modules[name] = f"{package.__name__}.{module}"
            self._families.setdefault(package.KINDS, name)
        for word in getattr(package, "OLD_KINDS", ()):
            self._old_words[word] = package.KINDS

    def names(self) -> list[str]:
        """All names that an inventory's `provider:` may have, in the order of the alphabet."""
        return sorted(self._modules)

    def provider(self, name: str) -> Provider:
        """Import and return a provider. Raises InputError with did-you-mean."""
        if name not in self._modules:
            raise InputError(f'there is no provider "{name}"', hint=_hint(name, self.names()))
        if name not in self._providers:
            module = importlib.import_module(self._modules[name])
            self._providers[name] = cast("Provider", module.PROVIDER)
        return self._providers[name]

    def kind(self, name: str) -> Kind:
        """Return a kind by its full name (`opnsense.alias`). Raises InputError with did-you-mean.

        An old name (`ssh.file`) is read as the new one, and noted in `renamed`.
        """
        current = self.current_name(name)
        first = current.partition(".")[0]
        if first not in self._families:
            known = [kind.name for kind in self.kinds()]
            raise InputError(f'there is no kind "{name}"', hint=_kind_hint(name, known))
        kinds = self.provider(self._families[first]).kinds
        if current not in kinds:
            raise InputError(f'there is no kind "{name}"', hint=_kind_hint(current, kinds))
        self.note_renamed(name)
        return kinds[current]

    def current_name(self, name: str) -> str:
        """Return the name of a kind, or a pattern of such names, with the first word that it has today."""
        first, dot, rest = name.partition(".")
        return f"{self._old_words.get(first, first)}{dot}{rest}"

    def note_renamed(self, name: str) -> str:
        """Return the current name, and remember in `renamed` that an old one was used."""
        current = self.current_name(name)
        if current != name:
            self.renamed[name] = current
        return current

    def kinds(self) -> Iterator[Kind]:
        """Iterate over all kinds in the order of their names; this imports all providers."""
        for first in sorted(self._families):
            kinds = self.provider(self._families[first]).kinds
            for name in sorted(kinds):
                yield kinds[name]


def _hint(word: str, known: object) -> str:
    names = list(cast("list[str]", known))
    same = [name for name in names if name.partition(".")[2] == word]
    return f'did you mean "{same[0]}"?' if same else did_you_mean(word, names) or "see: fazai kinds"


def _kind_hint(name: str, known: object) -> str:
    from fazai.playbook.modules import module_hint

    return module_hint(name) or _hint(name, known)
