"""Filters on text: cases, parts, paths, encodings, hashes. Semantics: Jinja2 3.1 and ansible-core 2.19."""

from __future__ import annotations

import base64
import binascii
import hashlib
import posixpath
import re
import shlex
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit as _urlsplit

from jinja2.filters import FILTERS as JINJA
from jinja2.filters import make_attrgetter

from fazai.template.filters.base import (
    FilterError,
    TemplateFilter,
    check_count,
    check_percent,
    check_text_length,
    taint,
)
from fazai.template.filters.data import from_jinja

_HASHES: Final = (
    *("md5", "sha1", "sha224", "sha256", "sha384", "sha512"),
    *("sha3_256", "sha3_512", "blake2b", "blake2s"),
)
_ANSIBLE_NAMESPACE: Final = uuid.UUID("361E6D51-FAEC-444A-9079-341386DA8E2E")
_SIZES: Final = {"B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50, "E": 1 << 60}


def _expect_text(value: Any, name: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value)
    raise FilterError(f"{name} takes text, not {type(value).__name__}")


def replace(value: Any, old: Any, new: Any, count: int | None = None) -> str:
    text, old, new = str(value), str(old), str(new)
    check_text_length(len(text) + text.count(old) * len(new))
    return text.replace(old, new, -1 if count is None else count)


def join(environment: Any, value: Iterable[Any], d: Any = "", attribute: Any = None) -> str:
    items = value if attribute is None else map(make_attrgetter(environment, attribute), value)
    texts = [str(item) for item in items]
    check_text_length(sum(map(len, texts)) + len(str(d)) * len(texts))
    return str(d).join(texts)


def split(value: Any, separator: str | None = None, maxsplit: int = -1) -> list[str]:
    return _expect_text(value, "split").split(separator, maxsplit)


def format_percent(value: Any, *args: Any, **named: Any) -> str:
    pattern = str(value)
    if args and named:
        raise FilterError("format takes either positional or named arguments")
    check_percent(pattern)
    longest = max((len(str(each)) for each in (*args, *named.values())), default=0)
    check_text_length(len(pattern) + pattern.count("%") * longest)
    return pattern % (named or args)


def indent(value: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    text = str(value)
    if isinstance(width, int):
        check_count(width)
    size = width if isinstance(width, int) else len(width)
    check_text_length(len(text) + (text.count("\n") + 1) * size)
    return str(JINJA["indent"](text, width, first, blank))


def center(value: Any, width: int = 80) -> str:
    check_count(width)
    return str(value).center(width)


def truncate(
    context: Any, value: Any, length: int = 255, killwords: bool = False, end: str = "...", leeway: Any = None
) -> str:
    if not isinstance(length, int) or length < len(str(end)):
        raise FilterError("truncate takes a length that has room for the end")
    return str(JINJA["truncate"](context.environment, str(value), length, killwords, str(end), leeway))


def b64encode(value: Any, encoding: str = "utf-8") -> str:
    return base64.b64encode(_expect_text(value, "b64encode").encode(encoding)).decode()


def b64decode(value: Any, encoding: str = "utf-8") -> str:
    try:
        return base64.b64decode(_expect_text(value, "b64decode")).decode(encoding)
    except (binascii.Error, UnicodeDecodeError):
        raise FilterError("this is not base64 of text") from None


def hashed(value: Any, hashtype: str = "sha1") -> str:
    if hashtype not in _HASHES:
        raise FilterError(f'there is no hash "{hashtype}"', f"there are {', '.join(_HASHES)}")
    return hashlib.new(hashtype, _expect_text(value, "hash").encode(), usedforsecurity=False).hexdigest()


def sha1(value: Any) -> str:
    return hashed(value, "sha1")


def md5(value: Any) -> str:
    return hashed(value, "md5")


def to_uuid(value: Any, namespace: str | None = None) -> str:
    space = _ANSIBLE_NAMESPACE if namespace is None else uuid.UUID(namespace)
    return str(uuid.uuid5(space, _expect_text(value, "to_uuid")))


def splitext(value: Any) -> list[str]:
    return list(posixpath.splitext(_expect_text(value, "splitext")))


def path_join(value: Any) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list | tuple) or not value:
        raise FilterError("path_join takes a list of paths")
    return posixpath.join(*[_expect_text(item, "path_join") for item in value])


def urlsplit(value: Any, query: str = "") -> Any:
    """The parts of an address, or the one named by `query`."""
    address = _urlsplit(_expect_text(value, "urlsplit"))
    names = ("fragment", "hostname", "netloc", "password", "path", "port", "query", "scheme", "username")
    if not query:
        return {name: getattr(address, name) for name in names}
    if query not in names:
        raise FilterError(f'urlsplit knows no part "{query}"', f"it knows {', '.join(names)}")
    return getattr(address, query)


def human_readable(size: Any, isbits: bool = False, unit: str | None = None) -> str:
    """A size in the largest unit of 1,024 that fits, or in `unit`."""
    try:
        amount = float(size)
    except (TypeError, ValueError):
        raise FilterError(f"human_readable takes a number, not {type(size).__name__}") from None
    letter = unit.upper()[0] if unit else next((u for u in "EPTGMK" if amount >= _SIZES[u]), "B")
    if letter not in _SIZES:
        raise FilterError(f'there is no unit "{unit}"', "K, M, G, T, P, E")
    base = "bits" if isbits else "Bytes"
    suffix = base if letter == "B" else letter + (base[0] if not isbits else "b")
    return f"{amount / _SIZES[letter]:.2f} {suffix}"


def human_to_bytes(size: Any, default_unit: str | None = None, isbits: bool = False) -> int:
    found = re.fullmatch(r"\s*(\d*\.?\d+)\s*([A-Za-z]*)\s*", str(size)[:64])
    if not found:
        raise FilterError("this is no size", "write 10K, 1.5 GB")
    letter = (found[2] or default_unit or "B").upper()[0]
    if letter not in _SIZES:
        raise FilterError("this is no size", "the units are K, M, G, T, P, E")
    return round(float(found[1]) * _SIZES[letter])


FILTERS: Final[Mapping[str, TemplateFilter]] = {
    "string": taint(str),
    "lower": taint(lambda value: str(value).lower()),
    "upper": taint(lambda value: str(value).upper()),
    "capitalize": taint(lambda value: str(value).capitalize()),
    "title": taint(JINJA["title"]),
    "trim": taint(lambda value, chars=None: str(value).strip(chars)),
    "replace": taint(replace),
    "join": taint(join, "environment"),
    "split": taint(split),
    "format": taint(format_percent),
    "indent": taint(indent),
    "center": taint(center),
    "wordcount": taint(JINJA["wordcount"]),
    "wordwrap": from_jinja("wordwrap", taint),
    "truncate": taint(truncate, "context"),
    "urlencode": taint(JINJA["urlencode"]),
    "quote": taint(lambda value: shlex.quote("" if value is None else str(value))),
    "basename": taint(lambda value: posixpath.basename(_expect_text(value, "basename"))),
    "dirname": taint(lambda value: posixpath.dirname(_expect_text(value, "dirname"))),
    "splitext": taint(splitext),
    "path_join": taint(path_join),
    "urlsplit": taint(urlsplit),
    "b64encode": taint(b64encode),
    "b64decode": taint(b64decode),
    "hash": taint(hashed),
    "checksum": taint(sha1),
    "sha1": taint(sha1),
    "md5": taint(md5),
    "to_uuid": taint(to_uuid),
    "human_readable": taint(human_readable),
    "human_to_bytes": taint(human_to_bytes),
}
