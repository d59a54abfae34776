"""Inventory scripts: the output of a program for `--list` and `--host`, and files that hold such a text.

Follows ansible-core's plugin `script`: names are taken as they are (no ranges), the variables of hosts come
from `_meta`, and a script that prints none is asked for each host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fazai.errors import InventoryError
from fazai.inventory.drafts import GroupDraft, HostDraft
from fazai.inventory.ranges import check_host_name
from fazai.inventory.reader import InventoryReader
from fazai.model import SecretRef
from fazai.yamltext import UnsafeText, YamlList, YamlMap

#: Runs an inventory script with these arguments; returns what it prints. Raises InventoryError.
RunScript = Callable[[str, tuple[str, ...]], bytes]

_SECTIONS: Final = ("hosts", "vars", "children")


def is_script(data: bytes) -> bool:
    """Tell whether an executable file is a program, and not a text that is executable by accident."""
    return data.startswith((b"#!", b"\x7fELF"))


def revive_ansible_values(value: Any) -> Any:
    """Replace `__ansible_unsafe` and `__ansible_vault`, as Ansible writes them in JSON, by what they stand
    for. Changes containers in place: only for a text that was just read."""
    if isinstance(value, YamlMap):
        if len(value) == 1 and isinstance(text := value.get("__ansible_unsafe"), str):
            return UnsafeText(text)
        if len(value) == 1 and isinstance(text := value.get("__ansible_vault"), str):
            return SecretRef("vault", text, value.mark())
        for key, item in value.items():
            if isinstance(item, YamlMap | YamlList):
                value[key] = revive_ansible_values(item)
    elif isinstance(value, YamlList):
        for index, item in enumerate(value):
            if isinstance(item, YamlMap | YamlList):
                value[index] = revive_ansible_values(item)
    return value


def read_script_output(
    reader: InventoryReader, document: Any, path: str, ask: Callable[[str], YamlMap | YamlList | None] | None
) -> None:
    """Take one answer to `--list` into the reader's drafts. `ask` has the answer to `--host NAME`, where
    there is a script to be asked. Raises InventoryError."""
    reader.begin_source(path)
    if not isinstance(document, YamlMap):
        text = "an inventory script prints a JSON object of groups, and this is something else"
        raise InventoryError(text, where=path)
    hosts: dict[str, HostDraft] = {}
    variables = _host_variables(reader, document)
    for name, body in document.items():
        if name != "_meta":
            _read_group(reader, document, name, body, hosts)
    if variables is None and ask is None:
        text = "there are no variables of hosts: _meta with hostvars is missing"
        hint = "a script prints them for --host; give fazai the script itself"
        raise InventoryError(text, where=document.mark(), hint=hint)
    for name, host in hosts.items():
        body = variables.get(name) if variables is not None else ask(name) if ask is not None else None
        if isinstance(body, YamlMap):
            reader.add_variables(host, body)
        elif body is not None:
            reader.report(document, None, f'the variables of "{name}" are no JSON object')


def _host_variables(reader: InventoryReader, document: YamlMap) -> YamlMap | None:
    """Return `_meta.hostvars`; None where there is no `_meta`."""
    if "_meta" not in document:
        return None
    meta = document["_meta"]
    found = meta.get("hostvars") if isinstance(meta, YamlMap) else None
    if isinstance(found, YamlMap):
        return found
    reader.report(document, "_meta", "_meta has no object hostvars in it")
    return YamlMap(document.source, 0)


def _read_group(
    reader: InventoryReader, document: YamlMap, name: str, body: Any, hosts: dict[str, HostDraft]
) -> None:
    group = reader.add_group(document, name)
    if group is None:
        return
    if isinstance(body, YamlList):
        _add_hosts(reader, group, body, hosts)
        return
    if not isinstance(body, YamlMap) or (body and not any(section in body for section in _SECTIONS)):
        hint = 'write {"hosts": [...], "vars": {...}, "children": [...]}'
        reader.report(document, name, f'the group "{name}" has neither hosts nor vars nor children', hint)
        return
    for section in ("hosts", "children"):
        if not isinstance(body.get(section, YamlList(body.source, 0)), YamlList):
            reader.report(body, section, f'{section} of the group "{name}" is no list')
            return
    if "hosts" in body:
        _add_hosts(reader, group, body["hosts"], hosts)
    if "vars" in body:
        reader.add_group_vars(group, body, body["vars"])
    for index, child in enumerate(body.get("children", ())):
        entries = YamlMap(body.source, 0)
        entries.put(str(child), None, body["children"].position(index))
        if (draft := reader.add_group(entries, str(child))) is not None:
            reader.adopt(group, draft, entries)


def _add_hosts(
    reader: InventoryReader, group: GroupDraft, names: YamlList, hosts: dict[str, HostDraft]
) -> None:
    for index, name in enumerate(names):
        entries = YamlMap(names.source, 0)
        entries.put(str(name), None, names.position(index))
        try:
            check_host_name(name if isinstance(name, str) else "")
        except ValueError as error:
            reader.report(names, None, f'"{name}" is {error}')
            continue
        hosts[name] = reader.add_host(group, name, None, entries, name)
