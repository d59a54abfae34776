"""Tells whose an item is: uuids of our own, and marks where the firewall chooses the uuid. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
DEFAULT_OWNER, DEFAULT_MARK = "fazai", "fa2a1000"


def mark_of(owner: str) -> str:
    """Return the first group of the uuids of an owner's items."""
    if owner == DEFAULT_OWNER:
        return DEFAULT_MARK
    return hashlib.sha256(f"owner:{owner}".encode()).hexdigest()[:8]


def own_ref(mark: str, kind: str, identity: str) -> str:
    """Return the uuid under which an item of ours is made: the mark, and a hash shaped as version 4.

    The firewall refuses version 5 ones with a bare `failed`.
    """
    digits = hashlib.sha256(f"{kind}\n{identity}".encode()).hexdigest()
    variant = "89ab"[int(digits[7], 16) % 4]
    return f"{mark}-{digits[:4]}-4{digits[4:7]}-{variant}{digits[8:11]}-{digits[11:23]}"


def other_owner(ref: str, kind: str, identities: Iterable[str]) -> str:
    """Return in words for which owner fazai made an item that is not ours; "" when others made it.

    The rest of its uuid says that fazai made it, the first group for which owner.
    """
    if not any(identity and own_ref(ref[:8], kind, identity) == ref for identity in identities):
        return ""
    if ref.startswith(DEFAULT_MARK):
        return f'the owner "{DEFAULT_OWNER}"'
    return f"another owner, whose uuids begin with {ref[:8]}"


def is_uuid(text: str) -> bool:
    """Return whether this is the uuid of a stored item; built-in items have names or hashes instead."""
    return _UUID.fullmatch(text) is not None


def add_mark(text: str, owner: str) -> str:
    """Return a text with the owner's mark at its end."""
    return f"{text} [{owner}]"


def split_mark(text: str, owner: str) -> tuple[str, bool]:
    """Return the text without the owner's mark, and whether it was there."""
    end = f" [{owner}]"
    return (text[: -len(end)], True) if text.endswith(end) else (text, False)
