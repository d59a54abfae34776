"""Webhooks of git hosts: tells which host sent a delivery, verifies it, and decides whether it starts a run.

GitHub: `X-Hub-Signature-256` is `sha256=` and the HMAC-SHA256 of the body. Gitea: `X-Gitea-Signature` is
that HMAC alone (it sends GitHub's headers, too). GitLab: `X-Gitlab-Token` is the secret itself, so that
its body is as good as its TLS.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fazai.daemon.http.refusal import Refusal
from fazai.daemon.runs.config import GitHost, Hook
from fazai.errors import SecretError
from fazai.secrets.files import read_private
from fazai.wire.base import parse_object

_SHORTEST = 16
_LONGEST = 512
_PUSH = ("push", "Push Hook")


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request of a git host, as its headers say it."""

    host: GitHost
    event: str
    id: str
    proof: str


_PROOFS: Mapping[GitHost, bytes] = MappingProxyType(
    {"gitea": b"x-gitea-signature", "gitlab": b"x-gitlab-token", "github": b"x-hub-signature-256"}
)  # Gitea before GitHub, whose headers it sends, too


def is_delivery(header: Callable[[bytes], str | None]) -> bool:
    """Return whether the request says that a git host sent it."""
    return any(header(name) is not None for name in _PROOFS.values())


def delivery_of(header: Callable[[bytes], str | None]) -> Delivery:
    """Return the delivery of a request that `is_delivery`. Raises Refusal(bad_signature) for one without an
    id."""
    host, proof = next((host, proof) for host, name in _PROOFS.items() if (proof := header(name)) is not None)
    if host == "gitlab":
        given = header(b"idempotency-key") or header(b"x-gitlab-event-uuid") or ""
    else:
        given = header(b"x-%s-delivery" % host.encode()) or ""
    if not 0 < len(given) <= _LONGEST:
        raise Refusal("bad_signature", "the delivery has no id", hint="a git host sends one with each")
    return Delivery(host, header(b"x-%s-event" % host.encode()) or "", given, proof)


def verified_hooks(hooks: Sequence[Hook], delivery: Delivery, body: bytes, *, uid: int) -> list[Hook]:
    """Return the hooks whose secret the delivery knows. Raises Refusal (bad_signature, unavailable)."""
    good = [
        hook
        for hook in hooks
        if hook.host == delivery.host and _is_signed_with(delivery, _read_secret(hook, uid), body)
    ]
    if not good:
        raise Refusal(
            "bad_signature",
            f"the delivery is not signed with the secret of a {delivery.host} webhook",
            hint="compare the secret there with the secret_file of the daemon's configuration",
        )
    return good


def _is_signed_with(delivery: Delivery, secret: bytes, body: bytes) -> bool:
    if delivery.host == "gitlab":
        return hmac.compare_digest(delivery.proof.encode("latin-1"), secret)
    wanted = hmac.new(secret, body, hashlib.sha256).hexdigest()
    proof = delivery.proof
    if delivery.host == "github":
        kind, _, proof = proof.partition("=")
        if kind != "sha256":
            return False
    return hmac.compare_digest(proof.encode("latin-1"), wanted.encode())


def _read_secret(hook: Hook, uid: int) -> bytes:
    """Return a hook's secret, which is read each time so that it can be replaced. Raises
    Refusal(unavailable)."""
    try:
        secret = read_private(hook.secret_file, uid=uid).strip()
    except SecretError as error:
        raise Refusal(
            "unavailable", f"the secret of webhook {hook.name} cannot be used: {error.message}"
        ) from None
    if len(secret) < _SHORTEST:
        text = f"the secret of webhook {hook.name} is shorter than {_SHORTEST} characters"
        raise Refusal("unavailable", text, hint="openssl rand -hex 32")
    return secret


def delivery_nonces(delivery: Delivery, body: bytes) -> list[str]:
    """Return what must not come twice: the id, which is not signed, and the body where that is."""
    found = [f"id:{hashlib.sha256(delivery.id.encode()).hexdigest()}"]
    if delivery.host != "gitlab":
        found.append(f"body:{hashlib.sha256(body).hexdigest()}")
    return found


def reason_not_to(hook: Hook, delivery: Delivery, body: bytes) -> str | None:
    """Return why a delivery starts nothing; None: it does. Raises WireError(bad_json, bad_request)."""
    if delivery.event not in _PUSH:
        return f"the event {delivery.event[:64]!r} is no push"
    payload: dict[str, Any] = parse_object(body, limit_bytes=1 << 40)
    ref, after = payload.get("ref"), payload.get("after")
    if hook.branch is not None and ref != f"refs/heads/{hook.branch}":
        return f"{str(ref)[:128]} is not the branch {hook.branch}"
    if payload.get("deleted") is True or (isinstance(after, str) and after and not after.strip("0")):
        return f"{str(ref)[:128]} was deleted"
    return None
