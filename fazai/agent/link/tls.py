"""TLS of the agent: its certificate is judged before it connects, and the stream never blocks."""

from __future__ import annotations

import re
import ssl
import time

from fazai.agent.link.errors import LinkError
from fazai.agent.loop import READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from typing import Any

    from fazai.agent.loop import Loop, Timer

_RECORD_BYTES = 16_384
#: What one turn of the loop reads of one connection, so that no sender keeps the loop to itself.
_TURN_BYTES = 262_144
#: What waits to be sent beyond this keeps us from reading: who asks and does not listen gets no more answers.
_HIGH_WATER_BYTES = 1024 * 1024
#: X509_V_FLAG_NO_CHECK_TIME of OpenSSL: dates are judged by ourselves, with a sentence.
_NO_CHECK_TIME = 0x200000


def make_context(ca: str, certificate: str | None = None, key: str | None = None) -> ssl.SSLContext:
    """Return a context that trusts `ca` alone and checks the host's name. Raises LinkError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise _unreadable_authority(ca, error) from None
    if certificate is not None:
        _load_own(context, certificate, key or certificate)
    return context


def _load_own(context: ssl.SSLContext, certificate: str, key: str) -> None:
    try:
        context.load_cert_chain(certificate, key, password=_refuse_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise LinkError(
                "bad_certificate",
                f"the key {key} does not belong to the certificate {certificate}",
                hint="enrol this agent again: fazai agent enrol",
            ) from None
        raise LinkError(
            "bad_certificate", f"{certificate} and {key} cannot be used: {_reason(error)}"
        ) from None
    except (OSError, ValueError) as error:
        raise LinkError(
            "bad_certificate",
            f"{certificate} and {key} cannot be read: {_reason(error)}",
            hint="enrol this agent first: fazai agent enrol",
        ) from None


def _unreadable_authority(ca: str, error: Exception) -> LinkError:
    return LinkError("tls", f"{ca}: the authority's certificate cannot be read: {_reason(error)}")


def _refuse_password() -> str:
    raise ValueError("the key is encrypted")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        if not error.reason and "PEM lib" in str(error):
            return "one of them is no PEM file, or is damaged"
        return (error.reason or str(error)).replace("_", " ").lower()
    return getattr(error, "strerror", None) or str(error)


#: Certificates begin so long before they are made, for clocks that are a little behind.
BACKDATED_S = 300.0


class Dates:
    """The contents of a certificate: the name that it was made out to, and from when to when it holds (Unix
    seconds)."""

    def __init__(self, name: str, begins: float, ends: float) -> None:
        self.name = name
        self.begins = begins
        self.ends = ends

    def lifetime(self) -> float:
        """Return how long it holds from the moment at which it was made."""
        return max(self.ends - self.begins - BACKDATED_S, 0.0)

    def renewal_due(self) -> float:
        """Return when two thirds of its life are over."""
        return self.ends - self.lifetime() / 3


def read_certificate(ca: str, certificate: str, key: str) -> Dates:
    """Return what the agent's certificate says, once it is proven that the authority made it and that the key
    belongs to it. Dates are not judged. Raises LinkError."""
    found = _prove(ca, certificate, key, judge_dates=False)
    names = [value for part in found["subject"] for name, value in part if name == "commonName"]
    return Dates(
        names[0] if len(names) == 1 else "",
        float(ssl.cert_time_to_seconds(found["notBefore"])),
        float(ssl.cert_time_to_seconds(found["notAfter"])),
    )


#: A certificate with this URI and a SHA-256 says that who made it endorses the authority of that fingerprint.
_TRUST_URI = "fazai:trust:"
_AGENT_URI = "fazai:agent:"
_AGENT_OR_HOST = re.compile(r"[A-Za-z0-9._*:-]+")


def read_endorsed(ca: str, endorsement: str) -> set[str]:
    """Return the fingerprints of the authorities that one of `ca` endorses, by a certificate that stands with
    its key in a file. Raises LinkError where none of them made it, or where it does not hold now."""
    proven = _prove(ca, endorsement, endorsement, judge_dates=True)
    names = proven.get("subjectAltName", ())
    _check_nobody(proven, names)
    found = [
        value[len(_TRUST_URI) :]
        for sort, value in names
        if sort == "URI" and value[: len(_TRUST_URI)] == _TRUST_URI
    ]
    return set(found) if len(found) == 1 else set()


def _check_nobody(proven: dict[str, Any], names: Sequence[tuple[str, str]]) -> None:
    """Check that an endorsement, whose key is no secret, cannot stand for an agent or a host, as others would
    read its names. Raises LinkError."""
    called = [value for part in proven["subject"] for name, value in part if name == "commonName"]
    found = [value for value in called if _AGENT_OR_HOST.fullmatch(value)]
    for sort, value in names:
        if sort in ("DNS", "IP Address") or (sort == "URI" and value.startswith(_AGENT_URI)):
            found.append(value)
    if found:
        text = f"its endorsement names {found[0][:64]!r}, which an agent or a host may be called"
        raise LinkError("bad_certificate", text)


def read_authorities(*, file: str | None = None, text: str | None = None) -> list[bytes]:
    """Return the authorities (DER) of a file or a text, as a connection would trust them; nothing else that
    stands there. Raises LinkError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=file, cadata=text)
    except (OSError, ValueError, ssl.SSLError) as error:
        raise _unreadable_authority(file or "the offer", error) from None
    return list(dict.fromkeys(context.get_ca_certs(binary_form=True)))


def _prove(ca: str, certificate: str, key: str, *, judge_dates: bool) -> dict[str, Any]:
    """Return the parts of a certificate, once it is proven that the authority made it and that the key
    belongs to it: by a handshake with ourselves, in which one side checks as the daemon will. Raises
    LinkError."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.verify_mode = ssl.CERT_REQUIRED
    if not judge_dates:
        server.verify_flags |= _NO_CHECK_TIME
    try:
        server.load_verify_locations(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise _unreadable_authority(ca, error) from None
    _load_own(server, certificate, key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    _load_own(client, certificate, key)
    try:
        return _shake_hands(server, client)
    except ssl.SSLCertVerificationError as error:
        raise LinkError(
            "bad_certificate",
            f"the certificate {certificate} was not made by the authority {ca}: {error.verify_message}",
            hint="both must come from the same `fazai pki`",
        ) from None
    except ssl.SSLError as error:
        raise LinkError("bad_certificate", f"{certificate} cannot be used: {_reason(error)}") from None


def is_pair(certificate: str, key: str) -> bool:
    """Return whether a key belongs to a certificate."""
    try:
        _load_own(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), certificate, key)
    except LinkError:
        return False
    return True


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, Any]:
    """Let two contexts shake hands in memory; returns the client's certificate as the server sees it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = server.wrap_bio(to_server, to_client, server_side=True)
    here = client.wrap_bio(to_client, to_server)
    waiting = [here, there]
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)
        if not waiting:
            break
    found: Any = there.getpeercert()
    return dict(found)


def check_name(dates: Dates, name: str) -> None:
    """Check that a certificate is that of the agent of this name. Raises LinkError."""
    if dates.name != name:
        text = f'the certificate is made out to "{dates.name}", and agent.yml names "{name}"'
        raise LinkError("wrong_name", text)


def check_dates(dates: Dates, now: float) -> None:
    """Check that a certificate holds now. Raises LinkError where it does not yet, or no longer."""
    if now > dates.ends:
        raise LinkError(
            "expired", f"this agent's certificate has expired: it held until {show_time(dates.ends)}"
        )
    if now < dates.begins:
        raise LinkError(
            "not_yet_valid",
            f"this agent's certificate does not hold yet, but from {show_time(dates.begins)} on",
            hint="is the clock of this machine right?",
        )


def show_time(seconds: float) -> str:
    """Return a time as the contract writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


#: What OpenSSL calls a refusal, and what it means to the one who runs the agent.
_ALERTS = {
    "TLSV1_ALERT_UNKNOWN_CA": "the daemon does not know the authority of this agent's certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the daemon says that this agent's certificate has expired",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the daemon says that this agent's certificate is wrong",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "the daemon says that this agent's certificate was revoked",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the daemon does not take this agent's certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the daemon wants a certificate, and the agent has none",
}
#: What helps where one of the two has another authority than the other.
_ENROL_AGAIN = (
    "was the authority replaced while this agent was away? then fazai pki enrol NAME there, and"
    " fazai agent enrol here"
)
#: Codes of OpenSSL's verification for a chain that ends at nobody who is trusted.
_UNKNOWN_CODES = (2, 18, 19, 20, 21)
#: Codes of OpenSSL's verification that may come from a wrong clock: not yet valid, expired.
_DATE_CODES = (9, 10)


def explain_tls_error(error: Exception, host: str) -> LinkError:
    """Return what went wrong in TLS as a sentence."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _DATE_CODES:
            state = "has expired" if error.verify_code == 10 else "does not hold yet"
            return LinkError(
                "not_yet_valid" if error.verify_code == 9 else "expired",
                f"the certificate of {host} {state} by the clock of this machine",
                hint="look at both clocks, then at the daemon's certificate",
            )
        message = error.verify_message or str(error)
        hint = (
            "`ca` in agent.yml must be the authority of the daemon's listener, and its certificate must "
            "name this host (there: fazai pki listener --name HOST)"
        )
        if error.verify_code in _UNKNOWN_CODES:
            hint = f"{_ENROL_AGAIN}; `ca` in agent.yml must be the authority of the daemon's listener"
        return LinkError("tls", f"the certificate of {host} is not trusted: {message}", hint=hint)
    if isinstance(error, ssl.SSLError):
        known = _ALERTS.get(error.reason or "")
        if known is not None:
            again = _ENROL_AGAIN if error.reason == "TLSV1_ALERT_UNKNOWN_CA" else None
            return LinkError("bad_certificate", known, hint=again)
        return LinkError("tls", f"no TLS with {host}: {_reason(error)}")
    return LinkError("connect", f"the connection to {host} broke off: {_reason(error)}")


class TlsStream:
    """A TLS connection over a connected socket. Calls back: `on_open` after the handshake, `on_data`, and
    `on_lost` once with the reason; after `close` nothing more is called."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        context: ssl.SSLContext,
        host: str,
        *,
        on_open: Callable[[], None],
        on_lost: Callable[[LinkError], None],
        handshake_s: float = 10.0,
    ) -> None:
        self._loop = loop
        self._host = host
        self._on_open = on_open
        self.on_lost = on_lost
        self.on_data: Callable[[bytes], None] = _drop
        self.on_drained: Callable[[], None] | None = None
        self._out = bytearray()
        self._shaken = False
        self._again: Timer | None = None
        self._closing = False
        self._socket: ssl.SSLSocket | None = context.wrap_socket(
            sock, server_hostname=host, do_handshake_on_connect=False
        )
        self._timer: Timer | None = loop.later(handshake_s, self._time_out)
        self._handshake()

    @property
    def waiting_bytes(self) -> int:
        """The number of bytes that wait to be sent."""
        return len(self._out)

    def peer_certificate(self) -> bytes | None:
        """Return the server's certificate (DER)."""
        return self._socket.getpeercert(True) if self._socket is not None else None

    def write(self, data: bytes) -> None:
        """Send, as soon as the connection takes it."""
        if self._socket is None or self._closing:
            return
        self._out += data
        self._flush()

    def close(self) -> None:
        """End the connection once everything is sent; what cannot be sent at once is dropped."""
        if self._socket is None:
            return
        self._closing = True
        self.abort()

    def abort(self) -> None:
        """End the connection now, without a call back."""
        sock, self._socket = self._socket, None
        for timer in (self._timer, self._again):
            if timer is not None:
                timer.cancel()
        if sock is not None:
            self._loop.forget(sock.fileno())
            sock.close()

    def _time_out(self) -> None:
        self._lose(LinkError("timeout", f"{self._host} did not finish the TLS handshake in time"))

    def _lose_soon(self, error: LinkError) -> None:
        """Tell the loss from the loop: whoever writes, or makes the stream, is not ready to hear of it."""
        self._again = self._loop.later(0, lambda: self._lose(error))

    def _lose(self, error: LinkError) -> None:
        if self._socket is not None:
            self.abort()
            self.on_lost(error)

    def _on_ready(self, events: int) -> None:
        if not self._shaken:
            self._handshake()
            return
        if self._out:
            self._flush()
        self._read()

    def _handshake(self) -> None:
        sock = self._socket
        assert sock is not None
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            self._loop.watch(sock.fileno(), READ, self._on_ready)
            return
        except ssl.SSLWantWriteError:
            self._loop.watch(sock.fileno(), WRITE, self._on_ready)
            return
        except (ssl.SSLError, OSError) as error:
            self._loop.forget(sock.fileno())
            self._lose_soon(explain_tls_error(error, self._host))
            return
        self._shaken = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._loop.watch(sock.fileno(), READ, self._on_ready)
        self._again = self._loop.later(0, self._begin)

    def _begin(self) -> None:
        self._on_open()
        self._read()

    def _read(self) -> None:
        left = _TURN_BYTES
        while self._socket is not None and left > 0:
            if len(self._out) > _HIGH_WATER_BYTES:
                self._loop.watch(self._socket.fileno(), WRITE, self._on_ready)
                return
            try:
                data = self._socket.recv(_RECORD_BYTES)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except (ssl.SSLError, OSError) as error:
                self._lose(explain_tls_error(error, self._host))
                return
            if not data:
                self._lose(LinkError("closed", f"{self._host} closed the connection"))
                return
            left -= len(data)
            self.on_data(data)
        if self._socket is not None:  # what OpenSSL holds already makes no file ready
            self._again = self._loop.later(0, self._read)

    def _flush(self) -> None:
        sock = self._socket
        if sock is None or not self._shaken:
            return
        while self._out:
            try:
                sent = sock.send(bytes(self._out[:_RECORD_BYTES]))
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                reads = 0 if len(self._out) > _HIGH_WATER_BYTES else READ
                self._loop.watch(sock.fileno(), reads | WRITE, self._on_ready)
                return
            except (ssl.SSLError, OSError) as error:
                self._lose_soon(explain_tls_error(error, self._host))
                return
            del self._out[:sent]
        self._loop.watch(sock.fileno(), READ, self._on_ready)
        if self.on_drained is not None:
            self.on_drained()


def _drop(data: bytes) -> None:
    return
