"""The table of all routes. A new part of the daemon adds its own with one line here."""

from __future__ import annotations

from fazai.daemon import agents, fleet, opn, page, reports, runs, sessions, stream, system, telemetry
from fazai.daemon.web import Route

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
