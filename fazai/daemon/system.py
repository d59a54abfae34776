"""/health, /ready, /openapi.json: what the daemon says of itself."""

from __future__ import annotations

from fazai import __version__
from fazai.daemon.refusal import Refusal
from fazai.daemon.web import Call, Reply, Route
from fazai.wire.daemon import HealthAnswer

__all__ = ["ROUTES"]


async def health(call: Call) -> HealthAnswer:
    """The process serves."""
    return HealthAnswer(status="alive", version=__version__)


async def ready(call: Call) -> HealthAnswer:
    """It serves, and the store answers. Raises Refusal(unavailable)."""
    if not call.services.ready or call.services.stopping:
        raise Refusal("unavailable", "the daemon is starting or stopping", headers=((b"retry-after", b"2"),))
    call.services.store.event_range()
    return HealthAnswer(status="ready", version=__version__)


async def openapi(call: Call) -> Reply:
    from fazai.daemon.openapi import document
    from fazai.daemon.routes import TABLE

    return Reply(document(TABLE))


ROUTES = (
    Route(method="GET", path="/health", summary="Liveness.", handler=health, role=None, answer=HealthAnswer),
    Route(
        method="GET",
        path="/ready",
        summary="Readiness.",
        handler=ready,
        role=None,
        answer=HealthAnswer,
        codes=("unavailable",),
    ),
    Route(method="GET", path="/openapi.json", summary="This description.", handler=openapi, role=None),
)
