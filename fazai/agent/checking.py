"""The command `agent check`, for both command lines: that of fazai and that of the one-file agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fazai.agent.errors import Refused
from fazai.errors import UsageError, count_noun

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def run_check(
    config_path: str,
    argv: Sequence[str] = (),
    *,
    cwd: str = "/",
    env: Sequence[str] = (),
    stdin: bool = False,
    write: Callable[[str], object] = print,
) -> int:
    """Explain a configuration and warn of it; with `argv`, tell whether that would run (else Refused).

    `env` holds NAME=VALUE. Warnings are no errors: the exit code is 0. Raises ConfigError or Errors for a
    configuration that cannot be read.
    """
    from fazai.agent.config.explaining import explain_config, explain_request, find_warnings
    from fazai.agent.config.policy import ExecRequest
    from fazai.agent.config.reading import load_config

    config = load_config(config_path)
    if argv:
        request = ExecRequest(
            argv[0], tuple(argv[1:]), cwd, tuple(map(_split_variable, env)), "" if stdin else None
        )
        try:
            lines = explain_request(request, config)
        except Refused as error:
            raise Refused(error.code, f"it would not run: {error.message}", error.hint) from None
        for line in lines:
            write(line)
        return 0
    if env or stdin or cwd != "/":
        raise UsageError("`--cwd`, `--env` and `--stdin` belong to an argument list", hint="put it after --")
    for line in explain_config(config):
        write(line)
    warnings = find_warnings(config)
    for text in warnings:
        write(f"warning: {text}")
    write(f"{config_path} is well-formed; {count_noun(len(warnings), 'warning')}.")
    return 0


def _split_variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f'a variable is given as NAME=VALUE, not "{text}"')
    return name, value
