"""The table of all routes, and /openapi.json, which describes it. A folder adds its routes with one line
here."""

from __future__ import annotations

from fazai.daemon import agents, fleet, system
from fazai.daemon.events import routes as events
from fazai.daemon.firewalls import reading_routes
from fazai.daemon.firewalls import routes as firewalls
from fazai.daemon.gemma import routes as gemma
from fazai.daemon.http import static
from fazai.daemon.http.routing import HttpReply, Route, RouteCall
from fazai.daemon.ingest import routes as ingest
from fazai.daemon.kb import routes as kb
from fazai.daemon.loop import routes as loop
from fazai.daemon.runs import routes as runs
from fazai.daemon.southbound import routes as southbound
from fazai.daemon.tools import mcp
from fazai.daemon.tools import routes as tools


@Route("GET", "/openapi.json", "This description.", role=None)
async def describe_routes(call: RouteCall) -> HttpReply:
    """Describe the routes (OpenAPI 3.1)."""
    from fazai.daemon.http.openapi import build_openapi

    return HttpReply(build_openapi(TABLE))


TABLE: tuple[Route, ...] = (
    *system.ROUTES,
    describe_routes,
    *events.ROUTES,
    *ingest.ROUTES,
    *agents.ROUTES,
    *runs.ROUTES,
    *firewalls.ROUTES,
    *reading_routes.ROUTES,
    *gemma.ROUTES,
    *loop.ROUTES,
    *fleet.ROUTES,
    *southbound.ROUTES,
    *tools.ROUTES,
    mcp.ROUTE,
    *kb.ROUTES,
    *static.ROUTES,
)
