"""Authentication and authorization: bearer tokens, client certificates, the local socket's peer (SPEC.md,
2)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from fazai.compat.timeouts import deadline
from fazai.config import is_loopback
from fazai.daemon.events.announcer import AUDIT
from fazai.daemon.http.refusal import Refusal
from fazai.daemon.http.server import HttpConnection
from fazai.daemon.http.tokens import hash_of
from fazai.daemon.settings import DaemonSettings
from fazai.errors import StateError, UsageError
from fazai.service.log import Log
from fazai.service.prometheus import Family, Metric
from fazai.store.daemon import DaemonStore, Role, Token

ROLES: tuple[Role, ...] = ("viewer", "operator", "admin")

_READ_AGAIN_S = 0.2
_RENEW_S = 0.1
_READ_S = 30.0
_MINUTE_S = 60.0
_FAILURES = Metric(
    "fazai_auth_failures_total", "counter", "Wrong tokens, and deliveries with a wrong signature."
)
_LAST_EXPIRY = Metric(
    "fazai_tokens_last_expiry_timestamp_seconds", "gauge", "When the last valid token expires."
)
_ADDRESSES = 4096  # whose failures are remembered
_ANYBODY = "anonymous"
_NOBODY = hashlib.sha256(b"").hexdigest()
#: Headers that a proxy adds: who comes with one is not on this machine, whatever the connection says.
_PROXIED = frozenset({b"via", b"x-real-ip", b"cf-connecting-ip", b"x-envoy-external-address"})
#: What browsers say of requests that a page of another origin caused.
_OTHER_SITES = frozenset({b"cross-site", b"same-site"})


@dataclass(frozen=True, slots=True)
class Principal:
    """The sender of a request. `role` None: nobody in particular. `token`: the hash of the one that gave the
    role."""

    name: str
    role: Role | None
    token: str | None = None
    is_local: bool = False  # a user of this machine, by the local socket

    def has_role(self, role: Role) -> bool:
        """Return whether the role is at least this one."""
        return self.role is not None and ROLES.index(self.role) >= ROLES.index(role)


_TRUSTED = Principal(_ANYBODY, "admin")
_UNKNOWN = Principal(_ANYBODY, None)


class Guard:
    """Identifies who sends a request, and refuses what must not be let in.

    The tokens are held in memory. Another process (`fazai token`) may change them: whoever calls `refresh`
    first sees what was changed up to `_READ_AGAIN_S` ago.
    """

    def __init__(
        self,
        settings: DaemonSettings,
        store: DaemonStore,
        log: Log,
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._store = store
        self._log = log
        self._now = now
        self._monotonic = monotonic
        self._tokens: dict[str, Token] = {}
        self._version = -1
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        self._renewal: asyncio.Task[None] | None = None
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self.refused = 0

    # -- the tokens

    def is_fresh(self) -> bool:
        """Return whether the tokens were read so short a time ago that they need not be read again."""
        return self._monotonic() - self._read_at < _READ_AGAIN_S

    def renew_in_time(self) -> bool:
        """Return `is_fresh()`, and have the tokens read again beside the requests before they no longer are:
        while requests go on coming, none has to wait for that."""
        age_s = self._monotonic() - self._read_at
        if age_s >= _RENEW_S and self._renewal is None:
            self._renewal = asyncio.get_running_loop().create_task(self._renew())
        return age_s < _READ_AGAIN_S

    async def _renew(self) -> None:
        try:
            with contextlib.suppress(StateError, TimeoutError):  # the next request that waits is told
                async with deadline(_READ_S), self._reading:
                    await self._read_tokens()
        finally:
            self._renewal = None

    async def refresh(self) -> None:
        """Read the tokens again where they may have changed. Raises StateError."""
        if self.is_fresh():
            return
        try:
            async with deadline(_READ_S), self._reading:
                if not self.is_fresh():  # nobody else has read them meanwhile
                    await self._read_tokens()
        except TimeoutError:
            raise StateError(f"the tokens could not be read within {_READ_S:g} s") from None

    async def _read_tokens(self) -> None:
        begun = self._monotonic()
        found = await self._store.tokens(self._version)
        if found is not None:
            tokens = {token.hash: token for token in found[1]}
            if self._version >= 0:
                self._note_changes(tokens)
            self._version, self._tokens = found[0], tokens
        self._read_at = begun

    # -- at start

    def check_bind(self, addresses: Sequence[str]) -> list[str]:
        """Return warnings about this configuration. Raises UsageError where the daemon must not run with
        it."""
        settings, safe = self._settings, self.needs_token() or self._settings.client_ca is not None
        for address in addresses:
            if is_loopback(address):
                continue
            if settings.tls_cert is None:
                raise UsageError(
                    f"{address} is a public address, and there is no TLS",
                    hint="give --tls-cert and --tls-key, or bind 127.0.0.1 behind a proxy that has TLS",
                )
            if not safe:
                raise UsageError(
                    f"{address} is a public address, and there are no tokens",
                    hint="create one with: fazai token create NAME --role operator, or ask for certificates"
                    " with --client-ca",
                )
        if safe or not addresses:
            return []
        return [
            f"no tokens are configured: everybody on this machine may do everything on {addresses[0]};"
            " create one with: fazai token create NAME --role admin; a proxy before the daemon needs one"
            " in any case"
        ]

    def needs_token(self) -> bool:
        """Return whether nobody is trusted for being on this machine alone: once there was a token, also one
        that was revoked or has expired, that is so for good."""
        return bool(self._tokens)

    def last_expiry(self) -> float | None:
        """Return when the last valid token expires: infinity where one never does, 0 where none is valid any
        more, None where there never was one."""
        if not self.needs_token():
            return None
        valid = [token for token in self._tokens.values() if self._is_valid(token)]
        return max([float("inf") if token.expires is None else token.expires for token in valid], default=0.0)

    # -- a request

    def check_host(
        self, connection: HttpConnection, path: str, headers: Sequence[tuple[bytes, bytes]]
    ) -> None:
        """Refuse what a page of another site causes: requests through a name that it made point here (DNS
        rebinding), its forms, and its use of answers of the API. A link to the operators' page is let
        through. Raises Refusal."""
        listener = connection.listener
        host, origin, site = b"", b"", b""
        for name, value in headers:
            if name == b"host":
                if host:
                    raise Refusal("bad_request", "there are two Host headers", status=400)
                host = value
            elif name == b"origin":
                origin = value
            elif name == b"sec-fetch-site":
                site = value
        if listener.loopback and not self._is_own_name(host):
            raise Refusal(
                "forbidden",
                f"this daemon is not called {host.decode('latin-1')[:64]!r}",
                hint="call it localhost, or tell it its name with --name",
            )
        page = path == "/ui" or path.startswith("/ui/")
        if (origin and origin.partition(b"://")[2] != host) or (site in _OTHER_SITES and not page):
            raise Refusal("forbidden", "requests of other sites' pages are refused")

    def families(self) -> Iterable[Family]:
        """Return the metrics of tokens and signatures."""
        yield _FAILURES.single(self.refused)
        last = self.last_expiry()
        if last is not None:
            yield _LAST_EXPIRY.single(last)

    def _is_own_name(self, host: bytes) -> bool:
        """Return whether a Host header names this machine, or one of the daemon's further names."""
        name = host.decode("latin-1").lower()
        if name.startswith("["):
            name = name[1:].partition("]")[0]
        elif name.count(":") == 1:
            name = name.partition(":")[0]
        return is_loopback(name) or name in self._settings.names

    def identify(
        self, connection: HttpConnection, headers: Sequence[tuple[bytes, bytes]], http_version: str = "1.1"
    ) -> Principal:
        """Return who asks; without a token it may be anybody. Who comes through a proxy is never trusted for
        the connection alone; nginx adds no header unless it is told to, but then it speaks HTTP/1.0. Raises
        Refusal (unauthorized, overloaded) for a token that is wrong."""
        text, proxied = None, http_version == "1.0"
        for name, value in headers:
            if name == b"authorization" and text is None:
                text = value
            elif name in _PROXIED or b"forwarded" in name or name.endswith(b"client-ip"):
                proxied = True
        found = self._by_token(text, address_of(connection)) if text is not None else None
        peer = self._by_peer(connection) if connection.listener.unix and not proxied else None
        holder = self._by_certificate(connection) if self._settings.client_ca is not None else None
        if found or peer or holder:
            known = [one for one in (found, peer, holder) if one is not None]
            return max(known, key=lambda one: ROLES.index(cast("Role", one.role)))
        if self._trusts_machine(connection) and not proxied:
            return _TRUSTED
        return _UNKNOWN

    def identify_bearer(self, header: str | None, address: str) -> Principal:
        """Return whose token it is; without one it may be anybody. Raises Refusal (unauthorized,
        overloaded)."""
        return (
            self._by_token(header.encode("latin-1", "replace"), address) if header is not None else _UNKNOWN
        )

    def is_still_valid(self, who: Principal) -> bool:
        """Return whether a principal would still be identified as it was: its token may have been revoked or
        have expired, and one that needed none may need one now."""
        if who.token is not None:
            token = self._tokens.get(who.token)
            return token is not None and self._is_valid(token)
        return who.name != _ANYBODY or not self.needs_token()

    def check_owner(self, name: str, role: Role) -> None:
        """Refuse to go on in the name of somebody who asked long ago, and could not ask now. Raises
        Refusal."""
        kind, _, owner = name.partition(":")
        if kind == "token":
            named = [one for one in self._tokens.values() if one.name == owner and self._is_valid(one)]
            if not any(Principal(name, one.role).has_role(role) for one in named):
                text = f"the token {owner} was revoked or has expired, or is no longer one of the role {role}"
                raise Refusal("unauthorized", text)
        elif name == _ANYBODY and self.needs_token():
            raise Refusal("unauthorized", "there was no token when it began, and now one is needed")

    def _trusts_machine(self, connection: HttpConnection) -> bool:
        """Return whether everybody on this machine may do everything, as nothing else was set up."""
        return connection.listener.loopback and self._settings.client_ca is None and not self.needs_token()

    def _by_peer(self, connection: HttpConnection) -> Principal | None:
        peer = connection.peer_credentials()
        return local_principal(peer, connection.listener.sock.getsockname()) if peer is not None else None

    def _by_certificate(self, connection: HttpConnection) -> Principal | None:
        name = connection.certificate_name()
        return Principal(f"cert:{name}", cast("Role", self._settings.client_role)) if name else None

    def _by_token(self, header: bytes, address: str) -> Principal:
        scheme, _, text = header.decode("latin-1").partition(" ")
        hashed = hash_of(text.strip())
        token = self._tokens.get(hashed)
        same = hmac.compare_digest(hashed, token.hash if token is not None else _NOBODY)
        if scheme.lower() == "bearer" and token is not None and same and self._is_valid(token):
            return Principal(f"token:{token.name}", token.role, hashed)
        self._count_failure(address, "token")
        raise Refusal(
            "unauthorized",
            "the token is not valid",
            hint="was it revoked, or has it expired? see: fazai token list",
            headers=((b"www-authenticate", b"Bearer"),),
        )

    def _is_valid(self, token: Token) -> bool:
        return token.revoked is None and (token.expires is None or token.expires > self._now())

    def _note_changes(self, tokens: Mapping[str, Token]) -> None:
        """Write to the audit log what `fazai token` did beside the daemon."""
        for key, token in tokens.items():
            before = self._tokens.get(key)
            if before == token:
                continue
            did = "created" if before is None else "revoked" if token.revoked is not None else "changed"
            self._log.say("info", f"token {token.name} ({token.role}) was {did}", logger=AUDIT)

    def count_wrong_signature(self, connection: HttpConnection) -> None:
        """Count a delivery with a wrong signature; they count like wrong tokens, and with them. Raises
        Refusal(overloaded)."""
        self._count_failure(address_of(connection), "signature")

    def count_wrong_token(self, connection: HttpConnection) -> None:
        """Count an enrolment token that is not valid, with the other ones. Raises Refusal(overloaded)."""
        self._count_failure(address_of(connection), "token")

    def _count_failure(self, address: str, what: str) -> None:
        """Count a failure of an address. Raises Refusal(overloaded) past the limit. What is valid never comes
        here, so that nobody can lock out others behind the same address."""
        self.refused += 1
        now = self._monotonic()
        since, count = self._failures.pop(address, (now, 0))
        if now - since >= _MINUTE_S:
            since, count = now, 0
        self._failures[address] = (since, count + 1)
        if len(self._failures) > _ADDRESSES:
            self._failures.popitem(last=False)
        limit = self._settings.limits.failures_per_minute
        if count < limit:
            return
        wait = max(1, int(since + _MINUTE_S - now + 0.999))
        raise Refusal(
            "overloaded",
            f"too many wrong {what}s",
            hint=f"wait {wait} s",
            headers=((b"retry-after", str(wait).encode()),),
        )


def local_principal(peer: tuple[int, frozenset[int]], path: str) -> Principal | None:
    """Return the user (id, groups) behind a local socket. Root and the daemon's own user are admin; members
    of the socket file's group, whom its mode lets in, operator."""
    uid, groups = peer
    if uid in (0, os.geteuid()):
        return Principal(f"uid:{uid}", "admin", is_local=True)
    try:
        group = os.stat(path).st_gid if path else -1
    except OSError:
        return None
    return Principal(f"uid:{uid}", "operator", is_local=True) if group in groups else None


def address_of(connection: HttpConnection) -> str:
    """Return where a request came from, for people."""
    return str(connection.client[0]) if connection.client else "the local socket"
