"""Reads whose certificate it is and until when, of a file that a host sent. Nothing is verified: a host may
lie, and then lies about itself alone."""

from __future__ import annotations

import base64
import binascii
import calendar
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
_SEQUENCE, _CONTEXT_0, _UTC_TIME = 0x30, 0xA0, 0x17
_COMMON_NAME: Final = b"\x06\x03\x55\x04\x03"
_TIME: Final = re.compile(r"(\d{2}|\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})Z", re.ASCII)


class CertificateDates(NamedTuple):
    """The name in a certificate, and when it ends (seconds since 1970)."""

    name: str
    not_after: int


def read_certificate(pem: bytes) -> CertificateDates | None:
    """Return the name and the end of the first certificate of a PEM text; None: there is none that can be
    read."""
    found = _PEM.search(pem)
    if found is None:
        return None
    try:
        (_, whole), *_ = _elements(base64.b64decode(b"".join(found[1].split()), validate=True))
        (_, body), *_ = _elements(whole)
        parts = [each for each in _elements(body) if each[0] != _CONTEXT_0]  # the version, where it is given
        _, _, _, (_, validity), (_, subject), *_ = parts
        _, (tag, end) = _elements(validity)
        return CertificateDates(_common_name(subject), _seconds(tag, end.decode("ascii")))
    except (ValueError, IndexError, binascii.Error):
        return None


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Iterate over the elements of DER, one behind the other: tag and content. Raises ValueError."""
    at = 0
    while at < len(data):
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            count = length & 0x7F
            length = int.from_bytes(data[at : at + count], "big")
            at += count
        if at + length > len(data):
            raise ValueError("an element longer than what holds it")
        yield tag, data[at : at + length]
        at += length


def _common_name(subject: bytes) -> str:
    for _, names in _elements(subject):
        for _, pair in _elements(names):
            if pair.startswith(_COMMON_NAME):
                ((_, text),) = _elements(pair[len(_COMMON_NAME) :])
                return text.decode("utf-8", "replace")
    return ""


def _seconds(tag: int, text: str) -> int:
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError("no time")
    year, *rest = map(int, found.groups())
    if tag == _UTC_TIME:
        year += 2000 if year < 50 else 1900
    return calendar.timegm((year, *rest))
