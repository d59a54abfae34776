"""core/backup: the history of the configuration, and the configuration as XML text."""

from __future__ import annotations

import datetime
import difflib
import html
from collections.abc import Iterator, Mapping
from typing import Any, Final
from xml.sax.saxutils import escape

from fazai.lab.box import ActionCall, Handler, posted_only
from fazai.lab.engine.config import SETTINGS, Collection, ConfigRevision, Item, State
from fazai.lab.engine.schema import Catalogue
from fazai.lab.server.wire import LabReply


def _estimate_size(call: ActionCall, revision: ConfigRevision) -> int:
    """Estimate the size of the file; a collection that did not change is counted once."""
    sizes: dict[int, tuple[Collection, int]] = call.box.derived("sizes", (), dict)
    total = 400
    for items in revision.state.values():
        found = sizes.get(id(items))
        if found is None or found[0] is not items:
            count = sum(
                2 * len(name) + len(value) + 14 for item in items.values() for name, value in item.items()
            )
            found = sizes[id(items)] = (items, count + 60 * len(items))
        total += found[1]
    return total


def list_backups(call: ActionCall) -> Any:
    """List the entries of the history, the newest first."""
    if call.param(0) != "this":
        return {"items": []}
    rows = []
    for revision in reversed(call.box.config.history):
        seconds = float(revision.number)
        moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
        rows.append(
            {
                "time": f"{seconds:.2f}",
                "time_iso": moment.isoformat(timespec="seconds"),
                "description": revision.why,
                "username": revision.who,
                "filesize": _estimate_size(call, revision),
                "id": revision.id,
            }
        )
    return {"items": rows}


def _find_revision(call: ActionCall, name: str | None) -> ConfigRevision | None:
    number = (name or "").removeprefix("config-").removesuffix(".xml")
    return call.box.config.find(number)


def diff_backups(call: ActionCall) -> Any:
    """Show what leads from the second to the first, as the product does; markup is escaped."""
    first, second = _find_revision(call, call.param(1)), _find_revision(call, call.param(2))
    if call.param(0) != "this" or first is None or second is None:
        return {"items": []}

    def header(revision: ConfigRevision) -> tuple[str, str]:
        moment = datetime.datetime.fromtimestamp(float(revision.number), datetime.UTC)
        return f"/conf/backup/{revision.id}", f"{moment:%Y-%m-%d %H:%M:%S}"

    (old_name, old_time), (new_name, new_time) = header(second), header(first)
    lines = difflib.unified_diff(
        list(lines_of(second.state, call.box.catalogue)),
        list(lines_of(first.state, call.box.catalogue)),
        old_name,
        new_name,
        old_time,
        new_time,
        lineterm="",
    )
    return {"items": [html.escape(line) for line in lines]}


@posted_only(otherwise={"status": "failed"})
def revert_backup(call: ActionCall) -> Any:
    """Go back to an earlier configuration, others' changes included; what runs stays as it is."""
    revision = _find_revision(call, call.param(0))
    if revision is None:
        return {"status": "not_found"}
    call.check_writable()
    call.box.config.revert(revision, *call.stamp())
    return {"status": "reverted"}


@posted_only(otherwise={"status": "failed"})
def delete_backup(call: ActionCall) -> Any:
    revision = _find_revision(call, call.param(0))
    if revision is None:
        return {"status": "not_found"}
    call.check_writable()
    call.box.config.forget(revision)
    return {"status": "deleted"}


def download_backup(call: ActionCall) -> Any:
    revision = _find_revision(call, call.param(1))
    state = call.box.config.state if revision is None else revision.state
    text = "\n".join(lines_of(state, call.box.catalogue)) + "\n"
    return LabReply(200, text.encode(), "application/octet-stream")


def lines_of(state: State, catalogue: Catalogue) -> Iterator[str]:
    """Yield a configuration line by line, with two blanks a level."""
    yield '<?xml version="1.0"?>'
    yield "<opnsense>"
    for path in sorted(state):
        model = catalogue.items.get(path)
        tag = path if model is None else f"{model.model}.{model.inner}"
        opened = tag.split(".")
        for depth, part in enumerate(opened[:-1], 1):
            yield f"{'  ' * depth}<{part}>"
        indent = "  " * len(opened)
        for key, item in state[path].items():
            attribute = "" if key == SETTINGS else f' uuid="{escape(key)}"'
            yield f"{indent}<{opened[-1]}{attribute}>"
            yield from _field_lines(item, indent + "  ")
            yield f"{indent}</{opened[-1]}>"
        for depth in range(len(opened) - 1, 0, -1):
            yield f"{'  ' * depth}</{opened[depth - 1]}>"
    yield "</opnsense>"


def _field_lines(item: Item, indent: str) -> Iterator[str]:
    for name, value in item.items():
        if value:
            yield f"{indent}<{name}>{escape(value)}</{name}>"
        else:
            yield f"{indent}<{name}/>"


ACTIONS: Final[Mapping[str, Handler]] = {
    "core/backup/backups": list_backups,
    "core/backup/diff": diff_backups,
    "core/backup/revertBackup": revert_backup,
    "core/backup/deleteBackup": delete_backup,
    "core/backup/download": download_backup,
}
