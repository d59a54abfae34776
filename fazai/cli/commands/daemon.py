"""fazai daemon"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fazai.cli.options import FILE, GEMMA_SOCKET_HELP, LOG_FILE, LOG_FORMAT
from fazai.errors import InputError, UsageError

if TYPE_CHECKING:
    from fazai.daemon.runs.config import AgentsConfig
    from fazai.daemon.settings import DaemonSettings
    from fazai.inventory import Inventory


#: Options that are settings of the same name.
_AS_GIVEN = ("host", "port", "tls_cert", "tls_key", "client_ca", "client_role")


@click.command(
    "daemon",
    epilog="\b\nExamples:\n  fazai daemon --log-format text"
    "\n  fazai daemon --inventory /etc/fazai/inventory.yml"
    "\n  fazai daemon --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="A public one needs TLS and tokens.")
@click.option("--port", type=click.IntRange(0, 65535), default=3120, show_default=True)
@click.option(
    "--socket",
    "socket_path",
    type=FILE,
    help="The local socket. [default: $FAZAI_SOCKET, or see docs/daemon.md]",
)
@click.option("--name", "names", multiple=True, help="Another name of this machine, for clients on loopback.")
@click.option("-i", "--inventory", multiple=True, type=click.Path(), help="Its firewalls are watched.")
@click.option("--config", "config_file", type=FILE, help="YAML: what may be run, webhooks, schedules.")
@click.option("--tls-cert", type=FILE, help="PEM; read again when it changes.")
@click.option("--tls-key", type=FILE, help="PEM, without a password.")
@click.option("--client-ca", type=FILE, help="Clients must bring a certificate of this authority (PEM).")
@click.option(
    "--client-role",
    type=click.Choice(["viewer", "operator", "admin"]),
    default="viewer",
    show_default=True,
    help="What a certificate alone may.",
)
@click.option(
    "--ingest",
    type=click.Choice(["known", "open", "signed"]),
    default="known",
    show_default=True,
    help="Who may report: signed or with a token; everybody; only signed.",
)
@click.option("--agents-host", help="Where remote agents connect. [default: 127.0.0.1, see docs/agents.md]")
@click.option("--agents-port", type=click.IntRange(0, 65535), help="[default: 3121, where there is a CA]")
@click.option("--gemma-socket", type=FILE, help=GEMMA_SOCKET_HELP)
@click.option("--fallback-url", help="An OpenAI-compatible server for when the worker is away: http://…/v1")
@click.option("--fallback-model", default="default", show_default=True)
@click.option("--fallback-key-file", type=FILE, help="Holds the API key; mode 0600.")
@LOG_FILE
@LOG_FORMAT
def daemon_command(**options: Any) -> None:
    """Serve events, telemetry and runs over HTTP and on a local socket."""
    from fazai.daemon.process import serve
    from fazai.daemon.southbound.trust import open_trust
    from fazai.store.factory import open_certificates, open_daemon_store

    settings = _daemon_settings(options)
    limits = settings.config.retention.store_limits()
    folder, required = settings.secrets / "pki", settings.config.agents.configured
    trust = open_trust(folder, lambda: open_certificates(settings.state), required=required)
    try:
        serve(settings, lambda state: open_daemon_store(state, limits), trust)
    finally:
        if trust is not None:
            trust.close()


def _daemon_settings(options: dict[str, Any]) -> DaemonSettings:
    from fazai.cli import environment
    from fazai.cli.commands.policy import policy_path
    from fazai.cli.commands.rules import rules_path
    from fazai.cli.commands.worker import worker_socket
    from fazai.config import daemon_socket_path
    from fazai.daemon.runs.config import DaemonConfig
    from fazai.daemon.runs.config_file import read_daemon_config
    from fazai.daemon.settings import DaemonSettings

    config = environment.read_config()
    file = options["config_file"]
    path = options["socket_path"]
    if path is None:
        path = daemon_socket_path(os.environ, root=os.geteuid() == 0)
        if not os.environ.get("FAZAI_SOCKET"):
            _make_folder(path.parent, private=path.parent == config.state)
    found = DaemonConfig() if file is None else read_daemon_config(file, _load_run_inventory)
    return DaemonSettings(
        **{name: options[name] for name in _AS_GIVEN},
        state=config.state,
        secrets=config.secrets,
        socket=path,
        names=tuple(name.lower() for name in options["names"]),
        gemma_socket=worker_socket(options["gemma_socket"]),
        fallback=_read_fallback(options),
        inventory=tuple(options["inventory"]),
        config=replace(found, agents=_agents_config(found.agents, options)),
        rules=found.rules or rules_path(),
        rules_required=found.rules is not None or bool(os.environ.get("FAZAI_RULES")),
        policy=found.policy or policy_path(),
        policy_required=found.policy is not None or bool(os.environ.get("FAZAI_POLICY")),
        ingest=options["ingest"],
        lab=config.lab,
        log_file=options["log_file"],
        log_text=options["log_format"] == "text",
    )


def _agents_config(config: AgentsConfig, options: dict[str, Any]) -> AgentsConfig:
    """Return the settings of the port for agents, with what the command line says of it."""
    given = {"host": options["agents_host"], "port": options["agents_port"]}
    said = {name: value for name, value in given.items() if value is not None}
    return replace(config, configured=True, **said) if said else config


def _load_run_inventory(sources: tuple[str, ...]) -> Inventory:
    """Return the inventory of a run that the configuration names. Raises FazaiError."""
    from fazai.cli import environment
    from fazai.inventory import load_inventory

    return load_inventory(sources, decrypt=environment.make_secret_reader(()).open_file)


def _make_folder(folder: Path, *, private: bool) -> None:
    """Make the socket's folder: the state folder is for nobody else, others for members of the group."""
    try:
        folder.mkdir(mode=0o700 if private else 0o755, parents=True, exist_ok=True)
    except OSError as error:
        text = f"the socket's folder cannot be made: {error.strerror}"
        raise InputError(text, where=str(folder), hint="--socket PATH") from None


def _read_fallback(options: dict[str, Any]) -> Any:
    from fazai.cli.clients import read_key_file
    from fazai.providers.gemma.endpoint import FallbackEndpoint

    url = options["fallback_url"]
    if url is None:
        if options["fallback_key_file"] is not None:
            raise UsageError("--fallback-key-file needs --fallback-url")
        return None
    file = options["fallback_key_file"]
    key = None if file is None else read_key_file(file)
    return FallbackEndpoint.checked(url, options["fallback_model"], key, "--fallback-url")
