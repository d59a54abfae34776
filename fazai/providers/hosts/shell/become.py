"""Becoming another user: the command line that starts the shell, and the password that it may ask for.

A password goes to sudo's standard input after sudo has asked; it stands on no command line. doas asks only
at a terminal, so it works where its configuration says `nopass` or `persist`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Final

from fazai.compat.language import dataclass
from fazai.compat.timeouts import deadline
from fazai.errors import AccessDenied, DeviceError, FazaiError, Unreachable
from fazai.model import FieldSpec, Secret, Target
from fazai.providers.hosts.options import read_option
from fazai.providers.hosts.shell.channel import ShellChannel
from fazai.providers.hosts.shell.quoting import quote

_METHODS = ("sudo", "doas")
_SAID_BYTES: Final = 64 * 1024
BECOME_OPTIONS: tuple[FieldSpec, ...] = (
    FieldSpec("become", "boolean", "do everything as another user", default=False),
    FieldSpec(
        "become_method",
        "choice",
        "the program that does it, sudo or doas; su is not supported",
        default="sudo",
        choices=_METHODS,
    ),
    FieldSpec("become_user", "text", "the user to become", default="root"),
    FieldSpec("become_password", "secret", "what sudo asks for", secret=True),
)


@dataclass(frozen=True, slots=True)
class Become:
    """A way to become another user. `method` empty: as who we are."""

    method: str = ""
    user: str = "root"
    password: Secret | None = None
    prompt: str = ""

    @property
    def command(self) -> str:
        """The command line that starts the shell. No login shell, and no process in between."""
        user = quote(self.user)
        if self.method == "doas":
            return f"doas -n -u {user} sh -s"
        if self.method == "sudo" and self.password is not None:
            # the first line that sh gets says that sudo is through: the password must not reach the shell
            shell = f"'echo {self.prompt}in >&2; exec sh -s'"
            return f"sudo -H -S -p {self.prompt}ask -u {user} -- sh -c {shell}"
        if self.method == "sudo":
            return f"sudo -H -n -u {user} -- sh -s"
        return "sh -s"


def become_of(target: Target) -> Become:
    """Return the target's way to become another user."""
    if not read_option(target, "become"):
        return Become()
    method = read_option(target, "become_method", default="sudo")
    password = read_option(target, "become_password")
    user = read_option(target, "become_user", default="root")
    return Become(method, str(user), password, f"fz-{secrets.token_hex(8)}-")


def become_problems(target: Target) -> Iterator[tuple[str, str, str | None]]:
    """Iterate over what is wrong: the option, the problem, and a hint."""
    become = become_of(target)
    if not isinstance(target.options.get("become_password", Secret("")), Secret):
        yield "become_password", "must be one text", "become_password: !env NAME"
    elif become.method == "doas" and become.password is not None:
        hint = "allow it without one in doas.conf (permit nopass …), or use sudo"
        yield "become_password", "cannot be given to doas, which asks only at a terminal", hint


async def answer_password_prompt(
    channel: ShellChannel, become: Become, host: str, timeout_s: float = 60
) -> None:
    """Answer sudo's question. Raises AccessDenied when it does not take the answer, Unreachable when it says
    nothing for so long."""
    if become.password is None or become.method != "sudo":
        return
    try:
        async with deadline(timeout_s):
            await _talk_to_sudo(channel, become, become.password, host)
    except TimeoutError:
        text = f"sudo on {host} neither asked for the password nor started a shell within {timeout_s:.3g} s"
        hint = "does something that it asks (PAM, LDAP) not answer? a larger timeout:"
        raise Unreachable(text, stage="answer", where=host, hint=hint) from None


async def _talk_to_sudo(channel: ShellChannel, become: Become, password: Secret, host: str) -> None:
    ask, ready = f"{become.prompt}ask".encode(), f"{become.prompt}in\n".encode()
    said, asked = b"", 0
    while ready not in said:
        if len(said) > _SAID_BYTES:
            text = f"sudo on {host} said more than {_SAID_BYTES >> 10} KiB before it started a shell"
            raise DeviceError(text, where=host, hint="what does its configuration print (lecture_file)?")
        if said.count(ask) > asked:
            asked += 1
            if asked > 1:
                raise become_refusal(become, host, "Sorry, try again.")
            channel.stdin.write(password.reveal().encode() + b"\n")
            await channel.stdin.drain()  # deadline: `answer_password_prompt`
        more = await channel.stderr.read(4096)  # deadline: `answer_password_prompt`
        if not more:
            raise await channel.refusal(said.replace(ask, b"").decode("utf-8", "replace").strip())
        said += more


def become_refusal(become: Become, host: str, said: str) -> FazaiError:
    """Return the error for what sudo or doas `said` when no shell came of it."""
    lines = [line.strip() for line in said.splitlines() if "audit plugin" not in line]  # sudo's last words
    what = lines[-1] if lines else ""
    if "a password is required" in said or "Authentication required" in said or "Authorization" in said:
        text = f"{become.method} asks for a password, and was given none"
        hint = "say it with become_password: !env NAME, or be asked for it with --ask-become-pass (-K)"
    elif "try again" in said or "incorrect password" in said or "Authentication failed" in said:
        text = f"{become.method} did not take the password that it was given for the login user"
        hint = "is become_password the right one? it is the login user's own, not that of the user to become"
    elif "unknown user" in said:
        text, hint = f"{become.method} knows no user {become.user}", "is become_user the right one?"
    else:
        text = f"{become.method} does not let this user become {become.user}: {what}"
        hint = "allow it in sudoers" if become.method == "sudo" else "allow it in doas.conf"
    return AccessDenied(text, where=host, hint=hint)
