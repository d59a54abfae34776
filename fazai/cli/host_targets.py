"""Commands that ask targets without a run: from the words of a command to targets, and a question to all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from fazai.cli import environment
from fazai.cli.lab_targets import with_lab_firewalls, with_lab_folders
from fazai.cli.preparing import PreparedRun, prepare_run
from fazai.cli.run_options import RunOptions, RunSelection
from fazai.errors import FazaiError, UsageError, spelling_hint
from fazai.findings import Findings, Importing
from fazai.model import Session, TargetWork, Work

_Found = TypeVar("_Found")


def prepare_hosts(command: str, given: Mapping[str, Any], *, quiet: bool = False) -> PreparedRun:
    """Read the inventory that click's parameters name (`options.HOSTS`), with a folder for each host of the
    lab. Raises FazaiError."""
    sources, limit = environment.split_inventories(given["words"], given["more"])
    selection = RunSelection.from_click({**given, "inventory": sources, "limit": limit})
    prepared = prepare_run(command, selection, replace(RunOptions.from_click(given), quiet=quiet))
    return replace(prepared, works=with_lab_folders(prepared.works, environment.read_config().lab))


def ask_hosts(
    prepared: PreparedRun, items: Iterable[TargetWork], ask: Callable[[TargetWork, Any], Awaitable[_Found]]
) -> dict[str, _Found | FazaiError]:
    """Call `ask` with each of these and a session on it, so many at once as the options say; returns what it
    found, or why not. Firewalls of the lab are started for it."""
    return asyncio.run(_ask_all(prepared, Work("ask", tuple(items)), ask))


async def _ask_all(
    prepared: PreparedRun, asked: Work, ask: Callable[[TargetWork, Any], Awaitable[_Found]]
) -> dict[str, _Found | FazaiError]:
    config = environment.read_config()
    gate = asyncio.Semaphore(prepared.options.forks or config.forks)

    async def ask_one(item: TargetWork) -> _Found | FazaiError:
        try:
            # deadline: the target's connect_timeout and timeout
            async with gate, prepared.registry.provider(item.target.provider).connect(item.target) as session:
                return await ask(item, session)
        except FazaiError as error:
            return error

    async with with_lab_firewalls([asked], config.lab) as works:
        items = [item for work in works for item in work.targets]
        answers = await asyncio.gather(*map(ask_one, items))
    return {item.target.name: found for item, found in zip(items, answers, strict=True)}


def ask_for_items(
    prepared: PreparedRun, items: Sequence[TargetWork], kinds: Sequence[str]
) -> dict[str, Findings]:
    """Return what these targets hold of the kinds, or of all. Raises FazaiError: one of them cannot be
    asked, or is no firewall."""

    async def ask(item: TargetWork, session: Session) -> Findings:
        if not isinstance(session, Importing):
            text = f"{item.target.name} is of the provider {item.target.provider}"
            raise UsageError(text, hint="this is for firewalls")
        return await session.find_items(kinds)

    answers = ask_hosts(prepared, items, ask)
    found: dict[str, Findings] = {}
    for name, answer in answers.items():
        if isinstance(answer, FazaiError):
            raise answer
        found[name] = answer
    return found


def full_kind_name(kind: str, known: Iterable[str]) -> str:
    """Return the kind that a word names, with or without its provider. Raises UsageError."""
    if kind.rpartition(".")[2] == "settings":
        raise UsageError("what opnsense.settings declares is not imported", hint="its kinds are: *_settings")
    full = next((one for one in known if kind in (one, one.rpartition(".")[2])), None)
    if full is None:
        names = [name for one in known for name in (one.rpartition(".")[2], one)]
        raise UsageError(f'there is no kind "{kind}"', hint=spelling_hint(kind, names) or "see: fazai kinds")
    return full
