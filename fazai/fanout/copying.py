"""Files that are copied: what `fazai cp` means, what there is to copy, and where a fetched file goes."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from fazai.errors import InputError, UsageError, missing_file

_COPY_BYTES: Final = 256 * 1024 * 1024
_ENTRIES: Final = 10_000
_FORMS: Final = "fazai cp PATTERN: SRC DEST, fazai cp SRC PATTERN:/DEST, or fazai cp PATTERN:/SRC DEST"
_WHOLE = "an absolute path stands behind the colon, such as web:/etc/app.conf"


@dataclass(frozen=True, slots=True)
class CopyWords:
    """The meaning of the words of `fazai cp`: the inventories, the hosts, and what is copied where."""

    inventories: tuple[str, ...]
    pattern: str
    direction: Literal["to hosts", "from hosts"]
    sources: tuple[str, ...]
    dest: str


def parse_copy(words: Sequence[str]) -> CopyWords:
    """Return what the words mean. Raises UsageError.

    A word that ends with a colon is the pattern, and files follow it; else one word is `PATTERN:/PATH`, the
    last one or the one before. What stands before all that are inventories.
    """
    head = next((at for at, word in enumerate(words) if len(word) > 1 and word.endswith(":")), None)
    if head is not None:
        sources, dest = tuple(words[head + 1 : -1]), words[-1]
        if not sources or not dest:
            raise UsageError("what is copied, and where to?", hint="fazai cp PATTERN: SRC DEST")
        _check_remote(dest)
        return CopyWords(tuple(words[:head]), words[head][:-1], "to hosts", sources, dest)
    remote = [at for at, word in enumerate(words) if _split_remote(word) is not None]
    if len(words) < 2 or not remote:
        text = "which hosts? no word names them"
        near = next((word for word in words if ":" in word and not os.path.exists(word)), None)
        raise UsageError(
            text if near is None else f"{near!r} names no path", hint=_FORMS if near is None else _WHOLE
        )
    if len(remote) > 1 or remote[0] < len(words) - 2:
        raise UsageError("one of the last two words names the hosts, and no other", hint=_FORMS)
    at = remote[0]
    pattern, path = _split_remote(words[at]) or ("", "")
    _check_remote(path)
    if at == len(words) - 1:
        return CopyWords(tuple(words[: at - 1]), pattern, "to hosts", (words[at - 1],), path)
    return CopyWords(tuple(words[:at]), pattern, "from hosts", (path,), words[-1])


def _split_remote(word: str) -> tuple[str, str] | None:
    """Split `PATTERN:/PATH`; None for every other word, and for a file that is called so."""
    pattern, colon, path = word.partition(":/")
    return (pattern, f"/{path}") if colon and pattern and not os.path.lexists(word) else None


def _check_remote(path: str) -> None:
    if not path.startswith("/"):
        raise UsageError(f"{path!r} is no absolute path on the hosts", hint="it begins with /")
    if ".." in path.split("/"):
        raise UsageError(f'{path!r} must not hold ".."')


@dataclass(frozen=True, slots=True)
class CopyItem:
    """One thing to bring to a host: the kind of its resource, and the fields."""

    kind: str
    fields: Mapping[str, Any]


def read_items(
    sources: Sequence[str], dest: str, *, recursive: bool, attributes: Mapping[str, Any]
) -> list[CopyItem]:
    """Read what is copied to hosts. `dest` is the name that it gets there; where that ends with a slash, or
    there are several sources, it is the folder. `attributes`: what was asked for of files, such as a
    mode. Raises InputError."""
    if len(sources) > 1 and not dest.endswith("/"):
        hint = f"{dest}/ is a folder, which gets them"
        raise UsageError(f"{len(sources)} files cannot all be {dest}", hint=hint)
    reading = _Reading(dict(attributes), recursive)
    for source in sources:
        name = os.path.basename(os.path.abspath(source))
        reading.add(source, posixpath.join(dest, name) if dest.endswith("/") else dest)
    return reading.items


class _Reading:
    """The files that were read so far, within bounds."""

    def __init__(self, attributes: dict[str, Any], recursive: bool) -> None:
        self.items: list[CopyItem] = []
        self._attributes, self._recursive = attributes, recursive
        self._size = 0

    def add(self, source: str, dest: str) -> None:
        """Add a file, or with -r a folder. A link on the command line is followed."""
        try:
            status = os.stat(source)
        except FileNotFoundError:
            raise missing_file(InputError, "file", source) from None
        except OSError as error:
            raise InputError(f"{source} cannot be read: {error.strerror}") from None
        if stat.S_ISDIR(status.st_mode):
            if not self._recursive:
                raise InputError(f"{source} is a folder", hint="-r copies it with all that is in it")
            self._add_folder(source, dest)
        else:
            self._add_file(source, dest, status)

    def _add_folder(self, source: str, dest: str) -> None:
        owners = {name: value for name, value in self._attributes.items() if name in ("owner", "group")}
        self._append("host.directory", {"path": dest, **owners})
        try:
            entries = sorted(os.scandir(source), key=lambda entry: entry.name)
        except OSError as error:
            raise InputError(f"{source} cannot be read: {error.strerror}") from None
        for entry in entries:
            path = posixpath.join(dest, entry.name)
            if entry.is_symlink():
                self._append("host.link", {"path": path, "target": os.readlink(entry.path)})
            elif entry.is_dir():
                self._add_folder(entry.path, path)
            else:
                self._add_file(entry.path, path, entry.stat())

    def _add_file(self, source: str, dest: str, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{source} is neither a file nor a folder, and is not copied")
        self._size += status.st_size
        if self._size > _COPY_BYTES:
            hint = "put it where the hosts fetch it: host.download"
            raise InputError(f"{source}: more than {_COPY_BYTES >> 20} MiB are to be copied", hint=hint)
        try:
            with open(source, "rb") as file:
                data = file.read(status.st_size + 1)
        except OSError as error:
            raise InputError(f"{source} cannot be read: {error.strerror}") from None
        if len(data) != status.st_size:
            raise InputError(f"{source} changed while it was read", hint="run it again")
        mode = f"{status.st_mode & 0o777:04o}"
        self._append("host.file", {"path": dest, "content": data, "mode": mode, **self._attributes})

    def _append(self, kind: str, fields: dict[str, Any]) -> None:
        self.items.append(CopyItem(kind, fields))
        if len(self.items) > _ENTRIES:
            raise InputError(f"more than {_ENTRIES} files are to be copied", hint="an archive is one")


def local_names(dest: str, path: str, hosts: Sequence[str]) -> dict[str, str]:
    """Return where the file of each host goes: `DEST/HOST/NAME`, or for a single host DEST itself, if that
    does not end with a slash. Raises UsageError where several would be one file."""
    name = posixpath.basename(path)
    if not name:
        raise UsageError(f"{path} is a folder, and one file is fetched", hint="name the file")
    if not dest.endswith("/"):
        if len(hosts) > 1:
            text = f"the files of {len(hosts)} hosts cannot all be {dest}"
            raise UsageError(text, hint=f"{dest}/ is a folder: {dest}/HOST/{name}")
        single = os.path.join(dest, name) if os.path.isdir(dest) else dest
        return dict.fromkeys(hosts, single)
    found = {host: os.path.join(dest, folder, name) for host, folder in _folders(hosts)}
    if len(set(found.values())) < len(found):
        raise UsageError("two hosts would have the same folder: their names differ in slashes alone")
    return found


def _folders(hosts: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each host with a name for its folder, which leads nowhere else."""
    for host in hosts:
        safe = host.replace("/", "_")
        yield host, f"_{safe}" if safe in (".", "..") else safe
