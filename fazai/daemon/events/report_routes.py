"""POST /events: the reports of runs (SPEC.md, 2.2)."""

from __future__ import annotations

from fazai.daemon.http.routing import Route, RouteCall
from fazai.wire.daemon import ReportAnswer, ReportBody


async def accept_report(call: RouteCall) -> ReportAnswer:
    """Store a batch of events of one run."""
    own = call.services.run_queue.records.get(call.body.run_id) is not None
    answer: ReportAnswer = await call.services.reports.accept(call.body, call.who, own=own)
    return answer


ROUTES = (
    Route(
        method="POST",
        path="/events",
        summary="Events of a run, from the reconciler that carries it out.",
        handler=accept_report,
        role="operator",
        body=ReportBody,
        answer=ReportAnswer,
        codes=("unavailable",),
    ),
)
