"""Masking of secrets in text that others say, where a secret may come back in another form."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Protocol, runtime_checkable
from urllib.parse import quote, quote_plus

from fazai.model import Secret

MASK = "***"
_SHORTEST = 3  # what is shorter stands in too many texts by chance
_SHORTEST_FORM = 8
_DERIVED_LINES = 64  # of a secret with more lines only the lines themselves are looked for
#: How tools break what they encode into lines: base64, openssl and PEM; xxd -p.
_BASE64_WIDTHS, _HEX_WIDTH = (76, 64), 60


def encoded_forms(text: str) -> Iterator[str]:
    """Yield a text as it stands, in URLs, in JSON, in HTML, in a shell's quotes, in hexadecimal, and inside
    something in base64."""
    import html  # its table of entities is large, and most runs have no secret

    raw = text.encode("utf-8", "surrogateescape")
    percent = quote(raw, safe="")
    yield from (text, percent, _lower_percent(percent), quote(raw), quote(raw, safe="+"), quote_plus(raw))
    yield from (html.escape(text), json.dumps(text)[1:-1], text.replace("'", "'\\''"))
    yield from (raw.hex(), raw.hex().upper())
    for lead in range(3):
        encoded = base64.b64encode(b"\0" * lead + raw).decode("ascii")
        whole = encoded[-(-lead * 8 // 6) : (lead + len(raw)) * 8 // 6]
        for form in (whole, encoded.rstrip("=")) if lead == 0 else (whole,):
            yield from (form, form.replace("+", "-").replace("/", "_"), quote(form, safe=""))


def make_mask(texts: Iterable[str]) -> Callable[[str], str]:
    """Make a function that masks these texts and each line of them, as they are and in the usual encodings;
    the longest first, as one may be part of another."""
    words: set[str] = set()
    for text in dict.fromkeys(texts):
        lines = [line.strip() for line in text.splitlines()]
        words.update((text, *lines))
        if len(lines) <= _DERIVED_LINES:
            for each in {text, *lines}:
                words.update(form for form in _broken_forms(each) if len(form) >= _SHORTEST_FORM)
    ordered = sorted((word for word in words if len(word) >= _SHORTEST), key=len, reverse=True)

    def mask(text: str) -> str:
        for word in ordered:
            if word in text:
                text = text.replace(word, MASK)
        return text

    return mask


def make_lazy_mask(texts: Callable[[], Iterable[str]]) -> Callable[[str], str]:
    """Make the same function, for texts that are asked for when there is something to mask."""
    made = cache(lambda: make_mask(texts()))
    return lambda text: made()(text)


@runtime_checkable
class Content(Protocol):
    """Content of a file, which may be private."""

    def private_text(self) -> str | None: ...


def secret_texts(value: Any, *, contents: bool = False) -> Iterator[str]:
    """Yield the texts of all secrets in a value; with `contents` those of private files as well."""
    if isinstance(value, Secret):
        yield value.reveal()
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from secret_texts(item, contents=contents)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from secret_texts(item, contents=contents)
    elif contents and isinstance(value, Content) and (text := value.private_text()) is not None:
        yield text


def _broken_forms(text: str) -> Iterator[str]:
    """Yield every form of a text, and the lines into which the long ones are broken."""
    if len(text) < _SHORTEST:
        return
    yield from encoded_forms(text)
    raw = text.encode("utf-8", "surrogateescape")
    encoded = base64.b64encode(raw).decode("ascii")
    for form, width in (*((encoded, width) for width in _BASE64_WIDTHS), (raw.hex(), _HEX_WIDTH)):
        if len(form) > width:
            yield from (form[at : at + width].rstrip("=") for at in range(0, len(form), width))


def _lower_percent(text: str) -> str:
    return re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), text)
