"""Options that several commands have, and the way in which a group of them is added to a command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import click

OptionDecorator = Callable[[Callable[..., Any]], Callable[..., Any]]

PATH: Final = click.Path()
FILE: Final = click.Path(dir_okay=False, path_type=Path)

OUTPUT: Final = click.option(
    "--output", type=click.Choice(["text", "json"]), default="text", show_default=True
)
COLOR: Final = click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto")
LOG_FILE: Final = click.option("--log-file", type=FILE, help="SIGHUP opens it again.")
LOG_FORMAT: Final = click.option(
    "--log-format", type=click.Choice(["json", "text"]), default="json", show_default=True
)
GEMMA_SOCKET_HELP: Final = "[default: $FAZAI_GEMMA_SOCK, else /run/fazai/gemma.sock]"

SOURCES: Final = click.option(
    "-i", "--inventory", "more", multiple=True, type=PATH, help="Another inventory source."
)
EXTRA_VARS: Final = click.option(
    "-e", "--extra-vars", multiple=True, metavar="NAME=VALUE|@FILE", help="More variables."
)
VAULT_PASSWORDS: Final = click.option(
    "--vault-password-file", multiple=True, type=PATH, help="For !vault; or label@file."
)
ALLOW_SCRIPTS: Final = click.option(
    "--allow-scripts", is_flag=True, help="Run inventories that are programs."
)
#: Passwords that are typed at the terminal, as Ansible has them; see `passwords.ask_passwords`.
PASSWORDS: Final = (
    click.option("-k", "--ask-pass", is_flag=True, help="Ask at the terminal for the password of the login."),
    click.option(
        "-K", "--ask-become-pass", is_flag=True, help="Ask at the terminal for the password of sudo."
    ),
)
#: Options of a command that asks hosts without a run: `host_targets.prepare_hosts` takes them.
HOSTS: Final = (
    click.argument("words", nargs=-1, metavar="[INVENTORY]... [PATTERN]..."),
    SOURCES,
    click.option("-f", "--forks", type=click.IntRange(1, 4096), help="Hosts at once."),
    EXTRA_VARS,
    VAULT_PASSWORDS,
    *PASSWORDS,
    ALLOW_SCRIPTS,
)


def add_options(*groups: Sequence[OptionDecorator]) -> OptionDecorator:
    """Add the options of these groups to a command, in their order."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed([option for group in groups for option in group]):
            function = option(function)
        return function

    return decorate
