"""Expansion of a declared resource for one host: conditions, loops, templates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from fazai.errors import FazaiError, Mark, PlaybookError, spelling_hint
from fazai.model import Problem, Secret, Value
from fazai.playbook.files import ContentFiles
from fazai.playbook.nodes import DeclaredResource, split_texts
from fazai.playbook.prepared import ExpandedResource, PreparedResource, conceal_fields
from fazai.playbook.problems import ProblemCollector
from fazai.template import OMIT, Scope, UndefinedName, describe_type
from fazai.yamltext import OnFileRead, YamlMap

_LOOP_MAX: Final = 10_000
_STATES: Final = ("present", "absent")


class ResourceExpander:
    """Expands prepared resources for hosts; errors go into `problems`, once for what all hosts share."""

    def __init__(
        self, extra: Mapping[str, Value], problems: ProblemCollector, on_read: OnFileRead | None = None
    ) -> None:
        self._extra = extra
        self._files = ContentFiles(on_read)
        self._problems = problems

    def expand(
        self, source: PreparedResource, host: str, scope: Callable[[], Scope]
    ) -> tuple[ExpandedResource, ...]:
        """Return the pieces for a host. `scope` is asked for only if there is a template."""
        if source.pieces is not None:
            return source.pieces
        if source.same:
            piece = self._render_piece(source, None, None)
            source.pieces = () if piece is None else (piece,)
            return source.pieces
        declared = source.declared
        try:
            scopes = self._loop_scopes(declared, scope())
        except FazaiError as error:
            self._report_error(source, error, host, declared.node.mark("loop"))
            return ()
        found = [self._expand_once(source, host, each) for each in scopes]
        return tuple(piece for piece in found if piece is not None)

    def _loop_scopes(self, declared: DeclaredResource, scope: Scope) -> list[Scope]:
        """Return one scope for each item of the loop."""
        if declared.loop is None:
            return [self._with_vars(declared, scope)]
        try:
            items = scope.render(declared.loop)
        except UndefinedName:
            if declared.when is not None and not scope.test(declared.when, declared.node.mark("when")):
                return []
            raise
        if not isinstance(items, list):
            text = f"loop: takes a list, and the template gives {describe_type(items)}"
            raise PlaybookError(text, hint="a mapping becomes one with | dict2items")
        if len(items) > _LOOP_MAX:
            raise PlaybookError(f"loop: has more than {_LOOP_MAX} items")
        found = []
        for index, item in enumerate(items):
            names = {declared.loop_var: item}
            if declared.index_var is not None:
                names[declared.index_var] = index
            found.append(self._with_vars(declared, scope.having(names)))
        return found

    def _with_vars(self, declared: DeclaredResource, scope: Scope) -> Scope:
        """Put the resource's own variables on top; extra variables win over them, too."""
        if not declared.vars:
            return scope
        names = {name: value for name, value in declared.vars.items() if name not in self._extra}
        return scope.child(names, declared.vars.mark)

    def _expand_once(self, source: PreparedResource, host: str, scope: Scope) -> ExpandedResource | None:
        when = source.declared.when
        if when is not None:
            try:
                if not scope.test(when):
                    return None
            except FazaiError as error:
                self._report_error(source, error, host, source.declared.node.mark("when"))
                return None
        return self._render_piece(source, host, scope)

    def _render_piece(
        self, source: PreparedResource, host: str | None, scope: Scope | None
    ) -> ExpandedResource | None:
        """Render what is declared; None if something is wrong with it. Without a scope, for all hosts."""
        return _PieceRenderer(source, host, scope, self._files, self._problems).render()

    def _report_error(self, source: PreparedResource, error: FazaiError, host: str, place: Mark) -> None:
        _PieceRenderer(source, host, None, self._files, self._problems).report_error(error, place)


@dataclass(frozen=True, slots=True)
class _PieceRenderer:
    """Renders one resource for one host, or for all of them (no `host`, no `scope`)."""

    source: PreparedResource
    host: str | None
    scope: Scope | None
    files: ContentFiles
    problems: ProblemCollector

    def render(self) -> ExpandedResource | None:
        """Render what is declared; None if something is wrong with it."""
        source, before = self.source, self.problems.count
        fields, origins = self._render_fields()
        self._insert_contents(fields, origins)
        declared = source.declared
        state = self._render_beside("state", declared.state)
        name = self._render_beside("name", declared.name)
        adopt = self._render_beside("adopt", declared.adopt)
        notify = self._render_names("notify", declared.notify)
        listen = self._render_names("listen", declared.listen)
        if state is not None and state not in _STATES:
            hint = spelling_hint(state, _STATES) if isinstance(state, str) else None
            self._report("state", "state: is present or absent", hint)
        if adopt is not None and not isinstance(adopt, bool):
            self._report("adopt", "adopt: is true or false", "add | bool")
        if listen and not getattr(source.kind, "runs", False):
            text = f"{source.kind.name} cannot be a handler: there is nothing in it to run"
            self._report(None, text, "a handler is host.command, or a kind that restarts")
        identity = None if self.problems.count > before else self._identify(fields, origins)
        if identity is None:
            return None
        return ExpandedResource(
            source,
            identity,
            fields,
            origins,
            state or "present",
            None if name is None else str(name),
            adopt,
            notify,
            listen,
            shared=self.scope is None and source.reused,
        )

    def _render_fields(self) -> tuple[dict[str, Value], Mapping[str, Mark]]:
        source, written = self.source, self.source.declared.fields
        if isinstance(written, str):
            return self._render_whole(written)
        fields = dict(written)
        for name in source.dynamic:
            assert self.scope is not None
            try:
                value = self.scope.render(written[name], sensitive=name in source.hidden)
            except FazaiError as error:
                self.report_error(error, source.origins[name])
                continue
            if value is OMIT:
                del fields[name]
            else:
                fields[name] = value
        return conceal_fields(source, fields), source.origins

    def _render_whole(self, template: str) -> tuple[dict[str, Value], Mapping[str, Mark]]:
        """Render `kind: "{{ item }}"`: one template that gives all fields."""
        declared = self.source.declared
        place = declared.node.mark(declared.kind)
        assert self.scope is not None
        try:
            value = self.scope.render(template)
            if not isinstance(value, dict) or not value:
                text = f"{declared.kind}: takes a mapping of fields, and the template gives none"
                raise PlaybookError(text, hint=f"for an example: fazai kinds {declared.kind}")
        except FazaiError as error:
            self.report_error(error, place)
            return {}, {}
        origins = {name: value.mark(name) if isinstance(value, YamlMap) else place for name in value}
        return conceal_fields(self.source, dict(value)), origins

    def _insert_contents(self, fields: dict[str, Value], origins: Mapping[str, Mark]) -> None:
        """Replace the names of files by their content; templates are rendered."""
        for name in self.source.files:
            if isinstance(path := fields.get(name), str):
                place = origins.get(name) or self.source.declared.mark
                type_ = self.source.kind.fields[name].type
                try:
                    fields[name] = self.files.content(path, place, type_, self.scope)
                except FazaiError as error:
                    self.report_error(error, place)

    def _render_beside(self, key: str, value: Value) -> Value:
        """Render a key that stands beside the fields, such as `state`."""
        if value is None or self.scope is None:
            return value
        try:
            value = self.scope.render(value)
        except FazaiError as error:
            self.report_error(error, self.source.declared.node.mark(key))
            return None
        return None if value is OMIT else value

    def _render_names(self, key: str, value: Value) -> tuple[str, ...]:
        """Render `notify:` or `listen:`, a text or a list of texts."""
        rendered = self._render_beside(key, value)
        names = () if rendered is None else split_texts(rendered)
        if names is None:
            self._report(key, f"{key}: takes a text, or a list of texts")
        return names or ()

    def _identify(self, fields: Mapping[str, Value], origins: Mapping[str, Mark]) -> str | None:
        kind = self.source.kind
        for name in kind.identity:
            if isinstance(fields.get(name), Secret):
                self._report(None, f"{kind.name}: {name} names the item, and cannot be a secret")
                return None
        found = kind.identify(fields)
        if not isinstance(found, Problem):
            return found
        self.problems.add(field_error(self.source, found, origins, kind.name), self.host)
        return None

    def _report(self, key: str | None, message: str, hint: str | None = None) -> None:
        declared = self.source.declared
        place = declared.node.mark(key) if key is not None else declared.mark
        excerpt = declared.node.excerpt(key if key is not None else declared.kind)
        self.problems.add(PlaybookError(message, where=place, hint=hint, excerpt=excerpt), self.host)

    def report_error(self, error: FazaiError, place: Mark) -> None:
        """Report what a template caused at this place."""
        if error.where is None:
            error.where = place
        if error.excerpt is not None and isinstance(error.where, Mark):  # the template: its line says more
            line = self.source.declared.node.source.excerpt(error.where)
            error.excerpt = line if line is not None and error.excerpt in line else error.excerpt
        self.problems.add(error, self.host)


def field_error(
    source: PreparedResource, problem: Problem, origins: Mapping[str, Mark], label: str
) -> PlaybookError:
    """Return the error for a problem that a kind found, at the place of the field."""
    name = problem.field
    if name is not None and name not in origins:
        name = name.partition(".")[0]  # the kind's name for a part of a mapping
    place = origins.get(name) if name is not None else None
    what = f"{problem.field}: " if problem.field is not None else ""
    return PlaybookError(
        f"{label}: {what}{problem.message}",
        where=place or source.declared.mark,
        hint=problem.hint,
        excerpt=source.excerpt(name if place is not None else None),
    )
