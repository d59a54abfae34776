"""dnsmasq, monit, ids, trafficshaper: the actions beyond the generic verbs."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.actions.common import reconfigure_service
from fazai.lab.actions.core import recorded_answer
from fazai.lab.actions.daemons import daemon_handlers, reconfigure_daemon
from fazai.lab.box import ActionCall, Handler, posted_only
from fazai.lab.engine.config import SETTINGS
from fazai.lab.engine.search import make_rows, recordset_answer
from fazai.lab.engine.verbs import blank_item

JOBS: Final = "Cron.jobs.job"
CHECKED: Final = {"status": "ok", "function": "check", "template": "OK", "result": ""}


def check_monit(call: ActionCall) -> Any:
    return CHECKED if call.posted else {"status": "failed"}


@posted_only(otherwise={"status": "failed"})
def reconfigure_monit(call: ActionCall) -> Any:
    """Check the configuration, and start or stop the service as it is enabled."""
    reconfigure_daemon(call.box, "monit")
    return CHECKED


@posted_only(otherwise={"status": "failed"})
def reconfigure_ids(call: ActionCall) -> Any:
    """Reconfigure; the first time makes a cron job for the update of the rules, which is off."""
    box = call.box
    if not box.config.settings("IDS").get("general.UpdateCron"):
        _make_update_job(call)
    reconfigure_daemon(box, "ids")
    return {"status": "OK"}


def _make_update_job(call: ActionCall) -> None:
    box, uuid = call.box, str(uuids.uuid4())
    job = {"origin": "IDS", "command": "ids update", "description": "ids rule updates", "enabled": "0"}
    model = box.catalogue.models["IDS"]
    defaults = {field.name: field.default for field in model.settings}
    settings = {**defaults, **box.config.settings(model.name), "general.UpdateCron": uuid}
    edit = box.config.edit()
    edit.put(JOBS, uuid, {**blank_item(box, box.catalogue.items[JOBS]), **job})
    edit.put(model.name, SETTINGS, settings)
    call.save(edit)


def reload_ids_rules(call: ActionCall) -> Any:
    """Answer that there are no rules to load; the recorded firewall had none either."""
    return {"status": "Error (1)\n\n"} if call.posted else {"status": "failed"}


def list_rulesets(call: ActionCall) -> Any:
    """List the rulesets of the recording, with what was switched here."""
    switched = call.box.items("IDS.rulesets")
    rows = [
        {**row, "enabled": switched.get(row["filename"], row)["enabled"]}
        for row in recorded_answer(call.box, "rulesets")
    ]
    return recordset_answer(call, make_rows(rows))


def toggle_ruleset(call: ActionCall) -> Any:
    known = {row["filename"]: row for row in recorded_answer(call.box, "rulesets")}
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


ACTIONS: Final[Mapping[str, Handler]] = {
    **daemon_handlers("monit"),
    **daemon_handlers("ids"),
    **daemon_handlers("dnsmasq", unseen="unknown"),
    "monit/service/check": check_monit,
    "monit/service/reconfigure": reconfigure_monit,
    "ids/service/reconfigure": reconfigure_ids,
    "ids/service/reloadRules": reload_ids_rules,
    "ids/settings/listRulesets": list_rulesets,
    "ids/settings/toggleRuleset": toggle_ruleset,
    "trafficshaper/service/reconfigure": reconfigure_service("trafficshaper"),
}
