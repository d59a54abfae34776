"""The CA as the daemon and the commands use it: what it trusts, and what it issues."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from fazai.errors import InputError, SecretError
from fazai.pki.building import (
    BACKDATE_S,
    Period,
    build_agent,
    build_listener,
    host_names_of,
    key_type_of,
    make_key,
    pem_of,
)
from fazai.pki.errors import PkiError
from fazai.pki.files import (
    CA_CERTIFICATE,
    CA_KEY,
    ENDORSEMENTS,
    LISTENER_CERTIFICATE,
    LISTENER_KEY,
    NEXT_KEY,
    OLD_KEY,
    PrivateKey,
    check_folder,
    hold_folder,
    read_key,
    read_public,
    write_file,
    write_key,
)
from fazai.pki.reading import (
    TRUST_URI,
    check_agent_name,
    check_public_key,
    common_name,
    endorsed_ca,
    fingerprint_of,
    is_issued_by,
    names_somebody,
    read_certificate,
    read_request,
    same_key,
    show_text,
)
from fazai.pki.settings import PkiSettings, read_settings
from fazai.store.certificates import CertificateOrigin, CertificateRecord
from fazai.timestamps import format_time

ENDORSEMENTS_MAX: Final = 16  # of one offer, as the contract has it
_ENDORSEMENT_MAX_CHARS = 65_536
_PEM_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,40})-----.*?-----END \1-----", re.DOTALL)
_NO_KEY = "a certificate has no key behind it"
_RENEW_AT = 1 / 3  # the listener's certificate is renewed when so much of its lifetime is left


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A certificate that was just issued. `name` is the agent's id, of a listener its first name."""

    name: str
    pem: str
    ca_pem: str
    fingerprint: str
    not_before: float
    not_after: float
    serial: str
    issuer: str = ""

    def record(
        self, origin: CertificateOrigin, now: float, predecessor: str | None = None
    ) -> CertificateRecord:
        """Return what the store keeps of an agent's."""
        times = (now, self.not_before, self.not_after)
        return CertificateRecord(
            self.fingerprint,
            self.serial,
            self.name,
            origin,
            *times,
            predecessor=predecessor,
            issuer=self.issuer,
        )


@dataclass(frozen=True, slots=True)
class Endorsement:
    """The word of one CA for another: a certificate with its key (PEM), and the fingerprints of both."""

    pem: str
    issuer: str
    endorsed: str


class Authority:
    """A CA: our own, which issues, or existing ones, which are only trusted. The key never leaves it.

    `trusted` are the certificates of the CAs; the first one issues, where this is our own. `endorsements` is
    what they say of one another. `is_switched`: it took the place of another, which is trusted still.
    """

    def __init__(
        self,
        folder: Path,
        settings: PkiSettings,
        trusted: Sequence[x509.Certificate],
        key: PrivateKey | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.trusted = tuple(trusted)
        self.clock = clock
        self._key = key
        kept, coming = folder / OLD_KEY, folder / NEXT_KEY  # both: a switch that was cut off
        self.is_switched = key is not None and kept.exists() and not coming.exists()
        self.endorsements, self._problems = read_endorsements(folder / ENDORSEMENTS, self.trusted)

    @classmethod
    def load(cls, folder: Path, clock: Callable[[], float] = time.time) -> Authority:
        """Load the CA of a folder, `secrets/pki`. Raises SecretError, InputError, YamlError."""
        check_folder(folder)
        settings = read_settings(folder)
        if settings.existing_ca is not None:
            return cls(folder, settings, read_ca_certificates(settings.existing_ca), None, clock)
        certificate, key_path = folder / CA_CERTIFICATE, folder / CA_KEY
        if not certificate.exists():
            if key_path.exists():
                text = f"{certificate} is missing beside its key: an init was cut off"
                raise SecretError(text, hint="it goes on where it was: fazai pki init")
            raise SecretError(f"there is no CA in {folder}", hint="make one with: fazai pki init")
        trusted = read_ca_certificates(certificate)
        if not key_path.exists():
            hint = (
                "bring it back from a backup; to trust this CA without it, name it in pki.yml:"
                " existing_ca: ca.pem"
            )
            raise SecretError(f"{certificate} stands there without its key {key_path}", hint=hint)
        key = read_key(key_path)
        public = check_public_key(key.public_key())
        own = [one for one in trusted if same_key(public, one.public_key())]
        if not own:
            hint = "bring both back from the same backup"
            raise SecretError(f"{key_path} is not the key of {certificate}", hint=hint)
        return cls(folder, settings, (own[0], *(one for one in trusted if one is not own[0])), key, clock)

    @property
    def can_issue(self) -> bool:
        """Tells whether this is our own CA."""
        return self._key is not None

    @property
    def problem(self) -> str | None:
        """A sentence for an admin on endorsements that are not used, which ends nothing; None: all are."""
        if not self._problems:
            return None
        more = f", and {len(self._problems) - 1} more" if len(self._problems) > 1 else ""
        hint = "docs/pki.md, The word of an existing CA"
        if self.can_issue:
            again = "fazai pki ca rotate makes it anew"
            hint = again if len(self.trusted) > 1 else "nothing needs it now: remove it"
        text = f"not all of {self.folder / ENDORSEMENTS} is used: {self._problems[0]}{more}"
        return str(InputError(text, hint=hint))

    @property
    def ca_pem(self) -> str:
        """The certificates of the trusted CAs, PEM."""
        return "".join(map(pem_of, self.trusted))

    @property
    def bundle_mark(self) -> str:
        """The mark of what agents are told of the CAs: which are trusted, and which one issues."""
        marks = [fingerprint_of(one) for one in self.trusted]
        endorsed = sorted(f"{one.issuer} endorses {one.endorsed}" for one in self.endorsements)
        return hashlib.sha256("\n".join([marks[0], *sorted(marks[1:]), *endorsed]).encode()).hexdigest()[:16]

    def is_endorsed(self, ca: x509.Certificate) -> bool:
        """Tell whether another trusted CA endorses this one."""
        return any(one.endorsed == fingerprint_of(ca) for one in self.endorsements)

    def needed_by(self, certificate: x509.Certificate | None) -> str:
        """Return the CAs (PEM) that an agent with this certificate has to trust. The one before the CA that
        issues is no business of an agent whose certificate is not of it: nobody endorses what will go."""
        if not self.can_issue:
            return self.ca_pem
        before = self.trusted[1:] if self.is_switched else ()
        return "".join(
            pem_of(ca)
            for ca in self.trusted
            if ca not in before or (certificate is not None and is_issued_by(certificate, ca))
        )

    @property
    def mark(self) -> str:
        """The first 16 digits of the SHA-256 of the CA's certificate, as enrolment tokens carry it."""
        return fingerprint_of(self.trusted[0])[:16]

    @property
    def name(self) -> str:
        """The common name of the (first) CA, for messages."""
        return show_text(common_name(self.trusted[0].subject) or "without a name")

    @property
    def key_type(self) -> str:
        """Sort of the key of the CA, for people."""
        return key_type_of(self.trusted[0].public_key())

    # -- issuing

    def require_issuing(self, what: str) -> None:
        """Raise PkiError(not_offered) where certificates come from an existing CA."""
        if self._key is None:
            raise PkiError(
                "not_offered",
                f"{what} is not offered: certificates come from the existing CA {self.name}",
                hint="get them there; pki.yml names it (existing_ca)",
            )

    def issue(
        self,
        csr_pem: str | bytes,
        name: str,
        lifetime_s: float | None = None,
        *,
        now: float | None = None,
    ) -> IssuedCertificate:
        """Issue the certificate of an agent for a request that names it. Raises PkiError: not_offered,
        bad_request, wrong_name, expired (the CA itself)."""
        self.require_issuing("issuing")
        assert self._key is not None
        check_agent_name(name)
        request = read_request(csr_pem)
        if request.name != name:
            text = f"the request is for {show_text(request.name)!r}, and {name} was expected"
            raise PkiError("wrong_name", text, hint=f"openssl req -new -key KEY -subj /CN={name}")
        period = self._period(self.settings.agent_lifetime if lifetime_s is None else lifetime_s, now)
        certificate = build_agent(self.trusted[0], self._key, name, request.key, period)
        return self.describe(name, certificate)

    def issue_listener(
        self, names: Sequence[str], lifetime_s: float | None = None, *, now: float | None = None
    ) -> IssuedCertificate:
        """Issue the certificate of the daemon's listener for these host names and addresses, and put it with
        the CA's into `listener.pem`; its key is made where there is none. Raises PkiError: not_offered,
        bad_request, expired (the CA itself); StateError, SecretError."""
        self.require_issuing("issuing")
        assert self._key is not None
        if not names:
            raise PkiError("bad_request", "the listener has no name", hint="--name fazai.example.net")
        period = self._period(self.settings.listener_lifetime if lifetime_s is None else lifetime_s, now)
        with hold_folder(self.folder):
            key = self._listener_key()
            public = check_public_key(key.public_key())
            certificate = build_listener(self.trusted[0], self._key, names, public, period)
            if not self.listener_key.exists():  # a name that is none has made no key
                write_key(self.listener_key, key)
            write_file(self.listener_certificate, (pem_of(certificate) + self.ca_pem).encode())
        return self.describe(host_names_of(certificate)[0], certificate)

    def renew_listener(self, *, force: bool = False, now: float | None = None) -> IssuedCertificate | None:
        """Renew the listener's certificate where a third of its lifetime or less is left, or in any case with
        `force`. None: nothing was due, or it is none of ours. Raises as `issue_listener`."""
        found = self.read_listener()
        if not self.can_issue or found is None:
            return None
        moment = self.clock() if now is None else now
        begin, end = found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()
        force = force or any(is_issued_by(found, ca) for ca in self.trusted[1:])  # of the CA before
        if not force and end - moment > (end - begin) * _RENEW_AT:
            return None
        return self.issue_listener(host_names_of(found), now=moment)

    @property
    def listener_certificate(self) -> Path:
        """The file of the listener's certificate, followed by that of its CA."""
        return self.folder / LISTENER_CERTIFICATE

    @property
    def listener_key(self) -> Path:
        """The file of the listener's key."""
        return self.folder / LISTENER_KEY

    def read_listener(self) -> x509.Certificate | None:
        """Read the listener's certificate; None where there is none. Raises InputError."""
        if not self.listener_certificate.exists():
            return None
        return read_certificate_file(self.listener_certificate)

    def _listener_key(self) -> PrivateKey:
        if self.listener_key.exists():
            return read_key(self.listener_key)
        return make_key("ed25519" if self.key_type == "ed25519" else "p256")

    def _period(self, lifetime_s: float, now: float | None) -> Period:
        """Return the time in which a certificate of this lifetime is valid; not longer than its CA."""
        moment = self.clock() if now is None else now
        end = self.trusted[0].not_valid_after_utc.timestamp()
        if moment >= end:
            hint = "make a new one: docs/pki.md, Replacing the CA"
            raise PkiError("expired", f"the CA {self.name} itself expired at {format_time(end)}", hint=hint)
        return Period(moment - BACKDATE_S, min(moment + lifetime_s, end))

    def describe(self, name: str, certificate: x509.Certificate) -> IssuedCertificate:
        """Return what is told of a certificate that this CA issued."""
        return IssuedCertificate(
            name=name,
            pem=pem_of(certificate),
            ca_pem=self.ca_pem,
            fingerprint=fingerprint_of(certificate),
            not_before=certificate.not_valid_before_utc.timestamp(),
            not_after=certificate.not_valid_after_utc.timestamp(),
            serial=f"{certificate.serial_number:x}",
            issuer=fingerprint_of(self.trusted[0]),
        )


def read_ca_certificates(path: Path) -> tuple[x509.Certificate, ...]:
    """Read the certificates of one CA or several from a PEM file. Raises InputError."""
    data = read_public(path, "CA certificate")
    try:
        found = x509.load_pem_x509_certificates(data)
    except (ValueError, UnsupportedAlgorithm):
        hint = "PEM; bring it back from a backup"
        raise InputError(f"{path} is damaged: it holds no certificate", hint=hint) from None
    for certificate in found:
        if not _is_ca(certificate):
            name = show_text(common_name(certificate.subject))
            raise InputError(f"{path} holds the certificate of {name!r}, which is no CA")
    return tuple(found)


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def read_endorsements(
    path: Path, trusted: Sequence[x509.Certificate]
) -> tuple[tuple[Endorsement, ...], tuple[str, ...]]:
    """Read what trusted CAs say of one another, and return it, and what is wrong with the file: it is public
    and nothing but the replacement needs it, so that no fault in it may end anything. What concerns others is
    left out."""
    if not path.exists():
        return (), ()
    try:
        text = read_public(path, "endorsement").decode("ascii", "replace")
    except InputError as error:
        return (), (error.message.removeprefix(f"{path} "),)
    found: list[Endorsement] = []
    problems: list[str] = []
    waiting: list[x509.Certificate] = []  # whose key has not come yet
    for block in _PEM_BLOCK.finditer(text):
        try:
            if block[1].endswith("CERTIFICATE"):
                waiting.append(read_certificate(block[0]))
            elif block[1].endswith("PRIVATE KEY"):
                chain, waiting = waiting, []
                found.extend(_read_endorsement(chain, block[0], trusted, problems))
        except PkiError as error:
            problems.append(f"{error.message} in block {text.count('-----BEGIN', 0, block.end())} of it")
    problems += [_NO_KEY] * len(waiting)
    if "-----BEGIN" in _PEM_BLOCK.sub("", text):
        problems.append("a block of it has no end")
    elif not _PEM_BLOCK.search(text):
        problems.append("it holds no endorsements")
    if len(found) > ENDORSEMENTS_MAX:
        problems.append(f"it holds more than {ENDORSEMENTS_MAX} endorsements")
    return tuple(found[:ENDORSEMENTS_MAX]), tuple(problems)


def _read_endorsement(
    certificates: Sequence[x509.Certificate],
    key_pem: str,
    trusted: Sequence[x509.Certificate],
    problems: list[str],
) -> Iterator[Endorsement]:
    """Yield the endorsement that a key and the certificates before it make: the key's own, and behind that
    what leads to its CA; nothing where it concerns others. Raises PkiError(bad_request)."""
    try:
        public = check_public_key(serialization.load_pem_private_key(key_pem.encode(), None).public_key())
    except (PkiError, ValueError, TypeError, UnsupportedAlgorithm):
        raise PkiError("bad_request", "a key cannot be used") from None
    own = [place for place, one in enumerate(certificates) if same_key(public, one.public_key())]
    if not own:
        raise PkiError("bad_request", "a key follows no certificate of its own")
    problems += [_NO_KEY] * own[-1]
    chain = certificates[own[-1] :]
    endorsed, issuer = endorsed_ca(chain[0]), _find_issuer(chain, trusted)
    if not endorsed:
        raise PkiError("bad_request", f"a certificate names no CA ({TRUST_URI}SHA-256)")
    name = names_somebody(chain[0])
    if name:  # whoever has read the file could be it: the key is no secret
        text = f"a certificate names {name!r}, which an agent or a host may be called"
        raise PkiError("bad_request", f"{text}, and its key is no secret")
    if _is_ca(chain[0]):
        raise PkiError("bad_request", "a certificate is one of a CA, and its key is no secret")
    pem = "".join(map(pem_of, chain)) + key_pem + "\n"
    if len(pem) > _ENDORSEMENT_MAX_CHARS:
        raise PkiError("bad_request", f"an endorsement is longer than {_ENDORSEMENT_MAX_CHARS} characters")
    if issuer is not None and endorsed in map(fingerprint_of, trusted):
        yield Endorsement(pem, fingerprint_of(issuer), endorsed)


def _find_issuer(
    chain: Sequence[x509.Certificate], trusted: Sequence[x509.Certificate]
) -> x509.Certificate | None:
    """Return the trusted CA to which the first certificate of a chain leads; None: to none."""
    found: x509.Certificate | None = chain[0]
    for _ in chain:
        for ca in trusted:
            if found is not None and is_issued_by(found, ca):
                return ca
        found = next((one for one in chain[1:] if found is not None and is_issued_by(found, one)), None)
    return None


def read_certificate_file(path: Path) -> x509.Certificate:
    """Read the (first) certificate of a file. Raises InputError."""
    try:
        return read_certificate(read_public(path, "certificate"))
    except PkiError:
        hint = "bring it back from a backup; the listener's is made anew by: fazai pki listener --name HOST"
        raise InputError(f"{path} is damaged: it holds no certificate", hint=hint) from None
