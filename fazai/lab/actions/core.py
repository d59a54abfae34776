"""core: status, firmware, services, tunables."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.actions.common import recorded_answer
from fazai.lab.box import ActionCall, Box, Handler, posted_only
from fazai.lab.engine.names import natural_key
from fazai.lab.engine.search import SearchRow, grid_answer, make_rows, recordset_answer
from fazai.lab.engine.verbs import add_item, get_item, rows_of, set_item
from fazai.lab.models.devices_tunables import TUNABLES, builtin_tunables
from fazai.lab.models.wireguard import SERVERS

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def get_system_status(call: ActionCall) -> Any:
    """Show ERROR after a 500 of the unexpected kind, until the crash report is dismissed."""
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


def dismiss_status(call: ActionCall) -> Any:
    call.box.running.crashed_at = 0.0
    return {"status": "ok"}


def search_menu(call: ActionCall) -> Any:
    """List the menu's entries whose path contains the word, and the entries above them."""
    word = str(call.query.get("q", "")).lower()
    rows = recorded_answer(call.box, "menu")
    paths = [row["breadcrumb"].strip() for row in rows]
    hits = [path for path in paths if word in path.lower()]
    return [row for row, path in zip(rows, paths, strict=True) if any(hit.startswith(path) for hit in hits)]


# services


#: What a service is called in the list -> in the API.
_SERVICES: Final = {"syslog-ng": "syslog", "suricata": "ids", "kea-dhcp": "kea"}
#: A model whose setting enables a service, that setting, and the service as `plugins.inc.d` of
#: opnsense/core lists it.
_ENABLED: Final = (
    ("Monit", "general.enabled", "monit", "monit", "Monit System Monitoring"),
    ("IDS", "general.enabled", "ids", "suricata", "Intrusion Detection"),
    ("Kea.dhcp4", "general.enabled", "kea", "kea-dhcp/v4", "KEA DHCPv4 server"),
)


def service_rows(box: Box) -> list[dict[str, Any]]:
    """Return the services of the recorded firewall, and those that its settings enable."""
    running = box.running.services
    rows: list[dict[str, Any]] = []
    for row in recorded_answer(box, "services"):
        state = running.get(_SERVICES.get(row["name"], row["name"]))
        rows.append(row if state is None else {**row, "running": int(state == "running")})

    def add(id_: str, description: str, service: str, locked: int = 0) -> None:
        up = int(running.get(service) == "running")
        name = id_.partition("/")[0]
        rows.append({"id": id_, "locked": locked, "running": up, "description": description, "name": name})

    for model, setting, service, id_, description in _ENABLED:
        if box.config.settings(model).get(setting) == "1":
            add(id_, description, service)
    if box.config.settings("Wireguard.General").get("enabled") == "1":
        for uuid, server in box.items(SERVERS).items():
            if server["enabled"] == "1":
                add(f"wireguard/{uuid}", f"WireGuard {server['name']}", "wireguard", locked=1)
    return sorted(rows, key=lambda row: str(row["id"]))


def search_services(call: ActionCall) -> Any:
    return recordset_answer(call, make_rows(service_rows(call.box)))


def change_any_service(state: str) -> Handler:
    @posted_only(otherwise={"result": "failed"})
    def handler(call: ActionCall) -> Any:
        """Answer `ok` also for a service that does not exist."""
        name = call.param(0) or ""
        if any(row["name"] == name and not row["locked"] for row in service_rows(call.box)):
            call.box.running.services[_SERVICES.get(name, name)] = state
        return {"result": "ok"}

    return handler


# tunables: the product's own have hashes for uuids


def _builtin_tunables(box: Box) -> list[SearchRow]:
    def build() -> list[SearchRow]:
        found = []
        for name, default in builtin_tunables(box).items():
            uuid = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
            row = {
                "uuid": uuid,
                "tunable": name,
                "value": "",
                "descr": "",
                "default_value": default,
                "type": "",
            }
            found.append(SearchRow(row))
        return found

    return box.derived("built-in tunables", (), build)


def search_tunables(call: ActionCall) -> Any:
    model = call.model(TUNABLES)
    set_by_hand = {item["tunable"] for item in call.box.items(TUNABLES).values()}
    rows = [row for row in _builtin_tunables(call.box) if row.data["tunable"] not in set_by_hand]
    rows += rows_of(call.box, model)
    return grid_answer(call, sorted(rows, key=lambda row: natural_key(row.data["uuid"])))


def get_tunable(call: ActionCall) -> Any:
    found = get_item(call, call.model(TUNABLES))
    if not found:
        for row in _builtin_tunables(call.box):
            if row.data["uuid"] == call.param(0):
                return {"sysctl": {name: value for name, value in row.data.items() if name != "uuid"}}
    return found


def set_tunable(call: ActionCall) -> Any:
    """Set a tunable; what is no uuid, as the hash of a built-in one, makes a new one."""
    if call.param(0) is None or _UUID.fullmatch(call.param(0) or ""):
        return set_item(call, call.model(TUNABLES))
    made = add_item(call, call.model(TUNABLES))
    return {name: value for name, value in made.items() if name != "uuid"}


@posted_only(otherwise={"status": "failed"})
def reset_tunables(call: ActionCall) -> Any:
    edit = call.box.config.edit()
    for uuid in call.box.items(TUNABLES):
        edit.drop(TUNABLES, uuid)
    call.save(edit)
    return {"status": "ok"}


ACTIONS: Final[Mapping[str, Handler]] = {
    "core/system/status": get_system_status,
    "core/system/dismissStatus": dismiss_status,
    "core/menu/search": search_menu,
    "core/service/search": search_services,
    "core/service/start": change_any_service("running"),
    "core/service/stop": change_any_service("stopped"),
    "core/service/restart": change_any_service("running"),
    "core/tunables/searchItem": search_tunables,
    "core/tunables/getItem": get_tunable,
    "core/tunables/setItem": set_tunable,
    "core/tunables/reset": reset_tunables,
}
