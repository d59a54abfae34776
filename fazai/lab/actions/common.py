"""Handlers that many controllers share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from fazai.lab.box import ActionCall, Handler, posted_only
from fazai.lab.engine.schema import Catalogue, ItemModel, action_key
from fazai.lab.engine.verbs import (
    add_item,
    del_item,
    get_item,
    get_model,
    search_items,
    set_item,
    set_model,
    toggle_item,
)

VERBS: Final[Mapping[str, Callable[[ActionCall, ItemModel], Any]]] = {
    "search": search_items,
    "get": get_item,
    "add": add_item,
    "set": set_item,
    "del": del_item,
    "toggle": toggle_item,
}
CAPTIONS: Final = {"caption_restart": "Restart", "caption_start": "Start", "caption_stop": "Stop"}


def _bind_verb(verb: Callable[[ActionCall, ItemModel], Any], model: ItemModel) -> Handler:
    return lambda call: verb(call, model)


def answer_constant(answer: Any) -> Handler:
    """Return a handler that always answers the same."""
    return lambda call: answer


def reconfigure_service(service: str) -> Handler:
    """Return the handler with which a service takes over what is stored."""

    @posted_only(otherwise={"status": "failed"})
    def handler(call: ActionCall) -> Any:
        call.box.apply(service)
        call.box.running.services[service] = "running"
        return {"status": "ok"}

    return handler


def change_service(service: str, state: str) -> Handler:
    """Return the handler that starts, stops or restarts a daemon."""

    @posted_only(otherwise={"response": []})
    def handler(call: ActionCall) -> Any:
        if state == "running":
            call.box.running.applied.setdefault(service, call.box.config.state)
        call.box.running.services[service] = state
        return {"response": "OK"}

    return handler


def service_handlers(
    service: str, disabled: Callable[[ActionCall], bool] | None = None
) -> dict[str, Handler]:
    """Return start, stop, restart, status and reconfigure of a daemon."""

    def status(call: ActionCall) -> Any:
        state = call.box.running.services.get(service, "stopped")
        if state != "running" and disabled is not None and disabled(call):
            state = "disabled"
        return {"status": state, "widget": CAPTIONS}

    return {
        "start": change_service(service, "running"),
        "stop": change_service(service, "stopped"),
        "restart": change_service(service, "running"),
        "status": status,
        "reconfigure": reconfigure_service(service),
    }


def generic_handlers(catalogue: Catalogue) -> dict[str, Handler]:
    """Return the handlers of every controller with a row: its collections, its model, its service."""
    table: dict[str, Handler] = {}
    for name, controller in catalogue.controllers.items():
        actions = catalogue.endpoints.get(name, {})
        found: dict[str, Handler] = {}
        if controller.model:
            model = catalogue.models[controller.model]
            found["get"] = lambda call, c=controller, m=model: get_model(call, c, m)  # type: ignore[misc]
            found["set"] = lambda call, c=controller, m=model: set_model(call, c, m)  # type: ignore[misc]
            for suffix, inner in controller.items.items():
                overlay = controller.overlay.get(suffix, {})
                items = msgspec.structs.replace(model.items[inner], overlay=overlay)
                for verb, function in VERBS.items():
                    for ending in (suffix, f"{suffix}s"):
                        if action_key(verb + ending) in actions:
                            found[verb + ending] = _bind_verb(function, items)
        if controller.service:
            found |= service_handlers(controller.service)
        found |= {action: answer_constant(answer) for action, answer in controller.answers.items()}
        table |= {f"{name}/{action_key(action)}": handler for action, handler in found.items()}
    return table
