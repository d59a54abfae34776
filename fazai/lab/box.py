"""One firewall's insides: the stored configuration, the running state, and the call that a handler gets."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fazai.lab.engine.config import EMPTY, Collection, FirewallConfig, Item, State
from fazai.lab.engine.schema import Catalogue, ControllerAction, ItemModel
from fazai.lab.settings import LabSettings

T = TypeVar("T")
UNEXPECTED = "Unexpected error, check log for details"


class UserError(Exception):
    """An error that the product raises on purpose: 500 with a title and a message."""

    def __init__(self, message: str, title: str = "", level: str = "error") -> None:
        super().__init__(message)
        self.body = {"errorMessage": message, "errorTitle": title, "errorLevel": level}


class Unexpected(Exception):
    """An error that the product did not expect (a list where a string belongs): 500, and a crash report."""


@dataclass(slots=True)
class Running:
    """The state with which services run; changed by reconfigure and apply alone."""

    applied: dict[str, State] = field(default_factory=dict)  # service -> configuration it was started with
    tables: dict[str, dict[str, None]] = field(default_factory=dict)  # pf table -> addresses
    services: dict[str, str] = field(default_factory=dict)  # service -> "running" or "stopped"
    crashed_at: float = 0.0

    def items(self, service: str, path: str) -> Collection:
        """Return a collection as the service saw it when it was started last."""
        return self.applied.get(service, {}).get(path, {})


@dataclass(frozen=True, slots=True)
class ArmedRollback:
    """A savepoint whose timer runs (release 26.1.11)."""

    revision: str
    cancel: Callable[[], None]


def _no_timer(delay_s: float, action: Callable[[], None]) -> Callable[[], None]:
    raise RuntimeError("this box has no timers: it is not being served")


class Box:
    """State and derived values of one firewall. Everything happens in one thread."""

    def __init__(
        self, name: str, catalogue: Catalogue, settings: LabSettings, config: FirewallConfig
    ) -> None:
        self.name = name
        self.catalogue = catalogue
        self.settings = settings
        self.config = config
        self.running = Running()
        self.started_at = time.time()
        self.clock: Callable[[], float] = time.time
        self.schedule: Callable[[float, Callable[[], None]], Callable[[], None]] = _no_timer
        self.rollback: ArmedRollback | None = None
        self.reloaded: Callable[[], None] = lambda: None  # other rules run now, without an apply
        self._derived: dict[str, tuple[tuple[tuple[str, object], ...], object, Any]] = {}
        self._indexes: dict[tuple[str, str], tuple[Collection, dict[str, str]]] = {}

    def items(self, path: str) -> Collection:
        return self.config.items(path)

    def derived(self, name: str, paths: tuple[str, ...], build: Callable[[], T], extra: object = None) -> T:
        """Return a value computed from collections, kept while they are the current ones."""
        items = self.config.state.get
        found = self._derived.get(name)
        if found is not None:
            known, at, value = found
            if at is extra and all(items(path, EMPTY) is old for path, old in known):
                return value  # type: ignore[no-any-return]
        value = build()
        self._derived[name] = (tuple((path, items(path, EMPTY)) for path in paths), extra, value)
        return value

    def index(self, path: str, name: str) -> Mapping[str, str]:
        """Return uuids by the value of a field; after a single write only that write is looked at."""
        current = self.config.items(path)
        known = self._indexes.get((path, name))
        if known is not None and known[0] is current:
            return known[1]
        before, after, keys = self.config.changed.get(path, (None, None, ()))
        if known is not None and known[0] is before and after is current:
            found = dict(known[1])
            for key in keys:
                old, new = known[0].get(key), current.get(key)
                if old is not None and found.get(old[name]) == key:
                    del found[old[name]]
                if new is not None:
                    found[new[name]] = key
        else:
            found = {item[name]: key for key, item in current.items()}
        self._indexes[path, name] = (current, found)
        return found

    def apply(self, service: str) -> None:
        """Let the service run with what is stored."""
        self.running.applied[service] = self.config.state


@dataclass(slots=True)
class ActionCall:
    """One authenticated API call on its way through a handler."""

    box: Box
    endpoint: ControllerAction
    method: str
    params: list[str]
    body: Mapping[str, Any]
    query: Mapping[str, Any]
    user: str
    readonly: bool = False
    uri: str = ""

    @property
    def posted(self) -> bool:
        return self.method == "POST"

    def param(self, index: int) -> str | None:
        return self.params[index] if index < len(self.params) else None

    def argument(self, name: str) -> Any:
        """Return a parameter of a search: from the posted body, else from the query."""
        return self.body[name] if name in self.body else self.query.get(name)

    def model(self, path: str) -> ItemModel:
        """Return the model of a collection."""
        return self.box.catalogue.items[path]

    def stamp(self) -> tuple[str, str, float]:
        """Return what the history says of a write: why, who and when."""
        return f"{self.uri} made changes", f"{self.user}@127.0.0.1", self.box.clock()

    def check_writable(self) -> None:
        """Refuse writes of a user with the privilege user-config-readonly. Raises UserError."""
        if self.readonly:
            raise UserError(
                f"User {self.user} denied for write access (user-config-readonly set)", "General access"
            )

    def save(self, edit: Any) -> None:
        """Write the changes to the configuration; one entry of the history."""
        self.check_writable()
        edit.commit(*self.stamp())

    def put(self, path: str, key: str, item: Item) -> None:
        """Write one item of a collection."""
        edit = self.box.config.edit()
        edit.put(path, key, item)
        self.save(edit)


Handler = Callable[[ActionCall], Any]


def failure_like(answer: Mapping[str, str]) -> dict[str, str]:
    """Return what other methods get from an action that answers this to a POST: `failed` in its place."""
    return {next(iter(answer)): "failed"}


def posted_only(otherwise: Any) -> Callable[[Handler], Handler]:
    """Return a decorator for handlers that carry out a POST, and give this answer to other methods."""

    def decorate(handler: Handler) -> Handler:
        return lambda call: handler(call) if call.posted else otherwise

    return decorate
