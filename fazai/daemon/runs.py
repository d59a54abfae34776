"""GET /runs and /runs/{id}: the reconciler's ledger. `POST /runs` plugs in here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

from fazai.daemon.refusal import Refusal
from fazai.daemon.web import Call, Route
from fazai.store.base import Action, Run
from fazai.wire.base import convert_to
from fazai.wire.daemon import ActionRow, RunAnswer, RunRow, RunsAnswer, RunsQuery, TargetRow

__all__ = ["ROUTES", "run_row"]

_WRITES = "apply"
_STATUS = {"begun": "planned", "done": "done", "failed": "failed"}


async def runs(call: Call) -> RunsAnswer:
    """The newest first."""
    query: RunsQuery = call.query
    return RunsAnswer(runs=tuple(run_row(run) for run in call.services.store.ledger.history(query.limit)))


async def run(call: Call) -> RunAnswer:
    """One run, with what became of its targets and actions. Raises Refusal(not_found)."""
    ledger = call.services.store.ledger
    wanted = call.path["id"]
    found = ledger.find_run(wanted) if len(wanted) == 26 else None
    if found is None or found.run_id != wanted:
        raise Refusal("not_found", f"there is no run {wanted[:64]!r}", hint="see: GET /runs")
    events = ledger.events(wanted)
    return RunAnswer(
        run=run_row(found),
        targets=tuple(_target(event) for event in events if event["type"] == "outcome"),
        actions=_actions(ledger.actions(wanted), events),
    )


def run_row(run: Run) -> RunRow:
    return RunRow(
        run_id=run.run_id,
        command=run.command,
        state="finished" if run.exit_code is not None else "started",
        started_at=_moment(run.started),
        check=run.command != _WRITES,
        finished_at=_moment(run.finished) if run.finished is not None else None,
        exit_code=run.exit_code,
        totals=cast("dict[str, int]", dict(run.summary)) or None,
    )


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _target(event: Mapping[str, Any]) -> TargetRow:
    names = TargetRow.__struct_fields__
    return convert_to({name: event[name] for name in names if event.get(name)}, TargetRow)


def _actions(recorded: list[Action], events: list[dict[str, Any]]) -> tuple[ActionRow, ...]:
    """From the journal, else (of a run elsewhere) from what it reported."""
    if recorded:
        return tuple(
            ActionRow(
                action_id=one.action_id,
                target=one.target,
                kind=one.kind,
                identity=one.identity,
                verb=cast("Any", one.verb),
                status=cast("Any", _STATUS.get(one.status, "planned")),
                error=one.error or None,
            )
            for one in recorded
        )
    return tuple(
        convert_to({name: event[name] for name in ActionRow.__struct_fields__ if event.get(name)}, ActionRow)
        for event in events
        if event["type"] == "change" and event.get("action_id")
    )


ROUTES = (
    Route(
        method="GET",
        path="/runs",
        summary="Runs, the newest first.",
        handler=runs,
        query=RunsQuery,
        answer=RunsAnswer,
    ),
    Route(method="GET", path="/runs/{id}", summary="One run.", handler=run, answer=RunAnswer),
)
