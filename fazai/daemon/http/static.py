"""GET /ui: the operators' page, static files of this package; its data come from the API."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import NamedTuple

from fazai.daemon.http.refusal import Refusal
from fazai.daemon.http.routing import HttpReply, Route, RouteCall

_MEDIA = MappingProxyType(
    {
        "html": "text/html; charset=utf-8",
        "css": "text/css; charset=utf-8",
        "js": "text/javascript; charset=utf-8",
        "svg": "image/svg+xml",
    }
)
#: Nothing but our own files and our own API; no text of a device becomes markup (trusted types).
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self';"
    b" base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    b" require-trusted-types-for 'script'; trusted-types 'none'"
)


class _PageFile(NamedTuple):
    body: bytes
    media: str
    etag: bytes


@cache
def page_files() -> Mapping[str, _PageFile]:
    """Return the files of the page, by name."""
    found = {}
    for entry in (resources.files("fazai.daemon.http") / "page_files").iterdir():
        media = _MEDIA.get(entry.name.rpartition(".")[2])
        if media is not None:
            body = entry.read_bytes()
            etag = b'"%s"' % hashlib.sha256(body).hexdigest()[:32].encode()
            found[entry.name] = _PageFile(body, media, etag)
    return MappingProxyType(found)


def _file_reply(call: RouteCall, name: str) -> HttpReply:
    file = page_files().get(name)
    if file is None:
        raise Refusal("not_found", f"the page has no file {name[:64]!r}", hint="see: /ui")
    headers = (
        (b"content-security-policy", _POLICY),
        (b"cache-control", b"no-cache"),  # asked again each time, sent again when it changed
        (b"etag", file.etag),
        (b"cross-origin-opener-policy", b"same-origin"),
    )
    if file.etag.decode() in (call.header(b"if-none-match") or ""):
        return HttpReply(b"", media=file.media, status=304, headers=headers)
    return HttpReply(file.body, media=file.media, headers=headers)


@Route("GET", "/ui", "The operators' page.", role=None, media="text/html", cached=True)
async def serve_page(call: RouteCall) -> HttpReply:
    """Answer with the page."""
    return _file_reply(call, "index.html")


@Route(
    "GET",
    "/ui/{file}",
    "A file of the operators' page.",
    role=None,
    media=tuple(media.partition(";")[0] for media in _MEDIA.values()),
    cached=True,
)
async def serve_file(call: RouteCall) -> HttpReply:
    """Answer with a file of the page. Raises Refusal(not_found)."""
    return _file_reply(call, call.path["file"])


ROUTES = (serve_page, serve_file)
