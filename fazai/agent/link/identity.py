"""The ways to the agent's certificate: enrolment with a token, renewal, and the return after it expired.

These functions block; a running agent calls them in a forked child.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import socket
import ssl
import time

from fazai.agent.link import keys, tls
from fazai.agent.link.connection import explain_refusal
from fazai.agent.link.errors import LinkError
from fazai.agent.link.http import ResponseReader, build_request
from fazai.agent.link.proxy import Tunnel, open_tunnel
from fazai.faults import no_fault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from fazai.agent.link.dialling import Address
    from fazai.agent.link.http import Response

EXCHANGE_S = 30.0
_CSR_FILE = "return.csr"
#: Beside the certificate: the lines on the proxy of the enrolment that agent.yml lacks.
PROXY_NOTE = ".proxy"
_BESIDE = ".renewing"  # what a renewal makes, until it takes its place
_HANDSHAKE, _CHANGE_CIPHER, _CERTIFICATE = 22, 20, 11


def exchange(
    address: Address, context: ssl.SSLContext, method: str, path: str, body: dict[str, Any] | None = None
) -> Response:
    """Send one request and return the answer. Blocks. Raises LinkError."""
    deadline = time.monotonic() + EXCHANGE_S
    raw = b"" if body is None else json.dumps(body).encode()
    headers = {"Connection": "close"}
    reader = ResponseReader()
    try:
        with _connect(address) as plain, context.wrap_socket(plain, server_hostname=address.host) as sock:
            sock.sendall(build_request(method, address.authority, path, raw, headers))
            while time.monotonic() < deadline:
                data = sock.recv(65_536)
                response = reader.feed(data) if data else reader.end()
                if response is not None:
                    return response
                if not data:
                    raise LinkError("closed", f"{address.authority} closed the connection without an answer")
    except (ssl.SSLError, OSError) as error:
        if isinstance(error, socket.timeout):
            raise LinkError("timeout", f"{address.authority} did not answer in time") from None
        raise tls.explain_tls_error(error, address.host) from None
    raise LinkError("timeout", f"{address.authority} did not answer in time")


def _connect(address: Address) -> socket.socket:
    try:
        sock = socket.create_connection(address.dialled, timeout=EXCHANGE_S)
    except OSError as error:
        raise address.unreached(error.strerror or str(error)) from None
    if address.proxy is not None:
        try:
            open_tunnel(sock, Tunnel(address.proxy, address.authority))
        except LinkError:
            sock.close()
            raise
    return sock


def _read_answer(response: Response, address: Address) -> dict[str, Any]:
    """Return the answer where it says yes. Raises LinkError with the daemon's words otherwise."""
    if response.status != 200:
        raise explain_refusal(response.status, response.body, address.authority)
    try:
        found = json.loads(response.body)
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("ok") is not True:
        raise explain_refusal(response.status, response.body, address.authority)
    return found


def ask_time(address: Address) -> float:
    """Return what the daemon says the time is (Unix seconds). Nobody proves it: it is good for a sentence and
    for nothing else. Blocks. Raises LinkError."""
    found = _read_answer(exchange(address, _blind_context(), "GET", "/southbound/time"), address).get("time")
    seconds = _parse_time(found)
    if seconds is None:
        raise LinkError("protocol", f"{address.authority} told no time")
    return seconds


def _parse_time(text: object) -> float | None:
    """Return the Unix seconds of a time such as 2026-11-30T08:15:00Z, with any offset."""
    import datetime

    if not isinstance(text, str):
        return None
    try:
        found = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return found.timestamp() if found.tzinfo is not None else None


def _blind_context() -> ssl.SSLContext:
    """Return a context that believes any server: for what is not believed, or proven otherwise."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# -- enrolment --------------------------------------------------------------------------------------------


def enrol(address: Address, token: str, *, name: str, ca: str, certificate: str, key: str) -> str:
    """Make a key, prove the listener by the token's mark, and exchange the token for a certificate; returns
    the name that it was made out to. Raises LinkError."""
    mark = _read_mark(token)
    authority = find_authority(address, mark)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=authority)
    for folder in {os.path.dirname(path) for path in (ca, certificate, key)}:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    made = f"{key}.enrolling"
    keys.write_private(made, keys.make_key())
    csr = keys.make_request(made, name)
    body = {"token": token, "csr": csr}
    found = _read_answer(exchange(address, context, "POST", "/southbound/enrol", body), address)
    issued = str(found.get("certificate"))
    authorities, beside = f"{ca}.enrolling", f"{certificate}.enrolling"
    proven = ssl.DER_cert_to_PEM_cert(
        authority
    )  # others that the answer names come with an endorsement, later
    keys.write_private(authorities, proven.encode(), 0o644)
    keys.write_private(beside, issued.encode(), 0o644)
    dates = tls.read_certificate(authorities, beside, made)
    for path in (ca, key, certificate):  # an agent that was enrolled before has all of them, or is as it was
        os.rename(f"{path}.enrolling", path)
        keys.sync_folder(path)
    return dates.name


def _read_mark(token: str) -> str:
    head, dot, mark = token.partition(".")
    if not head.startswith("fza_") or not dot or len(mark) != 16 or set(mark) - set("0123456789abcdef"):
        raise LinkError("unauthorized", "that is no enrolment token", hint="fazai pki enrol NAME makes one")
    return mark


def find_authority(address: Address, mark: str) -> bytes:
    """Return the certificate (DER) among those that the listener shows whose SHA-256 begins with the mark.
    Raises LinkError where there is none: then somebody else answers there, and the token is not sent."""
    shown = show_chain(address)
    for der in shown:
        if hashlib.sha256(der).hexdigest().startswith(mark):
            return der
    raise LinkError(
        "unknown_ca",
        f"{address.authority} does not show the authority that the token names; the token was not sent",
        hint="is it the right daemon? else make a new token there: fazai pki enrol NAME",
    )


def show_chain(address: Address) -> list[bytes]:
    """Return the certificates (DER) that a listener shows, unproven. They are read from the handshake of TLS
    1.2, where they stand in the open: before Python 3.13 there is no other way. Raises LinkError."""
    context = _blind_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    side = context.wrap_bio(incoming, outgoing, server_hostname=address.host)
    seen = bytearray()
    with _connect(address) as sock:
        for _ in range(64):
            try:
                side.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                done = False
            except ssl.SSLError as error:
                raise tls.explain_tls_error(error, address.host) from None
            found = parse_chain(bytes(seen))
            if found is not None:
                return found
            if done:
                break
            try:
                sock.sendall(outgoing.read())
                data = sock.recv(65_536)
            except OSError as error:
                raise tls.explain_tls_error(error, address.host) from None
            if not data:
                break
            seen += data
            incoming.write(data)
    raise LinkError("tls", f"{address.authority} showed no certificate")


def parse_chain(records: bytes) -> list[bytes] | None:
    """Return the certificates in the bytes that a TLS 1.2 server sent; None where there are none yet."""
    messages = bytearray()
    at = 0
    while at + 5 <= len(records) and records[at] == _HANDSHAKE:
        size = int.from_bytes(records[at + 3 : at + 5], "big")
        if at + 5 + size > len(records):
            break
        messages += records[at + 5 : at + 5 + size]
        at += 5 + size
    at = 0
    while at + 4 <= len(messages):
        size = int.from_bytes(messages[at + 1 : at + 4], "big")
        body = bytes(messages[at + 4 : at + 4 + size])
        if len(body) < size:
            return None
        if messages[at] == _CERTIFICATE:
            return _split_certificates(body[3:])
        at += 4 + size
    return None


def _split_certificates(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at + 3 <= len(data):
        size = int.from_bytes(data[at : at + 3], "big")
        found.append(data[at + 3 : at + 3 + size])
        at += 3 + size
    return found


# -- renewal and return -----------------------------------------------------------------------------------


def begin_renewal(key: str, name: str, fault: Callable[[str], None] = no_fault) -> str:
    """Make a new key beside the one that is used, and return a request for its certificate. Raises
    LinkError."""
    beside = f"{key}{_BESIDE}"
    keys.write_private(beside, keys.make_key())
    fault("renewal.key")
    return keys.make_request(beside, name)


def keep_renewed(
    text: str, *, name: str, ca: str, certificate: str, key: str, fault: Callable[[str], None] = no_fault
) -> tls.Dates:
    """Put a new certificate and its key in the place of the old ones. Both are on the disk and proven before
    the old key goes; who is killed between the two names is put right by `finish_renewal`. Raises
    LinkError."""
    new_key, new = f"{key}{_BESIDE}", f"{certificate}{_BESIDE}"
    dates = _write_proven(text, new, name=name, ca=ca, key=new_key)
    fault("renewal.written")
    os.rename(new_key, key)
    keys.sync_folder(key)
    fault("renewal.key_renamed")
    with contextlib.suppress(FileNotFoundError):  # `finish_renewal` of a new connection was faster
        os.rename(new, certificate)
    with contextlib.suppress(FileNotFoundError):  # it connects with what agent.yml says
        os.unlink(f"{certificate}{PROXY_NOTE}")
    keys.sync_folder(certificate)
    fault("renewal.done")
    return dates


def finish_renewal(certificate: str, key: str) -> None:
    """Go on with a renewal that was cut off after the key took its place, and before the certificate did."""
    new = f"{certificate}{_BESIDE}"
    if os.path.exists(new) and not tls.is_pair(certificate, key) and tls.is_pair(new, key):
        os.rename(new, certificate)
        keys.sync_folder(certificate)


class Offer:
    """The authorities (PEM) that a daemon offers, and for each that is new an endorsement: a certificate of
    one that is trusted already, with its key (PEM)."""

    def __init__(self, text: str, endorsements: Sequence[str] = ()) -> None:
        self.text = text
        self.endorsements = endorsements


def keep_authorities(offer: Offer, address: Address, *, ca: str, own: tuple[str, str] | None) -> bool:
    """Trust these authorities and no others, once it is proven that each that is new is endorsed by one that
    is trusted until now, and that the daemon's certificate is of one of them, and our `own` (certificate,
    key). Returns whether they are other ones. Raises LinkError."""
    beside = f"{ca}.offered"
    try:
        offered, trusted = tls.read_authorities(text=offer.text), tls.read_authorities(file=ca)
        if not offered:
            raise LinkError("tls", "the offer holds no certificate of an authority")
        if set(offered) == set(trusted):
            return False
        _check_endorsed([one for one in offered if one not in trusted], offer, ca)
        # what was looked at, and nothing else that a text can hold
        keys.write_private(beside, "".join(map(ssl.DER_cert_to_PEM_cert, offered)).encode(), 0o644)
        try:
            if own is not None:
                tls.read_certificate(beside, *own)
            _read_answer(exchange(address, tls.make_context(beside), "GET", "/southbound/time"), address)
        except LinkError:
            os.unlink(beside)
            raise
        os.rename(beside, ca)
        keys.sync_folder(ca)
    except OSError as error:
        raise LinkError("tls", f"{ca} cannot be written: {error.strerror}") from None
    return True


def _check_endorsed(new: Sequence[bytes], offer: Offer, ca: str) -> None:
    """Check that each new authority (DER) is endorsed by one of `ca`. Whoever holds the key of the listener
    alone can offer any, and endorse none. Raises LinkError."""
    endorsed: set[str] = set()
    why = ""
    beside = f"{ca}.endorsement"
    for text in offer.endorsements if new else ():
        try:
            keys.write_private(beside, text.encode())
            endorsed |= tls.read_endorsed(ca, beside)
        except LinkError as error:
            why = error.message.replace(f"{beside} and {beside}", "its endorsement")
            why = f": {why.replace(beside, 'of its endorsement')}"
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(beside)
    for one in new:
        mark = hashlib.sha256(one).hexdigest()
        if mark not in endorsed:
            raise LinkError(
                "unknown_ca",
                f"the authority {mark[:16]} is new, and none that this agent trusts has endorsed it{why}",
                hint="fazai pki ca rotate makes an endorsement; for an existing CA: docs/pki.md",
            )


def keep_certificate(text: str, *, name: str, ca: str, certificate: str, key: str) -> tls.Dates:
    """Put a new certificate in the place of the old one, once it is proven that it is one for this agent.
    Raises LinkError."""
    beside = f"{certificate}{_BESIDE}"
    dates = _write_proven(text, beside, name=name, ca=ca, key=key)
    os.rename(beside, certificate)
    keys.sync_folder(certificate)
    return dates


def _write_proven(text: str, path: str, *, name: str, ca: str, key: str) -> tls.Dates:
    """Write a new certificate, once it is proven that it is one for this agent and this key."""
    keys.write_private(path, text.encode(), 0o644)
    try:
        dates = tls.read_certificate(ca, path, key)
        if dates.name != name:
            raise LinkError(
                "wrong_name", f'the new certificate is made out to "{dates.name}", not to "{name}"'
            )
    except LinkError:
        os.unlink(path)
        raise
    return dates


def return_after_expiry(
    address: Address, *, name: str, ca: str, certificate: str, key: str, state: str, now: float
) -> None:
    """Ask for a new certificate with the expired one and proof of its key. The request is kept until there is
    an answer, so that an answer that was lost on the way is asked for again, not another one. Blocks. Raises
    LinkError."""
    with open(certificate, encoding="ascii") as file:
        expired = file.read()
    kept = os.path.join(state, _CSR_FILE)
    csr = _kept_request(kept, key, name, hashlib.sha256(expired.encode()).hexdigest())
    stamp = tls.show_time(now)
    text = f"fazai return\n{stamp}\n{hashlib.sha256(csr.encode()).hexdigest()}".encode()
    body = {
        "certificate": expired,
        "csr": csr,
        "timestamp": stamp,
        "signature": base64.b64encode(keys.sign(key, text)).decode(),
    }
    response = exchange(address, tls.make_context(ca), "POST", "/southbound/return", body)
    found = _read_answer(response, address)
    keep_certificate(str(found.get("certificate")), name=name, ca=ca, certificate=certificate, key=key)
    os.unlink(kept)


def _kept_request(path: str, key: str, name: str, mark: str) -> str:
    """Return the request that was made for this certificate before, else a new one."""
    try:
        with open(path, encoding="ascii") as file:
            made_for, _, csr = file.read().partition("\n")
        if made_for == mark and csr.endswith("-----END CERTIFICATE REQUEST-----\n"):
            return csr
    except FileNotFoundError:
        made_for = ""
    csr = keys.make_request(key, name)
    keys.write_private(path, f"{mark}\n{csr}".encode())
    return csr
