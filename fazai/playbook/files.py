"""Files beside a playbook or an inventory whose content a resource wants: as they are, or rendered."""

from __future__ import annotations

import os
from typing import Final

from fazai.errors import Mark, PlaybookError, spelling_hint
from fazai.model import Value
from fazai.template import Scope
from fazai.yamltext import OnFileRead

_FOLDERS: Final = {"source": "files", "template": "templates"}  # where Ansible's roles have them
_LIMIT_BYTES: Final = 64 * 1024 * 1024
_ALL_BYTES: Final = 512 * 1024 * 1024


class ContentFiles:
    """Reads each file once; `on_read` is called with its path and bytes."""

    def __init__(self, on_read: OnFileRead | None = None) -> None:
        self._known: dict[str, bytes] = {}
        self._on_read = on_read
        self._bytes = 0

    def content(self, name: str, place: Mark, type_: str, scope: Scope | None) -> Value:
        """The bytes of a file, or the text of a template (a Secret when a secret is in it). Relative names
        start at the file that says them, or at files/ and templates/ beside it.

        Raises PlaybookError, TemplateError, SecretError."""
        path = self._find(name, os.path.dirname(place.file), _FOLDERS[type_])
        data = self._known.get(path)
        if data is None:
            data = self._known[path] = _read_content(path)
            if self._on_read is not None:
                self._on_read(path, data)
            self._bytes += len(data)
            if self._bytes > _ALL_BYTES:
                text = f"the files of this run are more than {_ALL_BYTES >> 20} MiB together, up to {path}"
                raise PlaybookError(text, hint="host.download fetches large files from a server")
        if type_ == "source":
            return data
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise PlaybookError(f"the template is not UTF-8: {path}", hint="src: takes it as it is") from None
        if scope is None:
            return text
        return scope.render_file(text, Mark(path, 1, 1))

    def _find(self, name: str, folder: str, kind: str) -> str:
        home = os.path.expanduser(name)
        paths = [os.path.join(folder, home), os.path.join(folder, kind, home)]
        for path in paths:
            if os.path.isfile(path):
                return path
        near = [each for path in paths for each in _list_folder(os.path.dirname(path))]
        hint = spelling_hint(os.path.basename(name), near) or f"it is looked for at {' and at '.join(paths)}"
        raise PlaybookError(f"there is no file {name}", hint=hint)


def _list_folder(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _read_content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(_LIMIT_BYTES + 1)
    except OSError as error:
        raise PlaybookError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > _LIMIT_BYTES:
        raise PlaybookError(
            f"{path} is larger than {_LIMIT_BYTES >> 20} MiB", hint="host.download fetches it from a server"
        )
    return data
