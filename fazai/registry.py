"""Finds providers and kinds by name: `provider: x` is the module `fazai.providers.x` with its `PROVIDER`.

There is no list to edit; a provider is imported when a target or a resource names it. A module whose
`PROVIDER` is None is a client and nothing more: it has neither targets nor kinds, and is offered to nobody.
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
        self._providers: dict[str, Provider | None] = {}
        self._modules = _modules()

    def names(self) -> list[str]:
        """All providers of this installation that have targets; this imports them."""
        return [name for name in self._modules if self._find(name) is not None]

    def _find(self, name: str) -> Provider | None:
        if name not in self._providers:
            module = importlib.import_module(f"fazai.providers.{name}")
            self._providers[name] = cast("Provider | None", module.PROVIDER)
        return self._providers[name]

    def provider(self, name: str) -> Provider:
        """Raises InputError with did-you-mean."""
        found = self._find(name) if name in self._modules else None
        if found is None:
            raise InputError(f'there is no provider "{name}"', hint=_hint(name, self.names()))
        return found

    def kind(self, name: str) -> Kind:
        """`opnsense.alias` -> that kind. Raises InputError with did-you-mean."""
        first = name.partition(".")[0]
        provider = self._find(first) if first in self._modules else None
        if provider is None:
            known = [kind.name for kind in self.kinds()]
            raise InputError(f'there is no kind "{name}"', hint=_kind_hint(name, known))
        if name not in provider.kinds:
            raise InputError(f'there is no kind "{name}"', hint=_kind_hint(name, provider.kinds))
        return provider.kinds[name]

    def kinds(self) -> Iterator[Kind]:
        """All kinds, by name; each once, where several providers serve it (`ssh.file` also on `local`)."""
        for name in self.names():
            kinds = self.provider(name).kinds
            for kind in sorted(kinds):
                if kind.partition(".")[0] == name:
                    yield kinds[kind]


def _modules() -> list[str]:
    package = importlib.import_module("fazai.providers")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def _hint(word: str, known: object) -> str:
    names = list(cast("list[str]", known))
    same = [name for name in names if name.partition(".")[2] == word]
    return f'did you mean "{same[0]}"?' if same else did_you_mean(word, names) or "see: fazai kinds"


def _kind_hint(name: str, known: object) -> str:
    from fazai.playbook.modules import module_hint

    return module_hint(name) or _hint(name, known)
