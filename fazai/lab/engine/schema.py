"""The models as data: fields, items, controllers, endpoints, read from `fazai/lab/data/*.json`.

docs/lab.md describes the format and how a model is added.
"""

from __future__ import annotations

import functools
import re
from importlib.resources import files
from typing import Any

import msgspec


class Relation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A field that holds uuids of another collection; `label` is a template such as "{hostname}.{domain}";
    "{%interface}" is the label of that field."""

    collection: str
    label: str = "{name}"
    also: tuple[str, ...] = ()  # further collections, whose items are chosen from the same list
    sort: str = "label"  # "label", or "" for the order of the config

    @property
    def collections(self) -> tuple[str, ...]:
        return (self.collection, *self.also)


class Field(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One field of an item or of the settings of a model. The type names a row of `fieldtypes.TYPES`."""

    name: str
    type: str
    required: bool = False
    default: str = ""
    multiple: bool = False  # several keys of the options, joined with commas
    list: bool = False  # free values joined with commas; a get shows them as a map
    volatile: bool = False  # computed, never stored
    min: int | None = None
    max: int | None = None
    options: dict[str, Any] | str | None = None  # a name refers to data/options.json
    source: str = ""  # options that depend on the configuration: a row of `sources.SOURCES`
    none: str = ""  # label of the key "" of a field with a source or relation
    relation: Relation | None = None
    pattern: str = ""  # full match, for types without a check of their own
    spaces: bool = False  # StrictText: blanks are allowed
    message: str = ""  # instead of the type's own text
    needed: str = ""  # instead of "A value is required."
    case: str = ""  # "lower" or "upper": stored so where that is an option
    family: str = ""  # "4" or "6"
    placeholder: str = ""  # label of an empty value
    release: str = ""  # "" all, else only those that begin so: "26.7"


class Unique(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No two items of the collection have the same values in these fields; reported on the first field."""

    fields: tuple[str, ...]
    message: str
    skip_empty: bool = False
    twice: bool = False  # the product reports it as a list


class ItemRefusal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An item whose fields match all patterns is refused, with the message on the fields `on`."""

    when: dict[str, str]  # field -> pattern of the whole value; "" is that of an empty one
    on: tuple[str, ...]  # a field that is named twice gets a list of messages, as in the product
    message: str


class ItemModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A collection of items."""

    root: str
    fields: tuple[Field, ...]
    path: str = ""  # filled while loading: model name + path in the model
    model: str = ""
    inner: str = ""  # path in the model
    sort: tuple[
        str, ...
    ] = ()  # default order of a search ("%name" is the label of a field); () is the config's
    unique: tuple[Unique, ...] = ()
    refuse: tuple[ItemRefusal, ...] = ()
    checks: tuple[str, ...] = ()  # rows of `HOOKS.checks`, for what `refuse` cannot say
    toggle: str = "enabled"
    flips: bool = False  # a toggle turns the switch over, whatever it is told
    upsert: str = "v4"  # set with an unknown uuid: "v4" creates, "no" fails, "own" creates under a new uuid
    guards: tuple[str, ...] = ()  # rows of `HOOKS.guards`, asked before a delete
    cascades: dict[str, str] = {}  # collection -> its field with the uuid of an item here: deleted along
    describe: str = "description"  # the field that names an item in "in use" messages; "" is its uuid
    overlay: dict[str, str] = {}  # fields that a controller's verbs fix: written on every save, searched by

    def blank(self) -> dict[str, str]:
        """Return every stored field with its default."""
        return {field.name: field.default for field in self.fields if not field.volatile}

    def by_name(self) -> dict[str, Field]:
        return {field.name: field for field in self.fields}


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model: one mount point in the configuration."""

    root: str
    items: dict[str, ItemModel]
    settings: tuple[Field, ...] = ()
    refuse: tuple[ItemRefusal, ...] = ()  # combinations of settings
    empty: tuple[str, ...] = ()  # collections that the lab has no items for; shown as `[]`
    mount: str = ""  # as written in messages, "OPNsense.Firewall.Filter"
    name: str = ""


class Controller(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The model of a controller, and the collections to which its verbs belong."""

    model: str = ""
    items: dict[str, str] = {}  # suffix of the verbs ("Item", "Rule", "") -> path in the model
    overlay: dict[str, dict[str, str]] = {}  # suffix of the verbs -> `ItemModel.overlay` of these verbs
    get: tuple[str, ...] = ()  # a get of the whole model shows only these parts, () for all
    root: str = ""  # of the whole model, when it is not the model's own
    bulk: bool = True  # set of the whole model takes items
    service: str = ""  # the service behind start, stop, restart, status, reconfigure
    enabled_by: tuple[str, str] | None = None  # model and field of the setting that enables the service
    or_by: tuple[str, str] | None = None  # another one, of which one is enough
    unseen: str = "stopped"  # the status of an enabled service before it first runs
    reconfigured: dict[str, str] = msgspec.field(default_factory=lambda: {"status": "ok"})  # its answer
    answers: dict[str, Any] = {}  # action -> constant answer of a GET (or of both)
    recorded: dict[str, str] = {}  # action -> name of its constant answer in data/answers.json
    posted: dict[str, dict[str, str]] = {}  # action -> constant answer of a POST; other methods fail


class ControllerAction(msgspec.Struct, frozen=True):
    """One action of one controller."""

    controller: str
    action: str
    needed: int  # path parameters that must be there


class Catalogue(msgspec.Struct, frozen=True):
    """Everything known of one release."""

    release: str
    models: dict[str, Model]
    items: dict[str, ItemModel]
    controllers: dict[str, Controller]
    endpoints: dict[str, dict[str, ControllerAction]]  # controller -> normalised action -> endpoint
    options: dict[str, dict[str, Any]]


class _ModelFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    models: dict[str, Model] = {}
    controllers: dict[str, Controller] = {}


def action_key(action: str) -> str:
    """Return one key for `searchItem`, `search_item` and `searchitem`: they are one action."""
    return action.replace("_", "").lower()


def controller_key(name: str) -> str:
    """Return `source_nat` for `sourceNat`; `sourcenat` is nothing."""
    return re.sub(r"(?<=.)([A-Z])", r"_\1", name).lower()


def read_json(name: str) -> Any:
    """Return a data file of the package as plain values."""
    return msgspec.json.decode(files("fazai.lab").joinpath("data", name).read_bytes())


def _for_release(fields: tuple[Field, ...], release: str) -> tuple[Field, ...]:
    return tuple(field for field in fields if release.startswith(field.release))


def _read_endpoints(release: str) -> dict[str, dict[str, ControllerAction]]:
    table: dict[str, dict[str, ControllerAction]] = {}
    for controller, actions in read_json("endpoints.json").items():
        rows = table[controller] = {}
        for text, params in actions.items():
            action, _, only = text.partition("@")
            if release.startswith(only):
                needed = sum(1 for name in params.split() if not name.startswith("["))
                rows[action_key(action)] = ControllerAction(controller, action, needed)
    return table


@functools.cache
def load_release(release: str) -> Catalogue:
    """Return the catalogue of a release. It is constant, so it is read once per process."""
    decoder = msgspec.json.Decoder(_ModelFile)
    models: dict[str, Model] = {}
    items: dict[str, ItemModel] = {}
    controllers: dict[str, Controller] = {}
    for entry in sorted(files("fazai.lab").joinpath("data", "models").iterdir(), key=lambda file: file.name):
        if entry.name.endswith(".json"):
            data = decoder.decode(entry.read_bytes())
            controllers |= data.controllers
            for name, model in data.models.items():
                parts = {}
                for inner, item in model.items.items():
                    path = f"{name}.{inner}"
                    fields = _for_release(item.fields, release)
                    names = {field.name for field in fields}
                    unique = tuple(each for each in item.unique if names.issuperset(each.fields))
                    parts[inner] = items[path] = msgspec.structs.replace(
                        item, path=path, model=name, inner=inner, fields=fields, unique=unique
                    )
                models[name] = msgspec.structs.replace(
                    model,
                    name=name,
                    mount=model.mount or f"OPNsense.{name}",
                    items=parts,
                    settings=_for_release(model.settings, release),
                )
    return Catalogue(release, models, items, controllers, _read_endpoints(release), read_json("options.json"))
