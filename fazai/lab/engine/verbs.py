"""The generic verbs of a collection: search, get, add, set, del, toggle; and of a whole model: get, set."""

from __future__ import annotations

import re
import uuid as uuids
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from fazai.lab.box import ActionCall, Box, Unexpected, UserError
from fazai.lab.engine.config import SETTINGS, ConfigEdit, Item, stored_text
from fazai.lab.engine.fieldtypes import store_value, validate_field
from fazai.lab.engine.hooks import HOOKS, hooks_of, settings_hooks_of
from fazai.lab.engine.names import label_key, natural_key
from fazai.lab.engine.render import as_php, nested_item, put_at, row_maker
from fazai.lab.engine.schema import Controller, Field, ItemModel, ItemRefusal, Model, Unique
from fazai.lab.engine.search import RowCache, SearchRow, grid_answer
from fazai.lab.engine.sources import SOURCES

FAILED: Final = {"result": "failed"}
_UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")


def is_uuid4(text: str) -> bool:
    """Return whether this is a version 4 uuid: the only kind that a set accepts for a new item."""
    return bool(_UUID4.match(text.lower()))


def blank_item(box: Box, model: ItemModel) -> dict[str, str]:
    """Return a new item: every stored field with its default."""
    item = model.blank()
    for field in model.fields:
        if field.type in HOOKS.defaults:
            item[field.name] = HOOKS.defaults[field.type](box, model, field)
    return item


def compute_fields(box: Box, model: ItemModel, uuid: str, item: Item) -> Mapping[str, Any]:
    """Return the volatile fields of an item."""
    return hooks_of(model).computed(box, model, uuid, item)


def collections_needed(model: ItemModel) -> tuple[str, ...]:
    """Return the collections that the labels in a row depend on."""
    paths: dict[str, None] = {}
    for field in model.fields:
        if field.relation is not None:
            paths.update(dict.fromkeys(field.relation.collections))
        for path in SOURCES[field.source][0] if field.source else ():
            paths[path] = None
    return (*paths, *(path for path in hooks_of(model).paths if path not in paths))


def row_maker_of(box: Box, model: ItemModel) -> Callable[[str, Item], SearchRow]:
    """Return a function that makes the rows of a collection, decorated and with their sort key."""
    make, add = row_maker(box, model), hooks_of(model).add

    def make_row(uuid: str, item: Item) -> SearchRow:
        row = make(uuid, item, compute_fields(box, model, uuid, item))
        add(box, model, uuid, item, row)
        keys = [
            (label_key if name.startswith("%") else natural_key)(row.get(name, "")) for name in model.sort
        ]
        return SearchRow(row, keys or None)

    return make_row


def rows_of(box: Box, model: ItemModel) -> list[SearchRow]:
    """Return the rows of a collection in its default order."""
    paths = box.derived(f"dependencies {model.path}", (), lambda: collections_needed(model))
    depends = (*(box.items(path) for path in paths), hooks_of(model).version(box))
    cache = box.derived(f"rows {model.path}", (), RowCache)
    rows = cache.rows(box.items(model.path), depends, lambda: row_maker_of(box, model))
    if model.sort:
        rows.sort(key=lambda row: row.key)
    return rows


def search_items(call: ActionCall, model: ItemModel) -> Any:
    rows = rows_of(call.box, model)
    if model.overlay:
        rows = [row for row in rows if all(row.data.get(name) == v for name, v in model.overlay.items())]
    return grid_answer(call, rows)


def get_item(call: ActionCall, model: ItemModel) -> Any:
    """Show an item with all its options; without a uuid a new one; `[]` for an unknown uuid."""
    box, uuid = call.box, call.param(0)
    if uuid is None:
        item: Item | None = blank_item(box, model)
    else:
        item = box.items(model.path).get(uuid)
    if item is None:
        return []
    more = compute_fields(box, model, uuid or "", item)
    return {model.root: nested_item(box, model.fields, item, more)}


def posted_body(call: ActionCall, root: str) -> Mapping[str, Any] | None:
    """Return what was sent under the root key; None for nothing, a wrong method or another root."""
    if not call.posted or root not in call.body:
        return None
    value = call.body[root]
    return value if isinstance(value, Mapping) else {}


def flatten_fields(values: Mapping[str, Any], names: Mapping[str, Field], prefix: str = "") -> dict[str, str]:
    """Return the known fields of a posted body; unknown names are ignored, lists for a value are not."""
    found: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if name in names:
            if isinstance(value, (list, Mapping)):
                raise Unexpected
            if not names[name].volatile:
                found[name] = stored_text(value)
        elif isinstance(value, Mapping):
            found |= flatten_fields(value, names, f"{name}.")
    return found


def _read_sent(box: Box, model: ItemModel, values: Mapping[str, Any]) -> dict[str, str]:
    return flatten_fields(values, box.derived(f"names {model.path}", (), model.by_name))


def merge_sent(box: Box, fields: Iterable[Field], item: Item, sent: Mapping[str, str]) -> dict[str, str]:
    """Return the item as it would be stored."""
    result = dict(item)
    for field in fields:
        if field.name in sent:
            result[field.name] = store_value(box, field, sent[field.name])
    return result


class Validations:
    """Validation messages by field; several on one field make a list, as the product writes it."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._found: dict[str, list[str]] = {}

    def add(self, name: str, message: str) -> None:
        self._found.setdefault(name, []).append(message)

    def __bool__(self) -> bool:
        return bool(self._found)

    def body(self) -> dict[str, Any]:
        return {
            f"{self._prefix}.{name}": texts[0] if len(texts) == 1 else list(dict.fromkeys(texts))
            for name, texts in self._found.items()
        }


def is_taken(
    box: Box, model: ItemModel, unique: Unique, uuid: str, item: Item, beside: Mapping[str, Item]
) -> bool:
    """Return whether another item, or one that is sent with it, has the same values in fields that must be
    unique."""
    values = [item.get(name, "") for name in unique.fields]
    if unique.skip_empty and not any(values):
        return False
    for other, existing in beside.items():
        if other != uuid and [existing.get(name, "") for name in unique.fields] == values:
            return True
    if len(values) == 1:
        return box.index(model.path, unique.fields[0]).get(values[0], uuid) != uuid
    return any(
        other != uuid and [existing.get(name, "") for name in unique.fields] == values
        for other, existing in box.items(model.path).items()
    )


def validate_item(
    box: Box, model: ItemModel, uuid: str, item: Item, prefix: str, beside: Mapping[str, Item] | None = None
) -> Validations:
    """Return everything that is wrong with an item; `beside` are items that are sent with it, by uuid."""
    problems = Validations(prefix)
    for unique in model.unique:
        if is_taken(box, model, unique, uuid, item, beside or {}):
            for _ in range(2 if unique.twice else 1):
                problems.add(unique.fields[0], unique.message)
    _add_refusals(problems, model.refuse, item)
    for field in model.fields:
        if not field.volatile:
            for message in validate_field(box, field, item.get(field.name, ""), item):
                problems.add(field.name, message)
    for name in model.checks:
        for field_name, message in HOOKS.checks[name](box, model, uuid, item):
            problems.add(field_name, message)
    return problems


def _add_refusals(problems: Validations, refuse: Iterable[ItemRefusal], item: Item) -> None:
    for refusal in refuse:
        if all(
            re.fullmatch(pattern, item.get(name, ""), re.DOTALL) for name, pattern in refusal.when.items()
        ):
            for name in refusal.on:
                problems.add(name, refusal.message)


def validate_settings(box: Box, model: Model, old: Item, fresh: Item, prefix: str) -> Validations:
    """Return everything that is wrong with the settings of a model."""
    problems = Validations(prefix)
    for name, message in settings_hooks_of(model).check(box, old, fresh):
        problems.add(name, message)
    for field in model.settings:
        if not field.volatile:
            for message in validate_field(box, field, fresh[field.name], fresh):
                problems.add(field.name, message)
    _add_refusals(problems, model.refuse, fresh)
    return problems


def add_item(call: ActionCall, model: ItemModel) -> Any:
    sent = posted_body(call, model.root)
    if sent is None:
        return FAILED
    uuid = str(uuids.uuid4())
    return save_item(call, model, uuid, blank_item(call.box, model), sent) or {
        "result": "saved",
        "uuid": uuid,
    }


def set_item(call: ActionCall, model: ItemModel) -> Any:
    uuid = call.param(0)
    sent = posted_body(call, model.root)
    if sent is None or uuid is None:
        return FAILED
    item = call.box.items(model.path).get(uuid)
    if item is None:
        if model.upsert == "no" or not is_uuid4(uuid):
            return FAILED
        item = blank_item(call.box, model)
    return save_item(call, model, uuid, item, sent) or {"result": "saved"}


def save_item(
    call: ActionCall, model: ItemModel, uuid: str, item: Item, values: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Validate and store; None when it was done, else the answer that says why not."""
    box = call.box
    sent = _read_sent(box, model, values)
    fresh = merge_sent(box, model.fields, item, {**sent, **model.overlay})
    for hook in hooks_of(model).before:
        hook(call, model, uuid, item, fresh)
    problems = validate_item(box, model, uuid, fresh, model.root)
    if problems:
        return {"result": "failed", "validations": problems.body()}
    call.check_writable()
    edit = box.config.edit()
    for hook_after in hooks_of(model).after:
        hook_after(call, edit, uuid, item, fresh)
    edit.put(model.path, uuid, fresh)
    call.save(edit)
    return None


def del_item(call: ActionCall, model: ItemModel) -> Any:
    """Delete items by their uuids; none of them when something still uses one."""
    for uuid in (call.param(0) or "").split(",") if call.posted else ():
        _ask_guards(call.box, model, uuid)
    return delete_each(call, lambda uuid: delete_one(call, model, uuid))


def delete_each(call: ActionCall, delete: Callable[[str], bool]) -> Any:
    """Delete all that is named, with commas between; the answer is that of the last one."""
    if not call.posted:
        return FAILED
    deleted = [delete(name) for name in (call.param(0) or "").split(",")]
    return {"result": "deleted" if deleted[-1] else "not found"}


def _ask_guards(box: Box, model: ItemModel, uuid: str) -> None:
    """Raise UserError when something still uses an item."""
    item = box.items(model.path).get(uuid)
    if item is None:
        return
    for name in model.guards:
        HOOKS.guards[name](box, model, uuid, item)


def delete_one(call: ActionCall, model: ItemModel, uuid: str) -> bool:
    """Delete one item; False when it is not there. Raises UserError when something still uses it."""
    item = call.box.items(model.path).get(uuid)
    if item is None:
        return False
    _ask_guards(call.box, model, uuid)
    call.check_writable()
    edit = call.box.config.edit()
    edit.drop(model.path, uuid)
    for path, name in model.cascades.items():
        for key, other in call.box.items(path).items():
            if other.get(name) == uuid:
                edit.drop(path, key)
    for hook in hooks_of(model).deleted:
        hook(call.box, edit, uuid)
    call.save(edit)
    return True


def toggle_item(call: ActionCall, model: ItemModel) -> Any:
    """Switch items on or off; several, with commas between, only to a given state."""
    uuids_, wanted = (call.param(0) or "").split(","), call.param(1)
    if not call.posted:
        return FAILED
    if len(uuids_) > 1 and (wanted not in ("0", "1") or model.flips):
        raise UserError("Toggle with a list of items in only supported for explicit actions [0,1]", "Toggle")
    answers = [_toggle_one(call, model, uuid, None if model.flips else wanted) for uuid in uuids_]
    return answers[-1]


def _toggle_one(call: ActionCall, model: ItemModel, uuid: str, wanted: str | None) -> Any:
    item = call.box.items(model.path).get(uuid)
    if item is None:
        return FAILED
    name = model.toggle
    negative = name == "disabled"
    old = item.get(name, "0")
    if wanted is None:
        new = "0" if old == "1" else "1"
    elif wanted in ("0", "1"):
        new = ("1" if wanted == "0" else "0") if negative else wanted
    else:
        return {"result": "failed", "changed": False}
    if new != old:
        call.put(model.path, uuid, {**item, name: new})
    on = (new == "1") != negative
    return {"result": "Enabled" if on else "Disabled", "changed": new != old}


def current_settings(box: Box, model: Model) -> dict[str, str]:
    """Return the settings of a model; what was never set has its default."""
    defaults = {field.name: field.default for field in model.settings if not field.volatile}
    return {**defaults, **box.config.settings(model.name)}


def get_model(call: ActionCall, controller: Controller, model: Model) -> Any:
    """Show the whole model: its settings, and every collection by uuid."""
    if call.method not in ("GET", "HEAD"):
        return []
    box = call.box
    shown = current_settings(box, model)
    body = nested_item(box, model.settings, shown, settings_hooks_of(model).computed(box, shown))
    for inner, item_model in model.items.items():
        items = {
            uuid: nested_item(box, item_model.fields, item, compute_fields(box, item_model, uuid, item))
            for uuid, item in box.items(item_model.path).items()
        }
        put_at(body, inner, as_php(items))
    for inner in model.empty:
        put_at(body, inner, [])
    if controller.get:
        body = {name: body[name] for name in controller.get if name in body}
    return {controller.root or model.root: body}


def set_model(call: ActionCall, controller: Controller, model: Model, edit: ConfigEdit | None = None) -> Any:
    """Set settings and items of the whole model, all or nothing.

    A body under another root key changes nothing and answers `saved`.
    """
    if not call.posted:
        return FAILED
    box, root = call.box, controller.root or model.root
    body = posted_body(call, root) or {}
    sent = flatten_fields(body, {field.name: field for field in model.settings})
    old = current_settings(box, model)
    fresh = merge_sent(box, model.settings, old, sent)
    settings_hooks_of(model).before(box, fresh)
    problems = validate_settings(box, model, old, fresh, root)
    items = list(_posted_items(call, model, body)) if controller.bulk else []
    found = problems.body()
    for item_model, uuid, item in items:
        found |= _validate_sent(box, item_model, uuid, item, root, items)
    if found:
        return {"result": "failed", "validations": found}
    call.check_writable()
    edit = edit or box.config.edit()
    if model.settings:
        edit.put(model.name, SETTINGS, fresh)
    for item_model, uuid, item in items:
        edit.put(item_model.path, uuid, item)
    call.save(edit)
    return {"result": "saved"}


def _validate_sent(
    box: Box, model: ItemModel, uuid: str, item: Item, root: str, items: list[tuple[ItemModel, str, Item]]
) -> dict[str, Any]:
    """Return what is wrong with an item of a whole model: nothing is said of fields that stay as they are."""
    prefix = f"{root}.{model.inner}.{uuid}"
    beside = {other: sent for other_model, other, sent in items if other_model is model}
    found = validate_item(box, model, uuid, item, prefix, beside).body()
    known = box.items(model.path).get(uuid)
    if known is None:
        return found
    kept = {f"{prefix}.{name}" for name, value in item.items() if known.get(name, "") == value}
    return {name: text for name, text in found.items() if name not in kept}


def _posted_items(
    call: ActionCall, model: Model, body: Mapping[str, Any]
) -> Iterable[tuple[ItemModel, str, Item]]:
    """Yield the items in the body of a whole model.

    Unlike a single set it runs no hooks, and an unknown uuid makes an item under one of the firewall's own
    choosing.
    """
    box = call.box
    for inner, item_model in model.items.items():
        node: Any = body
        for part in inner.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        for uuid, values in node.items() if isinstance(node, Mapping) else ():
            if isinstance(values, Mapping):
                known = box.items(item_model.path).get(uuid)
                sent = _read_sent(box, item_model, values)
                item = merge_sent(box, item_model.fields, known or blank_item(box, item_model), sent)
                yield item_model, uuid if known is not None else str(uuids.uuid4()), item
