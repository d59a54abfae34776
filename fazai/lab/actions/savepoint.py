"""Savepoints of release 26.1: taken, armed by an apply, cancelled, reverted. 26.7 has none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.actions.rules import COLLECTIONS, apply_rules, rule_model
from fazai.lab.box import ActionCall, ArmedRollback, Box, Handler, posted_only
from fazai.lab.engine.config import collections_below
from fazai.lab.models.alias import make_tables

ERROR: Final = {"status": "error"}
TIMER: Final = "/usr/local/opnsense/scripts/filter/rollback_timer.php made changes"


@posted_only(otherwise=ERROR)
def take_savepoint(call: ActionCall) -> Any:
    """Take a savepoint; its revision has two decimals, the history's more, so as answered it fits nothing."""
    call.check_writable()
    revision = call.box.config.edit().commit(*call.stamp())
    kept = str(call.box.settings.history)
    return {"status": "ok", "retention": kept, "revision": f"{float(revision.number):.2f}"}


def _roll_back(box: Box, model: str, revision: str, stamp: tuple[str, str, float]) -> bool:
    """Take back the rules' model alone; it is loaded at once, with the aliases."""
    found = box.config.find(revision)
    if found is None:
        return False
    paths = {*collections_below(found.state, model), *collections_below(box.config.state, model)}
    box.config.restore(sorted(paths), found, *stamp)
    for service in ("filter", "alias"):
        box.apply(service)
    box.running.tables = make_tables(box)
    box.reloaded()
    return True


def apply_armed(call: ActionCall) -> Any:
    """Apply the rules; given a revision, roll back in 60 s unless cancelled, or a timer runs already."""
    answer = apply_rules(call)
    revision, box = call.param(0), call.box
    if not call.posted or revision is None or box.rollback is not None:
        return answer

    def run_out() -> None:
        """Roll back the rules' model, whichever controller armed the timer."""
        box.rollback = None
        _roll_back(box, "Firewall.Filter", revision, (TIMER, "(root)", box.clock()))

    box.rollback = ArmedRollback(revision, box.schedule(box.settings.rollback_s, run_out))
    return answer


@posted_only(otherwise=ERROR)
def cancel_rollback(call: ActionCall) -> Any:
    armed = call.box.rollback
    if armed is None or armed.revision != call.param(0):
        return {"status": ""}
    armed.cancel()
    call.box.rollback = None
    return {"status": "\n\n"}


@posted_only(otherwise=ERROR)
def revert_savepoint(call: ActionCall) -> Any:
    call.check_writable()
    if _roll_back(call.box, rule_model(call).model, call.param(0) or "", call.stamp()):
        return {"status": "ok"}
    return {"status": "unknown (or removed) savepoint"}


ACTIONS: Final[Mapping[str, Handler]] = {
    f"{controller}/{action}": handler
    for controller in COLLECTIONS
    for action, handler in (
        ("savepoint", take_savepoint),
        ("cancelRollback", cancel_rollback),
        ("revert", revert_savepoint),
    )
}
ARMED: Final[Mapping[str, Handler]] = {f"{controller}/apply": apply_armed for controller in COLLECTIONS}
