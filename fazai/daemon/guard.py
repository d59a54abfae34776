"""Who asks, and what he may: bearer tokens, client certificates, the local socket's peer (SPEC.md, 2)."""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from fazai.daemon.refusal import Refusal
from fazai.daemon.server import Connection
from fazai.daemon.settings import Settings, is_loopback
from fazai.daemon.tokens import hash_of
from fazai.errors import UsageError
from fazai.service.log import Log
from fazai.store.daemon import DaemonStore, Role, Token

__all__ = ["ROLES", "Guard", "Principal"]

ROLES: tuple[Role, ...] = ("viewer", "operator", "admin")

_LOOK_AGAIN_S = 0.2
_MINUTE_S = 60.0
_ADDRESSES = 4096  # whose failures are remembered
_ANYBODY = "anonymous"
_NOBODY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. `role` None: nobody in particular. `token`: the hash of the one that gave the role."""

    name: str
    role: Role | None
    token: str | None = None

    def may(self, role: Role) -> bool:
        return self.role is not None and ROLES.index(self.role) >= ROLES.index(role)


_TRUSTED = Principal(_ANYBODY, "admin")
_UNKNOWN = Principal(_ANYBODY, None)


class Guard:
    """Knows the tokens. Another process (`fazai token`) may change them: they are looked at again at most
    `_LOOK_AGAIN_S` after that."""

    def __init__(
        self,
        settings: Settings,
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
        self._looked = float("-inf")
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self.refused = 0

    # -- at start

    def check_bind(self, addresses: Sequence[str]) -> list[str]:
        """What the operator should know of this configuration. Raises UsageError where it must not run."""
        settings, safe = self._settings, self.has_tokens() or self._settings.client_ca is not None
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
            " create one with: fazai token create NAME --role admin"
        ]

    def has_tokens(self) -> bool:
        self._look()
        return bool(self._tokens) and any(self._valid(token) for token in self._tokens.values())

    # -- a request

    def check_host(self, connection: Connection, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """A page of the web must not reach us through a name that it made point here (DNS rebinding), nor
        send us a form. Raises Refusal."""
        listener = connection.listener
        host, origin = b"", b""
        for name, value in headers:
            if name == b"host":
                if host:
                    raise Refusal("bad_request", "there are two Host headers", status=400)
                host = value
            elif name == b"origin":
                origin = value
        if listener.loopback and not self._own(host):
            raise Refusal(
                "forbidden",
                f"this daemon is not called {host.decode('latin-1')[:64]!r}",
                hint="call it localhost, or tell it its name with --name",
            )
        if origin and origin.partition(b"://")[2] != host:
            raise Refusal("forbidden", "requests of other sites' pages are refused")

    def metrics(self) -> Iterable[str]:
        yield "# HELP fazai_auth_failures_total Wrong tokens, and deliveries with a wrong signature."
        yield "# TYPE fazai_auth_failures_total counter"
        yield f"fazai_auth_failures_total {self.refused}"

    def _own(self, host: bytes) -> bool:
        name = host.decode("latin-1").lower()
        if name.startswith("["):
            name = name[1:].partition("]")[0]
        elif name.count(":") == 1:
            name = name.partition(":")[0]
        return is_loopback(name) or name in self._settings.names

    def identify(self, connection: Connection, headers: Sequence[tuple[bytes, bytes]]) -> Principal:
        """Raises Refusal (unauthorized, overloaded) for a token that is wrong; what bears none may be
        anonymous."""
        text = None
        for name, value in headers:
            if name == b"authorization":
                text = value
                break
        found = self._by_token(text, _address(connection)) if text is not None else None
        peer = self._by_peer(connection) if connection.listener.unix else None
        holder = self._by_certificate(connection) if self._settings.client_ca is not None else None
        if found or peer or holder:
            known = [one for one in (found, peer, holder) if one is not None]
            return max(known, key=lambda one: ROLES.index(cast("Role", one.role)))
        if connection.listener.loopback and self._settings.client_ca is None and not self.has_tokens():
            return _TRUSTED
        return _UNKNOWN

    def still(self, who: Principal) -> bool:
        """Whether one who was identified before would be now: his token may have been revoked or have
        expired, and who needed none may need one now."""
        self._look()
        if who.token is not None:
            token = self._tokens.get(who.token)
            return token is not None and self._valid(token)
        return who.name != _ANYBODY or not self.has_tokens()

    def _by_peer(self, connection: Connection) -> Principal | None:
        """Root and the daemon's own user are admin; members of the socket file's group, whom its mode lets
        in, operator."""
        peer = connection.peer()
        if peer is None:
            return None
        uid, groups = peer
        if uid in (0, os.geteuid()):
            return Principal(f"uid:{uid}", "admin")
        path = connection.listener.sock.getsockname()
        try:
            group = os.stat(path).st_gid if path else -1
        except OSError:
            return None
        return Principal(f"uid:{uid}", "operator") if group in groups else None

    def _by_certificate(self, connection: Connection) -> Principal | None:
        name = connection.certificate()
        return Principal(f"cert:{name}", cast("Role", self._settings.client_role)) if name else None

    def _by_token(self, header: bytes, address: str) -> Principal:
        scheme, _, text = header.decode("latin-1").partition(" ")
        self._look()
        hashed = hash_of(text.strip())
        token = self._tokens.get(hashed)
        same = hmac.compare_digest(hashed, token.hash if token is not None else _NOBODY)
        if scheme.lower() == "bearer" and token is not None and same and self._valid(token):
            return Principal(f"token:{token.name}", token.role, hashed)
        self._failed(address, "token")
        raise Refusal(
            "unauthorized",
            "the token is not valid",
            hint="was it revoked, or has it expired? see: fazai token list",
            headers=((b"www-authenticate", b"Bearer"),),
        )

    def _valid(self, token: Token) -> bool:
        return token.revoked is None and (token.expires is None or token.expires > self._now())

    def _look(self) -> None:
        now = self._monotonic()
        if now - self._looked < _LOOK_AGAIN_S:
            return
        self._looked = now
        version = self._store.data_version()
        if version != self._version:
            self._version = version
            self._tokens = {token.hash: token for token in self._store.tokens()}

    def failed_signature(self, connection: Connection) -> None:
        """To be told of each signature of a delivery that is wrong: they count like wrong tokens, and with
        them. Raises Refusal(overloaded)."""
        self._failed(_address(connection), "signature")

    def _failed(self, address: str, what: str) -> None:
        """Counts; raises Refusal(overloaded) past the limit. What is valid never comes here, so that nobody
        can lock out others behind his address."""
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
            self._log.say("warning", f"a wrong {what} from {address}", logger="fazai.daemon.guard")
            return
        wait = max(1, int(since + _MINUTE_S - now + 0.999))
        raise Refusal(
            "overloaded",
            f"too many wrong {what}s",
            hint=f"wait {wait} s",
            headers=((b"retry-after", str(wait).encode()),),
        )


def _address(connection: Connection) -> str:
    return str(connection.client[0]) if connection.client else "the local socket"
