"""`fazai chat`: reads a line, shows the answer, until there are no more lines."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from typing import TYPE_CHECKING, TextIO

import click

from fazai.cli.generate_io import await_worker, protect_terminal
from fazai.errors import FazaiError, Interrupted
from fazai.wire.base import WireError

if TYPE_CHECKING:
    from fazai.providers.gemma.client import GemmaClient, GemmaSession
    from fazai.wire.worker import SessionParams

_CUT = {"length": "--max-tokens", "timeout": "--timeout"}
_BUSY_S = 5.0  # for the end of an answer that was aborted


def run_chat(client: GemmaClient, params: SessionParams, stdin: TextIO, *, wait_s: float) -> None:
    """Run the turns of one conversation. Raises Unreachable, WireError; Interrupted for a kill."""
    with asyncio.Runner() as runner:
        chat = _ChatLoop(client, params, stdin)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, chat.end)
        runner.run(await_worker(client, wait_s))
        runner.run(chat.open())
        try:
            while chat.goes_on:
                # Ctrl-C may come at any point between the two; it never ends the chat.
                with contextlib.suppress(KeyboardInterrupt):
                    line = chat.read()
                    if line is not None and line.strip():
                        chat.tell(runner.run(chat.turn(line)))
        finally:
            runner.run(chat.close())


class _ChatLoop:
    """One conversation at a terminal or in a pipe. Ctrl-C is KeyboardInterrupt while a line is typed; while
    an answer runs, asyncio.Runner cancels the turn."""

    def __init__(self, client: GemmaClient, params: SessionParams, stdin: TextIO) -> None:
        self._client = client
        self._params = params
        self._stdin = stdin
        self._typed = stdin.isatty()
        self._terminal = sys.stdout.isatty()
        self._session: GemmaSession = client.session(params)
        self._ended = False
        self._no_more = False

    @property
    def goes_on(self) -> bool:
        """Tell whether there may be more lines. Raises Interrupted when the process is to end."""
        if self._ended:
            raise Interrupted("interrupted: the chat was ended")
        return not self._no_more

    def end(self, number: int, frame: object) -> None:
        """Handle a kill or a closed terminal: interrupt the answer, and read no more lines."""
        self._ended = True
        signal.raise_signal(signal.SIGINT)

    async def open(self) -> None:
        """Open a session with the worker. Raises Unreachable, WireError."""
        self._session = await self._client.session(self._params).__aenter__()

    async def close(self) -> None:
        await self._session.__aexit__(None, None, None)

    def read(self) -> str | None:
        """Read the next turn; None when there is none now. Ctrl-C forgets the line that is being typed.
        Raises Interrupted."""
        line = None
        try:
            if self._typed:
                with contextlib.suppress(ImportError):
                    import readline  # noqa: F401 - a line can be edited, and an earlier one called back
                line = input("> ")
            else:
                line = self._stdin.readline()
                self._no_more = not line
        except EOFError:
            self._no_more = True
            click.echo()
        except UnicodeDecodeError as error:
            raise FazaiError(f"a line is not UTF-8 (byte {error.start})") from None
        except KeyboardInterrupt:
            if not self._typed:
                self._ended = True
            elif not self._ended:
                click.echo("\n(Ctrl-D ends the chat)", err=True)
        return line

    def tell(self, reason: str) -> None:
        """Print why an answer ended before its end, if it did."""
        if reason in _CUT:
            click.echo(f"(cut: {reason}; {_CUT[reason]})", err=True)
        elif reason == "aborted":
            click.echo("(aborted)", err=True)

    async def turn(self, line: str) -> str:
        """Show the answer as it comes; returns why it ended. Raises Unreachable, WireError."""
        try:
            return await self._answer(line)
        except asyncio.CancelledError:
            session_id = self._session.session_id
            if session_id is not None:
                with contextlib.suppress(FazaiError):
                    await self._client.abort(session_id)
            return "aborted"
        finally:
            click.echo()

    async def _answer(self, line: str) -> str:
        until = asyncio.get_running_loop().time() + _BUSY_S
        while True:
            try:
                # deadline: the generation's, `pieces`
                async with self._session.stream(line.strip("\r\n")) as pieces:
                    async for piece in pieces:
                        click.echo(protect_terminal(piece, terminal=self._terminal), nl=False)
                    return pieces.reason
            except WireError as error:
                if error.code == "unknown_session":
                    click.echo("(the worker no longer has the conversation; it begins anew)", err=True)
                    await self.open()
                elif error.code != "session_busy" or asyncio.get_running_loop().time() > until:
                    raise
                else:
                    await asyncio.sleep(0.02)
