"""Inventories in Ansible's INI form: `[web]`, `[web:vars]`, `[web:children]`, and hosts before any section.

What a line means follows ansible-core's plugin `ini`: host lines are split as a shell would split them, and a
value that is a literal of Python (a number, a quoted text, a list, `True`) is that; any other is text.
"""

from __future__ import annotations

import ast
import math
import re
import shlex
import warnings
from dataclasses import dataclass, field
from typing import Any, Final

from fazai.errors import InventoryError, Mark
from fazai.inventory.reader import InventoryReader
from fazai.yamltext import SourceText, YamlLimits, YamlList, YamlMap, pack_place

_SECTION: Final = re.compile(r"\[([^:\]\s]+)(?::(\w+))?\]\s*(?:#.*)?")
_GROUP: Final = re.compile(r"([^:\]\s]+)\s*(?:#.*)?")
_STATES: Final = ("hosts", "children", "vars")
#: A line that YAML has and an INI inventory has not: `key:`, `key: value`, `- item`, `{`, `---`.
_YAML_LINE: Final = re.compile(r"\s*(-|---|\{.*|[^\s=]+:)(\s|$)")
_ERRORS_MAX: Final = 50


def is_ini(data: bytes) -> bool:
    """Tell whether a text that is no YAML inventory was meant as an INI one: it has a section, or no line of
    it looks like YAML."""
    lines = [line for line in data.decode("utf-8", "replace").splitlines() if _is_content(line)]
    if any(_SECTION.fullmatch(line.strip()) for line in lines):
        return True
    return bool(lines) and not any(_YAML_LINE.match(line) for line in lines)


def _is_content(line: str) -> bool:
    line = line.strip()
    return bool(line) and line[0] not in "#;"


def read_ini(reader: InventoryReader, data: bytes, path: str, limits: YamlLimits) -> None:
    """Take one INI inventory into the reader's drafts; what is wrong goes to its errors, line by line."""
    reader.begin_source(path)
    source = SourceText(path, data)
    before = len(reader.errors)
    file = _IniFile(reader, source, limits)
    for number, line in enumerate(_split_ini_lines(data, path)):
        file.read_line(number, line)
        if len(reader.errors) - before >= _ERRORS_MAX:
            return
    if file.is_empty and len(reader.errors) == before:
        raise InventoryError("the inventory file is empty", where=path, hint="write one host a line")
    file.finish()


def _split_ini_lines(data: bytes, path: str) -> list[str]:
    """The lines as Ansible cuts them. Only comments may be other than UTF-8. Raises InventoryError."""
    try:
        return data.removeprefix(b"\xef\xbb\xbf").decode().splitlines()
    except UnicodeDecodeError:
        pass
    lines = []
    for number, line in enumerate(data.splitlines(), 1):
        try:
            lines.append("" if line[:1] in (b"#", b";") else line.decode())
        except UnicodeDecodeError:
            place = Mark(path, number, 1)
            hint = "save the file as UTF-8"
            raise InventoryError("this line is not UTF-8", where=place, hint=hint) from None
    return lines


@dataclass(slots=True)
class _PendingGroup:
    """A group that was named and not yet declared: by its variables, or as the child of `parents`."""

    state: str
    at: int
    parents: list[str] = field(default_factory=list)


class _IniFile:
    """One file on its way into the drafts. The order of Ansible's steps is kept: it shows in `--list`."""

    def __init__(self, reader: InventoryReader, source: SourceText, limits: YamlLimits) -> None:
        self._reader = reader
        self._source = source
        self._limits = limits
        self._group = "ungrouped"
        self._state = "hosts"
        self._variables = YamlMap(source, 0)  # of the section that is being read
        self._pending: dict[str, _PendingGroup] = {}
        self._values = 0
        self._broken = False  # the section is wrong: what stands in it has no place
        self.is_empty = True

    def read_line(self, number: int, raw: str) -> None:
        line = raw.strip()
        if not _is_content(line):
            return
        self.is_empty = False
        at = pack_place(number, len(raw) - len(raw.lstrip()))
        try:
            if section := _SECTION.fullmatch(line):
                self._begin_section(section[1], section[2] or "hosts", at)
            elif line.startswith("[") and line.endswith("]"):
                self._broken = True
                raise ValueError("this is no section: write [group], [group:vars] or [group:children]")
            elif self._broken:
                return
            elif self._state == "hosts":
                self._read_hosts(line, raw, at)
            elif self._state == "vars":
                self._read_variable(raw, at)
            else:
                self._read_child(line, at)
        except ValueError as error:
            self._report(at, str(error))

    def finish(self) -> None:
        """End the last section, and report the groups that were named and that no section declares."""
        self._end_section()
        for name, pending in self._pending.items():
            if pending.state == "vars":
                text = f"[{name}:vars] is for a group that no section declares"
            else:
                text = f"[{pending.parents[-1]}:children] names {name}, and no section declares that group"
            self._report(pending.at, text, f"write [{name}], if with nothing below it")

    def _report(self, at: int, message: str, hint: str | None = None) -> None:
        self._reader.report(YamlMap(self._source, at), None, message, hint)

    def _make_entry(self, at: int, key: str, value: Any = None) -> YamlMap:
        """A mapping of one entry, which stands at `at`."""
        mapping = YamlMap(self._source, at)
        mapping.put(key, value, at)
        return mapping

    # -- the four kinds of lines -----------------------------------------------------------------------

    def _begin_section(self, name: str, state: str, at: int) -> None:
        self._end_section()
        self._broken = True
        if state not in _STATES:
            raise ValueError(f"[{name}:{state}] is no section: there are [{name}], :vars and :children")
        is_new = name not in self._reader.drafts.groups
        if self._reader.add_group(self._make_entry(at, name), name) is None:
            return
        self._broken = False
        self._group, self._state = name, state
        if is_new and state == "vars" and name not in self._pending:
            self._pending[name] = _PendingGroup("vars", at)
        if name in self._pending and state != "vars":
            self._declare_group(name)

    def _end_section(self) -> None:
        if variables := self._variables:
            holder = self._make_entry(pack_place(0, 0), "vars", variables)
            self._reader.add_group_vars(self._reader.drafts.groups[self._group], holder, variables)
            self._variables = YamlMap(self._source, 0)

    def _declare_group(self, name: str) -> None:
        """Make a group that was waited for the child of those that named it, and these of theirs."""
        pending = self._pending.pop(name)
        for parent in pending.parents:
            self._adopt(parent, name, pending.at)
            if parent in self._pending and self._pending[parent].state == "children":
                self._declare_group(parent)

    def _read_child(self, line: str, at: int) -> None:
        found = _GROUP.fullmatch(line)
        if found is None:
            raise ValueError("a section of children has one name of a group a line")
        if found[1] in self._reader.drafts.groups:
            self._adopt(self._group, found[1], at)
        else:
            self._pending.setdefault(found[1], _PendingGroup("children", at)).parents.append(self._group)

    def _adopt(self, parent: str, child: str, at: int) -> None:
        try:
            self._reader.drafts.adopt(parent, child)
        except ValueError as error:
            self._report(at, str(error))

    def _read_variable(self, raw: str, at: int) -> None:
        name, equals, text = raw.partition("=")
        if not equals:
            raise ValueError(f"[{self._group}:vars] has one `name=value` a line")
        self._put_variable(self._variables, name.strip(), text.strip(), at)

    def _read_hosts(self, line: str, raw: str, at: int) -> None:
        try:
            pattern, *words = shlex.split(line, comments=True)
        except ValueError as error:
            raise ValueError(f"the line cannot be split into words: {str(error).lower()}") from None
        variables = YamlMap(self._source, at)
        for word in words:
            name, equals, text = word.partition("=")
            if not equals:
                text = "behind a host stand its variables as name=value, and a word here has no ="
                raise ValueError(f"{text} (quote a value with blanks)")
            self._put_variable(variables, name, text, pack_place(at >> 32, max(raw.find(f"{name}="), 0)))
        entries = self._make_entry(at, pattern, variables or None)
        self._reader.add_hosts(self._reader.drafts.groups[self._group], entries)

    def _put_variable(self, variables: YamlMap, name: str, text: str, at: int) -> None:
        if name in variables:
            place = self._source.mark(at)
            self._reader.notes.append(f"{place}: {name} is set twice, and the last value counts")
        variables.put(name, self._parse_value(text, at), at)

    # -- values ----------------------------------------------------------------------------------------

    def _parse_value(self, text: str, at: int) -> Any:
        """The value of a literal of Python, or the text itself. Raises ValueError."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # "\d" in a quoted text is no fault of the operator's
                value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        except TypeError:  # {{ 1 }}: a set in a set
            raise ValueError("a value looks like a literal of Python and is none: quote it") from None
        except (MemoryError, RecursionError):
            raise ValueError("a value is nested too deeply") from None
        return self._convert_value(value, at, 0)

    def _convert_value(self, value: Any, at: int, depth: int) -> Any:
        """The value in the containers that a YAML text would have become. Raises ValueError."""
        self._values += 3 if isinstance(value, list | tuple | dict) else 1
        if self._values > self._limits.values or depth > self._limits.depth:
            raise ValueError(f"more than {self._limits.values} values, or {self._limits.depth} levels")
        if isinstance(value, bytes):
            value = value.decode()
        if isinstance(value, str):
            value.encode()  # a lone surrogate is no text
            return value
        if isinstance(value, list | tuple):
            items = YamlList(self._source, at)
            for item in value:
                items.put(self._convert_value(item, at, depth + 1), at)
            return items
        if isinstance(value, dict):
            return self._convert_mapping(value, at, depth)
        if isinstance(value, set):
            raise ValueError("a value is a set, which has no order: write a list, or quote it as text")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("a value is no finite number: quote it if it is meant as text")
        return "..." if value is ... else str(value) if isinstance(value, complex) else value

    def _convert_mapping(self, value: dict[Any, Any], at: int, depth: int) -> YamlMap:
        mapping = YamlMap(self._source, at)
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"the key {key!r} in a mapping is no text: quote it")
            mapping.put(key, self._convert_value(item, at, depth + 1), at)
        return mapping
