"""Reads inventory files: groups, hosts, variables and resources go into the draft, errors into a list."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from fazai.errors import FazaiError, InventoryError, Mark, did_you_mean, missing_file_hint, spelling_hint
from fazai.inventory.drafts import GroupDraft, HostDraft, InventoryDraft
from fazai.inventory.ranges import HOSTS_IN_ALL_MAX, BadName, check_group_name, expand_hosts
from fazai.yamltext import YamlList, YamlMap

_SECTIONS = ("hosts", "vars", "children", "resources")
_OUTSIDE = ("resources", "playbooks")  # what can stand in an inventory file and is no group
_GROUP_HINT = "a group is `name:` with hosts:, vars:, children: or resources: below it"
_BELOW_HINT = "put it below a group, such as all:"


class InventoryReader:
    """Reads inventory files into `drafts`; `errors`, `notes` and `playbooks` fill up on the way. `harmless`:
    how many of the errors took no host, group or variable away."""

    def __init__(self, drafts: InventoryDraft) -> None:
        self.drafts = drafts
        self.errors: list[FazaiError] = []
        self.harmless = 0
        self.notes: list[str] = []
        self.skipped: list[str] = []
        self.playbooks: dict[Path, Mark] = {}
        self._source = ""

    def begin_source(self, source: str) -> None:
        """Set the source of the hosts that are named next."""
        self._source = source

    def read_file(self, document: YamlMap | YamlList | None, file: str, source: str) -> None:
        """Take in one inventory file. `source` is what the user named."""
        self._source = source
        if document is None:
            self._report_file("the inventory file is empty", file, "start with `all:` and `hosts:` below it")
        elif isinstance(document, YamlList):
            text, hint = "an inventory is a mapping of groups, and this is a list", "start with `all:`"
            if any(isinstance(item, YamlMap) and "hosts" in item for item in document):
                text = "this is a playbook, and stands where an inventory is expected"
                hint = f"give the inventory first, and this behind --playbook: -p {file}"
            self.report(document, None, text, hint)
        elif "plugin" in document:
            hint = "`ansible-inventory -i FILE --list --yaml --export` writes what it finds as an inventory"
            self.report(document, "plugin", "this configures an inventory plugin of Ansible's", hint)
        else:
            for name, body in document.items():
                if name == "playbooks":
                    self._read_playbooks(document, body, file)
                elif self._read_group(document, name, body) is None:
                    self._read_as_meant(document, name, file)

    def _read_as_meant(self, document: YamlMap, name: str, file: str) -> None:
        """Read a misspelt key at the top as what it was surely meant to be, to find the errors in it, too.
        The key itself was reported."""
        body = document[name]
        if isinstance(body, YamlList) and did_you_mean(name, _OUTSIDE) == "resources":
            self.harmless += 1
            self.add_resources(self.drafts.groups["all"].resources, document.renamed(name, "resources", body))
        elif isinstance(body, YamlList) and "playbooks" not in document and did_you_mean(name, _OUTSIDE):
            self.harmless += 1
            self._read_playbooks(document, body, file)

    def read_host_list(self, text: str) -> None:
        """Take in hosts named on the command line: `fw-01,fw-02:22`."""
        from fazai.yamltext import loads_yaml

        self._source = ""
        for word in filter(None, (part.strip() for part in text.split(","))):
            odd = '"' in word or "\\" in word
            node = None if odd else loads_yaml(f'"{word}":\n', "command line")
            if isinstance(node, YamlMap):
                self.add_hosts(self.drafts.groups["ungrouped"], node)
            else:
                self._report_file(f"{word!r} names no host", "command line")

    # -- groups ----------------------------------------------------------------------------------------

    def _read_group(self, parent: YamlMap, name: str, body: Any) -> GroupDraft | None:
        """The group `name`, which stands as a key of `parent`; None when it cannot be one."""
        group = self.add_group(parent, name) if self._may_be_group(parent, name) else None
        if group is None or body is None:
            return group
        for section, content in body.items():
            if section not in _SECTIONS:
                meant = self._unknown_section(body, section, name)
                if meant is not None:
                    self._read_section(group, meant, body.renamed(section, meant, content))
            elif content is not None:
                self._read_section(group, section, body)
        return group

    def _read_section(self, group: GroupDraft, section: str, body: YamlMap) -> None:
        if section == "vars":
            self.add_group_vars(group, body, body[section])
        elif section == "children":
            self._read_children(group, self._read_mapping(body, section))
        elif section == "hosts":
            self.add_hosts(group, self._read_mapping(body, section))
        else:
            self.add_resources(group.resources, body)

    def add_group(self, parent: YamlMap, name: str) -> GroupDraft | None:
        """Take in a group that stands by its name as a key of `parent`; None when it cannot be one."""
        try:
            check_group_name(name)
        except ValueError as error:
            self.report(parent, name, f'"{name}" is {error}', at_key=True)
            return None
        return self.drafts.group(name, parent)

    def _may_be_group(self, parent: YamlMap, name: str) -> bool:
        """Tell whether a key can stand for a group, by what is below it; else report it."""
        body = parent[name]
        if body is not None and not isinstance(body, YamlMap):
            hint = spelling_hint(name, _OUTSIDE) or _GROUP_HINT
            if name == "resources":
                hint = _BELOW_HINT
            self.report(parent, name, f'"{name}" is no group: {_describe_shape(body)} stands there', hint)
            return False
        if name in (*_SECTIONS, *_OUTSIDE):
            self.report(parent, name, f'"{name}" stands where a group is expected', _BELOW_HINT, at_key=True)
            return False
        return True

    def _unknown_section(self, body: YamlMap, section: str, group: str) -> str | None:
        """Report a key that no group has; returns the one that was surely meant, to read on with."""
        near = did_you_mean(section, _SECTIONS)
        hint = None if near is None else f'did you mean "{near}"?'
        if hint is None and isinstance(body[section], YamlMap | None):
            hint = "hosts stand below hosts:, groups below children:, variables below vars:"
        self.report(body, section, f'unknown key "{section}" in the group "{group}"', hint, at_key=True)
        shape = YamlList if near == "resources" else YamlMap
        if near is None or near in body or not isinstance(body[section], shape):
            return None
        self.harmless += 1
        return near

    def _read_mapping(self, body: YamlMap, section: str) -> YamlMap:
        """The entries of hosts: or children:; a single name may stand alone. Empty when it is neither."""
        content = body[section]
        if isinstance(content, YamlMap):
            return content
        if isinstance(content, str):
            return body.renamed(section, content)
        hint = "write `name:` without the dash" if isinstance(content, YamlList) else None
        self._report_shape(body, section, f"{section}: takes a mapping", hint)
        return YamlMap(body.source, 0)

    def add_group_vars(self, group: GroupDraft, body: YamlMap, content: Any) -> None:
        """Take in the variables of a group, which stand below the key `vars` of `body`."""
        if not isinstance(content, YamlMap):
            self._report_shape(body, "vars", "vars: takes a mapping", "write `name: value`")
            return
        if "ansible_group_priority" in content:
            priority = content["ansible_group_priority"]
            if isinstance(priority, str) and re.fullmatch(r"[+-]?[0-9]{1,9}", priority):
                priority = int(priority)
            if isinstance(priority, int):
                group.priority = priority
            else:
                self.report(content, "ansible_group_priority", "ansible_group_priority takes a whole number")
            content = content.without("ansible_group_priority")
        self.add_variables(group, content)

    def add_variables(self, draft: GroupDraft | HostDraft, content: YamlMap) -> None:
        """Take in variables of a group or host; the key `resources` is none of them."""
        if "resources" in content:
            self.add_resources(draft.resources, content)
            content = content.without("resources")
        if content:
            draft.vars.append(content)

    def add_resources(self, into: list[YamlList], body: YamlMap) -> None:
        """Take in the list below the key `resources` of `body`."""
        content = body["resources"]
        if isinstance(content, YamlList):
            if not any(known is content for known in into):  # an alias brings the same list again
                into.append(content)
        elif content is not None:
            self._report_shape(body, "resources", "resources: takes a list", "write `- kind: {fields}`")
            self.harmless += 1

    def _read_children(self, group: GroupDraft, entries: YamlMap) -> None:
        for name, body in entries.items():
            child = self._read_group(entries, name, body)
            if child is not None:
                self.adopt(group, child, entries)

    def adopt(self, group: GroupDraft, child: GroupDraft, entries: YamlMap) -> None:
        """Make `child`, which stands as a key of `entries`, a child of `group`."""
        try:
            self.drafts.adopt(group.name, child.name)
        except ValueError as error:
            self.report(entries, child.name, str(error), at_key=True)

    # -- hosts -----------------------------------------------------------------------------------------

    def add_hosts(self, group: GroupDraft, entries: YamlMap) -> None:
        """Take in hosts: patterns, each with its variables or None."""
        for pattern, body in entries.items():
            if body is not None and not isinstance(body, YamlMap):
                hint = "write its variables as `name: value` below it"
                self._report_shape(entries, pattern, f'the host "{pattern}" takes a mapping', hint)
                continue
            try:
                names, port = expand_hosts(pattern)
            except ValueError as error:
                link = " is" if isinstance(error, BadName) else ":"
                self.report(entries, pattern, f'"{pattern}"{link} {error}', at_key=True)
                continue
            if len(self.drafts.hosts) + len(names) > HOSTS_IN_ALL_MAX:
                text = f"more than {HOSTS_IN_ALL_MAX} hosts in one inventory"
                raise InventoryError(text, where=entries.key_mark(pattern))
            for name in names:
                self.add_host(group, name, port, entries, pattern)

    def add_host(
        self, group: GroupDraft, name: str, port: int | None, entries: YamlMap, pattern: str
    ) -> HostDraft:
        """Take in one host, which stands as the key `pattern` of `entries`, with its variables there."""
        host = self.drafts.hosts.get(name)
        if host is None:
            host = self.drafts.hosts[name] = HostDraft(name, entries, pattern, self._source)
            if port is not None:  # the port of a later mention is not taken, as in Ansible
                host.vars.append(entries.renamed(pattern, "ansible_port", port))
        group.hosts[name] = None
        body = entries[pattern]
        if body:
            self.add_variables(host, body)
        return host

    # -- the rest --------------------------------------------------------------------------------------

    def _read_playbooks(self, document: YamlMap, content: Any, file: str) -> None:
        if not isinstance(content, YamlList) or not all(isinstance(path, str) for path in content):
            hint = "playbooks: [../playbooks/site.yml]"
            self.report(document, "playbooks", "playbooks: takes a list of paths", hint)
            self.harmless += 1
            return
        for index, text in enumerate(content):
            path = Path(file).parent / text
            if os.path.isfile(path):  # Path.is_file() raises for a name that is too long
                self.playbooks.setdefault(path, content.mark(index))
            else:
                hint = missing_file_hint(str(path), file) or "paths are relative to the inventory file"
                self.report(content, index, f'there is no playbook "{text}"', hint)
                self.harmless += 1

    def report(
        self, node: YamlMap | YamlList, key: Any, text: str, hint: str | None = None, *, at_key: bool = False
    ) -> None:
        """Report what is wrong with an entry (or item) of a container; without a key, with all of it."""
        where = node.key_mark(key) if at_key and isinstance(node, YamlMap) else node.mark(key)
        excerpt = node.source.excerpt(where)
        self.errors.append(InventoryError(text, where=where, hint=hint, excerpt=excerpt))

    def _report_shape(self, node: YamlMap, key: str, rule: str, hint: str | None) -> None:
        """Report a value that is neither what the rule asks for nor nothing."""
        self.report(node, key, f"{rule}, and {_describe_shape(node[key])} stands there", hint)

    def _report_file(self, message: str, where: str, hint: str | None = None) -> None:
        self.errors.append(InventoryError(message, where=where, hint=hint))


def _describe_shape(value: Any) -> str:
    if isinstance(value, YamlMap):
        return "a mapping"
    return "a list" if isinstance(value, YamlList) else "a single value"
