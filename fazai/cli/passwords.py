"""`--ask-pass` and `--ask-become-pass`: passwords that are typed at the terminal and stored nowhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fazai.cli.run_options import RunOptions
from fazai.errors import Interrupted, UsageError
from fazai.model import Provider, Secret, Work


def ask_passwords(
    works: tuple[Work, ...], options: RunOptions, provider: Callable[[str], Provider]
) -> tuple[Work, ...]:
    """Ask for the passwords that the options want, and return the work on targets that know them.

    What the inventory says of a host comes first. Raises UsageError without a terminal.
    """
    login = _ask_password("Login password") if options.ask_pass else None
    become = None
    if options.ask_become_pass:
        same = " (Enter: that of the login)" if login is not None else ""
        become = _ask_password(f"Become password{same}", login)
    if login is None and become is None:
        return works
    from fazai.providers.hosts.provider import HostProvider

    def add_passwords(work: Work) -> Work:
        targets = []
        for item in work.targets:
            own = provider(item.target.provider)
            if isinstance(own, HostProvider):
                item = replace(item, target=own.with_passwords(item.target, login, become))
            targets.append(item)
        return replace(work, targets=tuple(targets))

    return tuple(map(add_passwords, works))


def _ask_password(prompt: str, otherwise: Secret | None = None) -> Secret:
    """Read a line at the terminal, unseen, and never from a pipe; `otherwise` for an empty one. Raises
    UsageError without a terminal."""
    import getpass
    import warnings

    try:
        with open("/dev/tty", "rb"), warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)
            typed = getpass.getpass(f"{prompt}: ")
    except (OSError, EOFError, getpass.GetPassWarning):
        hint = "password: !env NAME or become_password: !env NAME in the inventory needs none"
        raise UsageError("there is no terminal to ask for a password at", hint=hint) from None
    except KeyboardInterrupt:
        raise Interrupted("interrupted; nothing was contacted") from None
    return otherwise if not typed and otherwise is not None else Secret(typed)
