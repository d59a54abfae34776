"""fazai inventory"""

from __future__ import annotations

import click

from fazai.cli import environment
from fazai.cli.commands.completion import complete_pattern
from fazai.cli.options import ALLOW_SCRIPTS, SOURCES
from fazai.errors import UsageError


@click.command(
    "inventory",
    epilog="\b\nExamples:\n  fazai inventory -i inventory.yml --list\n  fazai inventory inventory.yml --graph"
    "\n  fazai inventory inventory.yml --host fw-01\n  fazai inventory inventory.yml --limit 'edge:&lab'",
)
@click.argument("sources", nargs=-1, type=click.Path())
@SOURCES
@click.option("--list", "as_list", is_flag=True, help="All as Ansible's JSON; secrets are masked.")
@click.option("--graph", is_flag=True, help="The tree of groups and hosts.")
@click.option(
    "--host", metavar="NAME", shell_complete=complete_pattern, help="The variables of one host as JSON."
)
@click.option(
    "-l",
    "--limit",
    multiple=True,
    metavar="PATTERN",
    shell_complete=complete_pattern,
    help="Only the hosts that match.",
)
@click.option("--vault-password-file", multiple=True, type=click.Path(), help="For files in Ansible Vault.")
@ALLOW_SCRIPTS
def inventory_command(
    sources: tuple[str, ...],
    more: tuple[str, ...],
    as_list: bool,
    graph: bool,
    host: str | None,
    limit: tuple[str, ...],
    vault_password_file: tuple[str, ...],
    allow_scripts: bool,
) -> None:
    """Show an inventory the way ansible-inventory does."""
    if sum((as_list, graph, host is not None)) > 1:
        raise UsageError("--list, --graph and --host exclude each other")
    secrets = environment.make_secret_reader(vault_password_file)
    found = environment.read_inventory(
        environment.inventory_sources((*sources, *more)), secrets, allow_scripts=allow_scripts
    )
    if as_list or graph or host is not None:
        from fazai.inventory.patterns import select_hosts
        from fazai.inventory.show import as_ansible, as_graph, as_host_variables, as_json

        chosen = select_hosts(found, limit) if limit else None
        if chosen is not None and not as_list:
            raise UsageError("--limit goes with --list, or with the plain list of names")
        if host is not None:
            text = as_json(as_host_variables(found, host))
        else:
            text = as_graph(found) if graph else as_json(as_ansible(found, chosen))
        click.echo(text.rstrip("\n"))
        return
    from fazai.inventory.patterns import select_hosts

    for name in select_hosts(found, limit) if limit else found.hosts:
        click.echo(name)
