"""core: status, services, backups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.box import Call, Handler

__all__ = ["ACTIONS"]


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
        "title": "Crash Reporter", "statusCode": -1,
        "message": "An issue was detected and can be reviewed using the firmware crash reporter.",
        "location": "/crash_reporter.php", "timestamp": int(box.running.crashed_at), "persistent": False,
        "isBanner": False, "priority": 10, "status": "ERROR",
        "age": f"{int(box.clock() - box.running.crashed_at)} seconds ago",
    }
    return {"metadata": metadata, "subsystems": {"crashreporter": crash}}


def dismiss_status(call: Call) -> Any:
    call.box.running.crashed_at = 0.0
    return {"status": "ok"}


ACTIONS: Final[Mapping[str, Handler]] = {
    "core/system/status": system_status,
    "core/system/dismissStatus": dismiss_status,
}
