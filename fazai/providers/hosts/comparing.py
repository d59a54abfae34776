"""The part of a session on a host that needs no contact: what differs, which changes have to do with each
other, and what takes one back. What reaches the host (`session`, `remote.session`) builds on it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from typing import Any

from fazai.compat.language import dataclass
from fazai.errors import FazaiError, Mark, NotAvailable
from fazai.model import Activate, Change, Diff, Resource, Target, Verb
from fazai.providers.hosts import effects, planning
from fazai.providers.hosts.effects import PathNames, TouchedPaths
from fazai.providers.hosts.kind import NOT_READ_BACK, Act, Answers, HostKind, Want
from fazai.providers.hosts.planning import Item


@dataclass(slots=True)
class KnownItem:
    """The knowledge that a session has of one item."""

    want: Want | None = None
    answers: Answers = field(default_factory=dict)  # out of which it was read last
    found: Item = None  # as it was seen last
    act: Act | None = None  # its change, as it was written
    after: object = NOT_READ_BACK  # what was seen of it then

    @property
    def seen(self) -> Mapping[str, Any]:
        """The fields of the item; none where it is not there."""
        return self.found if isinstance(self.found, Mapping) else {}

    @property
    def wanted_fields(self) -> Mapping[str, Any]:
        return {} if self.want is None else self.want.fields


class ComparingSession:
    """A session's knowledge of one host in one run, and what follows from it.

    `root`: the folder that stands for / there.
    """

    def __init__(self, target: Target, kinds: Mapping[str, HostKind], *, root: str = "") -> None:
        self._target, self._kinds = target, kinds
        self._root = root.rstrip("/")
        self._items: defaultdict[tuple[str, str], KnownItem] = defaultdict(KnownItem)
        self.names = PathNames({}, {})
        self._handlers: Mapping[str, Resource] = {}
        self._say: Callable[[str, str], None] | None = None

    def diff(
        self,
        wanted: Sequence[Resource],
        seen: Any,
        *,
        adopted: frozenset[str] = frozenset(),
        pending: frozenset[str] = frozenset(),
        prune: bool = False,
    ) -> Diff:
        """Compare what is wanted with what was seen. Nothing of a host is pruned: only what is declared is
        managed."""
        wants = [Want(resource, self._at) for resource in wanted if not resource.listen]
        handlers = [resource for resource in wanted if resource.listen]
        self._handlers = planning.label_handlers(handlers, pending)
        found = planning.plan_host_steps(
            self._target.name, self._kinds, wants, seen.items, self._handlers, pending, self.names
        )
        if not found.steps:
            return found
        due = (self._handlers.get(step.service) for step in found.steps if isinstance(step, Activate))
        refused = (self._needs_machine(handler) for handler in due if handler is not None)
        return replace(found, errors=(*found.errors, *(error for error in refused if error is not None)))

    def affected(self, changes: Sequence[Change], resources: Sequence[Resource]) -> list[Resource]:
        """Return the resources that these changes may have altered, by the names of their paths
        (`model.Following`)."""
        touched = self._track(changes)
        return [
            resource
            for resource in resources
            if not resource.listen
            and touched.last(
                effects.paths_read(self._kinds[resource.kind], Want(resource, self._at)), failed=True
            )
        ]

    def exposed(self, resources: Sequence[Resource]) -> list[Resource]:
        """Return the resources of which files alone tell (`model.Following`)."""
        return [
            r for r in resources if effects.paths_read(self._kinds[r.kind], Want(r, self._at)) is not None
        ]

    def _track(self, changes: Sequence[Change]) -> TouchedPaths:
        touched = TouchedPaths(self.names)
        for change in changes:
            want = self._items[change.kind, change.identity].want
            assert want is not None
            touched.add(self._kinds[change.kind], want, change.verb)
        return touched

    def inverse(self, change: Change, ref: str) -> Change | None:
        """Return the change that takes one back: create and delete swap, fields go back. None: nothing
        does."""
        options = self._items[change.kind, change.identity].wanted_fields
        if self._kinds[change.kind].is_lasting(change.verb, change.before, options):
            return None
        verb = {Verb.CREATE: Verb.DELETE, Verb.DELETE: Verb.CREATE}.get(change.verb, change.verb)
        return replace(
            change, verb=verb, before=change.after, after=change.before, ref=ref, note=planning.UNDONE_NOTE
        )

    def planned_change(self, kind: str, identity: str) -> Change | None:
        """Return the change that an item needs, as it was seen last; None for one that cannot be told."""
        known = self._items[kind, identity]
        if known.want is None or isinstance(known.found, FazaiError):
            return None
        return planning.plan_change(self._target.name, self._kinds[kind], known.want, known.found, {})

    def declare_again(self, resource: Resource) -> None:
        """Take another form of a resource that was looked at: with the content that its hash stood for."""
        self._items[resource.kind, resource.identity].want = Want(resource, self._at)

    def declare_handler(self, name: str, handler: Resource) -> None:
        """Make a handler known under the name by which it is activated."""
        self._handlers = {**self._handlers, name: handler}

    def _items_to_prove(self, changes: Sequence[Change]) -> list[Want]:
        """Return what was written of the kinds that `proves`, in the order of their names."""
        keys = {(c.kind, c.identity) for c in changes if self._kinds[c.kind].proves}
        return [want for key in sorted(keys) if (want := self._items[key].want) is not None]

    async def activate(self, service: str) -> None:
        """Run a handler. One that is not declared any more has nothing to run."""
        handler = self._handlers.get(service)
        if handler is None:
            return
        if (refused := self._needs_machine(handler)) is not None:
            raise refused
        await self._run_handler(service, handler, handler.mark or f"{self._target.name}/{service}")

    async def _run_handler(self, service: str, handler: Resource, where: Mark | str) -> None:
        """Run a declared handler on the host; `where` it is, for an error."""
        raise NotImplementedError

    def listen(self, say: Callable[[str, str], None]) -> None:
        """Hand on what commands print, line by line, without secrets (`model.Talking`)."""
        self._say = say

    def _needs_machine(self, resource: Resource) -> FazaiError | None:
        if not self._root or not self._kinds[resource.kind].machine:
            return None
        text = f"{resource.kind} needs a running machine, and {self._target.name} is a folder"
        hint = "leave it out: when: root is not defined"
        return NotAvailable(text, where=resource.mark or self._target.name, hint=hint)

    def _at(self, path: str) -> str:
        return f"{self._root}{path}" if self._root else path
