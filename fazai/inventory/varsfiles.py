"""group_vars and host_vars beside the inventories, as Ansible's host_group_vars plugin reads them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from fazai.errors import FazaiError, InventoryError, spelling_hint
from fazai.inventory.drafts import GroupDraft, HostDraft
from fazai.inventory.files import InventoryFiles, InventoryTooLarge
from fazai.inventory.nodes import VariableMaps
from fazai.inventory.reader import InventoryReader
from fazai.yamltext import YamlList, YamlMap

_EXTENSIONS = ("", ".yml", ".yaml", ".json")
_FOLDERS_MAX = 32


class VarsFolders:
    """Reads what `folders` (in order) say of the groups and hosts of the reader's drafts; errors and notes go
    to the reader's."""

    def __init__(self, folders: list[str], reader: InventoryReader, files: InventoryFiles) -> None:
        self._folders = folders
        self._reader = reader
        self._files = files

    def read(self) -> None:
        """Add to the drafts what the folders say."""
        drafts = self._reader.drafts
        found = [self._read_kind(folder, "group_vars", drafts.groups) for folder in self._folders]
        for name in {name for scopes in found for name in scopes}:
            drafts.groups[name].files = tuple(scopes.get(name, ()) for scopes in found)
        for folder in self._folders:
            for name, scope in self._read_kind(folder, "host_vars", drafts.hosts).items():
                drafts.hosts[name].files += scope

    def _read_kind(
        self, folder: str, kind: str, known: Mapping[str, GroupDraft | HostDraft]
    ) -> dict[str, VariableMaps]:
        """Read `folder/kind`: variables by the name of the group or host; resources go into the drafts."""
        path = os.path.join(folder, kind)
        if not os.path.isdir(path):
            return {}
        entries = self._list_folder(path)
        present = set(entries)
        used: set[str] = set()
        found: dict[str, VariableMaps] = {}
        for name, draft in known.items():
            candidates = [name + extension for extension in _EXTENSIONS if name + extension in present]
            if not candidates:
                continue
            used.update(candidates)
            chosen = os.path.join(path, candidates[0])
            for other in candidates[1:]:
                text = f"{os.path.join(path, other)} is not read, because {chosen} is there"
                self._reader.notes.append(text)
            files = self._list_files(chosen, 0) if os.path.isdir(chosen) else [chosen]
            scope = [self._read_file(file, folder, draft.resources) for file in files]
            found[name] = tuple(values for values in scope if values)
        self._note_strangers(path, kind, [entry for entry in entries if entry not in used], known)
        return found

    def _list_folder(self, path: str) -> list[str]:
        try:
            return sorted(self._files.list_folder(path))
        except InventoryTooLarge:
            raise
        except InventoryError as error:
            self._reader.errors.append(error)
            return []

    def _list_files(self, folder: str, depth: int) -> list[str]:
        """The files of a folder that stands for one group or host, sorted, with those of its folders."""
        if depth > _FOLDERS_MAX:
            self._reader.errors.append(InventoryError(f"more than {_FOLDERS_MAX} folders deep", where=folder))
            return []
        files: list[str] = []
        for name in self._list_folder(folder):
            if name.startswith(".") or name.endswith("~"):
                continue
            path = os.path.join(folder, name)
            extension = os.path.splitext(name)[1]
            if os.path.isdir(path):
                if not extension:
                    files += self._list_files(path, depth + 1)
            elif os.path.isfile(path) and extension in _EXTENSIONS:
                files.append(path)
        return files

    def _read_file(self, path: str, folder: str, resources: list[YamlList]) -> YamlMap | None:
        """The variables of one file; its resources go to `resources`."""
        label = path.removeprefix(folder).lstrip(os.sep)
        try:
            document = self._read_document(path, f"vars/{label}")
            if isinstance(document, YamlList):
                text = "a file of variables is a mapping, and this is a list"
                hint = "write `name: value` lines"
                raise InventoryError(text, where=document.mark(), hint=hint, excerpt=document.excerpt())
        except InventoryTooLarge:
            raise
        except FazaiError as error:
            self._reader.errors += error.errors
            return None
        if document is None or "resources" not in document:
            return document
        self._reader.add_resources(resources, document)
        return document.without("resources")

    def _read_document(self, path: str, label: str) -> YamlMap | YamlList | None:
        """The document of a file; of a wrong one, what else is in it. Raises InputError, Errors."""
        try:
            return self._files.read_document(path, label)
        except FazaiError as error:
            if not isinstance(error.rest, YamlMap):
                raise
            self._reader.errors += error.errors
            return error.rest

    def _note_strangers(self, path: str, kind: str, entries: list[str], known: Iterable[str]) -> None:
        what = "group" if kind == "group_vars" else "host"
        for entry in entries:
            name, extension = os.path.splitext(entry)
            if entry.startswith(".") or entry.endswith("~") or (entry in known):
                continue
            if extension not in _EXTENSIONS:
                name = entry
            near = spelling_hint(name, known)
            hint = f"; {near}" if near else ""
            text = f'{os.path.join(path, entry)} is not read: there is no {what} "{name}"{hint}'
            self._reader.notes.append(text)
