"""Settings of an SSH connection, from options under our names and Ansible's, and their problems. Pure."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from fazai.errors import missing_file_hint, spelling_hint
from fazai.model import FieldSpec, Secret, Target
from fazai.providers.hosts.options import ANSIBLE_NAMES, read_option, with_ansible_names
from fazai.providers.hosts.provider import COMMON_OPTIONS
from fazai.providers.hosts.shell.become import become_problems

_SPECS = (
    FieldSpec("host", "text", "name or address; the target's name when not given"),
    FieldSpec("port", "integer", "port of its SSH server", default=22, minimum=1, maximum=65535),
    FieldSpec("user", "text", "login name; else that of ~/.ssh/config, else yours"),
    FieldSpec("key", "path", "file of the private key; else ~/.ssh/config, the agent, ~/.ssh/id_*"),
    FieldSpec("certificate", "path", "file of the user certificate that belongs to the key"),
    FieldSpec("passphrase", "secret", "of the private key", secret=True),
    FieldSpec("password", "secret", "of the login, where keys are not accepted", secret=True),
    FieldSpec("agent", "boolean", "ask the agent of SSH_AUTH_SOCK for keys", default=True),
    FieldSpec("jump", "text", "hosts to go through: user@bastion:22,user@second"),
    FieldSpec(
        "jump_password",
        "secret",
        "of the login on the hosts to go through; password is never offered to them",
        secret=True,
    ),
    FieldSpec(
        "host_key",
        "text",
        "strict: the host must be in known_hosts; accept-new: a host that is not there is added; or the"
        " host's public key itself (ssh-ed25519 AAAA…)",
        default="strict",
    ),
    FieldSpec("known_hosts", "path", "instead of ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts"),
    FieldSpec("ssh_config", "path", "instead of ~/.ssh/config"),
    FieldSpec("connect_timeout", "number", "seconds until logged in", default=15, minimum=1, maximum=600),
    FieldSpec(
        "ansible_ssh_common_args",
        "text",
        "-J, -i, -l, -p, -F, and -o ProxyJump=… and the like are understood",
    ),
    FieldSpec("ansible_ssh_extra_args", "text", "as ansible_ssh_common_args"),
)

OPTIONS: Mapping[str, FieldSpec] = with_ansible_names((*_SPECS, *COMMON_OPTIONS))
_ARGUMENT_OPTIONS = ("ansible_ssh_common_args", "ansible_ssh_extra_args")


@dataclass(frozen=True, slots=True)
class Hop:
    """A host on the way; what is None is left to ~/.ssh/config and the defaults."""

    host: str
    port: int | None = None
    user: str | None = None


@dataclass(frozen=True, slots=True)
class SshSettings:
    """All that a connection needs to know. Two hosts behind the same hops share those connections."""

    hop: Hop
    jumps: tuple[Hop, ...] | None = None  # None: as ~/.ssh/config says
    key: str | None = None
    certificate: str | None = None
    passphrase: Secret | None = None
    password: Secret | None = None
    jump_password: Secret | None = None
    agent: bool = True
    host_key: str = "strict"
    known_hosts: tuple[str, ...] = ()  # none: the usual files
    config: str | None = None
    connect_timeout_s: float = 15.0
    on_the_way: bool = False  # others are reached through it


def settings_of_jump(settings: SshSettings, jumps: tuple[Hop, ...]) -> SshSettings:
    """Return the settings for the last of the hosts on the way: what is the target's alone, its password and
    its host key, is not for them."""
    return replace(
        settings,
        hop=jumps[-1],
        jumps=jumps[:-1],
        password=settings.jump_password,
        on_the_way=True,
        host_key=settings.host_key if settings.host_key in ("strict", "accept-new") else "strict",
    )


def settings_of(target: Target) -> SshSettings:
    """Return the settings of a target. Raises ValueError for arguments of ssh that are not understood."""

    def get(name: str) -> str | None:
        value = read_option(target, name)
        return None if value is None else str(value)

    port, jump, known_hosts = read_option(target, "port"), get("jump"), get("known_hosts")
    settings = SshSettings(
        hop=Hop(get("host") or target.name, None if port is None else int(port), get("user")),
        jumps=None if jump is None else parse_hops(jump),
        key=get("key"),
        certificate=get("certificate"),
        passphrase=read_option(target, "passphrase"),
        password=read_option(target, "password"),
        jump_password=read_option(target, "jump_password"),
        agent=read_option(target, "agent", default=True),
        host_key=get("host_key") or "strict",
        known_hosts=() if known_hosts is None else (known_hosts,),
        config=get("ssh_config"),
        connect_timeout_s=float(read_option(target, "connect_timeout", default=15)),
    )
    for name in _ARGUMENT_OPTIONS:
        if words := get(name):
            settings = _with_ssh_arguments(settings, shlex.split(words))
    return settings


def parse_hops(text: str) -> tuple[Hop, ...]:
    """Read `user@bastion:22,second`, in the order in which the hosts are passed. Raises ValueError."""
    if text.strip().lower() == "none":
        return ()
    return tuple(_parse_hop(part.strip()) for part in text.split(","))


def _parse_hop(text: str) -> Hop:
    user, _, place = text.removeprefix("ssh://").rpartition("@")
    port = ""
    if place.startswith("["):
        place, _, port = place[1:].partition("]")
        port = port.removeprefix(":")
    elif place.count(":") == 1:
        place, _, port = place.partition(":")
    if not place or (port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536)):
        raise ValueError(f'is no host to go through: "{text}"')
    return Hop(place, int(port) if port else None, user or None)


def _with_ssh_arguments(settings: SshSettings, words: Sequence[str]) -> SshSettings:
    """Return the settings with those arguments of ssh's own that say how to connect. Raises ValueError."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        flag, value = word[:2], word[2:]
        if flag not in ("-o", "-J", "-i", "-l", "-p", "-F"):
            raise ValueError(f'has an argument that is not understood here: "{word}"')
        if not value:
            if not rest:
                raise ValueError(f'ends after "{word}"')
            value = rest.pop(0)
        name = {"-J": "proxyjump", "-i": "identityfile", "-l": "user", "-p": "port", "-F": "-f"}.get(flag, "")
        if flag == "-o":
            name, _, value = value.replace(" ", "=", 1).partition("=")
        settings = _with_ssh_option(settings, name.strip().lower(), value.strip().strip('"'))
    return settings


def _with_ssh_option(settings: SshSettings, name: str, value: str) -> SshSettings:
    if name in _WITHOUT_EFFECT:
        return settings
    path, hop = os.path.abspath(os.path.expanduser(value)), settings.hop
    meant: Mapping[str, Callable[[], SshSettings]] = {
        "proxyjump": lambda: replace(settings, jumps=parse_hops(value)),
        "identityfile": lambda: replace(settings, key=settings.key or path),
        "certificatefile": lambda: replace(settings, certificate=path),
        "userknownhostsfile": lambda: replace(settings, known_hosts=(path,)),
        "-f": lambda: replace(settings, config=path),
        "user": lambda: replace(settings, hop=replace(hop, user=value)),
        "port": lambda: replace(settings, hop=replace(hop, port=int(value))),
        "connecttimeout": lambda: replace(settings, connect_timeout_s=float(value)),
        "stricthostkeychecking": lambda: replace(settings, host_key={"yes": "strict"}.get(value, value)),
    }
    if name not in meant:
        raise ValueError(f'has an option that is not understood here: "{name}"')
    return meant[name]()


#: One connection is kept for the whole run, nothing is ever asked at a terminal, and no agent is forwarded.
_WITHOUT_EFFECT = frozenset(
    ("controlmaster", "controlpersist", "controlpath", "batchmode", "loglevel", "compression", "forwardagent")
)


def find_ssh_problems(target: Target) -> Iterator[tuple[str, str, str | None]]:
    """Iterate over what is wrong: the option, the problem, and a hint."""
    yield from become_problems(target)
    try:
        settings = settings_of(target)
    except ValueError as error:
        name = next((n for n in _ARGUMENT_OPTIONS if target.options.get(n)), "jump")
        yield name, str(error), "write it in ~/.ssh/config, or with the options of docs/hosts.md"
        return
    word = settings.host_key
    if word in ("no", "off"):
        hint = "host_key: accept-new adds hosts that are not known yet, and refuses keys that changed"
        yield "host_key", "cannot be switched off: a host proves who it is, always", hint
    elif word not in ("strict", "accept-new") and not word.startswith(("ssh-", "ecdsa-", "sk-")):
        near = spelling_hint(word, ("strict", "accept-new"))
        yield "host_key", f'is strict, accept-new or a public key, not "{word}"', near
    for name in ("key", "certificate", *ANSIBLE_NAMES["key"]):
        path = target.options.get(name)
        if path is not None and not os.path.isfile(path):
            yield name, f"is no file: {path}", missing_file_hint(str(path))
