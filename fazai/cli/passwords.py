"""`--ask-pass` and `--ask-become-pass`: passwords that are asked for at the terminal, and stand nowhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import click

from fazai.errors import Interrupted, UsageError
from fazai.model import Provider, Secret, Work

__all__ = ["password_options", "with_passwords"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def password_options(function: _Function) -> _Function:
    """The two options, as Ansible has them."""
    function = click.option(
        "-K", "--ask-become-pass", is_flag=True, help="Ask at the terminal for the password of sudo."
    )(function)
    return click.option(
        "-k", "--ask-pass", is_flag=True, help="Ask at the terminal for the password of the login."
    )(function)


def with_passwords(
    works: tuple[Work, ...], options: Mapping[str, Any], provider: Callable[[str], Provider]
) -> tuple[Work, ...]:
    """The work on targets that know the passwords that were asked for; what the inventory says of a host
    comes first. Raises UsageError without a terminal."""
    login = _asked("Login password") if options.get("ask_pass") else None
    become = None
    if options.get("ask_become_pass"):
        same = " (Enter: that of the login)" if login is not None else ""
        become = _asked(f"Become password{same}", login)
    if login is None and become is None:
        return works
    from fazai.providers.hosts.provider import HostProvider

    def known(work: Work) -> Work:
        targets = []
        for item in work.targets:
            own = provider(item.target.provider)
            if isinstance(own, HostProvider):
                item = replace(item, target=own.with_passwords(item.target, login, become))
            targets.append(item)
        return replace(work, targets=tuple(targets))

    return tuple(map(known, works))


def _asked(prompt: str, otherwise: Secret | None = None) -> Secret:
    """What is typed at the terminal, unseen: never what stands in a pipe. Raises UsageError without one."""
    import getpass
    import warnings

    try:
        with open("/dev/tty", "rb"), warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)
            typed = getpass.getpass(f"{prompt}: ")
    except (OSError, EOFError, getpass.GetPassWarning):
        raise UsageError(
            "there is no terminal to ask for a password at",
            hint="password: !env NAME or become_password: !env NAME in the inventory needs none",
        ) from None
    except KeyboardInterrupt:
        raise Interrupted("interrupted; nothing was contacted") from None
    return otherwise if not typed and otherwise is not None else Secret(typed)
