"""fazai worker"""

from __future__ import annotations

import os
from pathlib import Path

import click

from fazai.errors import UsageError

_SOCKET = "/run/fazai/gemma.sock"


def worker_socket(path: str | None) -> Path:
    """Return the worker's socket: the option, else the environment, else the system's."""
    return Path(path or os.environ.get("FAZAI_GEMMA_SOCK") or _SOCKET)


@click.command(
    "worker",
    epilog="\b\nExamples:\n  fazai worker --demo-model --check           does it work here, and how fast?"
    "\n  fazai worker --model gemma-3-4b-it-Q4_K_M.gguf"
    "\n  fazai worker --demo-model --socket /tmp/gemma.sock --log-format text",
)
@click.option("--model", type=click.Path(dir_okay=False, path_type=Path), help="A GGUF file.")
@click.option(
    "--demo-model", is_flag=True, help="Gemma 3 270M, from its package (Gemma's terms of use apply)."
)
@click.option("--socket", "socket_path", help=f"[default: $FAZAI_GEMMA_SOCK, else {_SOCKET}]")
@click.option(
    "--check", "only_check", is_flag=True, help="Load, generate eight tokens, print the rate, exit."
)
@click.option(
    "--context",
    type=click.IntRange(0),
    default=0,
    help="Tokens of all conversations together. [default: 8192]",
)
@click.option(
    "--threads", type=click.IntRange(0, 512), default=0, help="[default: as many as decode quickest]"
)
@click.option(
    "--slots", type=click.IntRange(1, 56), default=4, show_default=True, help="Generations at once."
)
@click.option(
    "--sessions",
    type=click.IntRange(1, 4096),
    default=64,
    show_default=True,
    help="Open sessions; beyond, the one idle for longest goes.",
)
@click.option(
    "--queue", type=click.IntRange(0, 4096), default=32, show_default=True, help="Generations that wait."
)
@click.option("--gpu-layers", type=click.IntRange(-1), default=0, show_default=True, help="-1: all.")
@click.option("--metrics-port", type=click.IntRange(1, 65535), help="Prometheus text on 127.0.0.1.")
@click.option("--log-file", type=click.Path(dir_okay=False, path_type=Path), help="SIGHUP opens it again.")
@click.option("--log-format", type=click.Choice(["json", "text"]), default="json", show_default=True)
def worker_command(
    model: Path | None,
    demo_model: bool,
    socket_path: str | None,
    only_check: bool,
    context: int,
    threads: int,
    slots: int,
    sessions: int,
    queue: int,
    gpu_layers: int,
    metrics_port: int | None,
    log_file: Path | None,
    log_format: str,
) -> None:
    """Serve a Gemma model on a Unix socket, one JSON object a line."""
    from fazai.worker.bridge import Options
    from fazai.worker.main import WorkerSettings, check_model, serve

    if (model is None) == (not demo_model):
        raise UsageError("name one model", hint="--model FILE.gguf, or --demo-model")
    settings = WorkerSettings(
        model=model if model is not None else _demo_model(),
        socket=worker_socket(socket_path),
        options=Options(
            context_tokens=context,
            threads=threads,
            slots=slots,
            sessions=sessions,
            queue=queue,
            gpu_layers=gpu_layers,
        ),
        metrics_port=metrics_port,
        log_file=log_file,
        log_text=log_format == "text",
    )
    if only_check:
        check_model(settings, click.echo)
    else:
        serve(settings)


def _demo_model() -> Path:
    from fazai.cli import environment
    from fazai.worker.demo import find_demo_model

    return find_demo_model(environment.read_config().state / "models")
