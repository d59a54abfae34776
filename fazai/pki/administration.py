"""Does what an admin asks for at the machine: makes the CA, and pairs of key and certificate for agents;
finds the certificate that is meant.

A key is written before its certificate, and kept: whoever is killed in between goes on where he was.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fazai.errors import InputError, Refused
from fazai.faults import no_fault
from fazai.pki.authority import Authority, IssuedCertificate, read_ca_certificates
from fazai.pki.building import (
    BACKDATE_S,
    KeyType,
    Period,
    build_ca,
    build_request,
    make_key,
    pem_of,
)
from fazai.pki.errors import PkiError
from fazai.pki.files import (
    CA_CERTIFICATE,
    CA_KEY,
    SETTINGS,
    PrivateKey,
    hold_folder,
    make_folder,
    read_key,
    read_public,
    write_file,
    write_key,
)
from fazai.pki.peers import read_crls
from fazai.pki.reading import (
    agent_names,
    check_agent_name,
    check_public_key,
    fingerprint_of,
    issued_agent_name,
    read_certificate,
    same_key,
    show_text,
)
from fazai.pki.settings import DAY_S, read_settings
from fazai.store.certificates import CertificateStore

CA_LIFETIME_S = 3650 * DAY_S
_FINGERPRINT = re.compile(r"[0-9a-f]{8,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes the CA of a folder. `fault` is called by name at each instant at which a crash matters."""

    folder: Path
    clock: Callable[[], float] = time.time
    fault: Callable[[str], None] = no_fault

    def make_ca(
        self, key_type: KeyType | None = None, lifetime_s: float = CA_LIFETIME_S
    ) -> tuple[Authority, bool]:
        """Make our own CA where there is none, and return it, and whether it was made. One that stands there
        is left as it is. Raises Refused where its key is not of the sort that was asked for; SecretError,
        StateError, InputError, LockHeld."""
        make_folder(self.folder)
        with hold_folder(self.folder):
            made = self._write_ca(key_type or "p256", lifetime_s)
        authority = Authority.load(self.folder, self.clock)
        if not authority.can_issue:
            hint = f"without the line existing_ca in {self.folder / SETTINGS} it makes one of our own"
            raise Refused(
                f"the existing CA {authority.name} is trusted here, and no other is made", hint=hint
            )
        if key_type is not None and authority.key_type != key_type:
            text = f"the CA {authority.name} in {self.folder} has a key {authority.key_type}, not {key_type}"
            raise Refused(text, hint="it was left as it is; FAZAI_SECRETS names another place for another CA")
        return authority, made

    def _write_ca(self, key_type: KeyType, lifetime_s: float) -> bool:
        key_path, path = self.folder / CA_KEY, self.folder / CA_CERTIFICATE
        if path.exists() or read_settings(self.folder).existing_ca is not None:
            return False  # what is wrong with it is said by Authority.load
        if not key_path.exists():
            self.fault("key.absent")
            write_key(key_path, make_key(key_type))
        self.fault("key.written")
        now = self.clock()
        name = f"fazai CA {os.urandom(4).hex()}"
        period = Period(now - BACKDATE_S, now + lifetime_s)
        write_file(path, pem_of(build_ca(read_key(key_path), name, period)).encode())
        self.fault("certificate.written")
        return True

    def trust_existing(self, ca: Path, crl: Path | None) -> tuple[Authority, bool]:
        """Trust an existing CA, or several, instead of ours: `pki.yml` names them. Return what the folder
        says then, and whether that is new. Raises Refused where something else stands there."""
        certificates = read_ca_certificates(ca)
        if crl is not None:
            read_crls(crl, certificates)
        make_folder(self.folder)
        wanted = {"existing_ca": str(ca.absolute())} | ({"existing_crl": str(crl.absolute())} if crl else {})
        with hold_folder(self.folder):
            settings = read_settings(self.folder)
            is_there = (settings.existing_ca, settings.existing_crl) == (
                ca.absolute(),
                crl.absolute() if crl else None,
            )
            if not is_there and (self.folder / SETTINGS).exists():
                hint = "\n".join(f"{name}: {value}" for name, value in wanted.items())
                raise Refused(f"{self.folder / SETTINGS} stands there: put these lines into it", hint=hint)
            if not is_there and (self.folder / CA_KEY).exists():
                text = f"our own CA stands in {self.folder}"
                hint = f"move it away first; its agents are refused from then on: {self.folder / CA_KEY}"
                raise Refused(text, hint=hint)
            if not is_there:
                lines = (f"{name}: {msgspec.json.encode(value).decode()}\n" for name, value in wanted.items())
                write_file(self.folder / SETTINGS, "".join(lines).encode())
        return Authority.load(self.folder, self.clock), not is_there


def issue_pair(
    authority: Authority,
    store: CertificateStore,
    name: str,
    folder: Path,
    lifetime_s: float | None = None,
    fault: Callable[[str], None] = no_fault,
) -> tuple[IssuedCertificate, Path, Path]:
    """Make a key and issue a certificate for it: NAME.key and NAME.pem in the folder. A key that an earlier
    call left without a certificate is used. Raises InputError where a pair stands there; PkiError,
    SecretError, StateError."""
    authority.require_issuing("issuing")
    key_path, path = folder / f"{name}.key", folder / f"{name}.pem"
    now = authority.clock()
    check_agent_name(name)
    make_folder(folder)
    with hold_folder(folder):
        if path.exists():
            text = f"{path} stands there and was left as it is"
            raise InputError(text, hint=f"a new one for the same key: fazai pki renew {path}")
        if not key_path.exists():
            write_key(key_path, make_key("ed25519" if authority.key_type == "ed25519" else "p256"))
        fault("key.written")
        issued = authority.issue(build_request(read_key(key_path), name), name, lifetime_s, now=now)
        store.add_certificate(issued.record("issued", now))
        fault("certificate.stored")
        write_file(path, issued.pem.encode())
    return issued, key_path, path


def read_pair(path: Path, key_path: Path | None) -> tuple[str, PrivateKey, str]:
    """Read an agent's certificate and its key, and return the certificate's text, the key, and the name.
    Without a path of the key it stands beside the certificate. Raises InputError, SecretError."""
    data = read_public(path, "certificate")
    try:
        certificate = read_certificate(data)
    except PkiError:
        raise InputError(f"{path} holds no certificate", hint="PEM, as fazai pki issue writes it") from None
    name = issued_agent_name(certificate)
    if name is None:
        hint = "that of the listener is renewed with: fazai pki renew"
        raise InputError(f"{path} is not the certificate of an agent", hint=hint)
    key = read_key(key_path or path.with_suffix(".key"))
    if not same_key(check_public_key(key.public_key()), certificate.public_key()):
        raise InputError(f"{key_path or path.with_suffix('.key')} is not the key of {path}")
    return data.decode("ascii", "replace"), key, name


def find_fingerprint(store: CertificateStore, name: str, given: str) -> str:
    """Return the fingerprint of the certificate of a name that is given by its file, or by the beginning of
    its fingerprint, colons or not. Raises InputError."""
    text = given.replace(":", "").lower()
    if _FINGERPRINT.fullmatch(text) and not Path(given).exists():
        found = [
            one.fingerprint
            for one in store.certificates()
            if one.name == name and one.fingerprint.startswith(text)
        ]
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(f"several certificates of {name} begin with {text}", hint="give more of it")
        if len(text) == 64:
            return text  # of an existing CA, or from before the state was restored
        raise InputError(f"no certificate of {name} begins with {text}", hint="see: fazai pki list --all")
    try:
        certificate = read_certificate(read_public(Path(given), "certificate"))
    except PkiError:
        raise InputError(f"{given} holds no certificate", hint="PEM or DER") from None
    names = agent_names(certificate)
    if name not in names:
        raise InputError(
            f"{given} is the certificate of {show_text(', '.join(sorted(names))) or 'nobody'}, not of {name}"
        )
    return fingerprint_of(certificate)
