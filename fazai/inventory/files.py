"""The files of an inventory: read within limits, and counted into its digest."""

from __future__ import annotations

import hashlib
import os
from typing import Final

from fazai.errors import InventoryError
from fazai.inventory.scripts import revive_ansible_values
from fazai.yamltext import Decrypt, YamlLimits, YamlList, YamlMap, parse_yaml, read_limited

_VAULT: Final = b"$ANSIBLE_VAULT;"
_ENTRIES_MAX: Final = 100_000
_BYTES_MAX: Final = 128 * 1024 * 1024


class InventoryTooLarge(InventoryError):
    """The inventory is larger than any inventory: nothing more of it is read."""


class InventoryFiles:
    """The border to the disk: reads within limits, counts what was read into the digest.

    All that one inventory is made of counts against its limits: `fazai plan /`, a mistake, ends after some
    thousands of files, and not when the memory is full."""

    def __init__(self, limits: YamlLimits, decrypt: Decrypt | None) -> None:
        self.limits = limits
        self._decrypt = decrypt
        self._hash = hashlib.sha256()
        self._entries = 0
        self._bytes = 0

    def list_folder(self, folder: str) -> list[str]:
        """The names in a folder, unsorted. Raises InventoryError."""
        found = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    found.append(entry.name)
                    self._entries += 1
                    if self._entries > _ENTRIES_MAX:
                        raise _too_large_error(f"more than {_ENTRIES_MAX} files and folders", folder)
        except OSError as error:
            raise InventoryError(f"cannot read the folder: {error.strerror}", where=folder) from None
        return found

    def read_raw(self, path: str) -> bytes:
        """The bytes of a file as they are, which may be no part of the inventory. Raises InputError."""
        data = read_limited(path, self.limits)
        self._bytes += len(data)
        if self._bytes > _BYTES_MAX:
            raise _too_large_error(f"more than {_BYTES_MAX >> 20} MiB in all files together", path)
        return data

    def open_vault(self, data: bytes, path: str) -> bytes:
        """The bytes, decrypted if Ansible Vault has encrypted all of them. Raises InputError."""
        if data.startswith(_VAULT) and self._decrypt is not None:
            data = self._decrypt(data, path)
        return data

    def read_document(self, path: str, label: str) -> YamlMap | YamlList | None:
        """The document of a file; `label` is its name in the digest. Raises InputError or Errors."""
        data = self.read_raw(path)
        self.add_to_digest(label, data)
        return self.parse(self.open_vault(data, path), path)

    def parse(self, data: bytes, path: str) -> YamlMap | YamlList | None:
        """The document of these bytes, with what Ansible writes into JSON revived. Raises as
        `read_document`."""
        document = parse_yaml(data, path, limits=self.limits, decrypt=self._decrypt)
        return revive_ansible_values(document) if b'"__ansible_' in data else document

    def add_to_digest(self, label: str, data: bytes) -> None:
        name = label.encode("utf-8", "surrogateescape")
        self._hash.update(b"%d:%b%d:" % (len(name), name, len(data)))
        self._hash.update(data)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


def _too_large_error(what: str, path: str) -> InventoryTooLarge:
    hint = "give the inventory a folder of its own, or name the file"
    return InventoryTooLarge(f"{what}: this is no folder of inventories", where=path, hint=hint)
