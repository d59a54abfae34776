"""Reads the whole configuration of a firewall: `core/backup/download/this`, as recorded (`core`).

It holds every secret of the firewall: hashes of passwords, private keys, pre-shared keys. It is for an
admin and for nobody else, and never for a model.
"""

from __future__ import annotations

from fazai.providers.opnsense.api.answers import nonsense_error
from fazai.providers.opnsense.api.client import Api

_PATH = "core/backup/download/this"


async def read_backup(api: Api) -> bytes:
    """Return the configuration as XML, byte by byte as the firewall keeps it. Raises as `Api.get`;
    Unreachable for a file that is cut or is none."""
    body = await api.download(_PATH)
    if not is_configuration(body):
        what = f"{len(body)} bytes that are not a whole configuration" if body else "nothing"
        raise nonsense_error(api.settings.target, _PATH, what)
    return body


def is_configuration(body: bytes) -> bool:
    """Return whether this begins and ends as a configuration does."""
    head, tail = body[:256].lstrip(b"\xef\xbb\xbf \t\r\n"), body[-256:].rstrip()
    return (
        head.startswith((b"<?xml", b"<opnsense")) and b"<opnsense" in head and tail.endswith(b"</opnsense>")
    )
