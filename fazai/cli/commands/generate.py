"""fazai generate, fazai chat"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fazai.cli.generate_io import FiniteFloat
from fazai.cli.options import FILE, GEMMA_SOCKET_HELP, add_options
from fazai.errors import FazaiError, UsageError

if TYPE_CHECKING:
    from fazai.providers.gemma.client import GemmaClient
    from fazai.wire.worker import SessionParams

_FALLBACK = (
    "\n\n\n\b\nWithout a worker it asks the OpenAI-compatible server of FAZAI_GEMMA_FALLBACK_URL,"
    "\nFAZAI_GEMMA_FALLBACK_MODEL and FAZAI_GEMMA_FALLBACK_KEY_FILE, if they are set."
)
#: Options of a generation: the fields of the worker's contract.
_GENERATION = (
    click.option("--socket", "socket_path", help=GEMMA_SOCKET_HELP),
    click.option("--system", help="The system prompt."),
    click.option("--max-tokens", type=click.IntRange(1), help="The most tokens to generate. [default: 1024]"),
    click.option("--temperature", type=FiniteFloat(0), help="0: always the likeliest token. [default: 1]"),
    click.option("--top-k", type=click.IntRange(0), help="Only the likeliest K; 0: off. [default: 64]"),
    click.option(
        "--top-p",
        type=FiniteFloat(0, 1, min_open=True),
        help="Only the likeliest that hold this much of the probability. [default: 0.95]",
    ),
    click.option(
        "--min-p", type=FiniteFloat(0, 1), help="Least probability, relative to the likeliest token."
    ),
    click.option(
        "--repeat-penalty", type=FiniteFloat(0, min_open=True), help="Over the last 64 tokens; 1: off."
    ),
    click.option("--seed", type=click.IntRange(-1, 4294967295), help="The same seed gives the same text."),
    click.option("--stop", multiple=True, help="A text that ends the answer and is not shown; up to 16."),
    click.option("--json-schema", type=FILE, help="The output conforms to this JSON Schema."),
    click.option("--grammar", type=FILE, help="The output conforms to this grammar: GBNF, or Lark."),
    click.option(
        "--timeout",
        "timeout_s",
        type=FiniteFloat(0.001, 3600),
        default=120.0,
        show_default=True,
        help="Seconds for an answer.",
    ),
    click.option(
        "--wait",
        "wait_s",
        type=FiniteFloat(0, 3600),
        default=30.0,
        show_default=True,
        help="Seconds for a worker that still loads its model.",
    ),
)


def _session_params(
    *, timeout_s: float, stop: tuple[str, ...], json_schema: Path | None, grammar: Path | None, **plain: Any
) -> SessionParams:
    """Make the parameters of a session from the options. Raises UsageError."""
    from fazai.cli import generate_io
    from fazai.wire.worker import SessionParams

    if json_schema is not None and grammar is not None:
        raise UsageError("--json-schema and --grammar exclude each other")
    return SessionParams(
        **plain,
        stop=generate_io.check_stop_texts(stop),
        json_schema=generate_io.read_schema(json_schema) if json_schema is not None else None,
        grammar=generate_io.read_grammar(grammar) if grammar is not None else None,
        timeout_ms=max(1, int(timeout_s * 1000)),
    )


def _make_client(socket_path: str | None) -> GemmaClient:
    from fazai.cli.clients import read_key_file
    from fazai.cli.commands.worker import worker_socket
    from fazai.providers.gemma.client import GemmaClient
    from fazai.providers.gemma.endpoint import FallbackEndpoint

    fallback = FallbackEndpoint.from_environ(os.environ, read_key_file)
    return GemmaClient(worker_socket(socket_path), endpoints=() if fallback is None else (fallback,))


@click.command(
    "generate",
    epilog='\b\nExamples:\n  fazai generate "Why would a firewall drift?"'
    '\n  fazai drift inventory.yml | fazai generate --system "Summarise this." -'
    '\n  fazai generate --json-schema answer.json "Is fw-01 up?"'
    '\n  fazai generate --temperature 0 --stop . "The capital of Portugal is"' + _FALLBACK,
)
@click.argument("prompt", required=False)
@add_options(_GENERATION)
def generate_command(prompt: str | None, socket_path: str | None, wait_s: float, **options: Any) -> None:
    """Ask the worker; PROMPT - (or none, with a pipe) reads stdin. The text streams to stdout; Ctrl-C aborts.

    An answer that was cut (--max-tokens, --timeout, an abort elsewhere) is exit 1.
    """
    from fazai.cli import generate_io

    text = generate_io.read_prompt(prompt, sys.stdin)
    params = _session_params(**options)
    reason = asyncio.run(generate_io.stream_answer(_make_client(socket_path), params, text, wait_s=wait_s))
    if reason not in ("eos", "stop"):
        raise FazaiError(f"the answer is not complete: {reason}", hint="--max-tokens, --timeout")


@click.command(
    "chat",
    epilog="\b\nExamples:\n  fazai chat"
    '\n  fazai chat --system "You know OPNsense. Answer in one sentence." --temperature 0.2' + _FALLBACK,
)
@add_options(_GENERATION)
def chat_command(socket_path: str | None, wait_s: float, **options: Any) -> None:
    """Talk with the worker: a line is a turn, and the worker keeps the conversation.

    Ctrl-C aborts an answer and not the chat, Ctrl-D ends it. Lines that a pipe brings are turns, too.
    """
    from fazai.cli.commands import chat

    chat.run_chat(_make_client(socket_path), _session_params(**options), sys.stdin, wait_s=wait_s)
