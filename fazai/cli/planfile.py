"""Saved plans: the arguments and hashes in the file, and how it is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fazai.cli.run_options import RunSelection
from fazai.errors import UsageError
from fazai.inventory.patterns import rename_lists
from fazai.timestamps import utc_now

if TYPE_CHECKING:
    from fazai.inventory import Inventory
    from fazai.model import Work
    from fazai.outcome import RunOutcome

#: The parts of a selection that a plan keeps.
_KEPT = (
    *("inventory", "playbook", "limit", "tags", "skip_tags", "kind", "extra_vars", "entries"),
    "vault_password_file",
)


class FileHashes:
    """Hashes of the files that a run is made from, as they were when they were read."""

    def __init__(self) -> None:
        self._hashes: dict[str, set[str]] = {}

    def __call__(self, path: str, data: bytes) -> None:
        """Take note of a file (`yamltext.OnFileRead`)."""
        import hashlib

        self._hashes.setdefault(os.path.abspath(path), set()).add(hashlib.sha256(data).hexdigest())

    def digest(self, inventory: Inventory, folder: str) -> str:
        """Return a hash of the inventory and all other files, under their names as seen from a folder: the
        same in another checkout."""
        import hashlib

        hashes = sorted((_relative_path(path, folder), sorted(found)) for path, found in self._hashes.items())
        return hashlib.sha256(f"{inventory.digest}{hashes!r}".encode("utf-8", "surrogateescape")).hexdigest()


def plan_arguments(sources: Sequence[str], selection: RunSelection, folder: str) -> dict[str, list[str]]:
    """Return the arguments with which the plan can be made again elsewhere; paths as seen from `folder`."""
    return _map_paths(replace(selection, inventory=tuple(sources)), lambda path: _relative_path(path, folder))


def plan_folder(plan: Path) -> str:
    """Return the folder that the paths in a plan start at."""
    return os.path.abspath(plan.parent)


def plan_selection(arguments: Mapping[str, Any], folder: str) -> RunSelection:
    """Return the selection that a plan's arguments stand for. Paths are found from the plan's folder."""
    given = RunSelection.from_click({name: tuple(arguments.get(name, ())) for name in _KEPT})
    found = _map_paths(given, lambda path: os.path.normpath(os.path.join(folder, path)))
    return RunSelection.from_click({name: tuple(words) for name, words in found.items()})


def refuse_secrets(extra_vars: Sequence[str]) -> None:
    """Refuse variables of the command line that look like a secret: a plan would keep them. Raises
    UsageError."""
    from fazai.inventory.show import TELLTALE

    for word in extra_vars:
        if not word.startswith("@") and (found := TELLTALE.search(word)):
            text = f'a saved plan holds no secret, and --extra-vars speaks of "{found[0]}"'
            raise UsageError(text, hint="give it as -e @file, or by reference (!env, !file, !cmd, !vault)")


def _map_paths(selection: RunSelection, rename: Callable[[str], str]) -> dict[str, list[str]]:
    """Return the words of the selection that a plan keeps, with every path in them renamed."""
    words = {name: list(getattr(selection, name)) for name in _KEPT}
    words["inventory"] = [each if _is_list(each) else rename(each) for each in words["inventory"]]
    words["playbook"] = [rename(path) for path in words["playbook"]]
    words["entries"] = [rename(path) for path in words["entries"]]
    words["limit"] = [rename_lists(word, rename) for word in words["limit"]]
    words["extra_vars"] = [f"@{rename(w[1:])}" if w.startswith("@") else w for w in words["extra_vars"]]
    words["vault_password_file"] = [
        f"{label}{at}{rename(os.path.expanduser(file))}"
        for label, at, file in (word.rpartition("@") for word in words["vault_password_file"])
    ]
    return words


def _is_list(source: str) -> bool:
    """Tell whether an inventory's source is a list of names (`fw-01,fw-02`) and no path."""
    return "," in source and not os.path.exists(source)


def _relative_path(path: str, folder: str) -> str:
    """Name a path as seen from a folder. Where the two have nothing but / in common it stays as it is: nobody
    moves them together."""
    path = os.path.abspath(path)
    return path if os.path.commonpath((path, folder)) == "/" else os.path.relpath(path, folder)


def save_plan(
    outcome: RunOutcome,
    sources: Sequence[str],
    selection: RunSelection,
    works: Sequence[Work],
    hashes: tuple[str, str],
    path: Path,
) -> str:
    """Write the plan; returns its digest. `hashes`: of the inventory with its playbooks and variables, and of
    the files whose content resources want."""
    from fazai import __version__
    from fazai.outcome import change_record
    from fazai.plan import Expected, SavedPlan, changes_digest, wanted_digest, write_plan

    changes = {t.target: [action.change for action in t.actions] for t in outcome.targets}
    wanted = {item.target.name: wanted_digest(item) for work in works for item in work.targets}
    plan = SavedPlan(
        arguments=plan_arguments(sources, selection, plan_folder(path)),
        inventory=hashes[0],
        files=hashes[1],
        created=utc_now().isoformat(timespec="seconds"),
        version=__version__,
        targets={
            t.target: Expected(t.observed, changes_digest(changes[t.target]), wanted[t.target])
            for t in outcome.targets
        },
        changes=tuple(change_record(change) for found in changes.values() for change in found),
    )
    write_plan(plan, path)
    return plan.digest
