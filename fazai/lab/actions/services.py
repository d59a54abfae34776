"""kea, dnsmasq, monit, ids, trafficshaper: what is not the generic verbs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.actions.common import reconfigure, service_handlers
from fazai.lab.actions.core import answer
from fazai.lab.actions.sheets import download, upload
from fazai.lab.box import Call, Handler
from fazai.lab.search import plain_rows, recordset

__all__ = ["ACTIONS"]

RESERVATIONS: Final = "Kea.dhcp4.reservations.reservation"
CHECKED: Final = {"status": "ok", "function": "check", "template": "OK", "result": ""}


def _monit_off(call: Call) -> bool:
    return call.box.config.settings("Monit").get("general.enabled", "0") != "1"


def monit_check(call: Call) -> Any:
    return CHECKED if call.posted else {"status": "failed"}


def monit_reconfigure(call: Call) -> Any:
    """Checks the configuration, and starts what is enabled."""
    if not call.posted:
        return {"status": "failed"}
    call.box.apply("monit")
    if not _monit_off(call):
        call.box.running.services["monit"] = "running"
    return CHECKED


def ids_reconfigure(call: Call) -> Any:
    if not call.posted:
        return {"status": "failed"}
    call.box.apply("ids")
    call.box.running.services["ids"] = "running"
    return {"status": "OK"}


def ids_reload(call: Call) -> Any:
    """The lab has no rules to load, nor had the recorded one."""
    return {"status": "Error (1)\n\n"} if call.posted else {"status": "failed"}


def rulesets(call: Call) -> Any:
    """The ones that the recording kept, with what was switched here."""
    switched = call.box.items("IDS.rulesets")
    rows = [
        {**row, "enabled": switched.get(row["filename"], row)["enabled"]}
        for row in answer(call.box, "rulesets")
    ]
    return recordset(call, plain_rows(rows))


def toggle_ruleset(call: Call) -> Any:
    known = {row["filename"]: row for row in answer(call.box, "rulesets")}
    names = [name for name in (call.param(0) or "").split(",") if name in known]
    if not call.posted or not names:
        return {"result": "failed"}
    edit = call.box.config.edit()
    for name in names:
        old = call.box.items("IDS.rulesets").get(name, known[name])["enabled"]
        wanted = call.param(1) if call.param(1) in ("0", "1") else ("0" if old == "1" else "1")
        edit.put("IDS.rulesets", name, {"enabled": wanted or "0"})
    call.save(edit)
    return {"status": "ok"}


_MONIT: Final = service_handlers("monit", _monit_off)

ACTIONS: Final[Mapping[str, Handler]] = {
    **{f"monit/service/{action}": handler for action, handler in _MONIT.items()},
    "monit/service/check": monit_check,
    "monit/service/reconfigure": monit_reconfigure,
    "ids/service/reconfigure": ids_reconfigure,
    "ids/service/reloadRules": ids_reload,
    "ids/settings/listRulesets": rulesets,
    "ids/settings/toggleRuleset": toggle_ruleset,
    "trafficshaper/service/reconfigure": reconfigure("trafficshaper"),
    "kea/dhcpv4/downloadReservations": download(RESERVATIONS, with_uuid=False, leave_out=("subnet",)),
    "kea/dhcpv4/uploadReservations": upload(RESERVATIONS),
}
