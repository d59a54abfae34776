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


def build_document(data: bytes, file: str, limits: YamlLimits, *, scalar_ok: bool = False) -> Any:
    """Build the one document of `data`: YamlMap, YamlList or None; with `scalar_ok` any value.

    Raises YamlError, or Errors for several; their `rest` is the document without what is wrong in it."""
    if not yaml.__with_libyaml__:
        raise YamlError(
            "PyYAML was built without libyaml, which fazai reads YAML with",
            where=file,
            hint="install a PyYAML wheel for this platform, or libyaml before building PyYAML",
        )
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise YamlError("the file is UTF-16", where=file, hint="save it as UTF-8")
    is_json = _is_json(data)
    if is_json:
        data = _SURROGATES.sub(_join_surrogates, data)
    builder = _DocumentBuilder(
        data, SourceText(file, data), limits, convert_plain_json if is_json else convert_plain
    )
    return builder.build(scalar_ok)


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
    return (
        match.group(1)
        + chr(0x10000 + ((int(pair[2:6], 16) & 0x3FF) << 10) + (int(pair[8:12], 16) & 0x3FF)).encode()
    )


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
                self._report(
                    event, "a second document starts here; one was expected", "make it a file of its own"
                )
                raise _StopReading
            start = self._next()
            value = self._build_value(start)
            fine = scalar_ok or value is None or value is _BAD or isinstance(value, YamlMap | YamlList)
            if not fine:
                self._report(
                    start, "expected a mapping or a list, found a single value", "write `key: value` lines"
                )
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
        if began is not None and self._source.may_hold_secret(
            self._source.mark(pack_place(began.line, began.column))
        ):
            excerpt = None  # what is wrong goes on from there
        self._errors.append(YamlError(reason.message, where=place, hint=reason.hint, excerpt=excerpt))

    def _report_unreadable(self) -> None:
        line, column, what = find_bad_byte(self._data)
        place = self._source.mark(pack_place(line, column))
        self._errors.append(
            YamlError(f"{what} in a text file", where=place, hint="save the file as UTF-8 text")
        )

    def _report(self, event: Any, message: str, hint: str | None = None) -> None:
        mark = event.start_mark
        place = self._source.mark(pack_place(mark.line, mark.column))
        self._errors.append(YamlError(message, where=place, hint=hint, excerpt=self._source.excerpt(place)))
        if len(self._errors) >= _ERRORS_MAX:
            raise _StopReading

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
        if kind is ScalarEvent:
            value = self._build_text(event)
        else:
            value = self._build_container(event)
        if anchor is not None:
            self._open.discard(anchor)
            self._anchors[anchor] = (value, self._weight - before)
        return value

    def _resolve_alias(self, event: Any) -> Any:
        if event.anchor not in self._anchors or event.anchor in self._open:
            self._report_alias(event)
            return _BAD
        value, weight = self._anchors[event.anchor]
        self._add_weight(event, weight)
        return value

    def _report_alias(self, event: Any) -> None:
        if self._may_hold_secret(event):
            self._report(event, "an alias (*…) that names nothing", "quote a text that starts with *")
        elif event.anchor in self._open:
            self._report(event, f"*{event.anchor} stands inside of what it names, which would never end")
        else:
            hint = spelling_hint(event.anchor, self._anchors)
            self._report(event, f"*{event.anchor} names nothing: there is no &{event.anchor} above", hint)

    def _may_hold_secret(self, event: Any) -> bool:
        """Tell whether the line may hold a secret: a password with ! or * in front looks like a tag."""
        mark = event.start_mark
        return self._source.may_hold_secret(self._source.mark(pack_place(mark.line, mark.column)))

    def _add_weight(self, event: Any, weight: int) -> None:
        self._weight += weight
        if self._weight > self._limits.values:
            self._report(
                event,
                f"more than {self._limits.values} values, with what anchors and aliases multiply",
                "split the file, or use fewer aliases of aliases",
            )
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
            self._report(event, "this looks like a number but is none", "quote it if it is meant as text")
            return _BAD
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
                self._report(event, f"this is no value for the tag !!{tag.removeprefix(_STANDARD)}")
                return _BAD
            except KeyError:
                pass
        return self._report_tag(event, tag)

    def _build_secret(self, event: Any, tag: str, text: str) -> Any:
        if tag == "!cmd":
            self._report(event, "!cmd takes a list of arguments, no shell", 'write !cmd [sops, -d, "file"]')
            return _BAD
        if not text.strip():
            what = {"!env": "the name of a variable", "!file": "a path"}.get(tag, "Ansible Vault text")
            self._report(event, f"{tag} takes {what}, and there is none")
            return _BAD
        if tag.startswith("!vault") and not text.lstrip().startswith("$ANSIBLE_VAULT;"):
            self._report(
                event,
                "!vault takes text that starts with $ANSIBLE_VAULT;",
                "ansible-vault encrypt_string makes it",
            )
            return _BAD
        mark = self._source.mark(pack_place(event.start_mark.line, event.start_mark.column))
        return SecretRef(_SECRET_TAGS[tag], text, mark)

    def _report_tag(self, event: Any, tag: str) -> Any:
        if self._may_hold_secret(event):
            self._report(event, "an unknown tag (!…)", "quote a text that starts with !")
            return _BAD
        shown = tag.replace(_STANDARD, "!!")[:60]
        hint = spelling_hint(shown, _OUR_TAGS) or f"the tags are {', '.join(_OUR_TAGS)}"
        self._report(event, f"unknown tag {shown}", hint)
        return _BAD

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
            self._report(event, f"{tag} takes {expected}, not a {'mapping' if is_map else 'list'}")
            return _BAD
        return self._report_tag(event, tag)

    def _build_command(self, event: Any, argv: YamlList) -> Any:
        if not argv or not all(isinstance(word, str) and word for word in argv):
            self._report(
                event, "!cmd takes a list of texts, the program first", 'quote numbers: !cmd [pass, "1"]'
            )
            return _BAD
        mark = self._source.mark(pack_place(event.start_mark.line, event.start_mark.column))
        return SecretRef("cmd", tuple(argv), mark)

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
                self._report_odd_key(event, key)
                return _BAD
            key = str(key)
        if key in node:
            first = node.key_mark(key)
            self._report(
                event, f'the key "{key}" stands twice, first in line {first.line}', "keep one of them"
            )
            return _BAD
        return key

    def _check_new_key(self, event: Any, text: str, is_plain: bool) -> Any:
        if is_plain:
            try:
                value = self._scalar(text)
            except (ValueError, OverflowError):
                value = text
            if not isinstance(value, str):
                self._report_odd_key(event, value)
                return _BAD
        self._add_weight(event, len(text) >> 6)
        self._keys[0 if is_plain else 1][text] = text
        return text

    def _report_odd_key(self, event: Any, value: Any) -> None:
        if value is _BAD:
            return
        if type(event) is MappingStartEvent:
            self._report(event, "a mapping stands where a key is expected", 'quote a template: "{{ … }}"')
        elif type(event) is SequenceStartEvent:
            self._report(event, "a list stands where a key is expected", "quote a text that starts with [")
        elif type(event) is ScalarEvent and isinstance(value, bool | int | float):
            self._report(
                event,
                f"the key {event.value} is no text but a {_scalar_type(value)}",
                f'write "{event.value}"',
            )
        else:
            self._report(event, "a key that is no text", "give it a name")

    def _read_merge(self, event: Any, value: Any) -> list[YamlMap]:
        """The mappings that `<<:` takes in, the weakest first."""
        if isinstance(value, YamlMap):
            return [value]
        if isinstance(value, YamlList) and all(isinstance(item, YamlMap) for item in value):
            return list(reversed(value))
        self._report(
            event, "<<: takes a mapping or a list of mappings", "write <<: *name, with &name at a mapping"
        )
        return []


def _scalar_type(value: object) -> str:
    return "truth value" if isinstance(value, bool) else "number"


def _merge_below(node: YamlMap, merges: list[YamlMap]) -> None:
    """Takes the merged entries into `node`, each with its own place; what `node` says itself wins."""
    entries: dict[str, tuple[Any, int, int]] = {}
    for layer in (*merges, node):
        for index, (key, value) in enumerate(layer.items()):
            entries[key] = (value, layer._places[2 * index], layer._places[2 * index + 1])
    node.clear()
    del node._places[:]
    for key, (value, key_at, value_at) in entries.items():
        node[key] = value
        node._places.extend((key_at, value_at))
