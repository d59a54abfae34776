"""Saved plans: what stands in the file, and where it is written."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fazai.errors import UsageError
from fazai.inventory.patterns import naming_files
from fazai.timestamps import utc_now

if TYPE_CHECKING:
    from fazai.inventory import Inventory
    from fazai.model import Work
    from fazai.outcome import RunOutcome

__all__ = ["KEPT", "FilesRead", "arguments_of", "folder_of", "no_secrets", "options_of", "save_plan"]

KEPT = ("playbook", "limit", "tags", "skip_tags", "kind", "extra_vars", "vault_password_file")


class FilesRead:
    """Hashes of the files that a run is made from, as they were when they were read."""

    def __init__(self) -> None:
        self._hashes: dict[str, set[str]] = {}

    def __call__(self, path: str, data: bytes) -> None:
        """Take note of a file (`yamltext.Seen`)."""
        import hashlib

        self._hashes.setdefault(os.path.abspath(path), set()).add(hashlib.sha256(data).hexdigest())

    def digest(self, inventory: Inventory, folder: str) -> str:
        """A hash of the inventory and of all other files, under their names as seen from a folder: it is the
        same in another checkout."""
        import hashlib

        hashes = sorted((_relative(path, folder), sorted(found)) for path, found in self._hashes.items())
        return hashlib.sha256(f"{inventory.digest}{hashes!r}".encode("utf-8", "surrogateescape")).hexdigest()


def arguments_of(sources: Sequence[str], options: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Name what the plan has to be made with again, wherever that is done; paths as seen from `folder`."""
    kept = {name: list(options[name]) for name in KEPT}
    kept["playbook"] = [_relative(path, folder) for path in options["playbook"]]
    kept["extra_vars"] = [
        f"@{_relative(word[1:], folder)}" if word.startswith("@") else word for word in options["extra_vars"]
    ]
    kept["vault_password_file"] = [
        f"{label}{at}{_relative(os.path.expanduser(file), folder)}"
        for label, at, file in (word.rpartition("@") for word in options["vault_password_file"])
    ]
    kept["limit"] = [naming_files(word, lambda path: _relative(path, folder)) for word in options["limit"]]
    return {"inventory": [s if _is_list(s) else _relative(s, folder) for s in sources], **kept}


def folder_of(plan: Path) -> str:
    """The folder that the paths in a plan start at."""
    return os.path.abspath(plan.parent)


def options_of(arguments: Mapping[str, Any], folder: str) -> dict[str, tuple[str, ...]]:
    """The options of the command line that a plan's arguments stand for. Paths are found from its folder."""

    def found(path: str) -> str:
        return os.path.normpath(os.path.join(folder, path))

    words = {name: tuple(arguments.get(name, ())) for name in ("inventory", *KEPT)}
    words["limit"] = tuple(naming_files(word, found) for word in words["limit"])
    words["playbook"] = tuple(map(found, words["playbook"]))
    words["extra_vars"] = tuple(f"@{found(w[1:])}" if w.startswith("@") else w for w in words["extra_vars"])
    words["vault_password_file"] = tuple(
        f"{label}{at}{found(file)}"
        for label, at, file in (word.rpartition("@") for word in words["vault_password_file"])
    )
    words["inventory"] = tuple(s if _is_list(s) else found(s) for s in words["inventory"])
    return words


def no_secrets(extra_vars: Sequence[str]) -> None:
    """A plan keeps the command line's variables. Raises UsageError when one of them looks like a secret."""
    from fazai.inventory.show import TELLTALE

    for word in extra_vars:
        if not word.startswith("@") and (found := TELLTALE.search(word)):
            raise UsageError(
                f'a saved plan holds no secret, and --extra-vars speaks of "{found[0]}"',
                hint="give it as -e @file, or by reference (!env, !file, !cmd, !vault)",
            )


def _is_list(source: str) -> bool:
    """Whether an inventory's source is a list of names (`fw-01,fw-02`) and no path."""
    return "," in source and not os.path.exists(source)


def _relative(path: str, folder: str) -> str:
    """Name a path as seen from a folder. Where the two have nothing but / in common it stays as it is: nobody
    moves them together."""
    path = os.path.abspath(path)
    return path if os.path.commonpath((path, folder)) == "/" else os.path.relpath(path, folder)


def save_plan(
    outcome: RunOutcome,
    sources: Sequence[str],
    options: Mapping[str, Any],
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
        arguments=arguments_of(sources, options, folder_of(path)),
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
