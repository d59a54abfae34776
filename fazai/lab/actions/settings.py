"""Controllers whose whole-model calls answer otherwise than the generic ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.box import ActionCall, Handler
from fazai.lab.engine.verbs import FAILED, get_model, set_model


def get_netflow(call: ActionCall) -> Any:
    box = call.box
    return get_model(call, box.catalogue.controllers["diagnostics/netflow"], box.catalogue.models["Netflow"])


def set_netflow(call: ActionCall) -> Any:
    """Set the settings: a body under another root key fails here, and each field has one message."""
    box, model = call.box, call.box.catalogue.models["Netflow"]
    if model.root not in call.body:
        return FAILED
    answer = set_model(call, box.catalogue.controllers["diagnostics/netflow"], model)
    wrong = answer.get("validations", {})
    flat = {name: texts if isinstance(texts, str) else texts[-1] for name, texts in wrong.items()}
    return {**answer, "validations": flat} if wrong else answer


def set_firmware(call: ActionCall) -> Any:
    box = call.box
    answer = set_model(
        call, box.catalogue.controllers["core/firmware"], box.catalogue.models["Core.Firmware"]
    )
    if answer.get("result") == "saved":
        return {"status": "ok"}
    return {"status": "failure", **{name: answer[name] for name in answer if name != "result"}}


ACTIONS: Final[Mapping[str, Handler]] = {
    "core/firmware/set": set_firmware,
    "diagnostics/netflow/getconfig": get_netflow,
    "diagnostics/netflow/setconfig": set_netflow,
}
