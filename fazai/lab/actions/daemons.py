"""Services: start, stop, restart, status and reconfigure, and what runs after a boot."""

from __future__ import annotations

from typing import Any, Final

from fazai.lab.box import ActionCall, Box, Handler, failure_like, posted_only
from fazai.lab.engine.schema import Controller

CAPTIONS: Final = {"caption_restart": "Restart", "caption_start": "Start", "caption_stop": "Stop"}


def is_enabled(box: Box, controller: Controller) -> bool:
    """Return whether the setting of a service enables it; one without such a setting always is."""
    if controller.enabled_by is None:
        return True
    model, name = controller.enabled_by
    return box.config.settings(model).get(name, "0") == "1"


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
