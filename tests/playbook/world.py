"""A small world: two providers with real, if simple, kinds, and a folder with an inventory and playbooks."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fazai.errors import Errors, FazaiError, InputError, InventoryError, MissingOption, spelling_hint
from fazai.inventory import load_inventory
from fazai.model import (
    FieldSpec,
    Kind,
    Problem,
    Resource,
    Secret,
    Session,
    Target,
    TargetWork,
    Value,
    Work,
)
from fazai.playbook import Selection, load_playbooks, resolve_work
from fazai.secrets import SecretReader


class ThingKind:
    """`box.thing`: named, with fields of every type. `ports` may be one text; it becomes a list."""

    ordered = False
    example = ""

    def __init__(self, name: str, identity: tuple[str, ...] = ("name",)) -> None:
        self.name = name
        self.summary = "a thing"
        self.identity = identity
        self.fields: Mapping[str, FieldSpec] = {
            spec.name: spec
            for spec in (
                FieldSpec("name", "text", required=True),
                FieldSpec("zone", "text"),
                FieldSpec("ports", "list"),
                FieldSpec("count", "integer"),
                FieldSpec("enabled", "boolean"),
                FieldSpec("note", "text"),
                FieldSpec("password", "secret", secret=True),
                FieldSpec("part.size", "integer"),
            )
        }
        self.normalised = 0

    def identify(self, fields: Mapping[str, Value]) -> str | Problem:
        for name in self.identity:
            if not isinstance(fields.get(name), str):
                return Problem(name, "is missing: it names the thing")
        return "/".join(fields[name] for name in self.identity)

    def normalise(self, fields: Mapping[str, Value], state: str) -> tuple[dict[str, Value], list[Problem]]:
        self.normalised += 1
        found: dict[str, Value] = {}
        problems: list[Problem] = []
        for name, value in self._flat(fields).items():
            if name not in self.fields:
                problems.append(Problem(name, "there is no such field", spelling_hint(name, self.fields)))
            elif (text := self._wrong(self.fields[name].type, value)) is not None:
                problems.append(Problem(name, text))
            else:
                found[name] = [value] if name == "ports" and not isinstance(value, list) else value
        if state == "present" and found.get("enabled") and "ports" not in found:
            problems.append(Problem("ports", "is missing: an enabled thing needs it"))
        return found, problems

    def _flat(self, fields: Mapping[str, Value]) -> dict[str, Value]:
        flat = {name: value for name, value in fields.items() if name != "part"}
        if isinstance(fields.get("part"), dict):
            flat |= {f"part.{name}": value for name, value in fields["part"].items()}
        return flat

    def _wrong(self, kind: str, value: Value) -> str | None:
        if kind == "integer" and (isinstance(value, bool) or not isinstance(value, int)):
            return "must be a whole number"
        if kind == "boolean" and not isinstance(value, bool):
            return "must be true or false"
        if kind == "secret" and not isinstance(value, Secret):
            return "must be a secret"
        return None


class BoxProvider:
    """`provider: box`. It needs a base_url that starts with box://."""

    def __init__(self, name: str = "box") -> None:
        self.name = name
        things = [ThingKind(f"{name}.thing"), ThingKind(f"{name}.pair", ("zone", "name"))]
        self.things = {kind.name: kind for kind in things}
        self.options: Mapping[str, FieldSpec] = {
            spec.name: spec
            for spec in (
                FieldSpec("base_url", "text", "box://… of the box", required=True),
                FieldSpec("secret", "secret", secret=True),
                FieldSpec("verify_tls", "boolean", default=True),
                FieldSpec("ca", "text"),
                FieldSpec("retries", "integer", minimum=0, maximum=9),
                FieldSpec("colour", "choice", choices=("red", "green")),
                FieldSpec("labels", "map"),
            )
        }

    @property
    def kinds(self) -> Mapping[str, Kind]:
        return self.things

    def check(self, target: Target) -> list[InputError]:
        url = target.options.get("base_url")
        if url is None:
            text = f"{target.name}: base_url is missing"
            return [MissingOption("base_url", text, where=target.where("base_url"))]
        if not str(url).startswith("box://"):
            text = f"{target.name}: base_url must start with box://"
            return [InventoryError(text, where=target.where("base_url"))]
        return []

    def box_of(self, target: Target) -> str:
        return target.name

    def connect(self, target: Target) -> Session:
        raise NotImplementedError("nothing is contacted in these tests")


class World:
    """Files in a folder, and what becomes of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.providers = {name: BoxProvider(name) for name in ("box", "shelf")}

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def provider(self, name: str) -> BoxProvider:
        if name not in self.providers:
            raise InputError(f'there is no provider "{name}"', hint=spelling_hint(name, self.providers))
        return self.providers[name]

    def kind(self, name: str) -> Kind:
        kinds = {name: kind for provider in self.providers.values() for name, kind in provider.kinds.items()}
        if name not in kinds:
            raise InputError(f'there is no kind "{name}"', hint=spelling_hint(name, kinds))
        return kinds[name]

    def resolve(
        self,
        *playbooks: str,
        extra: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        **selection: Iterable[str],
    ) -> tuple[Work, ...]:
        inventory = load_inventory(self.folder / "inventory.yml")
        plays = load_playbooks(
            [path for path, _ in inventory.playbooks] + [self.folder / p for p in playbooks]
        )
        return resolve_work(
            inventory,
            plays,
            providers=self.provider,
            kinds=self.kind,
            selection=Selection(**{name: tuple(value) for name, value in selection.items()}),
            extra_vars=extra or {},
            secrets=SecretReader(environ=environ or {}, folder=self.folder / "secrets", base=self.folder),
        )

    def errors(self, *playbooks: str, **options: Any) -> list[str]:
        """All errors, each in one line, with the places relative to the folder."""
        try:
            self.resolve(*playbooks, **options)
        except Errors as error:
            return [str(each).replace(f"{self.folder}/", "") for each in error.errors]
        except FazaiError as error:
            return [str(error).replace(f"{self.folder}/", "")]
        return []


def items(works: Iterable[Work]) -> dict[str, TargetWork]:
    """What is wanted, by target."""
    return {item.target.name: item for work in works for item in work.targets}


def fields(works: Iterable[Work], host: str) -> dict[str, Mapping[str, Value]]:
    """The fields of a target's resources, by identity."""
    return {resource.identity: resource.fields for resource in items(works)[host].resources}


def resource(works: Iterable[Work], host: str, identity: str) -> Resource:
    return next(each for each in items(works)[host].resources if each.identity == identity)
