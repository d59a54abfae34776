"""The table of all routes. A new part of the daemon adds its own with one line here."""

from __future__ import annotations

from fazai.daemon import agents, fleet, system
from fazai.daemon.events import reports
from fazai.daemon.events import sse as stream
from fazai.daemon.firewalls import routes as opn
from fazai.daemon.gemma import sessions
from fazai.daemon.http import static as page
from fazai.daemon.http.routing import Route
from fazai.daemon.ingest import routes as telemetry
from fazai.daemon.runs import routes as runs

__all__ = ["TABLE"]

TABLE: tuple[Route, ...] = (
    *system.ROUTES,
    *stream.ROUTES,
    *reports.ROUTES,
    *telemetry.ROUTES,
    *agents.ROUTES,
    *runs.ROUTES,
    *opn.ROUTES,
    *sessions.ROUTES,
    *fleet.ROUTES,
    *page.ROUTES,
)
