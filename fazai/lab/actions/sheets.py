"""Collections as CSV: download and upload, with semicolons as the product writes them."""

from __future__ import annotations

import csv
import io
import uuid as uuids
from collections.abc import Callable, Mapping
from typing import Any, Final

from fazai.lab.actions.rules import COLLECTIONS
from fazai.lab.box import ActionCall, Handler
from fazai.lab.engine.render import make_labeller
from fazai.lab.engine.schema import ItemModel
from fazai.lab.engine.sources import choices_of
from fazai.lab.engine.verbs import blank_item, is_uuid4, merge_sent, validate_item
from fazai.lab.server.wire import LabReply


def _quote_cell(value: str) -> str:
    """Quote a cell as PHP's fputcsv does: a blank, a quote, a line end or the separator needs it."""
    if any(letter in value for letter in ' ";\n\r\t\\'):
        return '"' + value.replace('"', '""') + '"'
    return value


def download_csv(model_path: str, *, with_uuid: bool, leave_out: tuple[str, ...] = ()) -> Handler:
    """Return the handler that sends every stored field; related items by their label."""

    def handler(call: ActionCall) -> Any:
        box, model = call.box, call.model(model_path)
        fields = [field for field in model.fields if not field.volatile and field.name not in leave_out]
        lines = [[*(["@uuid"] if with_uuid else []), *(field.name for field in fields)]]
        labellers = [(field.name, make_labeller(box, field) if field.relation else None) for field in fields]
        for uuid, item in box.items(model.path).items():
            values = [
                labeller(value) if (value := item.get(name, "")) and labeller else value
                for name, labeller in labellers
            ]
            lines.append([*([uuid] if with_uuid else []), *values])
        text = "".join(";".join(map(_quote_cell, line)) + "\n" for line in lines)
        return LabReply(200, text.encode(), "text/csv")

    return handler


def upload_csv(
    model_path: str, find: Callable[[ActionCall, dict[str, str]], str] = lambda _, sent: sent.pop("@uuid", "")
) -> Handler:
    """Return the handler that takes all rows or none; a known row (by @uuid, or `find`) is updated."""

    def handler(call: ActionCall) -> Any:
        payload = call.body.get("payload")
        if not call.posted or not isinstance(payload, str):
            return {"status": "failed"}
        box, model = call.box, call.model(model_path)
        table = csv.DictReader(io.StringIO(payload), delimiter=";")
        names = list(table.fieldnames or ())
        edit, wrong, made, updated = box.config.edit(), [], {}, 0
        for number, line in enumerate(table):
            sent = {
                name: _labels_to_keys(call, model, name, value)
                for name, value in line.items()
                if value is not None
            }
            uuid = find(call, sent)
            known = box.items(model.path).get(uuid)
            uuid = uuid if known is not None or is_uuid4(uuid) else str(uuids.uuid4())
            item = merge_sent(box, model.fields, known or blank_item(box, model), sent)
            problems = validate_item(box, model, uuid, item, model.root)
            if problems:
                wrong.append({"sequence": number, "message": problems.body()})
            updated += known is not None
            made[uuid] = number
            edit.put(model.path, uuid, item)
        if wrong:
            return {"validations": wrong, "inserted": 0, "updated": 0, "uuids": [], "fieldnames": names}
        call.save(edit)
        counts = {"inserted": len(made) - updated, "updated": updated}
        return {"validations": [], **counts, "uuids": made or [], "fieldnames": names}

    return handler


def _labels_to_keys(call: ActionCall, model: ItemModel, name: str, value: str) -> str:
    """Turn the labels of related items into the uuids under which they are stored."""
    field = next((field for field in model.fields if field.name == name), None)
    if field is None or field.relation is None or not value:
        return value
    by_label = {choice["value"]: key for key, choice in (choices_of(call.box, field) or {}).items()}
    return ",".join(by_label.get(part, part) for part in value.split(","))


ACTIONS: Final[Mapping[str, Handler]] = {
    **{f"{name}/downloadRules": download_csv(path, with_uuid=True) for name, path in COLLECTIONS.items()},
    **{f"{name}/uploadRules": upload_csv(path) for name, path in COLLECTIONS.items()},
}
