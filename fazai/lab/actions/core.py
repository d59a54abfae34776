"""core: status, firmware, services, tunables; what is constant comes from data/answers.json."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from fazai.lab.actions.common import constant
from fazai.lab.box import Box, Call, Handler
from fazai.lab.engine.schema import read_json
from fazai.lab.engine.search import Row, grid, plain_rows, recordset
from fazai.lab.engine.verbs import get_item, rows_of

__all__ = ["ACTIONS", "answer"]

TUNABLES: Final = "Core.Tunables.item"


def answer(box: Box, name: str) -> Any:
    """A constant answer, with the version of the box's release."""

    def build() -> Any:
        text = msgspec.json.encode(read_json("answers.json")[name]).decode()
        release = box.settings.release
        return msgspec.json.decode(text.replace("26.7.2", release).replace("26.7", release[:4]))

    return box.derived(f"answer {name}", (), build)


def _fixed(name: str) -> Handler:
    return lambda call: answer(call.box, name)


def system_status(call: Call) -> Any:
    """ERROR after a 500 of the unexpected kind, until the crash report is dismissed."""
    system: dict[str, Any] = {"status": 2, "message": "No pending messages", "title": "System"}
    metadata = {
        "system": system,
        "translations": {"dialogTitle": "System Status", "dialogCloseButton": "Close"},
        "subsystems": [],
    }
    box = call.box
    if not box.running.crashed_at:
        return {"metadata": metadata}
    system["status"] = "ERROR"
    crash = {
        "title": "Crash Reporter",
        "statusCode": -1,
        "message": "An issue was detected and can be reviewed using the firmware crash reporter.",
        "location": "/crash_reporter.php",
        "timestamp": int(box.running.crashed_at),
        "persistent": False,
        "isBanner": False,
        "priority": 10,
        "status": "ERROR",
        "age": f"{int(box.clock() - box.running.crashed_at)} seconds ago",
    }
    return {"metadata": metadata, "subsystems": {"crashreporter": crash}}


def dismiss_status(call: Call) -> Any:
    call.box.running.crashed_at = 0.0
    return {"status": "ok"}


def menu(call: Call) -> Any:
    """The menu's entries whose path contains the word, and the entries above them."""
    word = str(call.query.get("q", "")).lower()
    rows = answer(call.box, "menu")
    paths = [row["breadcrumb"].strip() for row in rows]
    hits = [path for path in paths if word in path.lower()]
    return [row for row, path in zip(rows, paths, strict=True) if any(hit.startswith(path) for hit in hits)]


# services


def services(call: Call) -> Any:
    running = call.box.running.services
    rows = []
    for row in answer(call.box, "services"):
        state = running.get({"syslog-ng": "syslog"}.get(row["name"], row["name"]))
        rows.append(row if state is None else {**row, "running": int(state == "running")})
    return recordset(call, plain_rows(rows))


def change_service(state: str) -> Handler:
    def handler(call: Call) -> Any:
        """`ok` also for a service that does not exist."""
        if not call.posted:
            return {"result": "failed"}
        name = call.param(0) or ""
        if any(row["name"] == name and not row["locked"] for row in answer(call.box, "services")):
            call.box.running.services[{"syslog-ng": "syslog"}.get(name, name)] = state
        return {"result": "ok"}

    return handler


# tunables: the product's own have hashes for uuids


def _builtin_tunables(box: Box) -> list[Row]:
    def build() -> list[Row]:
        found = []
        for name, default in read_json("tunables.json").items():
            uuid = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
            row = {
                "uuid": uuid,
                "tunable": name,
                "value": "",
                "descr": "",
                "default_value": default,
                "type": "",
            }
            found.append(Row(row))
        return sorted(found, key=lambda row: row.data["uuid"])

    return box.derived("built-in tunables", (), build)


def search_tunables(call: Call) -> Any:
    model = call.box.catalogue.items[TUNABLES]
    set_by_hand = {item["tunable"] for item in call.box.items(TUNABLES).values()}
    rows = [row for row in _builtin_tunables(call.box) if row.data["tunable"] not in set_by_hand]
    return grid(call, rows + rows_of(call.box, model))


def get_tunable(call: Call) -> Any:
    found = get_item(call, call.box.catalogue.items[TUNABLES])
    if not found:
        for row in _builtin_tunables(call.box):
            if row.data["uuid"] == call.param(0):
                return {"sysctl": {name: value for name, value in row.data.items() if name != "uuid"}}
    return found


ACTIONS: Final[Mapping[str, Handler]] = {
    "core/system/status": system_status,
    "core/system/dismissStatus": dismiss_status,
    "core/menu/search": menu,
    "core/firmware/status": _fixed("firmware_status"),
    "core/firmware/info": _fixed("firmware_info"),
    "core/firmware/get": _fixed("firmware_settings"),
    "core/firmware/upgradestatus": _fixed("upgradestatus"),
    "core/firmware/running": constant({"status": "ready"}),
    "core/hasync/get": _fixed("hasync"),
    "core/snapshots/isSupported": constant({"supported": False}),
    "core/service/search": services,
    "core/service/start": change_service("running"),
    "core/service/stop": change_service("stopped"),
    "core/service/restart": change_service("running"),
    "core/tunables/searchItem": search_tunables,
    "core/tunables/getItem": get_tunable,
}
