"""The address of a daemon: FAZAI_URL with a token's file, or the local socket."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fazai.cli.environment import find_closed_socket, find_local_socket
from fazai.errors import InputError, Refused, Unreachable, missing_file
from fazai.files import read_token_file

if TYPE_CHECKING:
    import httpx

CLOSED_SOCKET = "root, or a member of the socket's group, may; others need FAZAI_URL and FAZAI_TOKEN_FILE"


@dataclass(frozen=True, slots=True)
class DaemonAddress:
    """The address of a daemon. `socket` None: over TCP at `url`."""

    url: str
    socket: Path | None = None
    token: str | None = None
    ca: Path | None = None

    @property
    def name(self) -> str:
        return str(self.socket) if self.socket is not None else self.url

    def options(self) -> dict[str, Any]:
        """Keyword arguments of httpx.Client and httpx.AsyncClient, the transport excepted."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return {"base_url": self.url, "headers": headers, "trust_env": False}

    def client(self, timeout_s: float) -> httpx.Client:
        """Return an HTTP client for the daemon. Raises InputError for a CA file that cannot be used."""
        import httpx

        verify = self.verify()
        transport = httpx.HTTPTransport(uds=str(self.socket), verify=verify) if self.socket else None
        return httpx.Client(transport=transport, verify=verify, timeout=timeout_s, **self.options())

    def verify(self) -> Any:
        if self.socket is not None or not self.url.startswith("https:"):
            return False  # there is no TLS, and loading the authorities takes 20 ms
        import ssl

        hint = "FAZAI_CA_FILE names a PEM file of the authority"
        try:
            return ssl.create_default_context(cafile=str(self.ca) if self.ca else None)
        except FileNotFoundError:
            raise missing_file(InputError, "CA file", str(self.ca), hint) from None
        except (OSError, ssl.SSLError) as error:
            why = "no certificate is in it" if isinstance(error, ssl.SSLError) else error.strerror
            raise InputError(f"it cannot be used: {why}", where=str(self.ca), hint=hint) from None


def find_daemon(environ: Mapping[str, str], *, root: bool) -> DaemonAddress | None:
    """Return the daemon at FAZAI_URL (with FAZAI_TOKEN_FILE and FAZAI_CA_FILE), else at the local socket,
    else None. Raises InputError, SecretError."""
    url = environ.get("FAZAI_URL")
    if url:
        return parse_daemon_url(environ, url)
    path = find_local_socket(root)
    return DaemonAddress("http://fazai", socket=path) if path is not None else None


def require_daemon(environ: Mapping[str, str], url: str | None = None) -> DaemonAddress:
    """Return the daemon at `url`, else the one that `find_daemon` finds. Raises Unreachable where none is
    known, Refused where there is one for others, InputError, SecretError."""
    found = parse_daemon_url(environ, url) if url else find_daemon(environ, root=os.geteuid() == 0)
    if found is None:
        closed = find_closed_socket(os.geteuid() == 0)
        if closed is not None:
            raise Refused("this user may not use the daemon's socket", where=str(closed), hint=CLOSED_SOCKET)
        hint = "start one with: fazai daemon, or set FAZAI_URL and FAZAI_TOKEN_FILE, or give --url"
        raise Unreachable("no daemon is known here", stage="connect", hint=hint)
    return found


def parse_daemon_url(environ: Mapping[str, str], url: str) -> DaemonAddress:
    """Return the address that `url` names: http, https, or unix:PATH. Raises InputError, SecretError."""
    if url.startswith("unix:"):
        return DaemonAddress("http://fazai", socket=Path(url.removeprefix("unix:")))
    if "@" in url:  # no word of it is shown: a password may stand there
        raise InputError("a daemon's address has no user and no password", hint="FAZAI_TOKEN_FILE")
    if not url.startswith(("http://", "https://")):
        raise InputError(f"{url!r} is no address of a daemon", hint="https://HOST:3120, or unix:/PATH")
    file = environ.get("FAZAI_TOKEN_FILE")
    if file and url.startswith("http://") and not is_local_url(url):
        raise InputError(f"a token goes to {url} in the clear", hint="use https://")
    ca = environ.get("FAZAI_CA_FILE")
    return DaemonAddress(
        url.rstrip("/"), token=read_token_file(Path(file)) if file else None, ca=Path(ca) if ca else None
    )


def is_local_url(url: str) -> bool:
    """Return whether a URL's host is this machine."""
    from fazai.config import is_loopback

    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False


def refusal_reason(body: bytes, otherwise: str) -> str:
    """Return the reason that the daemon gives in the body of a refusal."""
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return otherwise


def read_key_file(file: Path) -> str:
    """Read the API key of the fallback for the worker. Raises SecretError."""
    return read_token_file(file, "file with the fallback's key", None)
