"""Finds providers and kinds by name: `provider: x` is the module `fazai.providers.x` with its `PROVIDER`.

There is no list to edit; a provider is imported when a target or a resource names it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import cast

from fazai.errors import InputError, did_you_mean
from fazai.model import Kind, Provider

__all__ = ["Registry"]


class Registry:
    """Built by a shell and handed down; remembers what it imported."""

    def __init__(self) -> None:
        self._providers: dict[str, Provider] = {}

    def names(self) -> list[str]:
        """All providers of this installation."""
        package = importlib.import_module("fazai.providers")
        return sorted(module.name for module in pkgutil.iter_modules(package.__path__))

    def provider(self, name: str) -> Provider:
        """Raises InputError with did-you-mean."""
        found = self._providers.get(name)
        if found is None:
            if not name.isidentifier() or name not in self.names():
                raise InputError(f'there is no provider "{name}"', hint=_hint(name, self.names()))
            module = importlib.import_module(f"fazai.providers.{name}")
            found = self._providers[name] = cast(Provider, module.PROVIDER)
        return found

    def kind(self, name: str) -> Kind:
        """`opnsense.alias` -> that kind. Raises InputError with did-you-mean."""
        provider = name.partition(".")[0]
        if provider in self.names():
            kinds = self.provider(provider).kinds
            if name in kinds:
                return kinds[name]
            raise InputError(f'there is no kind "{name}"', hint=_hint(name, kinds))
        raise InputError(f'there is no kind "{name}"', hint=_hint(name, [kind.name for kind in self.kinds()]))

    def kinds(self) -> Iterator[Kind]:
        """All kinds, by name; each once, where several providers serve it (`ssh.file` also on `local`)."""
        for name in self.names():
            kinds = self.provider(name).kinds
            for kind in sorted(kinds):
                if kind.partition(".")[0] == name:
                    yield kinds[kind]


def _hint(word: str, known: object) -> str:
    names = list(cast("list[str]", known))
    return did_you_mean(word, names) or "see: fazai kinds"
