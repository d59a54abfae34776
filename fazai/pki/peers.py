"""Tells whether a peer's certificate is good, with a sentence for each refusal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from fazai.errors import InputError
from fazai.pki.authority import Authority
from fazai.pki.building import Period
from fazai.pki.errors import PkiError
from fazai.pki.files import read_public
from fazai.pki.reading import (
    agent_names,
    common_name,
    fingerprint_of,
    is_issued_by,
    issued_agent_name,
    may_be_client,
    read_certificate,
    show_text,
)
from fazai.pki.settings import format_duration
from fazai.store.certificates import CertificateStore, Revocation, RevocationList
from fazai.timestamps import format_time

#: A revocation list of some 400,000 certificates.
CRL_MAX_BYTES: Final = 16 << 20
_KNOWN = 16_384  # certificates that need not be read and verified again


@dataclass(frozen=True, slots=True)
class RevokedSerials:
    """The revocation list of one CA: the serial numbers, and since when."""

    issuer: x509.Name
    times: Mapping[int, float]
    next_update: float | None


@dataclass(frozen=True, slots=True)
class _Peer:
    """A certificate of a trusted CA. `names` is empty where it is not an agent's."""

    names: tuple[str, ...]
    period: Period
    fingerprint: str
    serial: int
    issuer: x509.Name


class PeerChecker:
    """Checks the certificates of agents against the CA and the revocations, from memory.

    `refresh` brings the memory up to date; it reads files, so an event loop has a thread call it. `problem`
    says what could not be read again, and is told to the admin: what was read before holds until then.
    Raises InputError, StateError when it is made and cannot read them.
    """

    def __init__(self, authority: Authority, store: CertificateStore) -> None:
        self._authority = authority
        self._store = store
        self._revoked = RevocationList()
        self._crls: tuple[RevokedSerials, ...] = ()
        self._crl_seen: tuple[int, int, int] | None = None
        self._known: dict[bytes, _Peer] = {}
        self.problem: str | None = None
        self._refresh_crls()
        self.refresh()

    def refresh(self) -> bool:
        """Read what has changed since the last time, and return whether anything has: then living
        connections are to be checked again. Raises StateError."""
        found = self._store.revocations(self._revoked.version)
        if found is not None:
            self._revoked = found
        try:
            changed = self._refresh_crls()
            self.problem = self._stale_crl()
        except InputError as error:
            changed, self.problem = False, f"{error}; the revocations read before still hold"
        return found is not None or changed

    def check_peer(self, cert_der: bytes | None, agent_id: str, now: float | None = None) -> None:
        """Raise PkiError where the certificate of a connection does not prove that the peer is this agent:
        no_certificate, unknown_ca, expired, not_yet_valid, wrong_name, revoked. Safe to call from any
        thread, at once, for each connection and again after each `refresh` that returned True."""
        if cert_der is None:
            text = f"{show_text(agent_id)} presented no certificate"
            raise PkiError("no_certificate", text, hint="its certificate and key stand in agent.yml")
        peer = self._known.get(cert_der) or self._read_peer(cert_der)
        _check_name(peer, agent_id)
        check_period(peer.period, time.time() if now is None else now, agent_id)
        for name in peer.names:  # whoever has two names is gone when one of them is
            self._check_revoked(peer, name)

    def check_name(self, agent_id: str) -> None:
        """Raise PkiError(revoked) for an agent without a certificate (signed HTTP) whose name is revoked, and
        for which nothing was issued since. From memory, as `check_peer`."""
        revocation = self.find_removal(agent_id)
        if revocation is not None:
            raise revoked_error(agent_id, revocation)

    def find_removal(self, agent_id: str) -> Revocation | None:
        """Return why an agent may not come back: its name is revoked, and nothing was issued to it since.
        From memory, as `check_peer`."""
        valid, revocation = self._revoked.names.get(agent_id, (frozenset(), None))
        return None if valid else revocation

    def _check_revoked(self, peer: _Peer, name: str) -> None:
        found = self._revoked.find(name, peer.fingerprint)
        if found is not None:
            raise revoked_error(name, found)
        for crl in self._crls:
            since = crl.times.get(peer.serial) if crl.issuer == peer.issuer else None
            if since is not None:
                text = f"the certificate of {show_text(name)} was revoked by its CA at {format_time(since)}"
                raise PkiError("revoked", text, hint="get a new one from that CA")

    def _read_peer(self, cert_der: bytes) -> _Peer:
        """Read a certificate that one of the trusted CAs issued, and remember it: to look at all living
        connections again must not take the event loop a second. Raises PkiError(unknown_ca)."""
        try:
            certificate = read_certificate(cert_der)
        except PkiError:
            raise PkiError("unknown_ca", "the peer's certificate cannot be read") from None
        if not any(is_issued_by(certificate, ca) for ca in self._authority.trusted):
            issuer = show_text(common_name(certificate.issuer)) or "a CA without a name"
            raise PkiError(
                "unknown_ca",
                f"the certificate was issued by {issuer!r}, and this daemon trusts {self._authority.name!r}",
                hint="an admin lets the machine in with: fazai pki enrol NAME",
            )
        if self._authority.can_issue:
            name = issued_agent_name(certificate)
            names = frozenset() if name is None else frozenset({name})
        else:
            names = agent_names(certificate)
        peer = _Peer(
            tuple(sorted(names)) if may_be_client(certificate) else (),
            period_of(certificate),
            fingerprint_of(certificate),
            certificate.serial_number,
            certificate.issuer,
        )
        if len(self._known) >= _KNOWN:
            self._known.clear()
        self._known[cert_der] = peer
        return peer

    def _refresh_crls(self) -> bool:
        path = self._authority.settings.existing_crl
        if path is None:
            return False
        try:
            found = path.stat()
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from None
        if seen == self._crl_seen:
            return False
        self._crls = read_crls(path, self._authority.trusted)
        self._crl_seen = seen
        return True

    def _stale_crl(self) -> str | None:
        now = self._authority.clock()
        for crl in self._crls:
            if crl.next_update is not None and crl.next_update < now:
                path, ended = self._authority.settings.existing_crl, format_time(crl.next_update)
                return f"the revocation list {path} should have been replaced by {ended}; it still holds"
        return None


def revoked_error(name: str, revocation: Revocation) -> PkiError:
    """Return the error for a certificate that an admin revoked."""
    reason = f" ({show_text(revocation.reason)})" if revocation.reason else ""
    text = f"the certificate of {show_text(name)} was revoked at {format_time(revocation.time)}{reason}"
    hint = f"an admin lets the machine in again with: fazai pki enrol {show_text(name)}"
    return PkiError("revoked", text, hint=hint)


def _check_name(peer: _Peer, agent_id: str) -> None:
    shown = show_text(agent_id)
    if not peer.names:
        text = f"{shown} presented a certificate that is not an agent's, but a server's or somebody else's"
        raise PkiError("wrong_name", text, hint="listener.pem is for the daemon alone")
    if agent_id not in peer.names:
        whose = show_text(", ".join(peer.names))
        text = f"the certificate is that of {whose}, and the agent says that it is {shown}"
        raise PkiError("wrong_name", text, hint="agent_id in agent.yml is the certificate's name")


def period_of(certificate: x509.Certificate) -> Period:
    """Return the time in which a certificate is valid."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return Period(begin.timestamp(), end.timestamp())


def check_period(period: Period, now: float, name: str) -> None:
    """Raise PkiError(expired, not_yet_valid) for a certificate of this name that is not valid now."""
    begin, end, shown = period.not_before, period.not_after, show_text(name)
    if now > end:
        text = (
            f"the certificate of {shown} expired at {format_time(end)}, {format_duration(now - end)} ago"
            f" (it is {format_time(now)} here)"
        )
        raise PkiError("expired", text, hint="it comes back by itself within the window that the admin set")
    if now < begin:
        text = (
            f"the certificate of {shown} is valid only from {format_time(begin)} on,"
            f" in {format_duration(begin - now)} (it is {format_time(now)} here)"
        )
        raise PkiError("not_yet_valid", text, hint="one of the two clocks is wrong: see timedatectl on both")


def read_crls(path: Path, issuers: tuple[x509.Certificate, ...]) -> tuple[RevokedSerials, ...]:
    """Read revocation lists, PEM one after the other or one in DER; each is signed by one of the issuers.
    Raises InputError."""
    data = read_public(path, "revocation list", CRL_MAX_BYTES)
    begin, end = b"-----BEGIN X509 CRL-----", b"-----END X509 CRL-----"
    blocks = [begin + part.split(end)[0] + end for part in data.split(begin)[1:]]
    try:
        if blocks:
            found = tuple(map(x509.load_pem_x509_crl, blocks))
        else:
            found = (x509.load_der_x509_crl(data),)
        lists = tuple(map(_read_serials, found))
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(f"{path} is damaged: it holds no revocation list (CRL)") from None
    for crl in found:
        if not any(_is_crl_of(crl, issuer) for issuer in issuers):
            issuer = show_text(common_name(crl.issuer))
            raise InputError(f"the revocation list {path} is of {issuer!r}, and not signed by a trusted CA")
    return lists


def _read_serials(crl: x509.CertificateRevocationList) -> RevokedSerials:
    until = crl.next_update_utc
    times = {one.serial_number: one.revocation_date_utc.timestamp() for one in crl}
    return RevokedSerials(crl.issuer, times, None if until is None else until.timestamp())


def _is_crl_of(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    try:
        return crl.issuer == issuer.subject and crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
