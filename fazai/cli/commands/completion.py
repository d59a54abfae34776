"""fazai completion, and the completion of hosts, kinds and runs"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable

import click

from fazai.errors import FazaiError

_RUNS_MAX = 50


@click.command("completion", epilog='\b\nExample:\n  eval "$(fazai completion bash)"    # in ~/.bashrc')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    root = ctx.find_root()
    click.echo(found(root.command, {}, "fazai", "_FAZAI_COMPLETE").source())


def complete_pattern(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Complete groups and hosts of the inventory that the command line names so far. No script is run for it;
    errors in the inventory are reported when the command runs."""
    from fazai.inventory import load_inventory

    given = [ctx.params.get(name) or () for name in ("inventory", "sources", "words", "more")]
    given.append(ctx.args)  # where arguments are while the option behind them has no value yet
    sources = [word for words in given for word in words if os.path.exists(word)]
    if not sources:
        sources = [word for word in os.environ.get("FAZAI_INVENTORY", "").split(":") if word]
    with contextlib.suppress(FazaiError):
        inventory = load_inventory(sources)
        before = re.match(r"(?:.*[,:])?[&!]?", incomplete)
        assert before is not None
        return _filter_prefix(
            (before[0] + name for name in (*inventory.groups, *inventory.hosts)), incomplete
        )
    return []


def complete_kind(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a kind; the beginning of an old name becomes the new one."""
    from fazai.registry import Registry

    registry = Registry()
    return _filter_prefix((kind.name for kind in registry.kinds()), registry.current_name(incomplete))


def complete_run(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the id of one of the latest runs, as `fazai history` has them."""
    import asyncio

    from fazai.cli.environment import read_store

    with contextlib.suppress(FazaiError), read_store() as store:
        runs = asyncio.run(store.history(_RUNS_MAX))
        return _filter_prefix((run.run_id for run in runs), incomplete.upper())
    return []


def _filter_prefix(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
