"""Preparation of apply, plan, drift and validate: from the options to the work they stand for.

All that can be wrong is found here, before any contact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import click

from fazai.cli import environment
from fazai.cli.agents.registry import DaemonAgents
from fazai.cli.passwords import ask_passwords
from fazai.cli.planfile import FileHashes, plan_folder
from fazai.cli.run_options import RunOptions, RunSelection
from fazai.errors import FazaiError, UsageError, count_noun, raise_found
from fazai.model import Provider, Warming, Work, has_role

if TYPE_CHECKING:
    from fazai.inventory import Inventory
    from fazai.plan import SavedPlan
    from fazai.playbook import Selection
    from fazai.registry import Registry
    from fazai.secrets import SecretReader

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """The work of one command, resolved and not yet begun, with what it was made from.

    `inputs` are the hashes of playbooks and variables, `contents` those of the files that resources want.
    """

    command: str
    selection: RunSelection
    options: RunOptions
    sources: tuple[str, ...]
    registry: Registry
    secrets: SecretReader
    inventory: Inventory
    works: tuple[Work, ...]
    inputs: FileHashes
    contents: FileHashes

    def hashes(self, folder: str) -> tuple[str, str]:
        """Return what a plan that is saved in `folder` is held against when it is applied."""
        return self.inputs.digest(self.inventory, folder), self.contents.digest(self.inventory, folder)


def prepare_run(
    command: str,
    selection: RunSelection,
    options: RunOptions,
    plan: tuple[SavedPlan, Path] | None = None,
    *,
    targets_only: bool = False,
) -> PreparedRun:
    """Read everything that a command names, and resolve it to work.

    `plan` is a saved one, and its file: what it was made from is held against it before a secret is
    read, and what is wanted of each target before one is contacted. `targets_only`: what is declared for the
    targets is not read, as it is no concern of the command's. Raises InputError, Errors, PlanStale.
    """
    from fazai.registry import Registry

    registry = Registry(agents=DaemonAgents())
    return _Preparation(command, selection, options, registry, targets_only).prepare(plan)


@dataclass(slots=True)
class _Preparation:
    """The state while a run is prepared; `errors` are said together with those of resolving."""

    command: str
    selection: RunSelection
    options: RunOptions
    registry: Registry
    targets_only: bool = False
    inputs: FileHashes = field(default_factory=FileHashes)
    contents: FileHashes = field(default_factory=FileHashes)
    errors: list[FazaiError] = field(default_factory=list)

    def prepare(self, plan: tuple[SavedPlan, Path] | None) -> PreparedRun:
        sources = environment.inventory_sources(self.selection.inventory)
        secrets = self._read_part(lambda: environment.make_secret_reader(self.selection.vault_password_file))
        inventory = self._read_part(
            lambda: environment.read_inventory(
                sources, secrets, allow_scripts=self.selection.allow_scripts, quiet=self.options.quiet
            )
        )
        if self.targets_only:
            inventory = inventory.without_resources()
        works = self._resolve(inventory, secrets, plan)
        return PreparedRun(
            self.command,
            self.selection,
            self.options,
            sources,
            self.registry,
            secrets,
            inventory,
            ask_passwords(works, self.options, self.registry.provider),
            self.inputs,
            self.contents,
        )

    def _read_part(self, read: Callable[[], _T]) -> _T:
        """Return what `read` gives; of what has errors, the rest. Raises FazaiError when there is none."""
        try:
            return read()
        except FazaiError as error:
            self.errors += error.errors
            if error.rest is None:
                raise_found(self.errors)
            return cast("_T", error.rest)

    def _resolve(
        self, inventory: Inventory, secrets: SecretReader, plan: tuple[SavedPlan, Path] | None
    ) -> tuple[Work, ...]:
        from fazai.playbook import load_playbooks, resolve_work

        paths = [*(path for path, _ in inventory.playbooks), *map(Path, self.selection.playbook)]
        plays = self._read_part(lambda: load_playbooks(paths, decrypt=secrets.open_file, on_read=self.inputs))
        known = len(self.errors)
        extra_vars = self._read_part(
            lambda: environment.parse_extra_vars(self.selection.extra_vars, self.inputs)
        )
        extra_vars |= self._read_part(lambda: environment.read_entries(self.selection.entries, self.inputs))
        whole = inventory.whole and len(self.errors) == known
        selection = self._read_part(self._parse_selection)
        if plan is not None:  # before a secret is read: what reads it may have been edited
            raise_found(self.errors)
            plan[0].check_inventory(self.inputs.digest(inventory, plan_folder(plan[1])))
        works = resolve_work(
            inventory,
            plays,
            providers=self._find_provider,
            kinds=self.registry.kind,
            selection=selection,
            extra_vars=extra_vars,
            secrets=secrets,
            on_read=self.contents,
            left_out=self._note_left_out,
            misnamed=self._note_misnamed,
            before=self.errors,
            whole=whole,
        )
        self._note_renamed()
        if plan is not None:
            plan[0].check_files(self.contents.digest(inventory, plan_folder(plan[1])))
            plan[0].check_kinds(self.registry.current_name)
        return works if plan is None else _planned_work(works, plan[0])

    def _parse_selection(self) -> Selection:
        """Return what `--limit`, `--tags` and their like choose. Raises UsageError, Errors."""
        from fazai.playbook import Selection

        wrong: list[FazaiError] = []
        words: dict[str, tuple[str, ...]] = {}
        given = (("tags", self.selection.tags), ("skip_tags", self.selection.skip_tags))
        for name, values in (*given, ("kind", self.selection.kind)):
            try:
                words[name] = _split_option(f"--{name.replace('_', '-')}", values)
            except UsageError as error:
                wrong.append(error)
        limit = self.selection.limit
        if wrong:
            raise_found(wrong, Selection(limit=limit))
        kinds = tuple(map(self.registry.note_renamed, words["kind"]))
        return Selection(limit, words["tags"], words["skip_tags"], kinds)

    def _note_renamed(self) -> None:
        """Say once that kinds were asked for by names of the past."""
        renamed = self.registry.renamed
        if renamed and not self.options.quiet:
            names = ", ".join(f"{old} is {new} now" for old, new in sorted(renamed.items()))
            click.echo(f"note: {names}; the old names are still read", err=True)

    def _note_left_out(self, hosts: Sequence[str]) -> None:
        """Say that hosts are no targets: `provider:` is easily forgotten, and all would seem well."""
        if hosts and not self.options.quiet:
            has, are = ("has", "is") if len(hosts) == 1 else ("have", "are")
            names = ", ".join(hosts[:3]) + (", …" if len(hosts) > 3 else "")
            which = f"{count_noun(len(hosts), 'host')} {has} no provider: and {are} left out"
            click.echo(f"note: {which}: {names}", err=True)

    def _note_misnamed(self, name: str, meant: str, hosts: Sequence[str]) -> None:
        if not self.options.quiet:
            more = f" and {count_noun(len(hosts) - 1, 'more host')}" if len(hosts) > 1 else ""
            text = f'the variable "{name}" of {hosts[0]}{more} is no option; did you mean "{meant}"?'
            click.echo(f"note: {text}", err=True)

    def _find_provider(self, name: str) -> Provider:
        found = self.registry.provider(name)
        if self.command != "validate" and has_role(found, Warming):  # type: ignore[type-abstract]
            found.warm()  # a connection will be wanted
        return found


def _planned_work(works: Sequence[Work], plan: SavedPlan) -> tuple[Work, ...]:
    """Return the part of the work that was planned. Raises PlanStale where it is another one by now."""
    found = []
    for work in works:
        targets = tuple(item for item in work.targets if item.target.name in plan.targets)
        found.append(replace(work, targets=targets))
    plan.check_wanted(item for work in found for item in work.targets)
    return tuple(found)


def _split_option(option: str, values: Sequence[str]) -> tuple[str, ...]:
    """Split an option at its commas. Raises UsageError for an empty word: what was meant to be a part of the
    resources would be all of them."""
    words = tuple(word.strip() for value in values for word in value.split(","))
    if not all(words):
        raise UsageError(f"{option} has an empty word", hint="an empty variable of the shell?")
    return words
