"""Services that a setting enables: reconfigure, status, and their start after a boot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.actions.common import CAPTIONS, change_service
from fazai.lab.box import ActionCall, Box, Handler, posted_only

# service -> model and field of the setting that enables it
ENABLED: Final[Mapping[str, tuple[str, str]]] = {
    "dnsmasq": ("Dnsmasq", "enable"),
    "ids": ("IDS", "general.enabled"),
    "kea": ("Kea.dhcp4", "general.enabled"),
    "monit": ("Monit", "general.enabled"),
    "wireguard": ("Wireguard.General", "enabled"),
}


def is_enabled(box: Box, service: str) -> bool:
    model, name = ENABLED[service]
    return box.config.settings(model).get(name, "0") == "1"


def reconfigure_daemon(box: Box, service: str) -> None:
    """Let the service take over what is stored; it runs if it is enabled."""
    box.apply(service)
    box.running.services[service] = "running" if is_enabled(box, service) else "stopped"


def boot_daemons(box: Box) -> None:
    """Start everything that is enabled with what is stored, as a boot does."""
    for service in ENABLED:
        if is_enabled(box, service):
            reconfigure_daemon(box, service)


def _reconfigure_handler(service: str) -> Handler:
    @posted_only(otherwise={"status": "failed"})
    def handler(call: ActionCall) -> Any:
        reconfigure_daemon(call.box, service)
        return {"status": "ok"}

    return handler


def _status_handler(service: str, unseen: str) -> Handler:
    def handler(call: ActionCall) -> Any:
        state = call.box.running.services.get(service, unseen)
        if state != "running" and not is_enabled(call.box, service):
            state = "disabled"
        return {"status": state, "widget": CAPTIONS}

    return handler


def daemon_handlers(service: str, *, unseen: str = "stopped") -> dict[str, Handler]:
    """Return the five calls of `<module>/service`.

    `unseen` is the status of an enabled one before it first runs.
    """
    verbs = {
        "start": change_service(service, "running"),
        "stop": change_service(service, "stopped"),
        "restart": change_service(service, "running"),
        "status": _status_handler(service, unseen),
        "reconfigure": _reconfigure_handler(service),
    }
    return {f"{service}/service/{action}": handler for action, handler in verbs.items()}
