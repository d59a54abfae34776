"""fazai ask"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fazai.cli.options import COLOR, OUTPUT, add_options
from fazai.errors import UsageError, missing_file

if TYPE_CHECKING:
    from fazai.report.sessions import SessionReport
    from fazai.wire.sessions import Budget

#: What an objective, and what is resumed, may use.
BUDGET = (
    click.option("--iterations", type=click.IntRange(1, 200), help="The most actions. [default: 20]"),
    click.option(
        "--tokens", type=click.IntRange(1, 1_000_000), help="The most tokens to write. [default: 20000]"
    ),
    click.option(
        "--seconds", type=click.IntRange(1, 86_400), help="The longest time, pauses left out. [default: 900]"
    ),
)
URL = click.option(
    "--url", help="https://HOST:3120 or unix:PATH. [default: $FAZAI_URL, else the local socket]"
)
_HISTORY_BYTES = 262_144


@click.command(
    "ask",
    epilog='\b\nExamples:\n  fazai ask "which firewall has drifted, and what would bring it back?"'
    '\n  fazai ask --iterations 5 --history @notes.txt "why is web-1 slow?"'
    "\n  fazai ask --session 7f3a - < objective.txt"
    "\n\n\b\nExit codes: 0 done, 1 stuck, over a budget or failed, 2 waits for a person,"
    "\n4 the worker or the daemon is away, 130 Ctrl-C.",
)
@click.argument("objective")
@click.option("--session", help="Go on in this session: its id, or either end of it. [default: a new one]")
@click.option(
    "--history", multiple=True, metavar="TEXT|@FILE", help="What the model is to know of what was before."
)
@add_options(BUDGET)
@OUTPUT
@URL
@COLOR
def ask_command(objective: str, output: str, color: str, **options: Any) -> int:
    """Give the daemon's action loop an OBJECTIVE, and watch it; - reads it from stdin.

    What would change something waits for your approval: at a terminal you are asked; else the command that
    approves is printed. Ctrl-C lets the objective rest; twice, it ends at once.
    """
    from fazai.cli.commands.asking import Asking
    from fazai.cli.daemon_api import daemon_api
    from fazai.cli.event_stream import write_json_line
    from fazai.cli.generate_io import read_prompt
    from fazai.wire.sessions import GenerateBody

    text = read_prompt(objective, sys.stdin, "objective", "ask")
    history = tuple(_read_history(one) for one in options["history"])
    budget = read_budget(options)
    report = session_report(color)
    typed = sys.stdin.isatty() and sys.stdout.isatty() and output == "text"
    _interrupt_once()
    with daemon_api(options["url"]) as api:
        show = write_json_line if output == "json" else report.event
        asking = Asking(api, show, typed=typed, machine=output == "json")
        try:
            session_id = asking.open(options["session"])
            body = GenerateBody(session_id=session_id, objective=text, history=history, budget=budget)
            return asking.run(body)
        except KeyboardInterrupt:
            return asking.interrupt()


def session_report(color: str) -> SessionReport:
    """Return the report of sessions on standard output."""
    from fazai.cli.terminal import Terminal
    from fazai.report.sessions import SessionReport

    terminal = Terminal.of(sys.stdout, os.environ, color)
    return SessionReport(sys.stdout, terminal.paint, max(60, shutil.get_terminal_size((160, 24)).columns))


def read_budget(options: dict[str, Any]) -> Budget | None:
    """Return the budget of the options; None where none is given: the daemon's own holds."""
    from fazai.wire.sessions import Budget

    given = {name: options[name] for name in ("iterations", "tokens", "seconds") if options[name]}
    return Budget(**given) if given else None


def _read_history(text: str) -> str:
    """Return a word of the history, or the file that it names. Raises UsageError."""
    if not text.startswith("@"):
        return text
    path = Path(text[1:])
    try:
        with path.open("rb") as file:
            data = file.read(_HISTORY_BYTES + 1)
        found = data.decode()
    except FileNotFoundError:
        raise missing_file(UsageError, "file of --history", path) from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: it is not UTF-8 (byte {error.start})") from None
    if len(data) > _HISTORY_BYTES:
        raise UsageError(f"{path}: it has more than {_HISTORY_BYTES} bytes", hint="the model reads all of it")
    return found


def _interrupt_once() -> None:
    """Let the first Ctrl-C raise KeyboardInterrupt, and the second end the process at once."""
    pressed = False

    def interrupt(number: int, frame: object) -> None:
        nonlocal pressed
        if pressed:
            os._exit(130)
        pressed = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
