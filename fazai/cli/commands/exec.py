"""fazai exec"""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from fazai.cli.commands.completion import complete_pattern
from fazai.cli.fanout import FANOUT_OPTIONS, FanoutRun, split_words
from fazai.cli.options import add_options
from fazai.errors import InputError, UsageError, missing_file

if TYPE_CHECKING:
    from fazai.fanout.sessions import Program
    from fazai.model import Resource, Session, Target
    from fazai.outcome import ProgramResult

_ARGV: Final = "fazai.exec.argv"
_FORM: Final = "fazai exec all -- df -h"
_STDIN_BYTES: Final = 1024 * 1024
_SHELL_HINT = "the argv goes to the host as it is; a shell is your own word: -- sh -c 'cd /srv && ls | wc -l'"


class _ProgramCommand(click.Command):
    """A command whose words behind `--` are an argv, which click does not touch."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        self._refuse_help_of_another(ctx, args[:end])
        ctx.meta[_ARGV] = tuple(args[end + 1 :])
        return super().parse_args(ctx, args[:end])

    def _refuse_help_of_another(self, ctx: click.Context, args: list[str]) -> None:
        """Refuse `all df -h` without `--` before `df`: that `-h` would be ours, and end well; `-l` is told to
        be none of ours. Raises UsageError."""
        try:
            found, _, _ = self.make_parser(ctx).parse_args(list(args))
        except click.NoSuchOption as error:
            if error.possibilities:  # one of ours is meant
                raise
            hint = f"an option of the program stands behind it, and it behind --: {_FORM}"
            raise UsageError(f"there is no option {error.option_name}", hint=hint) from None
        option = self.get_help_option(ctx)
        if option is not None and found.get(str(option.name)) and isinstance(found.get("words"), tuple):
            text = 'this shows no help: a program and its options stand behind "--", which is missing'
            raise UsageError(text, hint=f"{_FORM}; our own help: fazai exec -h")

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "--", "PROGRAM", "[ARGUMENT]..."]


@click.command(
    "exec",
    cls=_ProgramCommand,
    epilog="\b\nExamples:\n  fazai exec inventory.yml web -- df -h /"
    "\n  fazai exec 'edge:!edge-03' -- systemctl is-active nginx"
    "\n  fazai exec all --wave 1,10%,100% --max-failures 2 -- systemctl restart app"
    "\n  fazai exec all --group -- uname -r\n  fazai exec web --stdin fix.sql -- psql -f -",
)
@click.argument("words", nargs=-1, metavar="[INVENTORY]... PATTERN...", shell_complete=complete_pattern)
@add_options(FANOUT_OPTIONS)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0.1, 86_400),
    metavar="SECONDS",
    help="Time for the program; it is ended then. [default: the host's timeout]",
)
@click.option("--chdir", "folder", metavar="DIR", help="Where it runs: an absolute path on the hosts.")
@click.option("--stdin", "stdin_file", metavar="FILE|-", help="What it reads, at most 1 MiB.")
@click.option("--group", is_flag=True, help="Show hosts that printed the same together, at the end.")
@click.option("--shell", is_flag=True, hidden=True)
@click.pass_context
def exec_command(
    ctx: click.Context,
    /,
    words: tuple[str, ...],
    timeout_s: float | None,
    folder: str | None,
    stdin_file: str | None,
    shell: bool,
    **options: Any,
) -> int:
    """Run one program on the hosts that PATTERN chooses, and show what each prints.

    PROGRAM and its arguments are passed on word by word; no shell reads them.
    """
    from fazai.fanout.output import OutputKeeper, OutputRoom
    from fazai.fanout.sessions import Program

    argv: tuple[str, ...] = ctx.meta[_ARGV]
    _check_argv(argv, shell)
    if folder is not None and not folder.startswith("/"):
        raise UsageError(f"--chdir {folder!r} is no absolute path", hint="it is a folder of the hosts")
    sources, patterns = split_words(words, options["more"])
    stdin = None if stdin_file is None else _read_stdin(stdin_file)
    run = FanoutRun.prepare("exec", sources, patterns, options)
    program = Program(argv, run.mask_words(argv), timeout_s, folder, stdin)
    results: dict[str, ProgramResult] = {}
    room = OutputRoom()

    def open_session(target: Target) -> Session:
        from fazai.fanout.sessions import ProgramSession

        return ProgramSession(
            target,
            program,
            run.access_to(target),
            lambda mask, say: OutputKeeper(mask, say, room),
            results.__setitem__,
        )

    resource = _resource(program)
    return run.execute(lambda _: (resource,), open_session, title=_title(program), results=results)


def _check_argv(argv: tuple[str, ...], shell: bool) -> None:
    """Refuse a command line without a program, and one that asks for a shell. Raises UsageError."""
    if shell:
        raise UsageError("there is no option --shell", hint=_SHELL_HINT)
    if not argv or not argv[0]:
        raise UsageError("which program? it stands behind --", hint="fazai exec PATTERN -- df -h")
    if argv[0].startswith("-"):
        raise UsageError(f"{argv[0]!r} is no program", hint="options of fazai stand before the first --")
    if any("\0" in word for word in argv):
        raise UsageError("an argument cannot hold a NUL character")


def _resource(program: Program) -> Resource:
    from fazai.model import Resource

    return Resource("host.command", shlex.join(program.shown), {"argv": list(program.shown)})


def _title(program: Program) -> str:
    text = shlex.join(program.shown)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _read_stdin(name: str) -> bytes:
    """Read what the program is to read: a file, or our own standard input. Raises InputError."""
    hint = "larger ones are files: fazai cp, then exec"
    try:
        if name == "-":
            data = sys.stdin.buffer.read(_STDIN_BYTES + 1)
        else:
            with open(name, "rb") as file:
                data = file.read(_STDIN_BYTES + 1)
    except FileNotFoundError:
        raise missing_file(InputError, "file", name) from None
    except OSError as error:
        raise InputError(f"--stdin {name}: {error.strerror}") from None
    if len(data) > _STDIN_BYTES:
        raise InputError(f"--stdin {name} is longer than {_STDIN_BYTES >> 20} MiB", hint=hint)
    return data
