"""The constructor: libyaml's events to values; errors are collected on the way."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from fazai.errors import FazaiError, Mark, YamlError, raise_found, spelling_hint
from fazai.model import SecretRef
from fazai.yamltext.limits import YamlLimits
from fazai.yamltext.nodes import SourceText, UnsafeText, YamlList, YamlMap, pack_place
from fazai.yamltext.phrases import explain_problem, find_bad_byte
from fazai.yamltext.scalars import convert_plain, convert_plain_json, convert_tagged

_STANDARD: Final = "tag:yaml.org,2002:"
_SECRET_TAGS: Final = {
    "!env": "env",
    "!file": "file",
    "!cmd": "cmd",
    "!vault": "vault",
    "!vault-encrypted": "vault",
}
_OUR_TAGS: Final = ("!env", "!file", "!cmd", "!vault", "!unsafe")
_ERRORS_MAX: Final = 50
_CONTAINER_WEIGHT: Final = 3  # in values: what a mapping or list takes in time and memory
_BAD: Final = object()  # what an entry with an error becomes; it never leaves this module
_SURROGATES: Final = re.compile(
    rb"(?<!\\)((?:\\\\)*)(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
)


class _StopReading(Exception):
    """Reading stops here; the reason is among the errors."""


def build_yaml(data: bytes, file: str, limits: YamlLimits, *, scalar_ok: bool = False) -> Any:
    """Build the one document of `data`: YamlMap, YamlList or None; with `scalar_ok` any value.

    Raises YamlError, or Errors for several; their `rest` is the document without what is wrong in it."""
    if not yaml.__with_libyaml__:
        text = "PyYAML was built without libyaml, which fazai reads YAML with"
        hint = "install a PyYAML wheel for this platform, or libyaml before building PyYAML"
        raise YamlError(text, where=file, hint=hint)
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise YamlError("the file is UTF-16", where=file, hint="save it as UTF-8")
    is_json = _is_json(data)
    if is_json:
        data = _SURROGATES.sub(_join_surrogates, data)
    scalar = convert_plain_json if is_json else convert_plain
    return _DocumentBuilder(data, SourceText(file, data), limits, scalar).build(scalar_ok)


def _is_json(data: bytes) -> bool:
    r"""Tell whether a text is JSON. Ansible reads it as JSON then, whatever its name: 1e3 is a number
    there, and a pair of \\u surrogates one character."""
    if data.lstrip()[:1] not in (b"{", b"["):
        return False
    import msgspec

    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return False
    return True


def _join_surrogates(match: re.Match[bytes]) -> bytes:
    pair = match.group(2).decode()
    code = 0x10000 + ((int(pair[2:6], 16) & 0x3FF) << 10) + (int(pair[8:12], 16) & 0x3FF)
    return match.group(1) + chr(code).encode()


class _DocumentBuilder:
    """Reads one text. Recursion is bounded by the depth limit."""

    def __init__(self, data: bytes, source: SourceText, limits: YamlLimits, scalar: Any) -> None:
        self._data = data
        self._source = source
        self._limits = limits
        self._scalar = scalar  # plain text -> value
        self._next: Callable[[], Any]
        self._known: dict[str, Any] = {}  # plain text -> value, as seen before
        self._keys: tuple[dict[str, str], dict[str, str]] = ({}, {})  # plain, quoted: one object for each key
        self._anchors: dict[str, tuple[Any, int]] = {}  # name -> value, weight
        self._open: set[str] = set()
        self._weight = 0
        self._depth = 0
        self._unsafe = 0
        self._errors: list[FazaiError] = []

    # -- the whole -------------------------------------------------------------------------------------

    def build(self, scalar_ok: bool) -> Any:
        value: Any = None
        try:
            from yaml._yaml import CParser  # is not there where PyYAML was built without libyaml

            self._next = CParser(self._data).get_event
            value = self._read_documents(scalar_ok)
        except _StopReading:
            pass
        except yaml.reader.ReaderError:
            self._report_unreadable()
        except yaml.MarkedYAMLError as error:
            self._report_syntax(error)
        except (yaml.YAMLError, UnicodeError):  # a tag whose %-escapes are no UTF-8, and its like
            self._errors.append(YamlError("this is not YAML that can be read", where=self._source.file))
        raise_found(self._errors, value if isinstance(value, YamlMap | YamlList) else None)
        return value

    def _read_documents(self, scalar_ok: bool) -> Any:
        value: Any = None
        count = 0
        while type(event := self._next()) is not StreamEndEvent:
            if type(event) is not DocumentStartEvent:
                continue
            count += 1
            if count > 1:
                hint = "make it a file of its own"
                self._report(event, "a second document starts here; one was expected", hint)
                raise _StopReading
            start = self._next()
            value = self._build_value(start)
            fine = scalar_ok or value is None or value is _BAD or isinstance(value, YamlMap | YamlList)
            if not fine:
                hint = "write `key: value` lines"
                self._report(start, "expected a mapping or a list, found a single value", hint)
        return value

    def _report_syntax(self, error: yaml.MarkedYAMLError) -> None:
        mark, began = error.problem_mark or error.context_mark, error.context_mark
        problem, context = error.problem or "", error.context or ""
        if mark and began and self._source.is_end(mark.line) and not self._source.is_end(began.line):
            mark = began  # the text ends in the middle of something: where that began is what helps
            problem = "end of stream"
        place = self._source.mark(pack_place(mark.line, mark.column) if mark is not None else 0)
        if any(isinstance(known.where, Mark) and known.where.line == place.line for known in self._errors):
            return  # the line is known to be wrong, for a reason that says more
        reason = explain_problem(problem, context, self._source.line(place), place.column - 1)
        excerpt = self._source.excerpt(place)
        start = pack_place(began.line, began.column) if began is not None else None
        if start is not None and self._source.may_hold_secret(self._source.mark(start)):
            excerpt = None  # what is wrong goes on from there
        self._errors.append(YamlError(reason.message, where=place, hint=reason.hint, excerpt=excerpt))

    def _report_unreadable(self) -> None:
        line, column, what = find_bad_byte(self._data)
        place = self._source.mark(pack_place(line, column))
        hint = "save the file as UTF-8 text"
        self._errors.append(YamlError(f"{what} in a text file", where=place, hint=hint))

    def _report(self, event: Any, message: str, hint: str | None = None) -> Any:
        """Report what is wrong at an event; returns _BAD, which is then its value."""
        place = self._place(event)
        self._errors.append(YamlError(message, where=place, hint=hint, excerpt=self._source.excerpt(place)))
        if len(self._errors) >= _ERRORS_MAX:
            raise _StopReading
        return _BAD

    def _place(self, event: Any) -> Mark:
        return self._source.mark(pack_place(event.start_mark.line, event.start_mark.column))

    # -- values ----------------------------------------------------------------------------------------

    def _build_value(self, event: Any) -> Any:
        """The value that starts with `event`; _BAD when it is none."""
        kind = type(event)
        if kind is ScalarEvent and event.anchor is None:
            return self._build_text(event)
        if kind is AliasEvent:
            return self._resolve_alias(event)
        before = self._weight
        anchor = event.anchor
        if anchor is not None:
            self._open.add(anchor)
        value = self._build_text(event) if kind is ScalarEvent else self._build_container(event)
        if anchor is not None:
            self._open.discard(anchor)
            self._anchors[anchor] = (value, self._weight - before)
        return value

    def _resolve_alias(self, event: Any) -> Any:
        if event.anchor not in self._anchors or event.anchor in self._open:
            return self._report_alias(event)
        value, weight = self._anchors[event.anchor]
        self._add_weight(event, weight)
        return value

    def _report_alias(self, event: Any) -> Any:
        name = event.anchor
        if self._may_hold_secret(event):
            return self._report(event, "an alias (*…) that names nothing", "quote a text that starts with *")
        if name in self._open:
            return self._report(event, f"*{name} stands inside of what it names, which would never end")
        hint = spelling_hint(name, self._anchors)
        return self._report(event, f"*{name} names nothing: there is no &{name} above", hint)

    def _may_hold_secret(self, event: Any) -> bool:
        """Tell whether the line may hold a secret: a password with ! or * in front looks like a tag."""
        return self._source.may_hold_secret(self._place(event))

    def _add_weight(self, event: Any, weight: int) -> None:
        self._weight += weight
        if self._weight > self._limits.values:
            text = f"more than {self._limits.values} values, with what anchors and aliases multiply"
            self._report(event, text, "split the file, or use fewer aliases of aliases")
            raise _StopReading

    def _build_text(self, event: Any) -> Any:
        text: str = event.value
        self._weight += 1 + (len(text) >> 6)
        if self._weight > self._limits.values:
            self._add_weight(event, 0)
        tag = event.tag
        if tag is not None and tag != "!":
            return self._build_tagged(event, tag, text)
        if event.style or not event.implicit[0]:
            return UnsafeText(text) if self._unsafe else text
        if text in self._known and not self._unsafe:
            return self._known[text]
        return self._convert_plain(event, text)

    def _convert_plain(self, event: Any, text: str) -> Any:
        try:
            value = self._scalar(text)
        except (ValueError, OverflowError):
            hint = "quote it if it is meant as text"
            return self._report(event, "this looks like a number but is none", hint)
        if self._unsafe:
            return UnsafeText(value) if isinstance(value, str) else value
        self._known[text] = value
        return value

    def _build_tagged(self, event: Any, tag: str, text: str) -> Any:
        if tag == "!unsafe":
            self._unsafe += 1
            try:
                return self._convert_plain(event, text) if not event.style else UnsafeText(text)
            finally:
                self._unsafe -= 1
        if tag in _SECRET_TAGS:
            return self._build_secret(event, tag, text)
        if tag.startswith(_STANDARD):
            try:
                return convert_tagged(tag.removeprefix(_STANDARD), text)
            except (ValueError, OverflowError):
                return self._report(event, f"this is no value for the tag !!{tag.removeprefix(_STANDARD)}")
            except KeyError:
                pass
        return self._report_tag(event, tag)

    def _build_secret(self, event: Any, tag: str, text: str) -> Any:
        if tag == "!cmd":
            hint = 'write !cmd [sops, -d, "file"]'
            return self._report(event, "!cmd takes a list of arguments, no shell", hint)
        if not text.strip():
            what = {"!env": "the name of a variable", "!file": "a path"}.get(tag, "Ansible Vault text")
            return self._report(event, f"{tag} takes {what}, and there is none")
        if tag.startswith("!vault") and not text.lstrip().startswith("$ANSIBLE_VAULT;"):
            hint = "ansible-vault encrypt_string makes it"
            return self._report(event, "!vault takes text that starts with $ANSIBLE_VAULT;", hint)
        return SecretRef(_SECRET_TAGS[tag], text, self._place(event))

    def _report_tag(self, event: Any, tag: str) -> Any:
        if self._may_hold_secret(event):
            return self._report(event, "an unknown tag (!…)", "quote a text that starts with !")
        shown = tag.replace(_STANDARD, "!!")[:60]
        hint = spelling_hint(shown, _OUR_TAGS) or f"the tags are {', '.join(_OUR_TAGS)}"
        return self._report(event, f"unknown tag {shown}", hint)

    # -- containers ------------------------------------------------------------------------------------

    def _build_container(self, event: Any) -> Any:
        self._add_weight(event, _CONTAINER_WEIGHT)
        if self._depth >= self._limits.depth:
            self._report(event, f"more than {self._limits.depth} levels deep")
            raise _StopReading
        tag = event.tag
        is_map = type(event) is MappingStartEvent
        unsafe = tag == "!unsafe"
        self._depth += 1
        self._unsafe += unsafe
        value: Any = self._build_map(event) if is_map else self._build_list(event)
        self._unsafe -= unsafe
        self._depth -= 1
        if tag is None or unsafe or tag in ("!", _STANDARD + ("map" if is_map else "seq")):
            return value
        if tag == "!cmd" and not is_map:
            return self._build_command(event, value)
        if tag in _SECRET_TAGS:
            expected = "a list of arguments" if tag == "!cmd" else "a text"
            return self._report(event, f"{tag} takes {expected}, not a {'mapping' if is_map else 'list'}")
        return self._report_tag(event, tag)

    def _build_command(self, event: Any, argv: YamlList) -> Any:
        if not argv or not all(isinstance(word, str) and word for word in argv):
            hint = 'quote numbers: !cmd [pass, "1"]'
            return self._report(event, "!cmd takes a list of texts, the program first", hint)
        return SecretRef("cmd", tuple(argv), self._place(event))

    def _build_list(self, start: Any) -> YamlList:
        mark = start.start_mark
        node = YamlList(self._source, pack_place(mark.line, mark.column))
        places = node._places
        while type(event := self._next()) is not SequenceEndEvent:
            value = self._build_value(event)
            if value is not _BAD:
                node.append(value)
                mark = event.start_mark
                places.append(pack_place(mark.line, mark.column))
        return node

    def _build_map(self, start: Any) -> YamlMap:
        mark = start.start_mark
        node = YamlMap(self._source, pack_place(mark.line, mark.column))
        places = node._places
        merges: list[YamlMap] = []
        while type(event := self._next()) is not MappingEndEvent:
            key = self._read_key(event, node)
            value_event = self._next()
            value = self._build_value(value_event)
            if value is _BAD or key is _BAD:
                continue
            if key is None:
                merges += self._read_merge(value_event, value)
                continue
            node[key] = value
            mark = event.start_mark
            places.append(pack_place(mark.line, mark.column))
            mark = value_event.start_mark
            places.append(pack_place(mark.line, mark.column))
        if merges:
            _merge_below(node, merges)
        return node

    def _read_key(self, event: Any, node: YamlMap) -> Any:
        """The key that `event` starts: a text, None for a merge (<<), _BAD for what cannot be one."""
        if type(event) is ScalarEvent and event.anchor is None and event.tag is None:
            text: str = event.value
            is_plain = not event.style
            key = self._keys[0 if is_plain else 1].get(text)
            if key is None:
                if is_plain and text == "<<":
                    return None
                key = self._check_new_key(event, text, is_plain)
        else:
            key = self._build_value(event)
            if not isinstance(key, str):
                return self._report_odd_key(event, key)
            key = str(key)
        if key in node:
            text = f'the key "{key}" stands twice, first in line {node.key_mark(key).line}'
            return self._report(event, text, "keep one of them")
        return key

    def _check_new_key(self, event: Any, text: str, is_plain: bool) -> Any:
        if is_plain:
            try:
                value = self._scalar(text)
            except (ValueError, OverflowError):
                value = text
            if not isinstance(value, str):
                return self._report_odd_key(event, value)
        self._add_weight(event, len(text) >> 6)
        self._keys[0 if is_plain else 1][text] = text
        return text

    def _report_odd_key(self, event: Any, value: Any) -> Any:
        text, hint = "a key that is no text", "give it a name"
        if value is _BAD:
            return _BAD
        if type(event) is MappingStartEvent:
            text, hint = "a mapping stands where a key is expected", 'quote a template: "{{ … }}"'
        elif type(event) is SequenceStartEvent:
            text, hint = "a list stands where a key is expected", "quote a text that starts with ["
        elif type(event) is ScalarEvent and isinstance(value, bool | int | float):
            kind = "truth value" if isinstance(value, bool) else "number"
            text, hint = f"the key {event.value} is no text but a {kind}", f'write "{event.value}"'
        return self._report(event, text, hint)

    def _read_merge(self, event: Any, value: Any) -> list[YamlMap]:
        """The mappings that `<<:` takes in, the weakest first."""
        if isinstance(value, YamlMap):
            return [value]
        if isinstance(value, YamlList) and all(isinstance(item, YamlMap) for item in value):
            return list(reversed(value))
        hint = "write <<: *name, with &name at a mapping"
        self._report(event, "<<: takes a mapping or a list of mappings", hint)
        return []


def _merge_below(node: YamlMap, merges: list[YamlMap]) -> None:
    """Take the merged entries into `node`, each with its own place; what `node` says itself wins."""
    entries: dict[str, tuple[Any, int, int]] = {}
    for layer in (*merges, node):
        for index, (key, value) in enumerate(layer.items()):
            entries[key] = (value, layer._places[2 * index], layer._places[2 * index + 1])
    node.clear()
    del node._places[:]
    for key, (value, key_at, value_at) in entries.items():
        node[key] = value
        node._places.extend((key_at, value_at))
