"""Protocol of the store of certificates: what was issued, enrolments, revocations. No key and no token is
ever in it: of a token it has the SHA-256, of a certificate its fingerprint.

`factory.open_certificates` opens the one of a place, also while a daemon uses that. Calls block: an event
loop has them made by a thread. Each is durable, and all or nothing, when it returns. Times are seconds since
the epoch, UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

#: How a certificate came to be: by an admin, by a token, by its predecessor, by one that had expired.
CertificateOrigin = Literal["issued", "enrolled", "renewed", "returned"]


@dataclass(frozen=True, slots=True)
class CertificateRecord:
    """One certificate that was issued to an agent. `fingerprint` is the SHA-256 of its DER form, hexadecimal.
    `returned`: when its holder came back after it had expired, which is let through once. `predecessor` is
    the fingerprint of the one that it was issued against. `request` is the SHA-256 of the request for it, and
    `pem` its text, both only where the same request is answered with the same certificate again. `issuer` is
    the fingerprint of the CA; empty: of one before version 7 of the state."""

    fingerprint: str
    serial: str
    name: str
    origin: CertificateOrigin
    issued: float
    not_before: float
    not_after: float
    revoked: float | None = None
    returned: float | None = None
    predecessor: str | None = None
    request: str = ""
    pem: str = ""
    issuer: str = ""


@dataclass(frozen=True, slots=True)
class TrustHolder:
    """The CAs that an agent was last offered, by the mark of all of them, and `problem`: why it does not
    trust them; empty: it does."""

    name: str
    bundle: str
    time: float
    problem: str = ""


@dataclass(frozen=True, slots=True)
class EnrolmentRecord:
    """One enrolment token. `hash` is the SHA-256 of its text, hexadecimal. `fingerprint` is that of the
    certificate that it gave. `refused` counts uses that were refused after the first."""

    hash: str
    name: str
    created: float
    expires: float
    used: float | None = None
    withdrawn: float | None = None
    fingerprint: str | None = None
    refused: int = 0
    last_refused: float | None = None


@dataclass(frozen=True, slots=True)
class Revocation:
    """A name whose certificates up to then are revoked, or with a `fingerprint` one certificate."""

    name: str
    time: float
    reason: str = ""
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class RevocationList:
    """All that is revoked, to be held in memory. `version` grows with each change.

    `names`: of a name that was ever revoked, the certificates that were issued since, by fingerprint: no
    other one of that name is good, not even one that the store does not know (it may have been restored from
    a backup). No clock has a part in this. `fingerprints`: single certificates. With time and reason."""

    version: int = -1
    names: Mapping[str, tuple[frozenset[str], Revocation]] = field(default_factory=dict)
    fingerprints: Mapping[str, Revocation] = field(default_factory=dict)

    def find(self, name: str, fingerprint: str) -> Revocation | None:
        """Return why a certificate of this name is revoked; None where it is not."""
        single = self.fingerprints.get(fingerprint)
        if single is not None:
            return single
        valid, revocation = self.names.get(name, (frozenset(), None))
        return revocation if fingerprint not in valid else None


class CertificateStore(Protocol):
    """The certificates of a place. Every call may raise StateError. Safe to use from several threads and
    processes."""

    def close(self) -> None: ...

    def certificates(self) -> list[CertificateRecord]:
        """Return all that are kept, by name, the oldest first. What expired 400 days ago is dropped, and all
        but the newest 100 of a name; never one that was used for a return."""
        ...

    def names(self) -> dict[str, float]:
        """Return the names that have a certificate, good or not, and when the newest was issued. 20,000
        certificates: about 10 ms."""
        ...

    def add_certificate(self, record: CertificateRecord, predecessor: str | None = None) -> bool:
        """Remember one that was issued. With the fingerprint of a `predecessor` nothing is stored, and False
        returned, where that was revoked."""
        ...

    def add_returned(self, record: CertificateRecord, old: CertificateRecord) -> bool:
        """Remember one that was issued against the expired `old` one, and that this was used for it. Nothing
        is stored, and False returned, where it was used before or is revoked."""
        ...

    def find_certificate(self, fingerprint: str) -> CertificateRecord | None: ...

    def find_returned(self, old: str, request: str) -> CertificateRecord | None:
        """Return what `add_returned` stored for the expired certificate of this fingerprint and this
        request."""
        ...

    def put_trust_holder(self, holder: TrustHolder) -> None:
        """Remember which CAs an agent trusts."""
        ...

    def trust_holders(self) -> dict[str, TrustHolder]:
        """Return what is known of agents' trust, by name."""
        ...

    def put_enrolment(self, enrolment: EnrolmentRecord) -> None:
        """Remember a new token; others of the same name that were not used are withdrawn."""
        ...

    def enrolments(self) -> list[EnrolmentRecord]:
        """Return all that are kept, the oldest first: those that expired 30 days ago are dropped."""
        ...

    def find_enrolment(self, hash_: str) -> EnrolmentRecord | None: ...

    def redeem_enrolment(self, hash_: str, record: CertificateRecord) -> bool:
        """Use up the token for a certificate that is stored with it, both or neither; which CAs the agent
        trusts is forgotten with it. Of several at the same time one gets True; also False where it has
        expired, at the time of the record, or was withdrawn."""
        ...

    def count_refusal(self, hash_: str, now: float) -> None:
        """Count one more use of a token that was refused."""
        ...

    def revoke(self, revocation: Revocation) -> list[CertificateRecord]:
        """Revoke all certificates of a name, or one; tokens of the name that were not used are withdrawn.
        Return the certificates that were valid until then, as far as they are known."""
        ...

    def lift_revocation(self, name: str) -> bool:
        """Forget that a name is revoked, and return whether it was; single certificates stay revoked."""
        ...

    def revocations(self, version: int = -1) -> RevocationList | None:
        """Return all that is revoked; None where nothing has changed since that version."""
        ...
