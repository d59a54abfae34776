"""The key of a firewall's API, from the forms in which people keep it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fazai.model import Secret


@dataclass(frozen=True, slots=True)
class Credentials:
    """Key and secret; `repr` shows neither."""

    key: Secret
    secret: Secret


def read_credentials(value: Any) -> Credentials:
    """Read a key from a map, from JSON text, or from the `key=…` file that the firewall's page downloads.

    Raises ValueError with a message that holds nothing of the value.
    """
    found = _parse_parts(value)
    key = _first_text(found, "api_key", "key")
    secret = _first_text(found, "api_secret", "secret")
    if not key or not secret:
        missing = " and ".join(name for name, text in (("api_key", key), ("api_secret", secret)) if not text)
        raise ValueError(f"has no {missing}")
    if any(ord(letter) < 32 for letter in key + secret) or ":" in key:
        raise ValueError("holds a key that cannot be sent (line breaks, or a colon in the key)")
    return Credentials(Secret(key), Secret(secret))


def _parse_parts(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    if not isinstance(value, (Secret, str)):
        raise ValueError("must be a map of api_key and api_secret")
    text = value.reveal() if isinstance(value, Secret) else value
    if text.lstrip().startswith("{"):
        import msgspec  # only for keys that are kept as JSON text

        try:
            return msgspec.json.decode(text, type=dict[str, str])
        except msgspec.DecodeError:
            raise ValueError("is not valid JSON with the texts api_key and api_secret") from None
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name.strip(): part.strip() for name, _, part in pairs}


def _first_text(found: Mapping[str, Any], *names: str) -> str:
    for name in names:
        value = found.get(name)
        if isinstance(value, Secret):
            return value.reveal().strip()
        if isinstance(value, str):
            return value.strip()
    return ""
