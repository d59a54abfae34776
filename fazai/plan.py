"""The plan as a value that can be saved, shown, compared and hashed (design.md, "plan").

A saved plan holds no secret. It is bound to the inventory's digest and to what was observed on each target;
applying it is refused (exit 6) when either moved on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fazai.errors import InputError, PlanStale
from fazai.model import Change, Diff, Resource
from fazai.outcome import change_record

__all__ = ["Expected", "SavedPlan", "changes_digest", "check_later", "read_plan", "write_plan"]

FORMAT = "fazai-plan/1"


@dataclass(frozen=True, slots=True)
class Expected:
    """What a saved plan promised for one target."""

    observed: str
    changes: str

    def check(self, target: str, observed: str, diff: Diff) -> None:
        """Raises PlanStale when the target would now be changed otherwise than planned."""
        if observed != self.observed:
            reason = "it is not in the state in which it was planned"
        elif changes_digest(diff.changes) != self.changes:
            reason = "its changes are not the planned ones"
        else:
            return
        raise PlanStale(f"the plan is stale for {target}: {reason}", where=target, hint="plan again")


@dataclass(frozen=True, slots=True)
class SavedPlan:
    """The content of a plan file. `arguments`: the inventory sources and the selection it was made with."""

    arguments: Mapping[str, Any]
    inventory: str
    created: str
    version: str
    targets: Mapping[str, Expected]
    changes: tuple[Mapping[str, Any], ...] = field(default=())

    @property
    def digest(self) -> str:
        """The plan's hash: what an approval names."""
        return _sha256(
            {
                "inventory": self.inventory,
                "targets": {name: [e.observed, e.changes] for name, e in sorted(self.targets.items())},
            }
        )

    def check_inventory(self, digest: str) -> None:
        """Raises PlanStale when the inventory's files are not those of the plan."""
        if digest != self.inventory:
            raise PlanStale("the plan is stale: the inventory or a playbook was edited", hint="plan again")


def changes_digest(changes: Iterable[Change]) -> str:
    """A hash over the changes in their order, secrets left out."""
    return _sha256([change_record(change) for change in changes])


def check_later(
    target: str, promised: Sequence[Change], later: Sequence[Resource], found: Sequence[Change]
) -> None:
    """Hold what was found when the target was looked at again, in the middle of a run, against its plan: what
    the plan could not know yet (`Diff.later`) is changed as it is declared, anything else as it was planned.
    Raises PlanStale."""
    declared = {(resource.kind, resource.identity) for resource in later}
    planned = [change_record(replace(change, note="")) for change in promised]
    for change in found:
        if (change.kind, change.identity) in declared or change_record(replace(change, note="")) in planned:
            continue
        text = f"the plan is stale for {target}: {change.kind} {change.identity} is not the planned change"
        raise PlanStale(text, where=target, hint="plan again")


def write_plan(plan: SavedPlan, path: Path) -> None:
    """Write atomically, mode 0600. Raises InputError."""
    body = {
        "format": FORMAT,
        "digest": plan.digest,
        "created": plan.created,
        "version": plan.version,
        "arguments": plan.arguments,
        "inventory": plan.inventory,
        "targets": {name: {"observed": e.observed, "changes": e.changes} for name, e in plan.targets.items()},
        "changes": list(plan.changes),
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(body, file, indent=1, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"the plan cannot be written: {error.strerror}", where=str(path)) from error


def read_plan(path: Path) -> SavedPlan:
    """Raises InputError when the file is not a plan or was edited."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        text = f"the plan cannot be read: {error.strerror}"
        raise InputError(text, where=str(path), hint="make one with: fazai plan -o FILE") from error
    except (ValueError, RecursionError) as error:
        raise _no_plan(path) from error
    try:
        if body["format"] != FORMAT:
            raise _no_plan(path)
        plan = SavedPlan(
            arguments=dict(body["arguments"]),
            inventory=str(body["inventory"]),
            created=str(body["created"]),
            version=str(body["version"]),
            targets={
                str(name): Expected(str(e["observed"]), str(e["changes"]))
                for name, e in body["targets"].items()
            },
            changes=tuple(body["changes"]),
        )
        digest = body["digest"]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _no_plan(path) from error
    if plan.digest != digest or not _shown_is_meant(plan):
        raise InputError("the plan was edited: its digest does not fit", where=str(path), hint="plan again")
    return plan


def _shown_is_meant(plan: SavedPlan) -> bool:
    """Whether the changes that a reader sees are those whose hashes will be compared."""
    shown: dict[str, list[Mapping[str, Any]]] = {name: [] for name in plan.targets}
    for change in plan.changes:
        shown.setdefault(str(change.get("target")), []).append(change)
    return all(name in plan.targets and _sha256(shown[name]) == plan.targets[name].changes for name in shown)


def _no_plan(path: Path) -> InputError:
    return InputError(
        "this is not a plan of fazai", where=str(path), hint=f"make one with: fazai plan -o {path.name} …"
    )


def _sha256(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
