"""Saved plans: what stands in the file, and where it is written."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fazai.errors import UsageError

if TYPE_CHECKING:
    from fazai.inventory import Inventory
    from fazai.outcome import RunOutcome

__all__ = ["KEPT", "digest_of", "no_secrets", "save_plan"]

KEPT = ("playbook", "limit", "tags", "skip_tags", "kind", "extra_vars", "vault_password_file")


def _arguments(sources: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """What the plan has to be made with again, wherever that is done."""
    kept = {name: list(options[name]) for name in KEPT}
    kept["playbook"] = [os.path.abspath(path) for path in options["playbook"]]
    kept["extra_vars"] = [
        f"@{os.path.abspath(word[1:])}" if word.startswith("@") else word for word in options["extra_vars"]
    ]
    kept["vault_password_file"] = [
        f"{label}{at}{os.path.abspath(os.path.expanduser(file))}"
        for label, at, file in (word.rpartition("@") for word in options["vault_password_file"])
    ]
    return {"inventory": [_absolute(source) for source in sources], **kept}


def no_secrets(extra_vars: Sequence[str]) -> None:
    """A plan keeps the command line's variables. Raises UsageError when one of them looks like a secret."""
    from fazai.inventory.show import TELLTALE

    for word in extra_vars:
        if not word.startswith("@") and (found := TELLTALE.search(word)):
            raise UsageError(
                f'a saved plan holds no secret, and --extra-vars speaks of "{found[0]}"',
                hint="give it as -e @file, or by reference (!env, !file, !cmd, !vault)",
            )


def _absolute(source: str) -> str:
    """A list of names with a comma in it is no path."""
    return source if "," in source and not os.path.exists(source) else os.path.abspath(source)


def digest_of(inventory: Inventory, options: Mapping[str, Any]) -> str:
    """Of the inventory, of the playbooks and of the selection; not of where the vault's password is."""
    import hashlib

    digest = hashlib.sha256(inventory.digest.encode())
    for path in [path for path, _ in inventory.playbooks] + [Path(p) for p in options["playbook"]]:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    given = _arguments((), options)
    digest.update(repr([given[name] for name in KEPT if name != "vault_password_file"]).encode())
    return digest.hexdigest()


def save_plan(
    outcome: RunOutcome, sources: Sequence[str], inventory: Inventory, options: Mapping[str, Any], path: Path
) -> str:
    """The digest of the plan that is now in the file."""
    from fazai import __version__
    from fazai.outcome import change_record
    from fazai.plan import Expected, SavedPlan, changes_digest, write_plan

    changes = {t.target: [action.change for action in t.actions] for t in outcome.targets}
    plan = SavedPlan(
        arguments=_arguments(sources, options),
        inventory=digest_of(inventory, options),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
        targets={t.target: Expected(t.observed, changes_digest(changes[t.target])) for t in outcome.targets},
        changes=tuple(change_record(change) for found in changes.values() for change in found),
    )
    write_plan(plan, path)
    return plan.digest
