"""/health and /ready: liveness of the process, and readiness to store."""

from __future__ import annotations

from fazai import __version__
from fazai.daemon.http.refusal import Refusal
from fazai.daemon.http.routing import Route, RouteCall
from fazai.errors import StateError
from fazai.wire.daemon import HealthAnswer


@Route("GET", "/health", "Liveness.", role=None)
async def show_health(call: RouteCall) -> HealthAnswer:
    """Return that the process serves."""
    return HealthAnswer(status="alive", version=__version__)


@Route("GET", "/ready", "Readiness.", role=None, codes=("unavailable",))
async def show_readiness(call: RouteCall) -> HealthAnswer:
    """Return that the daemon serves, and that its store writes. Raises Refusal(unavailable)."""
    if not call.services.ready or call.services.stopping:
        raise Refusal("unavailable", "the daemon is starting or stopping", headers=((b"retry-after", b"2"),))
    try:
        call.services.store.check_alive()
    except StateError as error:
        raise Refusal("unavailable", error.message, headers=((b"retry-after", b"5"),)) from None
    return HealthAnswer(status="ready", version=__version__)


ROUTES = (show_health, show_readiness)
