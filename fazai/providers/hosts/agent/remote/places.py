"""The files of the remote agent: where they are, and what is in them (docs/agents.md)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Final

from fazai.errors import InputError
from fazai.providers.hosts.agent.layout import AgentLayout, ServiceFile

_SERVICE: Final = "fazai-agent"
KEY_FOLDER: Final = "/etc/fazai/agent"  # key, certificate and CA; the agent renews them itself
CERTIFICATE: Final = f"{KEY_FOLDER}/cert.pem"
STARTER: Final = "/opt/fazai/agent/fazai-agent.start"
_STATE: Final = "/var/lib/fazai-remote"
#: Is there while an installation has to prove itself: `open SECONDS`, or `failed: WHY` when it did not.
TRIAL: Final = f"{_STATE}/trial"
OWN_USER: Final = "fazai-remote"
#: Where the service's file names the user, and not its folders.
_USER_PLACE: Final = re.compile(
    rf"(?m)(?:^(?:User|Group)=|command_user=|_account:=|--owner ){OWN_USER}(?::{OWN_USER})?"
)
_OWN_PATHS: Final = f"ReadWritePaths=-{KEY_FOLDER}"
_HELD_FROM: Final = "# From here on:"

REMOTE: Final = AgentLayout(
    user=OWN_USER,
    service=_SERVICE,
    words={"/opt/fazai/agent/fazai-agent.pyz": "remote", "/etc/fazai/agent.yml": "policy", STARTER: "start"},
    services={
        "systemd": ServiceFile(f"/etc/systemd/system/{_SERVICE}.service", f"{_SERVICE}.service", "0644"),
        "openrc": ServiceFile(f"/etc/init.d/{_SERVICE}", f"{_SERVICE}.openrc", "0755"),
        "rc": ServiceFile("/usr/local/etc/rc.d/fazai_agent", f"{_SERVICE}.rc", "0755"),
    },
    service_word="unit",
    state=_STATE,
    log="/var/log/fazai-agent.log",
    pid_file=f"{_STATE}/pid",
    folders=(KEY_FOLDER,),
    folder_mode="0700",
    starter=STARTER,
    kept=True,
)


def layout_of(user: str) -> AgentLayout:
    """Return the places of an agent that runs as this user."""
    return replace(REMOTE, user=user)


@cache
def shipped_program() -> bytes:
    """Return the single-file agent of this fazai, made out of the package itself. Raises InputError where its
    source is not there."""
    from fazai.providers.hosts.agent.remote.bundling import build_program

    try:
        return build_program()
    except OSError as error:
        text = f"the single-file agent cannot be made of this installation: {error}"
        raise InputError(text, hint="make agent, in the source of fazai, and file: fazai-agent.pyz") from None


@cache
def program_version(data: bytes) -> str | None:
    """Return the version of a single-file agent, None where the bytes are no such file."""
    import io
    import zipfile  # hardly a command asks for this

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            text = archive.read("fazai/__init__.py").decode()
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError, NotImplementedError, RuntimeError):
        return None
    found = re.search(r'^__version__ = "([0-9A-Za-z.+-]{1,64})"$', text, re.MULTILINE)
    return found[1] if found is not None else None


def service_file(init: str, user: str, written: Iterable[str]) -> bytes:
    """Return the file for the service manager. `written`: folders in which the agent or its programs may
    write; root, who reconciles the machine, is held by nothing but the policy."""
    from importlib.resources import files

    text = files("fazai.agent").joinpath(REMOTE.services[init].template).read_text()
    if user != OWN_USER:
        text = _USER_PLACE.sub(lambda found: found[0].replace(OWN_USER, user), text)
        return re.sub(rf"(?s){_HELD_FROM}.*?(?=\n\[Install\])", "", text).encode()
    lines = "".join(f"\nReadWritePaths=-{_escaped(path)}" for path in dict.fromkeys(written))
    return text.replace(_OWN_PATHS, _OWN_PATHS + lines).encode()


def _escaped(path: str) -> str:
    """Return a path as systemd reads one."""
    return "".join(f"\\x{ord(c):02x}" if c in " \"'\\" else "%%" if c == "%" else c for c in path)
