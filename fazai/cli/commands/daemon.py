"""fazai daemon"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fazai.errors import InputError, UsageError

if TYPE_CHECKING:
    from fazai.daemon.settings import DaemonSettings
    from fazai.inventory import Inventory

_FILE = click.Path(dir_okay=False, path_type=Path)


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
    type=_FILE,
    help="The local socket. [default: $FAZAI_SOCKET, or see docs/daemon.md]",
)
@click.option("--name", "names", multiple=True, help="Another name of this machine, for clients on loopback.")
@click.option("-i", "--inventory", multiple=True, type=click.Path(), help="Its firewalls are watched.")
@click.option("--config", "config_file", type=_FILE, help="YAML: what may be run, webhooks, schedules.")
@click.option("--tls-cert", type=_FILE, help="PEM; read again when it changes.")
@click.option("--tls-key", type=_FILE, help="PEM, without a password.")
@click.option("--client-ca", type=_FILE, help="Clients must bring a certificate of this authority (PEM).")
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
@click.option("--gemma-socket", type=_FILE, help="[default: $FAZAI_GEMMA_SOCK, else /run/fazai/gemma.sock]")
@click.option("--fallback-url", help="An OpenAI-compatible server for when the worker is away: http://…/v1")
@click.option("--fallback-model", default="default", show_default=True)
@click.option("--fallback-key-file", type=_FILE, help="Holds the API key; mode 0600.")
@click.option("--log-file", type=_FILE, help="SIGHUP opens it again.")
@click.option("--log-format", type=click.Choice(["json", "text"]), default="json", show_default=True)
def daemon_command(**options: Any) -> None:
    """Serve events, telemetry and runs over HTTP and on a local socket."""
    from fazai.daemon.process import serve
    from fazai.store.factory import open_daemon_store

    settings = _read_settings(options)
    limits = settings.config.retention.store_limits()
    serve(settings, lambda state: open_daemon_store(state, limits))


def _read_settings(options: dict[str, Any]) -> DaemonSettings:
    from fazai.cli import environment
    from fazai.config import daemon_socket_path
    from fazai.daemon.runs.config import DaemonConfig
    from fazai.daemon.runs.config_file import read_config
    from fazai.daemon.settings import DaemonSettings

    config = environment.read_config()
    file = options["config_file"]
    path = options["socket_path"]
    if path is None:
        path = daemon_socket_path(os.environ, root=os.geteuid() == 0)
        if not os.environ.get("FAZAI_SOCKET"):
            _make_folder(path.parent, private=path.parent == config.state)
    gemma = options["gemma_socket"] or os.environ.get("FAZAI_GEMMA_SOCK") or "/run/fazai/gemma.sock"
    return DaemonSettings(
        state=config.state,
        secrets=config.secrets,
        host=options["host"],
        port=options["port"],
        socket=path,
        names=tuple(name.lower() for name in options["names"]),
        tls_cert=options["tls_cert"],
        tls_key=options["tls_key"],
        client_ca=options["client_ca"],
        client_role=options["client_role"],
        gemma_socket=Path(gemma),
        fallback=_read_fallback(options),
        inventory=tuple(options["inventory"]),
        config=DaemonConfig() if file is None else read_config(file, _load_run_inventory),
        ingest=options["ingest"],
        lab=config.lab,
        log_file=options["log_file"],
        log_text=options["log_format"] == "text",
    )


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
        raise InputError(
            f"the socket's folder cannot be made: {error.strerror}", where=str(folder), hint="--socket PATH"
        ) from None


def _read_fallback(options: dict[str, Any]) -> Any:
    from fazai.providers.gemma.endpoint import FallbackEndpoint

    url = options["fallback_url"]
    if url is None:
        if options["fallback_key_file"] is not None:
            raise UsageError("--fallback-key-file needs --fallback-url")
        return None
    key = _read_secret_file(options["fallback_key_file"])
    return FallbackEndpoint.checked(url, options["fallback_model"], key, "--fallback-url")


def _read_secret_file(file: Path | None) -> str | None:
    """Read a file that only its owner may read. Raises InputError."""
    from fazai.cli.clients import read_token_file

    return None if file is None else read_token_file(file, "file with the fallback's key", None)
