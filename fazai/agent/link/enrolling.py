"""`fazai agent enrol`: a token becomes this machine's certificate."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import socket
import stat

from fazai.agent.config.reading import AGENT_ID, load_config, parse_config, parse_proxy
from fazai.agent.errors import ConfigError
from fazai.agent.link import identity, keys, tls
from fazai.agent.link.dialling import make_address, make_proxy, parse_address
from fazai.agent.link.errors import LinkError
from fazai.agent.link.identity import PROXY_NOTE
from fazai.errors import FazaiError, StateError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fazai.agent.config.settings import AgentConfig, ProxyAddress
    from fazai.agent.link.dialling import Address
    from fazai.agent.link.proxy import Proxy

#: Codes of a daemon that was not reached at all: the next address is tried.
_NOT_REACHED = frozenset({"resolve", "connect", "timeout", "closed"})


class Identity:
    """The name that is enrolled, the daemons that are asked, the places of the files, and the configuration
    where there is one."""

    def __init__(
        self,
        name: str,
        daemons: Sequence[Address],
        ca: str,
        certificate: str,
        key: str,
        config: AgentConfig | None = None,
    ) -> None:
        self.name = name
        self.daemons = daemons
        self.ca = ca
        self.certificate = certificate
        self.key = key
        self.config = config


def enrol(
    path: str,
    read_token: Callable[[], str],
    *,
    daemon: str | None,
    name: str | None,
    proxy: str | None = None,
    proxy_credentials: str | None = None,
) -> str:
    """Exchange a token for a certificate; returns what to tell the user. Raises FazaiError, before the token
    is asked for where the configuration is wrong."""
    found = _find_identity(path, daemon, name, _find_proxy(proxy, proxy_credentials))
    token = read_token()
    try:
        said = _exchange(found, token)
        if found.config is not None:
            said += _keep_proxy(path, found, found.config)
        else:
            _write_config(path, found)
            said += f"\n{path} was written; it allows nothing yet (docs/agents.md)"
            said += f"\nnext: fazai agent run --config {path}"
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
    then = "; an agent that runs takes it after SIGHUP" if found.config is not None else ""
    return f"enrolled as {dates.name}: {found.certificate} holds until {tls.show_time(dates.ends)}{then}"


def _find_proxy(text: str | None, credentials: str | None) -> ProxyAddress | None:
    """Return the proxy that the options name. Raises UsageError."""
    if text is None:
        if credentials is not None:
            raise UsageError("--proxy-credentials is of no use without --proxy")
        return None
    try:
        return parse_proxy(text, None if credentials is None else os.path.abspath(credentials))
    except ConfigError as error:
        hint = error.hint and error.hint.replace("`proxy_credentials: FILE`", "--proxy-credentials FILE")
        raise UsageError(f"--proxy {error.message}", hint=hint) from None


def _parse_daemon(url: str, proxy: ProxyAddress | None) -> Address:
    """Return the address that --daemon names. Raises UsageError."""
    try:
        return parse_address(url, make_proxy(proxy))
    except LinkError as error:
        raise UsageError(f"--daemon {error.message}", hint=error.hint) from None


def _find_identity(path: str, daemon: str | None, name: str | None, proxy: ProxyAddress | None) -> Identity:
    """Return what the configuration says; without one, what follows from the options."""
    if os.path.exists(path):
        config = load_config(path)
        if name is not None and name != config.agent_id:
            raise UsageError(f'{path} names this agent "{config.agent_id}", --name says "{name}"')
        through = proxy or config.proxy
        asked = [make_address(one, through) for one in config.daemon]
        return Identity(
            config.agent_id,
            asked if daemon is None else [_parse_daemon(daemon, through)],
            config.ca,
            config.certificate,
            config.key,
            config,
        )
    if daemon is None:
        raise UsageError(f"there is no {path}", hint="write one, or say --daemon wss://HOST:3121")
    own = name or socket.gethostname().split(".")[0]
    if re.fullmatch(AGENT_ID, own) is None:
        raise UsageError(
            f"{own!r:.80} is no name for an agent", hint="--name: letters, digits, `.`, `_`, `-`, at most 64"
        )
    address = _parse_daemon(daemon, proxy)
    if address.scheme == "https":
        text = f"https:// needs `signing_key`, which {path} would have to name; there is none"
        raise UsageError(text, hint="wss://HOST:3121; or write that file first (docs/agents.md)")
    folder = os.path.join(os.path.dirname(os.path.abspath(path)), "agent")
    ca, certificate, key = (os.path.join(folder, file) for file in ("ca.pem", "cert.pem", "key.pem"))
    return Identity(own, [address], ca, certificate, key)


def _write_config(path: str, found: Identity) -> None:
    """Write the least configuration with which the agent connects."""
    text = (
        f'agent_id: "{found.name}"\ndaemon: {found.daemons[0].url}\nca: {found.ca}\n'
        f"certificate: {found.certificate}\nkey: {found.key}\n"
    )
    text += write_proxy(found.daemons[0].proxy)
    keys.write_private(path, text.encode())


def write_proxy(proxy: Proxy | None) -> str:
    """Return the lines of agent.yml that name a proxy; none without one."""
    if proxy is None:
        return ""
    credentials = f'proxy_credentials: "{proxy.credentials}"\n' if proxy.credentials else ""
    return f"proxy: http://{proxy.authority}\n{credentials}"


def _keep_proxy(path: str, found: Identity, config: AgentConfig) -> str:
    """Write the proxy through which the agent was enrolled into its configuration, where that names none and
    can be added to; return what to say of it. What is left to be written is kept beside the certificate for
    `check`."""
    lines, note = write_proxy(found.daemons[0].proxy), f"{found.certificate}{PROXY_NOTE}"
    if lines in ("", write_proxy(make_proxy(config.proxy))):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(note)
        return ""
    if config.proxy is None and _add_lines(path, lines, config):
        return f"\n{path}: the proxy was added at its end"
    keys.write_private(note, lines.encode())
    shown = "".join(f"\n  {line}" for line in lines.splitlines())
    return f"\n{path} was left as it is, and does not name this proxy; write into it:{shown}"


def _add_lines(path: str, lines: str, config: AgentConfig) -> bool:
    """Add lines to the end of a configuration, whose comments and order stay; return whether it then says
    what it said before, and these lines."""
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        return False  # a link, or a file that would become ours
    with open(path, "rb") as file:
        data = file.read()
    new = data + (b"" if data.endswith(b"\n") else b"\n") + lines.encode()
    try:
        after = parse_config(new, config.file)
    except FazaiError:  # such as one that stands in braces
        return False
    if dataclasses.replace(after, proxy=None) != dataclasses.replace(config, proxy=None):
        return False
    keys.write_private(path, new, stat.S_IMODE(status.st_mode))
    return True
