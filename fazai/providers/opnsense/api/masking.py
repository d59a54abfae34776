"""Cleans what a firewall says: our key is masked, and texts are cut to what a message may hold."""

from __future__ import annotations

import base64
import re
from typing import Any

import msgspec

from fazai.masking import encoded_forms
from fazai.providers.opnsense.api.credentials import Credentials

TOLD_CHARACTERS = 500
_SHORTEST = 8  # what is shorter stands in too many texts by chance
_MASK = "***"
_SLASHES = ("\\/", "\\\\/", "\\\\\\/")  # in JSON, and in JSON in JSON
_ESCAPED = re.compile(rb"\\u00([2-7][0-9a-fA-F])")


def as_one_line(value: Any) -> str:
    """Return a text of a device as one line for a message: without control characters, and cut."""
    text = str(value)[: 4 * TOLD_CHARACTERS]
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    text = " ".join(text.split())
    return text if len(text) <= TOLD_CHARACTERS else f"{text[:TOLD_CHARACTERS]}…"


class Mask:
    """Takes key, secret and token out of what a firewall answers, in every form in which it may echo them."""

    def __init__(self, credentials: Credentials) -> None:
        key, secret = credentials.key.reveal(), credentials.secret.reveal()
        pair = f"{key}:{secret}"
        texts = (key, secret, pair, base64.b64encode(pair.encode()).decode("ascii"))
        plain = {form for text in texts for form in encoded_forms(text) if len(form) >= _SHORTEST}
        forms = plain | {form.replace("/", slash) for form in plain for slash in _SLASHES}
        self._forms = sorted(forms, key=len, reverse=True)
        self._bytes = [form.encode() for form in self._forms]
        anchors = {max(re.findall(r"[A-Za-z0-9]*", form), key=len).encode() for form in plain}
        #: One of these stands in every form; a body without them is looked at no further.
        self._anchors = [a for a in anchors if not any(b != a and b in a for b in anchors)]

    def body(self, body: bytes) -> bytes:
        """Mask the body of an answer, also where only its decoded JSON would show the key."""
        if any(anchor in body for anchor in self._anchors):
            for form in self._bytes:
                body = body.replace(form, _MASK.encode())
        if b"\\u00" not in body:
            return body
        plain = _ESCAPED.sub(lambda found: bytes((int(found[1], 16),)), body)
        if not any(anchor in plain for anchor in self._anchors):
            return body
        try:
            return msgspec.json.encode(self.value(msgspec.json.decode(body)))
        except (msgspec.MsgspecError, RecursionError):
            return b""  # no JSON, and nothing that could be shown

    def text(self, text: str) -> str:
        """Mask a text."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, _MASK)
        return text

    def value(self, value: Any) -> Any:
        """Mask all texts of a decoded answer, keys included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if isinstance(value, dict):
            return {self.text(name): self.value(item) for name, item in value.items()}
        return value
