"""fazai agent"""

from __future__ import annotations

import sys

import click


@click.group(
    "agent",
    epilog="\b\nExamples:\n  fazai agent enrol --daemon wss://fazai.example:3121   asks for the token"
    "\n  fazai agent run --config agent.yml               until SIGTERM"
    "\n  fazai agent check --config agent.yml             what may the daemon do?"
    "\n  fazai agent check --config agent.yml -- df /var  would this run? why not?",
)
def agent_command() -> None:
    """Be the remote agent of this machine."""


_CONFIG = click.option(
    "--config", "config", default="/etc/fazai/agent.yml", show_default=True, help="The agent's configuration."
)


@agent_command.command("check")
@_CONFIG
@click.option("--cwd", default="/", show_default=True, help="The folder that it would run in.")
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="A variable that it would be given.")
@click.option("--stdin", is_flag=True, help="It would be given standard input.")
@click.argument("argv", nargs=-1, type=click.UNPROCESSED)
def check_command(config: str, cwd: str, env: tuple[str, ...], stdin: bool, argv: tuple[str, ...]) -> None:
    """Explain what the policy allows, and warn of it; with ARGV, tell whether that would run.

    Exit 7: it would not. Contacts nobody.
    """
    from fazai.agent.checking import run_check

    run_check(config, argv, cwd=cwd, env=env, stdin=stdin, write=click.echo)


@agent_command.command("run")
@_CONFIG
@click.option("--log-format", type=click.Choice(["json", "text"]), help="Default: text on a terminal.")
def run_command(config: str, log_format: str | None) -> int:
    """Connect to the daemon and serve it until SIGTERM. SIGHUP reads the configuration again."""
    from fazai.agent.main import run_agent

    return run_agent(config, text_log=log_format == "text" or (log_format is None and sys.stderr.isatty()))


@agent_command.command("enrol")
@_CONFIG
@click.option("--daemon", metavar="URL", help="wss://HOST:3121; default: that of the configuration.")
@click.option("--name", help="Where there is no configuration yet; default: this host's name.")
@click.option("--proxy", metavar="URL", help="http://HOST:PORT; default: that of the configuration.")
@click.option("--proxy-credentials", metavar="FILE", help="With one line USER:PASSWORD, 0600.")
def enrol_command(config: str, **options: str | None) -> int:
    """Exchange an enrolment token, one line of standard input, for this machine's certificate. The key never
    leaves the machine, and the token goes only to a listener that proves the authority that it names."""
    from fazai.agent.main import enrol_agent

    return enrol_agent(config, **options)
