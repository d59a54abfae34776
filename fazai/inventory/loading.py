"""From the sources on the command line to an Inventory: which files there are, in which order."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from fazai.errors import Errors, FazaiError, InventoryError, YamlError
from fazai.inventory.drafts import Drafts
from fazai.inventory.nodes import Inventory
from fazai.inventory.reader import Reader, nearest_file
from fazai.inventory.varsfiles import VarsFolders
from fazai.yamltext import DEFAULT_LIMITS, Decrypt, Limits, YamlList, YamlMap, parse, read

__all__ = ["Files", "load"]

_EXTENSIONS = ("", ".yml", ".yaml", ".json")
#: What Ansible skips in a folder of inventories, and our folder of secrets.
_SKIPPED = re.compile(
    r"^\.|^(host_vars|group_vars|vars_plugins|secrets)$"
    r"|(\.pyc|\.pyo|\.swp|\.bak|~|\.rpm|\.md|\.txt|\.rst|\.orig|\.cfg|\.retry)$"
)
_INI = re.compile(rb"^\[[\w.-]+(:(vars|children))?\]\s*$", re.MULTILINE)
_FOLDERS_MAX = 32


class Files:
    """The border to the disk: reads within limits, counts what was read into the digest."""

    def __init__(self, limits: Limits, decrypt: Decrypt | None) -> None:
        self._limits = limits
        self._decrypt = decrypt
        self._hash = hashlib.sha256()

    def yaml(self, path: str, label: str) -> YamlMap | YamlList | None:
        """The document of a file; `label` is its name in the digest. Raises InputError or Errors."""
        data = read(path, self._limits)
        self.count(label, data)
        try:
            return parse(data, path, limits=self._limits, decrypt=self._decrypt)
        except (YamlError, Errors) as error:
            foreign = _foreign(data, path)
            raise foreign or error from None

    def count(self, label: str, data: bytes) -> None:
        name = label.encode("utf-8", "surrogateescape")
        self._hash.update(b"%d:%b%d:" % (len(name), name, len(data)))
        self._hash.update(data)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


def _foreign(data: bytes, path: str) -> InventoryError | None:
    """The error for an inventory of a kind that Ansible reads and fazai does not."""
    if data.startswith(b"#!"):
        text, hint = "this is an inventory script", "run it, and give fazai what it prints as a file"
    elif _INI.search(data):
        text, hint = (
            "this is an INI inventory",
            "ansible-inventory -i FILE --list --yaml writes the same as YAML",
        )
    else:
        return None
    return InventoryError(f"{text}, and fazai reads YAML inventories", where=path, hint=hint)


def load(
    sources: str | Path | Iterable[str | Path],
    *,
    limits: Limits = DEFAULT_LIMITS,
    decrypt: Decrypt | None = None,
) -> Inventory:
    """Reads inventory files, folders and host lists (`fw-01,fw-02`), with their group_vars and host_vars.

    `decrypt` opens files that are Ansible Vault text as a whole. Raises InventoryError, YamlError, or Errors
    with everything that is wrong in all the files. Follows Ansible's `inventory/manager.py` and its vars
    plugin `host_group_vars`; what differs is in docs/inventory.md.
    """
    if isinstance(sources, str | Path):
        sources = [sources]
    names = tuple(str(source) for source in sources)
    files = Files(limits, decrypt)
    drafts = Drafts()
    reader = Reader(drafts)
    folders: dict[str, None] = {}
    for index, name in enumerate(names):
        folder = _source(reader, files, name, str(index))
        if folder is not None:
            folders.pop(folder, None)  # a folder that comes again has its say again
            folders[folder] = None
    if not names:
        reader.errors.append(InventoryError("no inventory was given", hint="name one: -i inventory.yml"))
    errors = reader.errors
    errors += drafts.settle()
    extra = VarsFolders(list(folders), drafts, reader, files)
    extra.read()
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise Errors(errors)
    groups, hosts = drafts.finish(
        extra.group_files, extra.host_files, extra.group_resources, extra.host_resources
    )
    playbooks = tuple(reader.playbooks.items())
    return Inventory(names, groups, hosts, playbooks, files.digest, tuple(extra.notes))


def _source(reader: Reader, files: Files, name: str, label: str) -> str | None:
    """Reads one source; returns the folder whose group_vars and host_vars belong to it."""
    if os.path.isdir(name):
        _folder(reader, files, name, label, 0)
        return name
    if "," in name and not os.path.exists(name):
        files.count(label, name.encode("utf-8", "surrogateescape"))
        reader.host_list(name)
        return None
    if not os.path.exists(name):
        reader.errors.append(_missing(name))
        return None
    _file(reader, files, name, f"{label}/{os.path.basename(name)}")
    return os.path.dirname(name)


def _missing(name: str) -> InventoryError:
    near = nearest_file(name)
    return InventoryError(
        f'there is no inventory "{name}"', hint=near or "name a file or a folder: -i inventory.yml"
    )


def _folder(reader: Reader, files: Files, folder: str, label: str, depth: int) -> None:
    if depth > _FOLDERS_MAX:
        reader.errors.append(InventoryError(f"more than {_FOLDERS_MAX} folders deep", where=folder))
        return
    try:
        names = sorted(os.listdir(folder), key=os.fsencode)
    except OSError as error:
        reader.errors.append(InventoryError(f"cannot read the folder: {error.strerror}", where=folder))
        return
    names = [name for name in names if not _SKIPPED.search(name)]
    if depth == 0 and not names:
        reader.errors.append(InventoryError("there is no inventory file in the folder", where=folder))
    for name in names:
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            _folder(reader, files, path, f"{label}/{name}", depth + 1)
        elif os.path.exists(path) and not os.path.isfile(path):  # a pipe, a socket: reading it may never end
            reader.errors.append(InventoryError("is neither a file nor a folder", where=path))
        else:
            _file(reader, files, path, f"{label}/{name}")


def _file(reader: Reader, files: Files, path: str, label: str) -> None:
    extension = os.path.splitext(path)[1]
    try:
        if extension not in _EXTENSIONS:
            hint = "inventories end in .yml, .yaml, .json or nothing; move other files out of the folder"
            if extension in (".ini", ".toml"):
                hint = "ansible-inventory -i FILE --list --yaml writes the same as YAML"
            raise InventoryError(f"{extension} files are no YAML inventories", where=path, hint=hint)
        reader.file(files.yaml(path, label), path, path)
    except Errors as error:
        reader.errors += error.errors
    except FazaiError as error:
        reader.errors.append(error)
