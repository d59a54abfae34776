"""ids: the actions beyond the generic verbs."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.actions.common import recorded_answer
from fazai.lab.actions.daemons import reconfigure_service
from fazai.lab.box import ActionCall, Handler, posted_only
from fazai.lab.engine.config import SETTINGS
from fazai.lab.engine.search import make_rows, recordset_answer
from fazai.lab.engine.verbs import blank_item

JOBS: Final = "Cron.jobs.job"


@posted_only(otherwise={"status": "failed"})
def reconfigure_ids(call: ActionCall) -> Any:
    """Reconfigure the service; the first time makes a cron job for the update of the rules, which is off."""
    box = call.box
    if not box.config.settings("IDS").get("general.UpdateCron"):
        _make_update_job(call)
    controller = box.catalogue.controllers["ids/service"]
    reconfigure_service(box, controller)
    return controller.reconfigured


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
    "ids/service/reconfigure": reconfigure_ids,
    "ids/settings/listRulesets": list_rulesets,
    "ids/settings/toggleRuleset": toggle_ruleset,
}
