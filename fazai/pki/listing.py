"""Describes the CA, certificates, tokens and revocations for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cryptography import x509

from fazai.pki.authority import Authority
from fazai.pki.building import host_names_of
from fazai.pki.peers import PeerChecker
from fazai.pki.reading import fingerprint_of
from fazai.pki.settings import format_duration
from fazai.store.certificates import CertificateRecord, CertificateStore, EnrolmentRecord, RevocationList
from fazai.timestamps import format_time, timestamp


def describe_ca(authority: Authority) -> str:
    """Return a sentence about the CA."""
    until = format_time(authority.trusted[0].not_valid_after_utc.timestamp())
    where = authority.folder if authority.can_issue else authority.settings.existing_ca
    what = "CA" if authority.can_issue else "existing CA"
    more = f" and {len(authority.trusted) - 1} more" if len(authority.trusted) > 1 else ""
    return f"{what} {authority.name}{more} ({authority.key_type}), valid until {until}, in {where}"


def describe_listener(certificate: x509.Certificate) -> str:
    """Return a sentence about the listener's certificate."""
    until = format_time(certificate.not_valid_after_utc.timestamp())
    return f"listener {', '.join(host_names_of(certificate))}, valid until {until}"


def list_record(authority: Authority, store: CertificateStore, *, with_replaced: bool) -> dict[str, Any]:
    """Return all as a document: the CA, the listener, certificates, enrolments, revocations. Of the
    certificates of one name the newest alone, unless `with_replaced`. Raises InputError, StateError."""
    now = authority.clock()
    certificates = store.certificates()
    newest = {one.name: one.fingerprint for one in certificates}
    revoked = store.revocations() or RevocationList()
    found = [*(one for _, one in revoked.names.values()), *revoked.fingerprints.values()]
    return {
        "ca": _ca_record(authority, store),
        "listener": _listener_record(authority),
        "certificates": [
            _certificate_record(one, now, authority)
            for one in certificates
            if with_replaced or newest[one.name] == one.fingerprint
        ],
        "enrolments": [_enrolment_record(one, now) for one in store.enrolments()],
        "revocations": [
            {
                "name": one.name,
                "fingerprint": one.fingerprint or None,
                "time": _time_text(one.time),
                "reason": one.reason or None,
            }
            for one in sorted(found, key=lambda one: one.time)
        ],
    }


def list_lines(record: dict[str, Any]) -> Iterator[str]:
    """Return the lines of a document of `list_record` for people."""
    ca, listener = record["ca"], record["listener"]
    yield f"{'CA' if ca['issues'] else 'existing CA'} {ca['name']} ({ca['key']})  until {ca['not_after']}"
    if ca["problem"]:
        yield f"  warning: {ca['problem']}"
    if listener is None:
        yield "listener: no certificate yet: fazai pki listener --name HOST"
    else:
        yield f"listener {', '.join(listener['names'])}  until {listener['not_after']}"
    if not record["certificates"] and ca["issues"]:
        yield "no certificates yet: fazai pki enrol NAME"
    for one in record["certificates"]:
        back = f"  came back after expiry, {one['issued']}" if one["origin"] == "returned" else ""
        if one["state"] == "retired":
            back += f"  its CA was retired: fazai pki enrol {one['name']}"
        known = f"{one['name']:<24} {one['state']:<8} {one['origin']:<9}"
        yield f"{known} until {one['not_after']}  {one['fingerprint'][:16]}{back}"
    for one in record["enrolments"]:
        refused = (
            f"  {one['refused']} more uses were refused, the last {one['last_refused']}"
            if one["refused"]
            else ""
        )
        yield f"{one['name']:<24} token {one['state']}  until {one['expires']}{refused}"
    for one in record["revocations"]:
        which = f" {one['fingerprint'][:16]}" if one["fingerprint"] else ""
        why = f"  {one['reason']}" if one["reason"] else ""
        yield f"{one['name']:<24} revoked{which}  {one['time']}{why}"


def _ca_record(authority: Authority, store: CertificateStore) -> dict[str, Any]:
    ca, settings = authority.trusted[0], authority.settings
    return {
        "name": authority.name,
        "issues": authority.can_issue,
        "key": authority.key_type,
        "fingerprint": fingerprint_of(ca),
        "not_after": _time_text(ca.not_valid_after_utc.timestamp()),
        "agent_lifetime": format_duration(settings.agent_lifetime),
        "return_window": format_duration(settings.return_window),
        "problem": PeerChecker(authority, store).problem or authority.problem,
    }


def _listener_record(authority: Authority) -> dict[str, Any] | None:
    found = authority.read_listener()
    if found is None:
        return None
    until = _time_text(found.not_valid_after_utc.timestamp())
    return {"names": list(host_names_of(found)), "not_after": until, "fingerprint": fingerprint_of(found)}


def _certificate_record(one: CertificateRecord, now: float, authority: Authority) -> dict[str, Any]:
    state = "revoked" if one.revoked is not None else "expired" if one.not_after < now else "valid"
    if state == "valid" and one.issuer and one.issuer not in map(fingerprint_of, authority.trusted):
        state = "retired"  # its CA was
    return {
        "name": one.name,
        "state": state,
        "origin": one.origin,
        "issued": _time_text(one.issued),
        "not_after": _time_text(one.not_after),
        "revoked": _time_text(one.revoked),
        "returned": _time_text(one.returned),
        "fingerprint": one.fingerprint,
        "serial": one.serial,
    }


def _enrolment_record(one: EnrolmentRecord, now: float) -> dict[str, Any]:
    if one.used is not None:
        state = "used"
    elif one.withdrawn is not None:
        state = "withdrawn"
    else:
        state = "expired" if one.expires <= now else "open"
    return {
        "name": one.name,
        "state": state,
        "created": _time_text(one.created),
        "expires": _time_text(one.expires),
        "used": _time_text(one.used),
        "refused": one.refused,
        "last_refused": _time_text(one.last_refused),
    }


def _time_text(seconds: float | None) -> str | None:
    return None if seconds is None else timestamp(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")
