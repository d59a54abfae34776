"""Resolution of inventory and plays to the work on each target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Final

from fazai.errors import FazaiError, InventoryError, PlaybookError, spelling_hint
from fazai.inventory import Inventory
from fazai.inventory.patterns import select_hosts
from fazai.model import Kind, ListChecking, Provider, Resource, TargetWork, Value, Work, has_role
from fazai.playbook.expanding import ResourceExpander
from fazai.playbook.grammar import read_resources
from fazai.playbook.merging import ResourceMerger
from fazai.playbook.nodes import Play, Selection
from fazai.playbook.prepared import ExpandedResource, PreparedResource, ResourcePreparer
from fazai.playbook.problems import ProblemCollector
from fazai.playbook.scopes import HostScopes
from fazai.playbook.selecting import ResourceChooser
from fazai.playbook.targets import TargetBuilder
from fazai.template import Scope, Templates
from fazai.yamltext import OnFileRead, YamlList

if TYPE_CHECKING:
    from fazai.secrets import SecretReader

_REST: Final = "inventory"
#: A play's variables are not a target's options; these names would surely be meant as such.
_OPTIONS_ONLY: Final = ("provider", "mode", "base_url", "secret")


def resolve_work(
    inventory: Inventory,
    plays: Sequence[Play],
    *,
    providers: Callable[[str], Provider],
    kinds: Callable[[str], Kind],
    selection: Selection,
    extra_vars: Mapping[str, Value],
    secrets: SecretReader,
    on_read: OnFileRead | None = None,
    left_out: Callable[[Sequence[str]], object] = lambda _: None,
    misnamed: Callable[[str, str, Sequence[str]], object] = lambda *_: None,
    before: Sequence[FazaiError] = (),
    whole: bool = True,
) -> tuple[Work, ...]:
    """Resolve inventory and plays to work: one Work for each play, and one for the hosts in none.

    Nothing is contacted. `on_read` is called with each file whose content or template a resource wants, and
    each list of hosts; `left_out` with the hosts for which no provider is named; `misnamed` with a variable
    that is almost named as an option, that option and the hosts. `before` are errors of reading all this,
    raised with those found here; `whole`: no host, group or variable was lost by them. Raises Errors:
    templates, options, kinds, fields, secrets, contradictions, selections that match nothing.
    """
    problems = ProblemCollector(before, whole=whole)
    resolver = _Resolver(
        inventory, plays, providers, kinds, selection, extra_vars, secrets, on_read, problems
    )
    works = resolver.resolve()
    left_out(resolver.left_out)
    for name, (meant, hosts) in resolver.misnamed.items():
        misnamed(name, meant, hosts)
    return works


#: A list of resources, and the play that it is from.
_PreparedLayer = tuple[Play | None, tuple[PreparedResource, ...]]


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
        on_read: OnFileRead | None,
        problems: ProblemCollector,
    ) -> None:
        self._inventory = inventory
        self._plays = plays
        self._selection = selection
        self._on_read = on_read
        self._problems = problems
        self._scopes = HostScopes(inventory, Templates(secrets=secrets.read), extra_vars)
        self._targets = TargetBuilder(inventory, self._scopes, providers, secrets, self._problems)
        self._sources = ResourcePreparer(kinds, self._problems.add)
        self._expander = ResourceExpander(extra_vars, self._problems, on_read)
        self._merger = ResourceMerger(self._problems)
        self._chooser = ResourceChooser(selection)
        self._lists: dict[int, tuple[YamlList, tuple[PreparedResource, ...]]] = {}
        self._lone = _lone_lists(inventory)
        self._prepared: dict[Play, tuple[PreparedResource, ...]] = {}
        self.left_out: list[str] = []
        self.misnamed = self._targets.misnamed

    def resolve(self) -> tuple[Work, ...]:
        """Return the work of all plays and of the rest. Raises Errors."""
        chosen = self._choose_hosts()
        members = [self._play_hosts(play, chosen) for play in self._plays]
        done: dict[str, TargetWork | None] = {}
        for host in chosen:
            plays = [play for play, hosts in zip(self._plays, members, strict=True) if host in hosts]
            done[host] = self._resolve_host(host, plays)
        self._check_unique([work for work in done.values() if work is not None])
        self._problems.extend(self._chooser.problems() if self._problems.count == 0 else ())
        if self._problems.count:
            self._check_idle()
        self._problems.check()
        if not any(done.values()):
            raise _no_target_error(chosen)
        works: list[Work] = []
        left = dict.fromkeys(chosen)
        for play, hosts in zip(self._plays, members, strict=True):
            own = [host for host in hosts if host in left]
            for host in own:
                del left[host]
            works.extend(_make_works(play.name, [done[host] for host in own], play))
        works.extend(_make_works(_REST, [done[host] for host in left], None))
        return tuple(works)

    def _choose_hosts(self) -> dict[str, None]:
        """The hosts that are meant, in the inventory's order. Raises InventoryError, Errors."""
        if not self._selection.limit:
            return dict.fromkeys(self._inventory.hosts)
        try:
            wanted = frozenset(select_hosts(self._inventory, self._selection.limit, on_read=self._on_read))
        except FazaiError as error:
            self._problems.add_absence(error)
            return dict.fromkeys(self._inventory.hosts)
        return {host: None for host in self._inventory.hosts if host in wanted}

    def _play_hosts(self, play: Play, chosen: Mapping[str, None]) -> dict[str, None]:
        """The chosen hosts of a play, in the order of its pattern."""
        self._check_vars(play)
        try:
            hosts = select_hosts(self._inventory, play.hosts, empty_ok=True, on_read=self._on_read)
        except FazaiError as error:
            for each in error.errors:
                each.where = each.where or play.node.mark("hosts")
                each.excerpt = each.excerpt or play.node.excerpt("hosts")
            self._problems.add_absence(error)
            return {}
        return {host: None for host in hosts if host in chosen}

    def _check_vars(self, play: Play) -> None:
        for name in _OPTIONS_ONLY:
            if play.vars and name in play.vars:
                text = f"{name} is an option of the target, and a play cannot set it"
                where, hint = play.vars.mark(name), "set it in the inventory"
                self._problems.add(PlaybookError(text, where=where, hint=hint))

    def _resolve_host(self, host: str, plays: Sequence[Play]) -> TargetWork | None:
        """Resolve one host; None if it is no target, or something is wrong with it."""
        layers: list[_PreparedLayer] = [(play, self._prepare_play(play)) for play in plays if play.resources]
        layers += [
            (None, self._prepare_list(resources, reused=id(resources) not in self._lone))
            for resources in self._inventory.layers(host)
        ]
        provider = self._targets.provider(host)
        if provider is None:
            self.left_out.append(host)  # or its provider is wrong, which ends it all
            self._check_alone(host, layers)
            return None
        target = self._targets.build(host, provider)
        pieces = [self._expand_layer(host, provider, play, sources) for play, sources in layers]
        merged = self._merger.merge(host, pieces)
        handlers = tuple(each for each in merged if each.listen)
        resources = tuple(each for each in merged if not each.listen) if handlers else merged
        if has_role(provider, ListChecking):  # type: ignore[type-abstract]
            self._problems.extend(provider.check_list(resources), host)
        if getattr(provider, "handlers", False):
            self._check_notified(host, resources, handlers)
        wanted = self._chooser.choose(resources)
        if target is None or (self._selection.filters and not wanted):
            return None
        whole = wanted is resources and not self._selection.filters  # who filters does not mean to prune
        return TargetWork(target, wanted, whole, handlers)

    def _check_unique(self, works: Sequence[TargetWork]) -> None:
        """Report a unique value that stands on two targets."""
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
        """Report names that are notified and that no handler listens to: it would never run. While there are
        other errors, the handler may be among them."""
        known = {name for handler in handlers for name in handler.listen}
        for resource in resources:
            for name in resource.notify:
                near = spelling_hint(name, known)
                if name not in known and (near or not self._problems.count):
                    hint = near or "declare it below handlers:, or with listen:"
                    text = f'no handler listens to "{name}"'
                    self._problems.add(PlaybookError(text, where=resource.mark, hint=hint), host)

    def _check_alone(self, host: str, layers: Iterable[_PreparedLayer]) -> None:
        """Report resources on a host that no provider is named for."""
        if self._scopes.raw(host).get("provider") is not None:
            return  # there is one, and it is wrong: that is said already
        first = next((sources[0] for _, sources in layers if sources), None)
        if first is not None:
            text = "resources for a host that has no provider"
            hint = "set provider: for the host, or leave it out of hosts:"
            error = PlaybookError(text, where=first.declared.mark, hint=hint, excerpt=first.excerpt())
            self._problems.add_absence(error, host)

    def _check_idle(self) -> None:
        """Look for errors in resources of no chosen host: once there are errors, all are reported. Only
        what is the same for all hosts can be checked."""
        lists = [self._prepare_play(play) for play in self._plays]
        lists += [
            self._prepare_list(resources, reused=True)
            for group in self._inventory.groups.values()
            for resources in group.resources
        ]
        for sources in lists:
            found = [self._expander.expand(each, "", self._no_scope) for each in sources if each.same]
            self._merger.merge(None, [[piece for pieces in found for piece in pieces]])

    def _no_scope(self) -> Scope:
        raise AssertionError("what is the same for all hosts has no template")

    def _expand_layer(
        self, host: str, provider: Provider, play: Play | None, sources: tuple[PreparedResource, ...]
    ) -> list[ExpandedResource]:
        """Expand a layer for the host."""
        scoped = cache(lambda: self._scopes.host(host, play))
        found: list[ExpandedResource] = []
        for source in sources:
            pieces = self._expander.expand(source, host, scoped)
            if pieces and source.kind.name not in provider.kinds:
                text = f'{source.kind.name} is no kind of the provider "{provider.name}"'
                where, hint = source.declared.mark, f"leave it out there: when: provider != '{provider.name}'"
                error = PlaybookError(text, where=where, hint=hint, excerpt=source.excerpt())
                self._problems.add(error, host)
                continue
            found += pieces
        return found

    def _prepare_play(self, play: Play) -> tuple[PreparedResource, ...]:
        known = self._prepared.get(play)
        if known is None:
            prepared = [self._sources.prepare(declared, play) for declared in play.resources]
            known = self._prepared[play] = tuple(each for each in prepared if each is not None)
        return known

    def _prepare_list(self, resources: YamlList, *, reused: bool) -> tuple[PreparedResource, ...]:
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


def _no_target_error(chosen: Iterable[str]) -> InventoryError:
    """Return the error for a run without targets, in which all would seem well."""
    if not list(chosen):
        return InventoryError("the inventory has no hosts", hint="hosts stand below `all:` and `hosts:`")
    text = "no host that was chosen has a provider, so there is nothing to look at"
    hint = "write provider: opnsense, ssh or local among the variables of the hosts, in the inventory"
    return InventoryError(text, hint=hint)


def _lone_lists(inventory: Inventory) -> frozenset[int]:
    """The lists of resources that one host has for itself; the hosts of a range share theirs."""
    count = Counter(id(resources) for host in inventory.hosts.values() for resources in host.resources)
    return frozenset(number for number, hosts in count.items() if hosts == 1)


def _make_works(name: str, items: Iterable[TargetWork | None], play: Play | None) -> list[Work]:
    targets = tuple(item for item in items if item is not None)
    if not targets:
        return []
    serial = tuple(count_share(size, len(targets)) or 1 for size in play.serial) if play is not None else ()
    max_fail = None if play is None or play.max_fail is None else count_share(play.max_fail, len(targets))
    return [Work(name, targets, serial, max_fail)]


def count_share(size: int | str, count: int) -> int:
    """Convert a number or a percentage of `count` targets to a number."""
    return size if isinstance(size, int) else count * int(size.rstrip("%")) // 100
