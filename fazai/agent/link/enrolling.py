"""`fazai agent enrol`: a token becomes this machine's certificate."""

from __future__ import annotations

import os
import re
import socket

from fazai.agent.config.reading import AGENT_ID, load_config
from fazai.agent.link import identity, keys, tls
from fazai.agent.link.dialling import Address, parse_address
from fazai.agent.link.errors import LinkError
from fazai.errors import StateError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: Codes of a daemon that was not reached at all: the next address is tried.
_NOT_REACHED = frozenset({"resolve", "connect", "timeout", "closed"})


class Identity:
    """The name that is enrolled, the daemons that are asked, and the places of the files."""

    def __init__(
        self, name: str, daemons: Sequence[Address], ca: str, certificate: str, key: str, *, configured: bool
    ) -> None:
        self.name = name
        self.daemons = daemons
        self.ca = ca
        self.certificate = certificate
        self.key = key
        self.configured = configured


def enrol(path: str, read_token: Callable[[], str], *, daemon: str | None, name: str | None) -> str:
    """Exchange a token for a certificate; returns what to tell the user. Raises FazaiError, before the token
    is asked for where the configuration is wrong."""
    found = _find_identity(path, daemon, name)
    token = read_token()
    try:
        said = _exchange(found, token)
        if not found.configured:
            _write_config(path, found)
            said += f"\n{path} was written; it allows nothing yet (docs/agents.md)"
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else path
        raise StateError(f"it cannot be written: {error.strerror}", where=where) from None
    return said


def _exchange(found: Identity, token: str) -> str:
    """Ask the daemon at its addresses for a certificate, and return what to say of it. Raises LinkError."""
    for address in found.daemons:
        try:
            identity.enrol(
                address, token, name=found.name, ca=found.ca, certificate=found.certificate, key=found.key
            )
            break
        except LinkError as error:
            if error.code not in _NOT_REACHED or address is found.daemons[-1]:
                raise
    dates = tls.read_certificate(found.ca, found.certificate, found.key)
    return f"enrolled as {dates.name}: {found.certificate} holds until {tls.show_time(dates.ends)}"


def _find_identity(path: str, daemon: str | None, name: str | None) -> Identity:
    """Return what the configuration says; without one, what follows from the options."""
    if os.path.exists(path):
        config = load_config(path)
        if name is not None and name != config.agent_id:
            raise UsageError(f'{path} names this agent "{config.agent_id}", --name says "{name}"')
        daemons = [Address(one.scheme, one.host, one.port) for one in config.daemon]
        return Identity(
            config.agent_id,
            daemons if daemon is None else [parse_address(daemon)],
            config.ca,
            config.certificate,
            config.key,
            configured=True,
        )
    if daemon is None:
        raise UsageError(f"there is no {path}", hint="write one, or say --daemon wss://HOST:3121")
    own = name or socket.gethostname().split(".")[0]
    if re.fullmatch(AGENT_ID, own) is None:
        raise UsageError(
            f"{own!r:.80} is no name for an agent", hint="--name: letters, digits, `.`, `_`, `-`, at most 64"
        )
    folder = os.path.join(os.path.dirname(os.path.abspath(path)), "agent")
    files = [os.path.join(folder, file) for file in ("ca.pem", "cert.pem", "key.pem")]
    return Identity(own, [parse_address(daemon)], *files, configured=False)


def _write_config(path: str, found: Identity) -> None:
    """Write the least configuration with which the agent connects."""
    text = (
        f'agent_id: "{found.name}"\ndaemon: {found.daemons[0].url}\nca: {found.ca}\n'
        f"certificate: {found.certificate}\nkey: {found.key}\n"
    )
    keys.write_private(path, text.encode())
