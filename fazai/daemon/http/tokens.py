"""The text of bearer tokens, and the hash that is stored of it."""

from __future__ import annotations

import hashlib
import secrets

_PREFIX = "fzt_"


def new_token() -> str:
    """Return the text of a new token: 256 random bits, and a mark by which scanners of repositories know
    it."""
    return _PREFIX + secrets.token_urlsafe(32)


def hash_of(text: str) -> str:
    """Return the hash of a token that is stored. It is random, so that one round of SHA-256 is enough."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
