"""Enrolment by token, renewal, and return after expiry: how agents get certificates from the daemon."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from cryptography import x509

from fazai.pki.authority import Authority, IssuedCertificate
from fazai.pki.errors import PkiError
from fazai.pki.peers import check_period, period_of, revoked_error
from fazai.pki.reading import (
    check_agent_name,
    common_name,
    fingerprint_of,
    is_issued_by,
    issued_agent_name,
    read_certificate,
    show_text,
    verify_signature,
)
from fazai.pki.settings import format_duration
from fazai.store.certificates import (
    CertificateRecord,
    CertificateStore,
    EnrolmentRecord,
    Revocation,
    RevocationList,
)
from fazai.timestamps import format_time

#: The time in the signed text of a return may differ by so much from the daemon's.
_SKEW_S = 300.0
_PREFIX = "fza_"
_TEXT = re.compile(r"fza_[A-Za-z0-9_-]{32}\.[0-9a-f]{16}", re.ASCII)


@dataclass(frozen=True, slots=True)
class PkiNotice:
    """A notice for an admin: a line of the log, and an event `agent`."""

    level: Literal["info", "warning", "error"]
    agent_id: str
    message: str


@dataclass(frozen=True, slots=True)
class NewEnrolment:
    """A token that was just made. Its text is shown once, and is in no representation of this."""

    name: str
    token: str
    expires: float

    def __repr__(self) -> str:
        return f"NewEnrolment(name={self.name!r}, expires={self.expires!r})"


def _ignore_notice(_notice: PkiNotice) -> None:
    """Tell nobody."""


class Enrolments:
    """Gives out certificates of our CA. Calls block, for some milliseconds: an event loop has a thread make
    them. `announce` is called, by that thread, with what an admin is to see: also for refusals."""

    def __init__(
        self,
        authority: Authority,
        store: CertificateStore,
        announce: Callable[[PkiNotice], None] = _ignore_notice,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._authority = authority
        self._store = store
        self._announce = announce
        self._clock = clock

    # -- tokens

    def create(self, name: str, lifetime_s: float | None = None) -> NewEnrolment:
        """Make a token for one name, to be used once; an earlier one of that name that was not used is
        withdrawn. Raises PkiError(bad_request, not_offered)."""
        self._authority.require_issuing("enrolment")
        check_agent_name(name)
        text, now = new_enrolment_token(self._authority.mark), self._clock()
        until = now + (self._authority.settings.token_lifetime if lifetime_s is None else lifetime_s)
        self._store.put_enrolment(EnrolmentRecord(hash_of_token(text), name, now, until))
        return NewEnrolment(name, text, until)

    def redeem(self, token: str, csr_pem: str | bytes) -> IssuedCertificate:
        """Use up a token for a certificate of its name. Raises PkiError: bad_token (nobody knows it),
        token_used, token_expired, wrong_name, bad_request, not_offered. A request that is refused does not
        use up the token."""
        self._authority.require_issuing("enrolment")
        now = self._clock()
        found = self._find_enrolment(token)
        self._check_unused(found, now)
        try:
            issued = self._authority.issue(csr_pem, found.name, now=now)
        except PkiError as error:
            self._announce(PkiNotice("warning", found.name, f"an enrolment was refused: {error.message}"))
            if error.code == "wrong_name":
                hint = f"this token is for {found.name} alone; for another name: fazai pki enrol THAT-NAME"
                raise PkiError(error.code, error.message, hint=hint) from None
            raise
        if not self._store.redeem_enrolment(found.hash, issued.record("enrolled", now)):
            self._check_unused(self._find_enrolment(token), now)  # another was faster
            raise PkiError("bad_token", "the token is not valid any more", hint=_enrol_hint(found.name))
        self._announce(PkiNotice("info", found.name, f"{found.name} was enrolled; {_until(issued)}"))
        return issued

    def _find_enrolment(self, token: str) -> EnrolmentRecord:
        found = self._store.find_enrolment(hash_of_token(token)) if is_enrolment_token(token) else None
        if found is None:
            raise PkiError("bad_token", "the enrolment token is not valid", hint="see: fazai pki list")
        return found

    def _check_unused(self, found: EnrolmentRecord, now: float) -> None:
        """Refuse, and announce, a token that cannot be used any more."""
        name, hint = found.name, _enrol_hint(found.name)
        if found.used is not None:
            self._store.count_refusal(found.hash, now)
            text = f"the enrolment token of {name} was used before, at {format_time(found.used)}"
            warning = (
                f"{text}, and came a second time: if this was not the machine itself, somebody has the token."
                f" Was the first one {name}? If not: fazai pki revoke {name}"
            )
            self._announce(PkiNotice("error", name, warning))
            raise PkiError("token_used", text, hint=hint)
        if found.withdrawn is not None:
            text = f"the enrolment token of {name} was withdrawn at {format_time(found.withdrawn)}"
        elif found.expires <= now:
            text = f"the enrolment token of {name} expired at {format_time(found.expires)}"
        else:
            return
        self._store.count_refusal(found.hash, now)
        self._announce(PkiNotice("warning", name, f"{text}, and was used after that"))
        raise PkiError("token_expired", text, hint=hint)

    # -- renewal and return

    def renew(self, old_cert: bytes | str, csr_pem: str | bytes) -> IssuedCertificate:
        """Issue the successor of a certificate (DER or PEM) that the agent has just proved to own, by its
        connection. Raises PkiError: unknown_ca, expired, not_yet_valid, revoked, wrong_name, bad_request,
        not_offered."""
        self._authority.require_issuing("renewal")
        now = self._clock()
        old, name = self._read_old(old_cert)
        check_period(period_of(old), now, name)
        issued = self._authority.issue(csr_pem, name, now=now)
        record = issued.record("renewed", now, fingerprint_of(old))
        if not self._store.add_certificate(record, record.predecessor):
            raise revoked_error(name, self._find_revocation(old, name) or Revocation(name, now))
        self._announce(PkiNotice("info", name, f"{name} renewed its certificate; {_until(issued)}"))
        return issued

    def return_after_expiry(
        self, old_cert_pem: str | bytes, csr_pem: str | bytes, signature: str, timestamp: str
    ) -> IssuedCertificate:
        """Issue a certificate to an agent whose own expired, within the admin's window, once for each
        certificate; the same request again is answered with the same, as the answer may have been lost.
        `signature` (base64) is by the old key over three lines: "fazai return", the timestamp,
        the hexadecimal SHA-256 of the request; no end of line after the last. Raises PkiError: unknown_ca,
        revoked, not_expired, too_late, already_returned, bad_clock, bad_signature, wrong_name, bad_request,
        not_offered."""
        self._authority.require_issuing("return after expiry")
        now = self._clock()
        old, name = self._read_old(old_cert_pem)
        request = self._check_proof(old, name, csr_pem, signature, timestamp)
        repeated = self._find_answer(old, name, request)
        if repeated is not None:
            return repeated
        try:
            self._check_window(old, name, now)
            issued = self._authority.issue(csr_pem, name, now=now)
            record = issued.record("returned", now, fingerprint_of(old))
            record = replace(record, request=request, pem=issued.pem)
            if not self._store.add_returned(record, _record_of(old, name)):
                self._check_revoked(old, name)
                raise PkiError(
                    "already_returned",
                    f"{name} came back with this expired certificate before, which goes once",
                    hint=_enrol_hint(name),
                )
        except PkiError as error:
            self._announce(PkiNotice("warning", name, f"a return was refused: {error.message}"))
            raise
        ended = old.not_valid_after_utc.timestamp()
        text = (
            f"{name} came back {format_duration(now - ended)} after its certificate had expired"
            f" ({format_time(ended)}), and proved its old key; {_until(issued)}."
            f" If that machine should not be there: fazai pki revoke {name}"
        )
        self._announce(PkiNotice("warning", name, text))
        return issued

    def _read_old(self, data: bytes | str) -> tuple[x509.Certificate, str]:
        """Read an agent's certificate of ours, and return it with its name."""
        old = read_certificate(data)
        if not any(is_issued_by(old, ca) for ca in self._authority.trusted):
            issuer = show_text(common_name(old.issuer))
            raise PkiError("unknown_ca", f"the certificate was issued by {issuer!r}, not by this CA")
        name = issued_agent_name(old)
        if name is None:
            raise PkiError("wrong_name", "the certificate is not an agent's")
        return old, name

    def _check_window(self, old: x509.Certificate, name: str, now: float) -> None:
        ended, window_s = old.not_valid_after_utc.timestamp(), self._authority.settings.return_window
        if now <= ended:
            text = f"the certificate of {name} is valid until {format_time(ended)}: it is renewed with itself"
            raise PkiError("not_expired", text)
        if now > ended + window_s:
            text = (
                f"the certificate of {name} expired {format_duration(now - ended)} ago, and agents may come"
                f" back by themselves for {format_duration(window_s)}"
            )
            raise PkiError("too_late", text, hint=_enrol_hint(name))

    def _check_proof(
        self, old: x509.Certificate, name: str, csr_pem: str | bytes, signature: str, timestamp: str
    ) -> str:
        """Check that the old key has signed this request, now; return the request's SHA-256."""
        try:
            signed = base64.b64decode(signature, validate=True)
            moment = datetime.fromisoformat(timestamp)
            seconds = moment.timestamp()
        except (ValueError, binascii.Error, OverflowError):
            raise PkiError(
                "bad_request", "the signature is no base64, or the time none of RFC 3339"
            ) from None
        csr = csr_pem.encode("utf-8", "surrogateescape") if isinstance(csr_pem, str) else csr_pem
        request = hashlib.sha256(csr).hexdigest()
        text = f"fazai return\n{timestamp}\n{request}".encode()
        if moment.tzinfo is None:
            raise PkiError("bad_request", "the time has no zone")
        if not verify_signature(old.public_key(), signed, text):
            raise PkiError("bad_signature", f"the request is not signed by the key of {name}'s certificate")
        now = self._clock()
        if abs(now - seconds) > _SKEW_S:
            text_ = f"the clock of {name} says {format_time(seconds)}, and it is {format_time(now)} here"
            raise PkiError("bad_clock", text_, hint="see timedatectl on both")
        return request

    def _find_answer(self, old: x509.Certificate, name: str, request: str) -> IssuedCertificate | None:
        """Return what this request got before. Raises PkiError(revoked)."""
        found = self._store.find_returned(fingerprint_of(old), request)
        if found is None:
            return None
        issued = read_certificate(found.pem)
        self._check_revoked(old, name)
        self._check_revoked(issued, name)
        return self._authority.describe(name, issued)

    def _check_revoked(self, certificate: x509.Certificate, name: str) -> None:
        found = self._find_revocation(certificate, name)
        if found is not None:
            raise revoked_error(name, found)

    def _find_revocation(self, certificate: x509.Certificate, name: str) -> Revocation | None:
        return (self._store.revocations() or RevocationList()).find(name, fingerprint_of(certificate))


def _record_of(old: x509.Certificate, name: str) -> CertificateRecord:
    """Return what the store keeps of a certificate that it may have forgotten."""
    begin, end = old.not_valid_before_utc.timestamp(), old.not_valid_after_utc.timestamp()
    serial = f"{old.serial_number:x}"
    return CertificateRecord(fingerprint_of(old), serial, name, "issued", begin, begin, end)


def _until(issued: IssuedCertificate) -> str:
    return f"its new certificate is valid until {format_time(issued.not_after)}"


def _enrol_hint(name: str) -> str:
    return f"an admin makes another one with: fazai pki enrol {name}"


def new_enrolment_token(ca_mark: str) -> str:
    """Return the text of a new token: 192 random bits, a mark by which scanners of repositories know it, and
    the beginning of the CA certificate's SHA-256: the agent checks that before it sends the token."""
    return f"{_PREFIX}{secrets.token_urlsafe(24)}.{ca_mark}"


def is_enrolment_token(text: str) -> bool:
    """Return whether a text has the form of a token."""
    return _TEXT.fullmatch(text) is not None


def hash_of_token(text: str) -> str:
    """Return the hash of a token that is stored. It is random, so that one round of SHA-256 is enough."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
