"""The arrow from inventory and plays to work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from fazai.errors import FazaiError, InventoryError, PlaybookError, did_you_mean
from fazai.inventory import Inventory
from fazai.inventory.patterns import select
from fazai.model import Kind, ListChecking, Provider, Resource, TargetWork, Value, Work
from fazai.playbook.expanding import Expander
from fazai.playbook.grammar import read_resources
from fazai.playbook.merging import Merger
from fazai.playbook.nodes import Play, Selection
from fazai.playbook.problems import Problems
from fazai.playbook.scopes import Scopes
from fazai.playbook.selecting import Chooser
from fazai.playbook.sources import Piece, Source, Sources
from fazai.playbook.targets import Targets
from fazai.template import Scope, Templates
from fazai.yamltext import Seen, YamlList

if TYPE_CHECKING:
    from fazai.secrets import SecretReader

__all__ = ["resolve"]

_REST: Final = "inventory"
#: A play's variables are not a target's options; these names would surely be meant as such.
_OPTIONS_ONLY: Final = ("provider", "mode", "base_url", "secret")


def resolve(
    inventory: Inventory,
    plays: Sequence[Play],
    *,
    providers: Callable[[str], Provider],
    kinds: Callable[[str], Kind],
    selection: Selection,
    extra_vars: Mapping[str, Value],
    secrets: SecretReader,
    seen: Seen | None = None,
    left_out: Callable[[Sequence[str]], object] = lambda _: None,
    misnamed: Callable[[str, str, Sequence[str]], object] = lambda *_: None,
    before: Sequence[FazaiError] = (),
    whole: bool = True,
) -> tuple[Work, ...]:
    """What is wanted on which targets, in which waves: one Work for each play, and one for the rest.
    `seen` hears of each file whose content or template a resource wants, and of each list of hosts.

    Nothing is contacted. Raises Errors with everything that is wrong: templates, options, kinds, fields,
    secrets, contradictions, and selections that match nothing. `left_out` hears of the hosts that are no
    targets, since no provider is named for them, `misnamed` of variables that are almost named as an option,
    with the option and the hosts. `before`: what was wrong in reading all this, raised
    together with what is wrong in the rest; `whole`: no host, group or variable was lost by it.
    """
    problems = Problems(before, whole=whole)
    resolver = _Resolver(inventory, plays, providers, kinds, selection, extra_vars, secrets, seen, problems)
    works = resolver.works()
    left_out(resolver.left_out)
    for name, (meant, hosts) in resolver.misnamed.items():
        misnamed(name, meant, hosts)
    return works


#: A list of resources, and the play that it is from.
_Layer = tuple[Play | None, tuple[Source, ...]]


class _Resolver:
    def __init__(
        self,
        inventory: Inventory,
        plays: Sequence[Play],
        providers: Callable[[str], Provider],
        kinds: Callable[[str], Kind],
        selection: Selection,
        extra_vars: Mapping[str, Value],
        secrets: SecretReader,
        seen: Seen | None,
        problems: Problems,
    ) -> None:
        self._inventory = inventory
        self._plays = plays
        self._selection = selection
        self._seen = seen
        self._problems = problems
        self._scopes = Scopes(inventory, Templates(secrets=secrets.read), extra_vars)
        self._targets = Targets(inventory, self._scopes, providers, secrets, self._problems)
        self._sources = Sources(kinds, self._problems.add)
        self._expander = Expander(extra_vars, self._problems, seen)
        self._merger = Merger(self._problems)
        self._chooser = Chooser(selection)
        self._lists: dict[int, tuple[YamlList, tuple[Source, ...]]] = {}
        self._lone = _lone_lists(inventory)
        self._prepared: dict[Play, tuple[Source, ...]] = {}
        self.left_out: list[str] = []
        self.misnamed = self._targets.misnamed

    def works(self) -> tuple[Work, ...]:
        """Raises Errors."""
        chosen = self._chosen()
        members = [self._members(play, chosen) for play in self._plays]
        done: dict[str, TargetWork | None] = {}
        for host in chosen:
            plays = [play for play, hosts in zip(self._plays, members, strict=True) if host in hosts]
            done[host] = self._target_work(host, plays)
        self._check_unique([work for work in done.values() if work is not None])
        self._problems.extend(self._chooser.problems() if self._problems.count == 0 else ())
        if self._problems.count:
            self._check_idle()
        self._problems.check()
        if not any(done.values()):
            raise _no_target(chosen)
        works: list[Work] = []
        left = dict.fromkeys(chosen)
        for play, hosts in zip(self._plays, members, strict=True):
            own = [host for host in hosts if host in left]
            for host in own:
                del left[host]
            works.extend(_work(play.name, [done[host] for host in own], play))
        works.extend(_work(_REST, [done[host] for host in left], None))
        return tuple(works)

    def _chosen(self) -> dict[str, None]:
        """The hosts that are meant, in the inventory's order. Raises InventoryError, Errors."""
        if not self._selection.limit:
            return dict.fromkeys(self._inventory.hosts)
        try:
            wanted = frozenset(select(self._inventory, self._selection.limit, seen=self._seen))
        except FazaiError as error:
            self._problems.add_absence(error)
            return dict.fromkeys(self._inventory.hosts)
        return {host: None for host in self._inventory.hosts if host in wanted}

    def _members(self, play: Play, chosen: Mapping[str, None]) -> dict[str, None]:
        """The chosen hosts of a play, in the order of its pattern."""
        self._check_vars(play)
        try:
            hosts = select(self._inventory, play.hosts, empty_ok=True, seen=self._seen)
        except FazaiError as error:
            for each in getattr(error, "errors", (error,)):
                each.where = each.where or play.node.mark("hosts")
                each.excerpt = each.excerpt or play.node.excerpt("hosts")
            self._problems.add_absence(error)
            return {}
        return {host: None for host in hosts if host in chosen}

    def _check_vars(self, play: Play) -> None:
        for name in _OPTIONS_ONLY:
            if play.vars and name in play.vars:
                self._problems.add(
                    PlaybookError(
                        f"{name} is an option of the target, and a play cannot set it",
                        where=play.vars.mark(name),
                        hint="set it in the inventory",
                    )
                )

    def _target_work(self, host: str, plays: Sequence[Play]) -> TargetWork | None:
        """What is wanted on a host; None if it is no target, or something is wrong with it."""
        layers: list[_Layer] = [(play, self._of_play(play)) for play in plays if play.resources]
        layers += [
            (None, self._of_list(layer.resources, reused=id(layer.resources) not in self._lone))
            for layer in self._inventory.layers(host)
        ]
        provider = self._targets.provider(host)
        if provider is None:
            self.left_out.append(host)  # or its provider is wrong, which ends it all
            self._check_alone(host, layers)
            return None
        target = self._targets.build(host, provider)
        pieces = [self._pieces(host, provider, play, sources) for play, sources in layers]
        merged = self._merger.merge(host, pieces)
        handlers = tuple(each for each in merged if each.listen)
        resources = tuple(each for each in merged if not each.listen) if handlers else merged
        if isinstance(provider, ListChecking):
            self._problems.extend(provider.check_list(resources), host)
        if getattr(provider, "handlers", False):
            self._check_notified(host, resources, handlers)
        wanted = self._chooser.choose(resources)
        if target is None or (self._selection.filters and not wanted):
            return None
        whole = wanted is resources and not self._selection.filters  # who filters does not mean to prune
        return TargetWork(target, wanted, whole, handlers)

    def _check_unique(self, works: Sequence[TargetWork]) -> None:
        """A value that names a target elsewhere must not name two of them."""
        first: dict[tuple[str, str, Value], str] = {}
        names: dict[str, tuple[str, ...]] = {}  # most kinds have none, and there may be very many resources
        for work in works:
            for resource in work.resources:
                if resource.kind not in names:
                    fields = self._sources.kinds(resource.kind).fields.values()
                    names[resource.kind] = tuple(spec.name for spec in fields if spec.unique)
                for name in names[resource.kind]:
                    value = resource.fields.get(name)
                    known = first.setdefault((resource.kind, name, value), work.target.name)
                    if value is not None and known != work.target.name:
                        text = f'{name}: "{value}" is that of {known}, too'
                        where = resource.origins.get(name) or resource.mark
                        self._problems.add(PlaybookError(text, where=where), work.target.name)

    def _check_notified(self, host: str, resources: Iterable[Resource], handlers: Iterable[Resource]) -> None:
        """Every name that is notified must be listened to: a misspelt handler would never run. While
        something else is wrong, the handler may be what is."""
        known = {name for handler in handlers for name in handler.listen}
        for resource in resources:
            for name in resource.notify:
                near = did_you_mean(name, known)
                if name not in known and (near or not self._problems.count):
                    hint = near or "declare it below handlers:, or with listen:"
                    text = f'no handler listens to "{name}"'
                    self._problems.add(PlaybookError(text, where=resource.mark, hint=hint), host)

    def _check_alone(self, host: str, layers: Iterable[_Layer]) -> None:
        """Resources on a host that no provider is named for."""
        if self._scopes.raw(host).get("provider") is not None:
            return  # there is one, and it is wrong: that is said already
        for _, sources in layers:
            if sources:
                error = PlaybookError(
                    "resources for a host that has no provider",
                    where=sources[0].declared.mark,
                    hint="set provider: for the host, or leave it out of hosts:",
                    excerpt=sources[0].excerpt(),
                )
                self._problems.add_absence(error, host)
                return

    def _check_idle(self) -> None:
        """Looks at what is wanted on no host, or on none that was chosen: as something is wrong already, all
        is said that is. What the hosts have no part in can be known."""
        lists = [self._of_play(play) for play in self._plays]
        lists += [
            self._of_list(resources, reused=True)
            for group in self._inventory.groups.values()
            for resources in group.resources
        ]
        for sources in lists:
            pieces = [
                piece
                for source in sources
                if source.same
                for piece in self._expander.expand(source, "", self._no_scope)
            ]
            self._merger.merge(None, [pieces])

    def _no_scope(self) -> Scope:
        raise AssertionError("what is the same for all hosts has no template")

    def _pieces(
        self, host: str, provider: Provider, play: Play | None, sources: tuple[Source, ...]
    ) -> list[Piece]:
        """What a layer says of the host."""
        scope: Scope | None = None

        def scoped() -> Scope:
            nonlocal scope
            if scope is None:
                scope = self._scopes.host(host, play)
            return scope

        found: list[Piece] = []
        for source in sources:
            pieces = self._expander.expand(source, host, scoped)
            if pieces and source.kind.name not in provider.kinds:
                error = PlaybookError(
                    f'{source.kind.name} is no kind of the provider "{provider.name}"',
                    where=source.declared.mark,
                    hint=f"leave it out there: when: provider != '{provider.name}'",
                    excerpt=source.excerpt(),
                )
                self._problems.add(error, host)
                continue
            found += pieces
        return found

    def _of_play(self, play: Play) -> tuple[Source, ...]:
        known = self._prepared.get(play)
        if known is None:
            prepared = [self._sources.prepare(declared, play) for declared in play.resources]
            known = self._prepared[play] = tuple(each for each in prepared if each is not None)
        return known

    def _of_list(self, resources: YamlList, *, reused: bool) -> tuple[Source, ...]:
        """The sources of a list of the inventory; kept if they are needed again."""
        known = self._lists.get(id(resources))
        if known is not None:
            return known[1]
        declared, errors = read_resources(resources)
        self._problems.extend(errors)
        prepared = [self._sources.prepare(each, reused=reused) for each in declared]
        sources = tuple(each for each in prepared if each is not None)
        if reused:
            self._lists[id(resources)] = (resources, sources)
        return sources


def _no_target(chosen: Iterable[str]) -> InventoryError:
    """A run over nothing would be a run in which all is well."""
    if not list(chosen):
        return InventoryError("the inventory has no hosts", hint="hosts stand below `all:` and `hosts:`")
    return InventoryError(
        "no host that was chosen has a provider, so there is nothing to look at",
        hint="write provider: opnsense, ssh or local among the variables of the hosts, in the inventory",
    )


def _lone_lists(inventory: Inventory) -> frozenset[int]:
    """The lists of resources that one host has for itself; the hosts of a range share theirs."""
    count = Counter(id(resources) for host in inventory.hosts.values() for resources in host.resources)
    return frozenset(number for number, hosts in count.items() if hosts == 1)


def _work(name: str, items: Iterable[TargetWork | None], play: Play | None) -> list[Work]:
    targets = tuple(item for item in items if item is not None)
    if not targets:
        return []
    serial = tuple(_share(size, len(targets)) or 1 for size in play.serial) if play is not None else ()
    max_fail = None if play is None or play.max_fail is None else _share(play.max_fail, len(targets))
    return [Work(name, targets, serial, max_fail)]


def _share(size: int | str, count: int) -> int:
    """A number, or that percentage of the targets."""
    return size if isinstance(size, int) else count * int(size.rstrip("%")) // 100
