"""The handlers of a release: the generic ones of collections, models and services, and the table of all."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any, Final

import msgspec

from fazai.lab import actions
from fazai.lab.actions import savepoint
from fazai.lab.box import ActionCall, Box, Handler, failure_like, posted_only
from fazai.lab.engine.schema import Catalogue, Controller, action_key, read_json
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

VERBS: Final[Mapping[str, Callable[..., Any]]] = {
    "search": search_items,
    "get": get_item,
    "add": add_item,
    "set": set_item,
    "del": del_item,
    "toggle": toggle_item,
}
CAPTIONS: Final = {"caption_restart": "Restart", "caption_start": "Start", "caption_stop": "Stop"}


def recorded_answer(box: Box, name: str) -> Any:
    """Return a constant answer of data/answers.json, with the version of the box's release."""

    def build() -> Any:
        text = msgspec.json.encode(read_json("answers.json")[name]).decode()
        release = box.settings.release
        return msgspec.json.decode(text.replace("26.7.2", release).replace("26.7", release[:4]))

    return box.derived(f"answer {name}", (), build)


def is_enabled(box: Box, controller: Controller) -> bool:
    """Return whether the setting of a service enables it; one without such a setting always is."""
    if controller.enabled_by is None:
        return True
    switches = (controller.enabled_by, *((controller.or_by,) if controller.or_by else ()))
    return any(box.config.settings(model).get(name, "0") == "1" for model, name in switches)


def reconfigure_service(box: Box, controller: Controller) -> None:
    """Let the service take over what is stored; it runs if it is enabled."""
    box.apply(controller.service)
    box.running.services[controller.service] = "running" if is_enabled(box, controller) else "stopped"


def boot_daemons(box: Box) -> None:
    """Start every service that a setting enables with what is stored, as a boot does."""
    for controller in box.catalogue.controllers.values():
        if controller.enabled_by is not None and is_enabled(box, controller):
            reconfigure_service(box, controller)


def service_handlers(controller: Controller) -> dict[str, Handler]:
    """Return the actions of a service."""
    service = controller.service

    def change(state: str) -> Handler:
        @posted_only(otherwise={"response": []})
        def handler(call: ActionCall) -> Any:
            if state == "running":
                call.box.running.applied.setdefault(service, call.box.config.state)
            call.box.running.services[service] = state
            return {"response": "OK"}

        return handler

    @posted_only(failure_like(controller.reconfigured))
    def reconfigure(call: ActionCall) -> Any:
        reconfigure_service(call.box, controller)
        return controller.reconfigured

    def status(call: ActionCall) -> Any:
        state = call.box.running.services.get(service, controller.unseen)
        if state != "running" and not is_enabled(call.box, controller):
            state = "disabled"
        return {"status": state, "widget": CAPTIONS}

    return {
        "start": change("running"),
        "stop": change("stopped"),
        "restart": change("running"),
        "status": status,
        "reconfigure": reconfigure,
        "reconfigureGeneral": reconfigure,
    }


def _answer_constant(answer: Any, call: ActionCall) -> Any:
    return answer


def _answer_recorded(name: str, call: ActionCall) -> Any:
    return recorded_answer(call.box, name)


def _model_handlers(catalogue: Catalogue, controller: Controller) -> dict[str, Handler]:
    """Return get and set of a whole model, and the verbs of its collections."""
    model = catalogue.models[controller.model]
    found: dict[str, Handler] = {
        "get": partial(get_model, controller=controller, model=model),
        "set": partial(set_model, controller=controller, model=model),
    }
    for suffix, inner in controller.items.items():
        items = msgspec.structs.replace(model.items[inner], overlay=controller.overlay.get(suffix, {}))
        for verb, function in VERBS.items():
            for ending in (suffix, f"{suffix}s"):
                found[verb + ending] = partial(function, model=items)
    return found


def generic_handlers(controller: Controller, catalogue: Catalogue) -> dict[str, Handler]:
    """Return the handlers that the row of a controller asks for, by action."""
    found: dict[str, Handler] = {}
    if controller.model:
        found |= _model_handlers(catalogue, controller)
    if controller.service:
        found |= service_handlers(controller)
    for action, answer in controller.answers.items():
        found[action] = partial(_answer_constant, answer)
    for action, name in controller.recorded.items():
        found[action] = partial(_answer_recorded, name)
    for action, answer in controller.posted.items():
        found[action] = posted_only(failure_like(answer))(partial(_answer_constant, answer))
    return found


def special_handlers() -> dict[str, Handler]:
    """Return what the modules of `actions` bring, found by name."""
    names = [found.name for found in pkgutil.iter_modules(actions.__path__)]
    modules = [import_module(f"{actions.__name__}.{name}") for name in names]
    return {name: row for module in modules for name, row in getattr(module, "ACTIONS", {}).items()}


def build_handlers(catalogue: Catalogue) -> Mapping[str, Handler]:
    """Return handlers by `module/controller/action` (normalised); special ones go before generic ones."""
    found = {
        f"{name}/{action}": handler
        for name, controller in catalogue.controllers.items()
        for action, handler in generic_handlers(controller, catalogue).items()
    }
    found |= special_handlers()
    if catalogue.release.startswith("26.1"):
        found |= savepoint.ARMED
    table = {}
    for name, handler in found.items():
        controller_name, _, action = name.rpartition("/")
        if (key := action_key(action)) in catalogue.endpoints[controller_name]:
            table[f"{controller_name}/{key}"] = handler
    return table
