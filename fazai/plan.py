"""The plan as a value that can be saved, shown, compared and hashed (design.md, "plan").

A saved plan holds no secret. Its hash, which an approval names, covers everything in it but the time at which
it was made: the arguments, every file that was read, what is wanted on each target, what was observed there
and the changes (docs/approvals.md). Applying it is refused (exit 6) when one of these moved on.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fazai.errors import InputError, PlanStale, missing_file
from fazai.files import replace_file
from fazai.model import Change, Diff, TargetWork
from fazai.outcome import change_record, json_value

FORMAT = "fazai-plan/2"
_LIMIT_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Expected:
    """Promise of a saved plan for one target: hashes of the observed, of the changes, of the wanted."""

    observed: str
    changes: str
    wanted: str = ""

    def check(self, target: str, observed: str, diff: Diff) -> None:
        """Check that the target would still be changed as planned. Raises PlanStale."""
        if observed != self.observed:
            raise _stale_plan("it is not in the state in which it was planned", target)
        if changes_digest(diff.changes) != self.changes:
            raise _stale_plan("its changes are not the planned ones", target)


@dataclass(frozen=True, slots=True)
class SavedPlan:
    """The content of a plan file. `arguments`: the inventory sources and the selection it was made with."""

    arguments: Mapping[str, Any]
    inventory: str
    files: str
    created: str
    version: str
    targets: Mapping[str, Expected]
    changes: tuple[Mapping[str, Any], ...] = ()

    @property
    def digest(self) -> str:
        """The plan's hash, which an approval names."""
        return _sha256(self._bound())

    def _bound(self) -> dict[str, Any]:
        """Return all that the hash covers; the changes that are shown are bound by their own hashes
        (`_shown_is_meant`)."""
        return {
            "format": FORMAT,
            "version": self.version,
            "arguments": self.arguments,
            "inventory": self.inventory,
            "files": self.files,
            "targets": {name: asdict(expected) for name, expected in self.targets.items()},
        }

    def check_inventory(self, digest: str) -> None:
        """Check that inventory, playbooks and variables are those of the plan. Raises PlanStale."""
        if digest != self.inventory:
            raise _stale_plan("the inventory, a playbook or a file of variables was edited")

    def check_files(self, digest: str) -> None:
        """Check that contents, templates and lists of hosts are those of the plan. Raises PlanStale."""
        if digest != self.files:
            raise _stale_plan("a file that a resource takes its content from was edited, or a list of hosts")

    def check_hash(self, approved: str, path: Path) -> None:
        """Check that this is the plan whose hash was approved. Raises PlanStale."""
        if approved != self.digest:
            text = f"the plan is not the approved one: its hash is {self.digest}"
            raise PlanStale(text, where=str(path), hint=f"approved was {approved}")

    def check_kinds(self, current_name: Callable[[str], str]) -> None:
        """Check that no change names its kind as an earlier release did. Raises PlanStale."""
        for old in sorted({str(change.get("kind", "")) for change in self.changes}):
            if (new := current_name(old)) != old:
                raise _stale_plan(f"an earlier release made it, and {old} is {new} now")

    def check_wanted(self, items: Iterable[TargetWork]) -> None:
        """Check that what is wanted on each target is what was planned, and that it still is a target. Raises
        PlanStale."""
        left = dict.fromkeys(self.targets)
        for item in items:
            name = item.target.name
            left.pop(name, None)
            if name in self.targets and self.targets[name].wanted != wanted_digest(item):
                raise _stale_plan("what is declared for it is not what was planned", name)
        for name in left:
            raise _stale_plan("it is no target", name)


def changes_digest(changes: Iterable[Change]) -> str:
    """Return a hash over the changes in their order, secrets left out."""
    return _sha256([change_record(change) for change in changes])


def check_later(target: str, promised: Diff, found: Sequence[Change]) -> None:
    """Compare what a second look in the middle of a run found with the plan. What the plan could not know yet
    (`Diff.later`) is changed as it is declared, anything else as it was planned. Raises PlanStale."""
    declared = {(resource.kind, resource.identity) for resource in promised.later}
    planned = [change_record(replace(change, note="")) for change in promised.changes]
    for change in found:
        if (change.kind, change.identity) in declared or change_record(replace(change, note="")) in planned:
            continue
        raise _stale_plan(f"{change.kind} {change.identity} is not the planned change", target)


def wanted_digest(item: TargetWork) -> str:
    """Return a hash over all that is wanted on a target, handlers too; secrets left out. The target's options
    follow from the inventory, which has a hash of its own, and name places of this checkout."""
    wanted = [
        [r.kind, r.identity, r.state, json_value(r.fields), r.adopt, list(r.notify), list(r.listen)]
        for r in item.wanted
    ]
    return _sha256([item.target.provider, item.target.mode, item.whole, wanted])


def write_plan(plan: SavedPlan, path: Path) -> None:
    """Write the plan as a whole or not at all, mode 0600. Raises InputError."""
    try:
        digest = plan.digest
    except UnicodeEncodeError as error:
        text, hint = "a name in the plan is not UTF-8", "rename the file"
        raise InputError(text, where=str(path), hint=hint) from error
    body = {"digest": digest, "created": plan.created, **plan._bound(), "changes": list(plan.changes)}
    try:
        replace_file(path, f"{json.dumps(body, indent=1, ensure_ascii=False)}\n".encode())
    except OSError as error:
        text, hint = f"the plan cannot be written: {error.strerror}", "name another --out FILE"
        raise InputError(text, where=str(path), hint=hint) from error


def read_plan(path: Path) -> SavedPlan:
    """Read the plan in a file. Raises InputError when it is none or was edited."""
    try:
        data = _read_bounded(path)
    except FileNotFoundError:
        raise missing_file(InputError, "plan", path, "make one with: fazai plan -o FILE") from None
    except OSError as error:
        text = f"the plan cannot be read: {error.strerror}"
        raise InputError(text, where=str(path), hint="make one with: fazai plan -o FILE") from error
    return parse_plan(data, path)


def parse_plan(data: bytes, path: Path) -> SavedPlan:
    """Return the plan that was saved as `data`; messages call it `path`. Raises InputError when it is none or
    was edited."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _no_plan(path) from error
    try:
        if body["format"] != FORMAT:
            raise _other_format(path, body["format"])
        plan = SavedPlan(
            arguments=dict(body["arguments"]),
            inventory=str(body["inventory"]),
            files=str(body["files"]),
            created=str(body["created"]),
            version=str(body["version"]),
            targets={
                str(name): Expected(str(e["observed"]), str(e["changes"]), str(e["wanted"]))
                for name, e in body["targets"].items()
            },
            changes=tuple(body["changes"]),
        )
        edited = plan.digest != body["digest"] or not _shown_is_meant(plan)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _no_plan(path) from error
    if edited:
        raise InputError("the plan was edited: its digest does not fit", where=str(path), hint="plan again")
    return plan


def _read_bounded(path: Path) -> bytes:
    """Return the bytes of a plan. Raises InputError for what is no file or too large to be one, OSError."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise InputError("a plan is a file", where=str(path), hint="make one with: fazai plan -o FILE")
        data = file.read(_LIMIT_BYTES + 1)
    if len(data) > _LIMIT_BYTES:
        raise InputError(f"the plan is larger than {_LIMIT_BYTES >> 20} MiB", where=str(path))
    return data


def _shown_is_meant(plan: SavedPlan) -> bool:
    """Return whether the changes that a reader sees are those whose hashes will be compared."""
    shown: dict[str, list[Mapping[str, Any]]] = {name: [] for name in plan.targets}
    for change in plan.changes:
        shown.setdefault(str(change.get("target")), []).append(change)
    return all(name in plan.targets and _sha256(shown[name]) == plan.targets[name].changes for name in shown)


def _other_format(path: Path, found: object) -> InputError:
    if not str(found).startswith("fazai-plan/"):
        return _no_plan(path)
    text = f"this plan has the format {found} of another release, and {FORMAT} is read"
    return InputError(text, where=str(path), hint="plan again")


def _no_plan(path: Path) -> InputError:
    hint = f"make one with: fazai plan -o {path.name} …"
    return InputError("this is not a plan of fazai", where=str(path), hint=hint)


def _stale_plan(reason: str, target: str | None = None) -> PlanStale:
    """Return the error for a plan that does not hold any more, as a whole or for one target."""
    subject = f" for {target}" if target is not None else ""
    return PlanStale(f"the plan is stale{subject}: {reason}", where=target, hint="plan again")


def _sha256(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
