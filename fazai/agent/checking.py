"""The command `agent check`, for both command lines: that of fazai and that of the one-file agent."""

from __future__ import annotations

import os
import stat
import time
from typing import TYPE_CHECKING

from fazai.agent.errors import Refused
from fazai.errors import UsageError, count_noun

_NOTE_BYTES = 4096

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fazai.agent.config.settings import AgentConfig


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
    said, doubts = check_identity(config, time.time())
    if said:
        write(said)
    warnings = [*find_warnings(config), *doubts]
    for text in warnings:
        write(f"warning: {text}")
    write(f"{config_path} is well-formed; {count_noun(len(warnings), 'warning')}.")
    return 0


def check_identity(config: AgentConfig, now: float) -> tuple[str, list[str]]:
    """Look at the agent's certificate, its key and what else proves who it is, as `run` will. Returns a
    sentence on the certificate, empty where there is none that can be used, and warnings."""
    from fazai.agent.link import keys, longpoll, proxy, tls
    from fazai.agent.link.errors import LinkError

    found: list[str] = []
    said = ""

    def note(check: Callable[[], object]) -> None:
        try:
            check()
        except LinkError as error:
            found.append(str(error))
        except OSError as error:
            found.append(f"{error.filename}: it cannot be read: {error.strerror}")

    if os.path.lexists(config.certificate) or os.path.lexists(config.key):
        note(lambda: keys.check_private(config.key))
        try:
            dates = tls.read_certificate(config.ca, config.certificate, config.key)
        except LinkError as error:
            found.append(str(error))
        else:
            said = (
                f"Its certificate is made out to {dates.name}, and holds until {tls.show_time(dates.ends)}."
            )
            note(lambda: tls.check_name(dates, config.agent_id))
            note(lambda: tls.check_dates(dates, now))
    elif any(address.scheme == "wss" for address in config.daemon):
        found.append(f"there is no {config.certificate}: this agent is not enrolled yet (fazai agent enrol)")
    if config.signing_key is not None:
        note(lambda: longpoll.read_signing_key(str(config.signing_key)))
    credentials = None if config.proxy is None else config.proxy.credentials
    if credentials is not None:
        note(lambda: proxy.read_credentials(credentials))
    found += _check_proxy(config)
    found += _check_folder(config.state)
    return said, list(dict.fromkeys(found))


def _check_proxy(config: AgentConfig) -> list[str]:
    """Return whether the agent was enrolled through a proxy that its configuration does not name."""
    from fazai.agent.link.dialling import make_proxy
    from fazai.agent.link.enrolling import write_proxy
    from fazai.agent.link.identity import PROXY_NOTE

    try:
        with open(f"{config.certificate}{PROXY_NOTE}", encoding="utf-8", errors="replace") as file:
            lines = file.read(_NOTE_BYTES)
    except OSError:
        return []
    if lines == write_proxy(make_proxy(config.proxy)):
        return []
    named = f"names {config.proxy}" if config.proxy is not None else "names none"
    shown = "; ".join(lines.splitlines())
    return [f"{config.file}: it was enrolled through a proxy, and this file {named}; there it was: {shown}"]


def _check_folder(path: str) -> list[str]:
    """Return what is wrong with the folder of the journal, where it is there."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return []  # the agent makes it
    except OSError as error:
        return [f"{path}: it cannot be looked at: {error.strerror}"]
    if not stat.S_ISDIR(found.st_mode):
        return [f"{path}: `state` is no folder"]
    mode = stat.S_IMODE(found.st_mode)
    return [f"{path}: others may look into `state` (mode {mode:04o}; chmod 700)"] if mode & 0o077 else []


def _split_variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f'a variable is given as NAME=VALUE, not "{text}"')
    return name, value
