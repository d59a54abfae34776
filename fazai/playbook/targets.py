"""Targets from the variables of hosts: the provider's options, rendered, typed, with their places."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fazai.errors import (
    FazaiError,
    InputError,
    InventoryError,
    Mark,
    MissingOption,
    SecretError,
    did_you_mean,
    spelling_hint,
)
from fazai.inventory import Inventory
from fazai.model import FieldSpec, Provider, Secret, Target, Value
from fazai.playbook.problems import ProblemCollector
from fazai.playbook.scopes import HostScopes
from fazai.template import OMIT, Scope, is_static

if TYPE_CHECKING:
    from fazai.secrets import SecretReader

#: Options that every target has, whatever its provider.
COMMON_OPTIONS: Final[Mapping[str, FieldSpec]] = {
    spec.name: spec
    for spec in (
        FieldSpec("owner", "text", "whose items these are; another owner's are never touched"),
        FieldSpec("adopt", "boolean", "take over items that others made", default=False),
        FieldSpec("prune", "any", "delete our items that are no longer listed", default=False),
        FieldSpec("max_prune", "any", "how many items a run may prune", default="10%"),
        FieldSpec("protected", "list", "names (globs) of items that are never deleted"),
        FieldSpec("timeout", "number", "seconds for one operation", minimum=1),
    )
}
_MODES: Final = ("read", "write")
_SHAPES: Final[Mapping[str, tuple[type, str]]] = {
    "boolean": (bool, "is true or false"),
    "list": (list, "is a list"),
    "map": (dict, "is a mapping"),
}
_PEM: Final = "-----BEGIN"
#: Names that other tools have for an option.
_OTHER_NAMES: Final = dict.fromkeys(("key_file", "private_key", "private_key_file", "identity_file"), "key")


@dataclass(slots=True)
class TargetBuilder:
    """Builds targets; what is wrong with one goes into `problems`."""

    inventory: Inventory
    scopes: HostScopes
    providers: Callable[[str], Provider]
    secrets: SecretReader
    problems: ProblemCollector
    #: Variables that are surely meant as options and are none: the name to the option's, and the hosts.
    misnamed: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    _meant: dict[tuple[str, str], str | None] = field(default_factory=dict)

    def provider(self, host: str) -> Provider | None:
        """The provider that the host names; None if it names none, or one that is not there."""
        raw = self.scopes.raw(host).get("provider")
        if raw is None:
            return None
        try:
            name = raw if is_static(raw) else self.scopes.host(host).render(raw)
            if name is None or name is OMIT:
                return None
            if not isinstance(name, str) or not name:
                raise InventoryError("provider is the name of a provider", hint="provider: opnsense")
            return self.providers(name)
        except FazaiError as error:
            self._report(host, "provider", error)
            return None

    def build(self, host: str, provider: Provider) -> Target | None:
        """The target, or None if there is something wrong with it."""
        specs = {**COMMON_OPTIONS, **provider.options}
        raw = self.scopes.raw(host)
        self._look_for_misnamed(host, provider, specs, raw)
        scope: Scope | None = None
        options: dict[str, Value] = {}
        before = self.problems.count
        mode: str = getattr(provider, "default_mode", "read")
        for name in (*specs, "mode"):
            if name not in raw or raw[name] is None:
                continue
            value = raw[name]
            try:
                if not is_static(value):
                    scope = scope or self.scopes.host(host)
                    value = scope.render(value, sensitive=name != "mode" and specs[name].secret)
                if value is OMIT or value is None:
                    continue
                if name == "mode":
                    mode = _check_mode(value)
                else:
                    options[name] = self._convert_option(host, specs[name], value, specs)
            except FazaiError as error:
                self._report(host, name, error)
        self._look_up_secret(host, provider, specs, options)
        target = Target(
            name=host,
            provider=provider.name,
            mode=mode,
            options=options,
            groups=self.inventory.host(host).groups,
            mark=self.inventory.host(host).mark,
            marks=self._find_marks(host, (*options, "mode") if "mode" in raw else tuple(options)),
        )
        return target if self.problems.count == before and self._is_right(target, provider, raw) else None

    def _is_right(self, target: Target, provider: Provider, raw: Mapping[str, Value]) -> bool:
        """Ask the provider about a target, and report all that is wrong with it."""
        host, specs = target.name, {**COMMON_OPTIONS, **provider.options}
        found = provider.check(target)
        for each in found:
            if isinstance(each, MissingOption):
                each.hint = _misnamed_hint(each.option, specs, raw) or each.hint
                self.problems.add_absence(each, host)
            else:
                self.problems.add(each, host)
        return not found

    def _look_for_misnamed(
        self, host: str, provider: Provider, specs: Mapping[str, FieldSpec], raw: Mapping[str, Value]
    ) -> None:
        """Note variables that are almost named as an option: any variable may be there, and a misspelt
        option would have no effect without a word."""
        for name in raw:
            if "_" not in name or name in specs:
                continue
            key = (provider.name, name)
            if key not in self._meant:
                named = _OTHER_NAMES.get(name)
                self._meant[key] = named if named in specs else did_you_mean(name, specs, cutoff=0.87)
            if (meant := self._meant[key]) is not None:
                self.misnamed.setdefault(name, (meant, []))[1].append(host)

    def _look_up_secret(
        self, host: str, provider: Provider, specs: Mapping[str, FieldSpec], options: dict[str, Value]
    ) -> None:
        """Take the secret from the secrets folder, for a target that names none."""
        if "secret" not in specs or self.scopes.raw(host).get("secret") is not None:
            return
        try:
            found = self.secrets.lookup(provider.name, host, self.inventory.host(host).mark)
        except FazaiError as error:
            self.problems.add(error, host)
            return
        if found is not None:
            options["secret"] = found

    def _convert_option(
        self, host: str, spec: FieldSpec, value: Value, specs: Mapping[str, FieldSpec]
    ) -> Value:
        """The value of an option as the provider gets it. Raises InventoryError, SecretError."""
        if spec.secret or spec.type == "secret":
            return self.secrets.wrap(value)
        if spec.name == "ca" and isinstance(value, str) and not value.lstrip().startswith(_PEM):
            return self._resolve_path(host, spec.name, value)
        if spec.type == "path" and isinstance(value, str) and not value.startswith("lab://"):
            return os.path.abspath(self._resolve_path(host, spec.name, os.path.expanduser(value)))
        problem = _type_problem(spec, value)
        if problem is not None:
            raise InventoryError(f"{spec.name} {problem}", hint=_option_purpose(spec, specs))
        return value

    def _resolve_path(self, host: str, name: str, path: str) -> str:
        """Return the path in an option, relative to the file that holds the option."""
        place = self.scopes.place(host, name)
        return os.path.join(os.path.dirname(place.file), path) if place is not None else path

    def _find_marks(self, host: str, names: tuple[str, ...]) -> dict[str, Mark]:
        found = {name: self.scopes.place(host, name) for name in names}
        return {name: mark for name, mark in found.items() if mark is not None}

    def _report(self, host: str, name: str, error: FazaiError) -> None:
        if error.where is None:
            node = self.scopes.node(host, name)
            error.where = node.mark(name) if node is not None else f"--extra-vars {name}"
            if node is not None and error.excerpt is None and not isinstance(error, SecretError):
                error.excerpt = node.excerpt(name)
        if not isinstance(error, InputError):
            raise error
        self.problems.add(error, host)


def _option_purpose(spec: FieldSpec, specs: Mapping[str, FieldSpec]) -> str | None:
    """Return the purpose of an option; for a second name, that of the option it stands for."""
    named = specs.get(spec.doc.removeprefix("as ")) if spec.doc.startswith("as ") else None
    return (named or spec).doc or None


def _check_mode(value: Value) -> str:
    if value in _MODES:
        return str(value)
    hint = spelling_hint(value, _MODES) if isinstance(value, str) else None
    raise InventoryError("mode is read or write", hint=hint or "without it, a target is only looked at")


def _type_problem(spec: FieldSpec, value: Value) -> str | None:
    """Return the problem with the value's type, None if there is none."""
    if isinstance(value, Secret):
        return None if spec.type in ("text", "any") else "cannot be a secret"
    if spec.type in _SHAPES:
        class_, rule = _SHAPES[spec.type]
        return None if isinstance(value, class_) else rule
    if spec.type in ("number", "integer"):
        return _number_problem(spec, value)
    if spec.type == "choice" and value not in spec.choices:
        return f"is one of {', '.join(spec.choices)}"
    if spec.type in ("text", "path") and (isinstance(value, bool | list | dict)):
        return "is a text"
    return None


def _number_problem(spec: FieldSpec, value: Any) -> str | None:
    wanted = "a whole number" if spec.type == "integer" else "a number"
    if isinstance(value, bool) or not isinstance(value, int if spec.type == "integer" else int | float):
        return f"is {wanted}"
    if spec.minimum is not None and value < spec.minimum:
        return f"is {wanted} from {spec.minimum} on"
    if spec.maximum is not None and value > spec.maximum:
        return f"is {wanted} up to {spec.maximum}"
    return None


def _misnamed_hint(option: str, specs: Mapping[str, FieldSpec], raw: Mapping[str, Value]) -> str | None:
    """Return the hint for a missing option: a variable that is set and was probably meant for it."""
    near = did_you_mean(option, (name for name in raw if name not in specs))
    return f'"{near}" is set: was {option} meant?' if near is not None else None
