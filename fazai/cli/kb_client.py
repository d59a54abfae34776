"""Requests of `fazai kb` to the daemon, and the files that it imports."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fazai.cli.daemon_api import DaemonApi, daemon_api
from fazai.errors import InputError, Unreachable

if TYPE_CHECKING:
    from fazai.kb.reading import Section

_IMPORT_NOTES, _IMPORT_BYTES = 200, 4 << 20
EXPORTED = (".ndjson", ".jsonl")


class KbClient:
    """The knowledge base of the daemon at FAZAI_URL or the local socket."""

    def __init__(self, api: DaemonApi) -> None:
        self._api = api

    def get(self, path: str, **params: Any) -> dict[str, Any]:
        """Return an answer. Raises InputError for what the daemon does not know or refuses to read, Refused
        for what is not allowed, Unreachable, FazaiError."""
        given = {name: _printable(value) for name, value in params.items() if value is not None}
        return self._ask("GET", path, params=given)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send something and return the answer. Raises as `get`."""
        return (
            self._ask("POST", path, json=_printable(dict(body)))
            if body is not None
            else self._ask("POST", path)
        )

    def _ask(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        answer = self._api.request(method, path, **request)
        with contextlib.suppress(ValueError):
            found = answer.json()
            if isinstance(found, dict):
                return found
        where = self._api.place.name
        raise Unreachable("what answers there is no daemon of fazai", stage="answer", where=where)

    def export(self) -> Iterator[dict[str, Any]]:
        """Yield all notes."""
        after = 0
        while True:
            page = self.get("/kb/export", after=after)
            yield from page["notes"]
            if page.get("next") is None:
                return
            after = page["next"]


def _printable(value: Any) -> Any:
    """Return a value whose texts are UTF-8: arguments and names of files may hold other bytes."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {name: _printable(item) for name, item in value.items()}
    return [_printable(item) for item in value] if isinstance(value, list) else value


def note_path(note: str) -> str:
    """Return the path of a note. Raises InputError for what is no id."""
    digits = note.removeprefix("kb-")
    if not (digits.isascii() and digits.isdigit()):
        raise InputError(f"there is no note {note[:64]!r}", hint="an id is such as kb-31")
    return f"/kb/kb-{digits}"


@contextlib.contextmanager
def open_kb() -> Iterator[KbClient]:
    """Open the daemon's knowledge base. Raises Unreachable where no daemon is known, Refused,
    InputError, SecretError."""
    with daemon_api(None) as api:
        yield KbClient(api)


def files_to_import(path: Path) -> list[Path]:
    """Return the files of a folder that can be read, or the one file. Raises InputError where there is
    none."""
    from fazai.kb.reading import SUFFIXES

    try:
        if not path.is_dir():
            if not path.exists():
                raise InputError(f"there is no file or folder {path}")
            return [path]
        known = (*SUFFIXES, *EXPORTED)
        found = sorted(
            one
            for one in path.rglob("*")
            if one.suffix.lower() in known
            and one.is_file()
            and not any(part.startswith(".") for part in one.relative_to(path).parts)
        )
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if not found:
        raise InputError(f"{path} holds no file that is read", hint=f"there are: {', '.join(known)}")
    return found


def read_import_file(path: Path) -> bytes:
    """Return the content of a file, at most so much as can be imported. Raises InputError."""
    from fazai.kb.reading import MAX_FILE_BYTES

    try:
        with open(path, "rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def import_sections(
    kb: KbClient, sections: Sequence[Section], tags: Sequence[str], target: str | None
) -> int:
    """Add the sections of a file as notes; return how many were new."""
    new = 0
    for section in sections:
        body: dict[str, Any] = {
            "title": section.title,
            "snippet": section.text,
            "source": section.source[-1024:],
            "origin": "import",
            "tags": list(tags),
        }
        if target is not None:
            body["target"] = target
        new += not kb.post("/kb", body).get("merged", False)
    return new


def import_exported(kb: KbClient, path: Path) -> tuple[int, int]:
    """Import what `fazai kb export` wrote; return how many notes were new, and how many were there."""
    added = merged = 0
    for notes in _exported_batches(path):
        answer = kb.post("/kb/import", {"notes": notes})
        added, merged = added + int(answer["added"]), merged + int(answer["merged"])
    return added, merged


def _exported_batches(path: Path) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    size = 0
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                note = _read_exported(line, f"{path}:{number}")
                if batch and (len(batch) >= _IMPORT_NOTES or size + len(line) > _IMPORT_BYTES):
                    yield batch
                    batch, size = [], 0
                batch.append(note)
                size += len(line)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if batch:
        yield batch


def _read_exported(line: bytes, where: str) -> dict[str, Any]:
    try:
        note = json.loads(line)
    except ValueError as error:
        raise InputError(f"it is no JSON: {error}", where=where) from None
    if not isinstance(note, dict) or "hash" not in note:
        raise InputError("it is no note", where=where, hint="this is what fazai kb export writes")
    return note
