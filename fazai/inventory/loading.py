"""Loading of an inventory from its sources: files, folders and host lists, in order."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from fazai.config import STATE_FILE
from fazai.errors import Errors, FazaiError, InventoryError, YamlError, missing_file, raise_found
from fazai.inventory.drafts import InventoryDraft
from fazai.inventory.files import InventoryFiles, InventoryTooLarge
from fazai.inventory.foreign_files import identify_bytes, identify_document
from fazai.inventory.nodes import Inventory
from fazai.inventory.reader import InventoryReader
from fazai.inventory.scripts import RunScript, is_script, read_script_output
from fazai.inventory.varsfiles import VarsFolders
from fazai.yamltext import DEFAULT_YAML_LIMITS, Decrypt, KeyFile, YamlLimits, YamlList, YamlMap

_EXTENSIONS = ("", ".yml", ".yaml", ".json")  # where Ansible expects YAML
_TO_YAML = "ansible-inventory -i FILE --list --yaml --export writes the same as YAML"
#: Names that Ansible skips in a folder of inventories, and our folders for secrets, files and templates.
_SKIPPED = re.compile(
    r"^\.|^(host_vars|group_vars|vars_plugins|secrets|files|templates)$"
    r"|(\.pyc|\.pyo|\.swp|\.bak|~|\.rpm|\.md|\.txt|\.rst|\.orig|\.cfg|\.retry)$"
)
_FOLDERS_MAX = 32
_WRONG_FILES_MAX = 50
_OTHER_FILES_MAX = 500


def load_inventory(
    sources: str | Path | Iterable[str | Path],
    *,
    limits: YamlLimits = DEFAULT_YAML_LIMITS,
    decrypt: Decrypt | None = None,
    run_script: RunScript | None = None,
) -> Inventory:
    """Read inventory files, folders and host lists (`fw-01,fw-02`), with their group_vars and host_vars.

    `decrypt` opens files that are Ansible Vault text as a whole, `run_script` runs inventory scripts, which
    are refused without it. Raises InventoryError, YamlError, or Errors with everything that is wrong in all
    the files; their `rest` is the inventory without it. Follows Ansible's `inventory/manager.py` and its vars
    plugin `host_group_vars`; what differs is in docs/inventory.md.
    """
    if isinstance(sources, str | Path):
        sources = [sources]
    names = tuple(str(source) for source in sources)
    files = InventoryFiles(limits, decrypt)
    drafts = InventoryDraft()
    reader = InventoryReader(drafts)
    folders: dict[str, None] = {}
    for index, name in enumerate(names):
        folder = _SourceReader(reader, files, run_script).read(name, str(index))
        if folder is not None:
            folders.pop(folder, None)  # a folder that comes again has its say again
            folders[folder] = None
    if not names:
        reader.errors.append(InventoryError("no inventory was given", hint="name one: -i inventory.yml"))
    errors = reader.errors
    errors += drafts.settle()
    VarsFolders(list(folders), reader, files).read()
    groups, hosts = drafts.finish()
    inventory = Inventory(
        names,
        groups,
        hosts,
        playbooks=tuple(reader.playbooks.items()),
        digest=files.digest,
        notes=tuple(reader.notes),
        whole=len(errors) == reader.harmless,
        skipped=tuple(reader.skipped),
    )
    raise_found(errors, inventory)
    return inventory


class _SourceReader:
    """Reads sources into the reader: files in whatever form they are, folders, host lists."""

    def __init__(self, reader: InventoryReader, files: InventoryFiles, run_script: RunScript | None) -> None:
        self._reader = reader
        self._files = files
        self._run_script = run_script
        self._wrong = 0
        self._in_folder = False  # what stands beside inventories may be something else
        self._others: list[str] = []
        self._some = False  # of the files was read

    def read(self, name: str, label: str) -> str | None:
        """Read one source; returns the folder whose group_vars and host_vars belong to it."""
        if os.path.isdir(name):
            self._read_folder(name, label, 0)
            self._note_others(name)
            return name
        if "," in name and not os.path.exists(name):
            self._files.add_to_digest(label, name.encode("utf-8", "surrogateescape"))
            self._reader.read_host_list(name)
            return None
        if not os.path.exists(name):
            hint = "name a file or a folder: -i inventory.yml"
            self._reader.errors.append(missing_file(InventoryError, "inventory", name, hint))
            return None
        self._read_file(name, f"{label}/{os.path.basename(name)}")
        return os.path.dirname(name)

    def _read_folder(self, folder: str, label: str, depth: int) -> None:
        errors = self._reader.errors
        if depth > _FOLDERS_MAX:
            errors.append(InventoryError(f"more than {_FOLDERS_MAX} folders deep", where=folder))
            return
        try:
            names = sorted(self._files.list_folder(folder), key=os.fsencode)
        except InventoryTooLarge:
            raise
        except InventoryError as error:
            errors.append(error)
            return
        if STATE_FILE in names:
            self._others.append(f"{folder} (a state folder)")
            return
        names = [name for name in names if not _SKIPPED.search(name)]
        if depth == 0 and not names:
            errors.append(InventoryError("there is no inventory file in the folder", where=folder))
        self._in_folder = True
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isdir(path):
                self._read_folder(path, f"{label}/{name}", depth + 1)
            elif os.path.exists(path) and not os.path.isfile(path):  # a pipe, a socket: it may never end
                errors.append(InventoryError("is neither a file nor a folder", where=path))
            else:
                self._read_file(path, f"{label}/{name}")

    def _read_file(self, path: str, label: str) -> None:
        errors = self._reader.errors
        before, others = len(errors), len(self._others)
        try:
            self._read_document(path, label)
        except InventoryTooLarge:
            raise
        except FazaiError as error:
            errors += error.errors
        self._some = self._some or len(self._others) == others
        self._wrong += len(errors) > before
        text = ""
        if self._wrong > _WRONG_FILES_MAX:
            text = f"stopped here: {_WRONG_FILES_MAX} files cannot be read as inventories"
        elif len(self._others) > _OTHER_FILES_MAX:
            text = f"stopped here: {_OTHER_FILES_MAX} files are no inventories"
        if text:
            errors.append(InventoryError(text, where=path, hint="is this a folder of inventories?"))
            raise Errors(errors)

    def _note_others(self, folder: str) -> None:
        """Note the files of a folder that were not read, so that a misspelt only key is noticed."""
        if self._others:
            shown = ", ".join(self._others[:5]) + (", …" if len(self._others) > 5 else "")
            self._reader.skipped.append(f"no inventories, and not read in {folder}: {shown}")
            if not self._some:
                hint = f"not read: {shown}"
                error = InventoryError("there is no inventory file in the folder", where=folder, hint=hint)
                self._reader.errors.append(error)

    def _read_document(self, path: str, label: str) -> None:
        """Read a file in the form that Ansible would find it to have: a script, YAML or JSON, else INI.
        Raises FazaiError."""
        extension = os.path.splitext(path)[1]
        if extension == ".toml":
            raise InventoryError("this is a TOML inventory, which is not read", where=path, hint=_TO_YAML)
        try:
            data = self._files.read_raw(path)
        except KeyFile:
            if not self._in_folder:
                raise
            self._others.append(f"{path} (a key or certificate)")
            return
        if self._in_folder and (what := identify_bytes(data, os.stat(path).st_mode)) is not None:
            self._others.append(f"{path} ({what})")
        elif is_script(data) and os.access(path, os.X_OK):
            self._files.add_to_digest(label, data)
            self._read_script(path, label)
        elif extension not in _EXTENSIONS:
            from fazai.inventory.ini import read_ini  # not every inventory pays for it

            self._files.add_to_digest(label, data)
            read_ini(self._reader, self._files.open_vault(data, path), path, self._files.limits)
        else:
            self._yaml_or_ini(data, path, label)

    def _yaml_or_ini(self, raw: bytes, path: str, label: str) -> None:
        document: YamlMap | YamlList | None = None
        failure: FazaiError | None = None
        data = self._files.open_vault(raw, path)
        try:
            document = self._files.parse(data, path)
        except (YamlError, Errors) as error:
            failure = error
        if self._in_folder and (what := identify_document(document)) is not None:
            self._others.append(f"{path} ({what})")
            return
        self._files.add_to_digest(label, raw)
        if failure is not None or isinstance(document, YamlList):
            from fazai.inventory.ini import is_ini, read_ini

            if failure is not None and is_script(data):
                text, hint = "this is a script that is not executable", "chmod +x FILE, then --allow-scripts"
                raise InventoryError(text, where=path, hint=hint)
            if is_ini(data):
                read_ini(self._reader, data, path, self._files.limits)
                return
        if failure is not None:
            self._reader.errors += failure.errors
            if not isinstance(failure.rest, YamlMap):
                return
            document = failure.rest
        if isinstance(document, YamlMap) and "_meta" in document:
            read_script_output(self._reader, document, path, None)
        else:
            self._reader.read_file(document, path, path)

    def _read_script(self, path: str, label: str) -> None:
        run = self._run_script
        if run is None:
            text = "this is an inventory script, and scripts are not run unless it is asked for"
            hint = "--allow-scripts, or FAZAI_ALLOW_SCRIPTS=1 in the environment"
            raise InventoryError(text, where=path, hint=hint)

        def ask(*arguments: str) -> YamlMap | YamlList | None:
            data = run(path, arguments)
            self._files.add_to_digest(f"{label} {' '.join(arguments)}", data)
            return self._files.parse(data, f"{path} {' '.join(arguments)}") if data.strip() else None

        read_script_output(self._reader, ask("--list"), path, lambda host: ask("--host", host))
