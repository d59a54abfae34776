"""fazai worker"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import click

from fazai.cli.options import FILE, GEMMA_SOCKET_HELP, LOG_FILE, LOG_FORMAT, OptionDecorator
from fazai.errors import ExitCode, UsageError

_SOCKET = "/run/fazai/gemma.sock"


def worker_socket(path: str | Path | None) -> Path:
    """Return the worker's socket: the option, else the environment, else the system's."""
    return Path(path or os.environ.get("FAZAI_GEMMA_SOCK") or _SOCKET)


def _size(
    name: str, least: int, most: int | None, default: int, help_: str, *, shown: bool = True
) -> OptionDecorator:
    """Make the option of a number of the model's (`worker.bridge.Options`)."""
    type_ = click.IntRange(least, most)
    return click.option(name, type=type_, default=default, show_default=shown, help=help_)


@click.command(
    "worker",
    epilog="\b\nExamples:\n  fazai worker --demo-model --check           does it work here, and how fast?"
    "\n  fazai worker --inspect gemma-3-4b-it-Q4_K_M.gguf    what is it, and does it fit here?"
    "\n  fazai worker --model gemma-3-4b-it-Q4_K_M.gguf"
    "\n  fazai worker --demo-model --socket /tmp/gemma.sock --log-format text",
)
@click.option("--model", type=FILE, help="A GGUF file.")
@click.option(
    "--demo-model", is_flag=True, help="Gemma 3 270M, from its package (Gemma's terms of use apply)."
)
@click.option("--socket", "socket_path", help=GEMMA_SOCKET_HELP)
@click.option(
    "--check", "only_check", is_flag=True, help="Load, generate eight tokens, print the rate, exit."
)
@click.option(
    "--inspect",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Say what a GGUF file is and how it would be served, without loading it, and exit.",
)
@click.option("--output", type=click.Choice(["text", "json"]), help="Of --inspect. [default: text]")
@_size("--context", 0, None, 0, "Tokens of all conversations together. [default: 8192]", shown=False)
@_size("--threads", 0, 512, 0, "[default: as many as decode quickest]", shown=False)
@_size("--slots", 1, 56, 4, "Generations at once.")
@_size("--sessions", 1, 4096, 64, "Open sessions; beyond, the one idle for longest goes.")
@_size("--queue", 0, 4096, 32, "Generations that wait.")
@_size("--gpu-layers", -1, None, 0, "-1: all.")
@click.option("--full-logits", is_flag=True, help="llama.cpp's own logits of all tokens in every decode.")
@click.option(
    "--drafts",
    type=click.Choice(["exact", "off", "always"]),
    default="exact",
    show_default=True,
    help="Try what was said before in the same decode: where no rounding differs by it, never, or always.",
)
@click.option("--metrics-port", type=click.IntRange(1, 65535), help="Prometheus text on 127.0.0.1.")
@LOG_FILE
@LOG_FORMAT
def worker_command(
    model: Path | None,
    demo_model: bool,
    socket_path: str | None,
    only_check: bool,
    inspect: Path | None,
    output: str | None,
    context: int,
    full_logits: bool,
    drafts: str,
    metrics_port: int | None,
    log_file: Path | None,
    log_format: str,
    **sizes: Any,
) -> int:
    """Serve a Gemma model on a Unix socket, one JSON object a line."""
    if inspect is not None:
        if model is not None or demo_model or only_check:
            raise UsageError("--inspect reads one file, and loads nothing", hint="--inspect FILE.gguf alone")
        return _inspect(inspect, output or "text")
    if output is not None:
        raise UsageError("--output belongs to --inspect", hint="--inspect FILE.gguf --output json")
    from fazai.worker.bridge import Drafts, Options
    from fazai.worker.main import WorkerSettings, check_model, serve

    if (model is None) == (not demo_model):
        raise UsageError("name one model", hint="--model FILE.gguf, or --demo-model")
    settings = WorkerSettings(
        model=model if model is not None else _demo_model(),
        socket=worker_socket(socket_path),
        options=Options(
            context_tokens=context, full_logits=full_logits, drafts=Drafts[drafts.upper()], **sizes
        ),
        metrics_port=metrics_port,
        log_file=log_file,
        log_text=log_format == "text",
    )
    if only_check:
        check_model(settings, click.echo)
    else:
        serve(settings)
    return ExitCode.OK


def _inspect(path: Path, output: str) -> int:
    """Print a report on a file. Raises InputError where it cannot be read."""
    from fazai.worker.modelfile.report import inspect_model
    from fazai.worker.modelfile.show import report_lines

    report = inspect_model(path)
    if output == "json":
        click.echo(json.dumps({"format": "fazai-model/1", **dataclasses.asdict(report)}, indent=2))
    else:
        for line in report_lines(report):
            click.echo(line)
    return ExitCode.FAILED if report.problems else ExitCode.OK


def _demo_model() -> Path:
    from fazai.cli import environment
    from fazai.worker.demo import find_demo_model

    return find_demo_model(environment.read_config().state / "models")
