"""Input and output of `fazai generate` and `fazai chat`: prompts, schemas, text, in a terminal or a pipe."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

import click

from fazai.errors import Interrupted, Unreachable, UsageError, missing_file

if TYPE_CHECKING:
    from fazai.providers.gemma.client import GemmaClient
    from fazai.wire.worker import SessionParams

_KEPT = {9: "\t", 10: "\n", 13: ""}
_CONTROLS = {code: _KEPT.get(code, f"\\x{code:02x}") for code in (*range(32), *range(127, 160))}


class FiniteFloat(click.FloatRange):
    """A number option that refuses `nan` and `inf`, which Python reads as numbers."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value} is no number.", param, ctx)
        return found


def read_prompt(word: str | None, stdin: TextIO, what: str = "prompt", example: str = "generate") -> str:
    """Return the prompt: the argument, or standard input for `-` and for none at all. `what` it is called,
    and the command that takes it, in errors. Raises UsageError."""
    if word is not None and word != "-":
        if not _is_utf8(word):
            raise UsageError(f"the {what} is not UTF-8", hint="the terminal's encoding, or a file and -")
        if not word.strip():
            raise UsageError(f"the {what} is empty", hint=f'fazai {example} "…"')
        return word
    if word is None and stdin.isatty():
        raise UsageError(f"the {what} is missing", hint=f'fazai {example} "…", or - to type it')
    try:
        text = stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is not UTF-8 (byte {error.start})") from None
    if not text.strip():
        raise UsageError(f"standard input holds no {what}")
    return text


def _is_utf8(word: str) -> bool:
    """Tell whether a word of the command line is UTF-8."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_stop_texts(texts: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the texts that end an answer, None for none. Raises UsageError."""
    if len(texts) > 16 or not all(1 <= len(text) <= 256 and _is_utf8(text) for text in texts):
        raise UsageError("--stop is given up to 16 times, with 1 to 256 characters each")
    return texts or None


def read_grammar(path: Path) -> str:
    """Read a grammar. Raises UsageError."""
    try:
        text = _read_option_file(path, "grammar").decode().replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: it is not UTF-8 (byte {error.start})") from None
    if not 1 <= len(text) <= 65_536:
        raise UsageError(f"{path}: a grammar has 1 to 65536 characters")
    return text


def read_schema(path: Path) -> dict[str, Any]:
    """Read a JSON Schema. Raises UsageError."""
    from fazai.wire.base import WireError, parse_object

    data = _read_option_file(path, "JSON Schema")
    try:
        return parse_object(data, unique_names=True)
    except WireError as error:
        raise UsageError(f"{path}: {error.message}") from None


def _read_option_file(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise missing_file(UsageError, what, path) from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None


def protect_terminal(text: str, *, terminal: bool) -> str:
    """Escape control characters of a model's text, which could move a terminal's cursor; not for a pipe."""
    return text.translate(_CONTROLS) if terminal else text


async def stream_answer(client: GemmaClient, params: SessionParams, text: str, *, wait_s: float) -> str:
    """Write the answer as it comes; returns why it ended. An interrupt closes the stream and the session,
    which ends the generation. Raises Unreachable, WireError."""
    terminal = sys.stdout.isatty()
    begun = False
    _cancel_on_signals()
    try:
        await await_worker(client, wait_s)
        # deadline: the generation's, `pieces`
        async with client.session(params) as session, session.stream(text) as pieces:
            async for piece in pieces:
                click.echo(protect_terminal(piece, terminal=terminal), nl=False)
                begun = True
            return pieces.reason
    except asyncio.CancelledError:
        raise Interrupted("interrupted: the generation was aborted") from None
    finally:
        if begun:
            with contextlib.suppress(BrokenPipeError):  # what ended it is said, not this
                click.echo()


def _cancel_on_signals() -> None:
    """Cancel the task on Ctrl-C, a kill or a closed terminal, so that no session is left behind.

    The second one does not wait for the worker any more. A signal that was ignored at the start, as in the
    background of a script, stays ignored."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None

    def end(number: int, frame: FrameType | None) -> None:
        if not task.done():
            task.cancel()
            loop.call_soon_threadsafe(int)  # it may wait for nothing else

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end)  # not the loop's: that looks only when there is nothing to write


async def await_worker(client: GemmaClient, wait_s: float) -> None:
    """Wait for a worker that loads; one that is away is left to the session, which may have a fallback."""
    try:
        found = await client.status(patient=not client.endpoints)
    except Unreachable:
        if not client.endpoints:
            raise
        return
    if found.status == "starting" and wait_s > 0:
        click.echo(f"the worker loads its model: waiting for up to {wait_s:g} s", err=True)
    if found.status != "running":
        await client.wait_running(wait_s)
