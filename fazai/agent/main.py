"""The agent's command line: `fazai agent run`, and the same in the one-file agent."""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

DEFAULT_CONFIG = "/etc/fazai/agent.yml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name; returns the exit code."""
    from fazai.errors import FazaiError

    try:
        options = _parse(sys.argv[1:] if arguments is None else arguments)
        return int(options.run(options))
    except FazaiError as error:
        for one in error.errors:
            print(f"error: {one}", file=sys.stderr)
        return int(error.exit_code)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130


def _parse(arguments: Sequence[str]) -> Any:
    import argparse

    from fazai import __version__

    parser = argparse.ArgumentParser(prog="fazai-agent", description="The remote agent of fazai.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, text: str, run: Any) -> Any:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        if name != "version":
            command.add_argument("--config", default=DEFAULT_CONFIG, help="default: %(default)s")
        return command

    run = add("run", "connect to the daemon and serve it until SIGTERM", _run)
    run.add_argument("--log-format", choices=("json", "text"), help="default: text on a terminal")
    enrol = add("enrol", "exchange an enrolment token, one line of standard input, for a certificate", _enrol)
    enrol.add_argument("--daemon", metavar="URL", help="wss://HOST:3121; default: that of the configuration")
    enrol.add_argument("--proxy", metavar="URL", help="http://HOST:PORT; default: that of the configuration")
    enrol.add_argument("--proxy-credentials", metavar="FILE", help="with one line USER:PASSWORD, 0600")
    enrol.add_argument("--name", help="where there is no configuration yet; default: this host's name")
    check = add("check", "explain what the configuration allows, and warn", _check)
    check.add_argument("--cwd", default="/", help="the folder that the program would run in")
    check.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    check.add_argument("--stdin", action="store_true", help="it would be given standard input")
    check.add_argument("argv", nargs="*", help="would this run?")
    add("version", "print the version", lambda options: print(__version__) or 0)
    return parser.parse_args(arguments)


def _run(options: Any) -> int:
    text = options.log_format == "text" or (options.log_format is None and sys.stderr.isatty())
    return run_agent(options.config, text_log=text)


def run_agent(path: str, *, text_log: bool = False) -> int:
    """Serve until SIGTERM."""
    from fazai.agent.config.reading import load_config
    from fazai.agent.journal import Journal
    from fazai.agent.process import Log, Process
    from fazai.errors import StateError

    config = load_config(path, guarded=True)
    try:
        os.makedirs(config.state, mode=0o700, exist_ok=True)
    except OSError as error:
        raise StateError(f"the folder cannot be made: {error.strerror}", where=config.state) from None
    journal = Journal(os.path.join(config.state, "journal"), config.limits.journal, time.time)
    return Process(
        config, journal, log=Log(text=text_log), reload=lambda: load_config(path, guarded=True)
    ).run()


def _enrol(options: Any) -> int:
    names = ("daemon", "name", "proxy", "proxy_credentials")
    return enrol_agent(options.config, **{each: getattr(options, each) for each in names})


def enrol_agent(path: str, **options: str | None) -> int:
    """Make a key, and exchange a token for a certificate. Where there is no configuration yet, one is written
    that allows nothing."""
    from fazai.agent.link.enrolling import enrol

    known: Any = options
    print(enrol(path, _read_token, **known))
    return 0


def _read_token() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline(4096).strip()
    import getpass

    return getpass.getpass("Enrolment token: ").strip()


def _check(options: Any) -> int:
    from fazai.agent.checking import run_check

    argv, env = tuple(options.argv), tuple(options.env)
    run_check(options.config, argv, cwd=options.cwd, env=env, stdin=options.stdin, write=print)
    return 0


if __name__ == "__main__":
    sys.exit(main())
