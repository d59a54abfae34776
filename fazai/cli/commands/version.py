"""fazai version"""

import click


@click.command("version")
def version_command() -> None:
    """Print the version of fazai and of Python."""
    import platform

    from fazai import __version__

    click.echo(f"fazai {__version__} (Python {platform.python_version()}, {platform.system()})")
