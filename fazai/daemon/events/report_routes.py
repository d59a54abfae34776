"""POST /events: the reports of runs (SPEC.md, 2.2)."""

from __future__ import annotations

from fazai.daemon.http.routing import Call, Route
from fazai.wire.daemon import ReportAnswer, ReportBody

__all__ = ["ROUTES"]


async def report(call: Call) -> ReportAnswer:
    own = call.services.runs.records.get(call.body.run_id) is not None
    answer: ReportAnswer = await call.services.reports.take(call.body, call.who, own=own)
    return answer


ROUTES = (
    Route(
        method="POST",
        path="/events",
        summary="Events of a run, from the reconciler that carries it out.",
        handler=report,
        role="operator",
        body=ReportBody,
        answer=ReportAnswer,
        codes=("unavailable",),
    ),
)
