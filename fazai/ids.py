"""Identifiers that sort by time."""

from __future__ import annotations

import re

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


def ulid(time_ms: int, random: bytes) -> str:
    """Return 26 letters: 48 bits of time (ms since the epoch), then 80 random bits. Raises ValueError
    otherwise."""
    if len(random) != 10 or not 0 <= time_ms < 1 << 48:
        raise ValueError("a ULID is 48 bits of time and 10 random bytes")
    number = time_ms << 80 | int.from_bytes(random, "big")
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


def is_ulid(text: str) -> bool:
    """Return whether the text is such an identifier, in capital letters."""
    return _ULID.fullmatch(text) is not None
