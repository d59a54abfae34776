"""The group of commands, and the border at which errors become text and exit codes."""

from __future__ import annotations

import gc
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from fazai.errors import Errors, FazaiError, Interrupted, UsageError, spelling_hint

#: command -> (module of fazai.cli.commands, one line of help); importing a module costs only who calls it.
COMMANDS = {
    "apply": ("run", "Bring the targets of an inventory to their declared state."),
    "plan": ("run", "Show what apply would change; exit 2 when something would."),
    "drift": ("run", "Look for differences; can never write. Exit 2 when there are any."),
    "validate": ("run", "Check inventory and playbooks without contacting anything."),
    "inventory": ("inventory", "Show hosts, groups and variables as Ansible does."),
    "exec": ("exec", "Run one program on many hosts, in waves."),
    "cp": ("cp", "Copy files to many hosts, or from them, in waves."),
    "import": ("importing", "Write what a firewall holds as a playbook."),
    "diff": ("diff", "Compare what two firewalls hold. Exit 2 when it differs."),
    "facts": ("facts", "Show what hosts are: system, memory, disks, addresses."),
    "doctor": ("doctor", "Look at what fazai needs here, one line a check."),
    "probe": ("probe", "Ask ports, web servers, names, certificates, block lists."),
    "agent": ("agent", "The remote agent of this machine: run, enrol, check."),
    "agents": ("agents", "Agents of hosts: list, status, update, restart, logs, remove."),
    "kinds": ("kinds", "List the kinds of resources, or explain one."),
    "lab": ("lab", "Run the embedded lab: an OPNsense to try things on."),
    "history": ("history", "List earlier runs."),
    "show": ("history", "Show one run: its actions and events."),
    "store": ("store", "Check, shrink, back up or restore the state file."),
    "worker": ("worker", "Serve a Gemma model on a Unix socket."),
    "generate": ("generate", "Ask the Gemma worker; the text streams."),
    "chat": ("generate", "Talk with the Gemma worker, turn by turn."),
    "ask": ("ask", "Give the action loop an objective, and watch it."),
    "session": ("session", "Sessions of the action loop: list, show, approve, answer."),
    "daemon": ("daemon", "Serve events, telemetry and runs over HTTP."),
    "tail": ("tail", "Watch what happens, here or on other machines."),
    "policy": ("policy", "Check and explain what may be done without asking."),
    "notify": ("notify", "Try the channels of the daemon's notifications."),
    "mcp": ("mcp", "Offer the daemon's tools to an assistant (MCP, stdio)."),
    "rules": ("rules", "Check event rules, and try them on records."),
    "token": ("token", "Create, list and revoke the daemon's tokens."),
    "kb": ("kb", "The knowledge base: add, search, verify, import notes."),
    "pki": ("pki", "The CA for remote agents: enrol, renew, revoke, list."),
    "completion": ("completion", "Print shell completion for bash, zsh or fish."),
    "version": ("version", "Print the version."),
}

_SHOWN = 20  # errors for people; who has more of them has a systematic mistake

_EPILOG = """\b
Examples:
  fazai validate inventory.yml            is everything well-formed?
  fazai plan inventory.yml                what would change? (exit 2: something)
  fazai apply inventory.yml --limit fw-01 change it, verify it
  fazai drift inventory.yml --quiet       from cron: silent when nothing drifted
  fazai apply inventory/lab.yml           try it on the embedded lab

Exit codes: 0 converged, 1 failed, 2 changes pending, 3 bad input, 4 unreachable,
5 locked, 6 stale plan, 7 refused by a guard, 130 interrupted.
"""


#: Commands that print until somebody stops them: they end when nobody reads on.
_ENDLESS = ("tail", "generate")


class _TolerantStream(io.FileIO):
    """A standard stream whose reader may go away: what nobody reads is dropped, and the command goes on to
    its own exit code."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            return len(data)


class _LazyGroup(click.Group):
    """Commands are imported when they are needed; help needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"fazai.cli.commands.{COMMANDS[cmd_name][0]}")
        command = getattr(module, f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            hint = spelling_hint(name, COMMANDS) or "see: fazai --help"
            raise UsageError(f'there is no command "{name}"', hint=hint)
        return super().resolve_command(ctx, args)


@click.group(
    cls=_LazyGroup,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
)
@click.option("--version", is_flag=True, help="Print the version and exit.")
@click.pass_context
def root(ctx: click.Context, version: bool) -> None:
    """Declarative operations for OPNsense firewalls and Linux telemetry hosts.

    fazai reads an inventory, looks at the targets, and brings them to the declared state:
    as few writes as possible, verified, and the same again changes nothing.
    """
    if version:
        from fazai import __version__

        click.echo(f"fazai {__version__}")
    elif ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(args: Sequence[str] | None = None) -> int:
    """Run one command line (this process's own, if none is given); returns the exit code. All errors end
    here."""
    if args is not None:
        return _run_command(list(args))
    _tolerate_closed_pipes(sys.argv[1:])
    code = _run_command(sys.argv[1:])
    gc.freeze()  # the process ends: to look through all that it holds would be a tenth of a short run
    return code


def _run_command(argv: list[str]) -> int:
    _mend_streams()
    gc.set_threshold(100_000, 10, 10)  # a short life with few cycles: collecting seldom saves a tenth of it
    try:
        code = root.main(args=argv, prog_name="fazai", standalone_mode=False)
        sys.stdout.flush()  # here a reader that went away is noticed, at the exit it would be a traceback
        return code if isinstance(code, int) else 0
    except FazaiError as error:
        return _report_error(error, argv)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _report_error(Interrupted("interrupted"), argv)  # a run says itself what it had written
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return UsageError.exit_code
    except click.UsageError as error:
        return _report_error(_usage_error(error), argv)
    except click.ClickException as error:
        return _report_error(UsageError(error.format_message()), argv)
    except BrokenPipeError:  # the reader of a stream without end went away: it has read what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:  # a full disk below standard output; other files have errors of their own
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _report_error(FazaiError(f"the output cannot be written: {error.strerror}"), [])
    except MemoryError:
        return _report_error(FazaiError("out of memory", hint="fewer --forks, or --limit"), argv)


def _tolerate_closed_pipes(argv: Sequence[str]) -> None:
    """Let `fazai apply … | head -1` go on when head has read its line."""
    if _find_command(argv) in _ENDLESS:
        return
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and stream.fileno() == number:
            raw = io.BufferedWriter(_TolerantStream(number, "w", closefd=False))
            lines = stream.line_buffering
            setattr(sys, name, io.TextIOWrapper(raw, encoding=stream.encoding, line_buffering=lines))


def _mend_streams() -> None:
    """Escape what the terminal's charset lacks, and replace streams that were closed before the start."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for good
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _usage_error(error: click.UsageError) -> UsageError:
    hint = f"see: {error.ctx.command_path} --help" if error.ctx else "see: fazai --help"
    near = getattr(error, "possibilities", None)
    if near:
        hint = f'did you mean "{near[0]}"? {hint}'
    message = error.message or error.format_message()
    choice = error.param and error.param.type if isinstance(error, click.MissingParameter) else None
    if isinstance(error, click.MissingParameter) and isinstance(choice, click.Choice):
        what = error.param.opts[0] if isinstance(error.param, click.Option) else "an argument"
        message = f"{what} is missing, one of: {', '.join(map(str, choice.choices))}"
    elif isinstance(error, click.NoSuchOption):
        message = f"there is no option {error.option_name}"
    elif isinstance(error, click.BadParameter):
        message = error.format_message()
    return UsageError(message.rstrip("."), hint=hint)


def _report_error(error: FazaiError, argv: list[str]) -> int:
    from fazai.cli.terminal import Terminal
    from fazai.report.lines import error_lines

    output = _find_output_format(argv)
    errors = error.errors
    if output is not None:
        from fazai.report import machine

        click.echo(machine.render_outcome(output, None, _find_command(argv), errors), nl=False)
    terminal = Terminal.of(sys.stderr, os.environ)
    for line in error_lines(Errors(errors[:_SHOWN]), terminal.paint):
        click.echo(line, err=True)
    if len(errors) > _SHOWN:
        click.echo(f"… and {len(errors) - _SHOWN} more (fazai plan --output json has them all)", err=True)
    if len(errors) > 1:
        click.echo(f"{len(errors)} errors, nothing was contacted", err=True)
    return int(error.exit_code)


def _find_command(argv: Sequence[str]) -> str:
    """Find the command of a line, also when the rest was not understood; none: an empty text."""
    return next((word for word in argv if word in COMMANDS), "")


def _find_output_format(argv: list[str]) -> str | None:
    """Find the machine format that was asked for, also when the command line was not understood."""
    for index, word in enumerate(argv):
        if word == "--":  # what follows is no option of ours
            return None
        name, _, value = word.partition("=")
        if name == "--output":
            value = value or (argv[index + 1] if index + 1 < len(argv) else "")
            return value if value in ("json", "junit", "markdown") else None
    return None
