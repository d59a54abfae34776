"""Declared resources, prepared once for all hosts: which fields are templates, secret, files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from fazai.errors import FazaiError, InputError, Mark, PlaybookError
from fazai.model import Kind, Secret, Value
from fazai.playbook.nodes import DeclaredResource, Play
from fazai.template import is_static
from fazai.yamltext import YamlMap


class FieldOrigins(Mapping[str, Mark]):
    """The places of the fields of a mapping, found when they are asked for: most never are."""

    __slots__ = ("_fields",)

    def __init__(self, fields: YamlMap) -> None:
        self._fields = fields

    def __getitem__(self, name: str) -> Mark:
        if name not in self._fields:
            raise KeyError(name)
        return self._fields.mark(name)

    def __contains__(self, name: object) -> bool:
        return name in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


@dataclass(slots=True, eq=False)
class PreparedResource:
    """A declared resource of a play, or of a group or host (`play` None)."""

    declared: DeclaredResource
    kind: Kind
    play: Play | None
    tags: tuple[str, ...]
    dynamic: tuple[str, ...]  # fields that are templates
    hidden: tuple[str, ...]  # fields whose text is a secret
    origins: Mapping[str, Mark]
    files: tuple[str, ...]  # fields that name a file of ours whose content is meant
    same: bool  # for all hosts
    reused: bool  # by more than one host
    pieces: tuple[ExpandedResource, ...] | None = None  # once they are known, when they are the same

    def excerpt(self, name: str | None = None) -> str | None:
        """The line of a field (or of the resource), unless it may hold a secret."""
        fields = self.declared.fields
        if name is None or not isinstance(fields, YamlMap) or name not in fields:
            return self.declared.node.excerpt(self.declared.kind)
        return None if name in self.hidden else fields.excerpt(name)


@dataclass(slots=True, eq=False)
class ExpandedResource:
    """One item as one declaration wants it. `shared`: the same object for all hosts."""

    source: PreparedResource
    identity: str
    fields: Mapping[str, Value]
    origins: Mapping[str, Mark]
    state: str = "present"
    name: str | None = None
    adopt: bool | None = None
    notify: tuple[str, ...] = ()
    listen: tuple[str, ...] = ()
    shared: bool = False

    @property
    def mark(self) -> Mark:
        return self.source.declared.mark


@dataclass(slots=True)
class ResourcePreparer:
    """Prepares declared resources; an unknown kind is reported once."""

    kinds: Callable[[str], Kind]
    wrong: Callable[[FazaiError], None]
    _kinds: dict[str, Kind | InputError] = field(default_factory=dict)

    def prepare(
        self, declared: DeclaredResource, play: Play | None = None, *, reused: bool = True
    ) -> PreparedResource | None:
        """Prepare a resource; None, with the error to `wrong`, if there is no such kind."""
        kind = self._find_kind(declared)
        if kind is None:
            return None
        fields = declared.fields
        dynamic = (
            tuple(name for name, value in fields.items() if not is_static(value))
            if isinstance(fields, YamlMap)
            else ()
        )
        rest = (declared.state, declared.name, declared.adopt, declared.notify, declared.listen)
        rendered = tuple(name for name, spec in kind.fields.items() if spec.type == "template")
        same = (
            isinstance(fields, YamlMap)
            and not dynamic
            and not any(name in fields for name in rendered)
            and declared.loop is None
            and (declared.when is None or declared.when is True)
            and all(is_static(value) for value in rest)
        )
        return PreparedResource(
            declared,
            kind,
            play,
            tuple(dict.fromkeys((*(play.tags if play is not None else ()), *declared.tags))),
            dynamic,
            tuple(name for name, spec in kind.fields.items() if spec.secret or spec.type == "secret"),
            FieldOrigins(fields) if isinstance(fields, YamlMap) else {},
            (*(name for name, spec in kind.fields.items() if spec.type == "source"), *rendered),
            same,
            reused,
        )

    def _find_kind(self, declared: DeclaredResource) -> Kind | None:
        known = self._kinds.get(declared.kind)
        if known is None:
            try:
                known = self.kinds(declared.kind)
            except InputError as error:
                known = error
            self._kinds[declared.kind] = known
        if isinstance(known, InputError):
            excerpt = declared.node.excerpt(declared.kind)
            self.wrong(PlaybookError(known.message, where=declared.mark, hint=known.hint, excerpt=excerpt))
            return None
        return known


def conceal_fields(source: PreparedResource, fields: dict[str, Value]) -> dict[str, Value]:
    """The fields, with the text of secret ones as Secrets."""
    for name in source.hidden:
        value = fields.get(name)
        if isinstance(value, str):
            fields[name] = Secret(value)
    return fields
