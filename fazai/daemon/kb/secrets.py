"""The secrets that the daemon knows, which must not be noted: files of the secrets folder, keys of firewalls,
variables of the environment that are named like one."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fazai.masking import secret_texts

_SHORTEST = 6  # what is shorter stands in too many texts by chance
_FILES, _FILE_BYTES = 5_000, 64 * 1024
_NAMED = re.compile(r"(?i)(?:pass|secret|token|key|credential|senha|psk)")
_NOT_NAMED = re.compile(r"(?i)(?:_file|_path|_dir|_sock(?:et)?|_url)\Z")
#: Lines of a file that are no secrets: of a certificate, comments.
_PUBLIC = re.compile(r"-----(?:BEGIN|END) |#|ssh-\w+ |ecdsa-")


def known_secrets(
    folder: Path,
    environ: Mapping[str, str],
    options: Iterable[Any],
    more: Iterable[str | None],
    files: Iterable[Path] = (),
) -> Iterator[str]:
    """Yield the texts of secrets. `options` are those of targets. Blocks: it reads files."""
    yield from _long(more)
    yield from _long(text for each in options for text in secret_texts(each))
    yield from _long(
        value for name, value in environ.items() if _NAMED.search(name) and not _NOT_NAMED.search(name)
    )
    yield from _long(text for file in files for text in _secrets_of_file(file))
    yield from _secrets_of_folder(folder)


def _long(texts: Iterable[str | None]) -> Iterator[str]:
    yield from (text for text in texts if text and len(text) >= _SHORTEST)


def _secrets_of_folder(folder: Path) -> Iterator[str]:
    count = 0
    for root, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            count += 1
            if count > _FILES:
                return
            if not name.endswith((".crt", ".pem.pub", ".pub", ".crl")):
                yield from _long(_secrets_of_file(Path(root, name)))


def _secrets_of_file(path: Path) -> Iterator[str]:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return
            text = file.read(_FILE_BYTES).decode("utf-8", "surrogateescape")
    except OSError:
        return
    try:
        yield from _texts_of_json(json.loads(text))
    except ValueError:
        for line in map(str.strip, text.splitlines()):
            if not _PUBLIC.match(line):
                yield line
                yield line.partition("=")[2].strip()  # the file that a firewall hands out: key=…, secret=…


def _texts_of_json(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts_of_json(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts_of_json(item)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield str(value)
