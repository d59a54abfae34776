"""host.line, host.block: a part of a file that others own."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from fazai.compat.language import dataclass
from fazai.errors import DeviceError
from fazai.model import FieldSpec, Problem, Secret, Value, Verb
from fazai.providers.hosts.blob import Blob
from fazai.providers.hosts.kind import PRESENCE, Act, Answers, Block, Difference, Have, HostKind, Want
from fazai.providers.hosts.kinds.shared.editing import (
    InsertionPoint,
    with_block,
    with_line,
    without_block,
    without_lines,
)
from fazai.providers.hosts.kinds.shared.matching import surely_quick
from fazai.providers.hosts.kinds.shared.paths import PathKind
from fazai.providers.hosts.shell import writing
from fazai.providers.hosts.shell.preconditions import Precondition
from fazai.providers.hosts.shell.questions import ContentOf, FileAt, Output, PathState, Question, find_output

_LIMIT_BYTES = 4 * 1024 * 1024
_MARK = "{mark}"
_PATTERNS = ("regexp", "insertafter", "insertbefore")


_AROUND = (
    FieldSpec("insertafter", "text", "where a new one goes: behind the last line that matches, or EOF"),
    FieldSpec("insertbefore", "text", "where a new one goes: before the last line that matches, or BOF"),
    FieldSpec("create", "boolean", "make the file when it is not there"),
    *writing.REPLACING,
    PRESENCE,
)


@dataclass(frozen=True, slots=True)
class _Edit:
    """A file's content before and after one of its parts was written. `old` None: it was not there."""

    path: str
    old: Blob | None
    new: Blob


class PartKind(PathKind):
    """Base of host.line and host.block: the new text is worked out here, and takes the place of the file
    that was seen."""

    joins = True
    part = ""

    @abstractmethod
    def edited(self, fields: Mapping[str, Value], absent: bool, text: str) -> str:
        """Return a file's text with the part in it, or without."""

    @abstractmethod
    def part_name(self, fields: Mapping[str, Value]) -> Value:
        """Return what names the part in its file, None where the path alone does, or the problem with it."""

    def identify(self, fields: Mapping[str, Value]) -> str | Problem:
        path = fields.get("path")
        if not isinstance(path, str) or not path:
            return self.find_misnamed("path", fields) or Problem("path", "is missing: it names the file")
        name = self.part_name(fields)
        if isinstance(name, Problem):
            return name
        return path if name is None else f"{path}: {name}"

    def problems(self, fields: dict[str, Value], absent: bool) -> Iterable[Problem]:
        yield from writing.check_replacing(fields)
        if "insertafter" in fields and "insertbefore" in fields:
            yield Problem("insertbefore", "and insertafter are two places")
        for name in _PATTERNS:
            try:
                re.compile(fields.get(name, ""))
            except re.error as error:
                yield Problem(name, f"is no regular expression: {error}")

    def question(self, want: Want) -> FileAt:
        return FileAt(self.path(want), follow=True)

    def _text_question(self, want: Want) -> ContentOf:
        return ContentOf(self.path(want), _LIMIT_BYTES)

    def ask(self, want: Want) -> Iterable[Question]:
        return self.question(want), self._text_question(want)

    def slow_to_read(self, want: Want, answers: Answers) -> bool:
        """Tell whether a pattern is not surely quick on this file. Another thread costs more than all the
        rest."""
        patterns = [want.fields[name] for name in _PATTERNS if name in want.fields]
        content = answers.get(self._text_question(want))
        if not patterns or not isinstance(content, Output):
            return False
        lines = content.out.decode("utf-8", "surrogateescape").split("\n")
        return not all(surely_quick(pattern, lines) for pattern in patterns)

    def read(self, want: Want, answers: Answers) -> Have | None:
        path = self.path_state(want, answers)
        content = find_output(answers, self._text_question(want))
        if path.type == "missing" and path.target and not path.real:
            text = f"a link to {path.target}, where there is no folder"
            raise want.error(text, "host.directory makes it")
        if path.type == "missing":
            if want.absent or want.fields.get("create"):
                return None
            raise want.error("there is no such file", "create: true makes it")
        if path.type != "file":  # a link is followed: this is what it leads to
            raise want.error(f"there is a {path.noun}, not a file", "move it away first")
        if content.exit != 0:
            if path.size > _LIMIT_BYTES:
                raise want.error(f"the file is larger than {_LIMIT_BYTES >> 20} MiB")
            raise want.error("the file may not be read", "become: true")
        seen = Blob.of(content.out, private=not path.mode & 0o004)
        try:  # a pattern that takes too long is found out here, where others need not wait for it
            self.edited(want.fields, want.absent, _decode_content(seen))
        except DeviceError as error:
            raise want.error(error.message, error.hint) from None
        return {**writing.seen_attributes(want, path), "content": seen}

    def compare(self, want: Want, have: Have | None) -> Difference | None:
        seen: Blob | None = have["content"] if have is not None else None
        old = _decode_content(seen)
        new = self.edited(want.fields, want.absent, old)
        if new == old and (have is not None or want.absent):
            return None
        part = want.fields.get(self.part)
        private = (seen is not None and seen.private) or (isinstance(part, Blob) and part.private)
        before = _removed_lines(old, new, private)
        if want.absent:
            return Verb.DELETE, before, {}
        value = want.fields[self.part]
        after = {self.part: value.hidden() if private else value}
        return (Verb.UPDATE if before else Verb.CREATE), before, after

    def rests_on(self, want: Want, answers: Answers) -> tuple[Precondition, ...]:
        """Demand the state of the file itself, where the path is a link to it."""
        state = answers.get(self.question(want))
        real = state.real if isinstance(state, PathState) else ""
        found = HostKind.rests_on(self, want, answers)
        return tuple(replace(each, path=real, target="", place="") if real else each for each in found)

    def leaves(self, act: Act) -> tuple[Precondition, ...]:
        edit: _Edit | None = act.memory.get(("edit", self.name, act.identity))
        if edit is None:
            return ()
        return (writing.file_left(edit.path, act, self.default_mode(act), edit.new.sha256),)

    def default_mode(self, act: Act) -> str:
        """Return the mode of a file that is made: 0600 for a part that is a secret."""
        part = act.options.get(self.part)
        return part.default_mode if isinstance(part, Blob) else "0644"

    def write(self, act: Act) -> Iterator[Block]:
        key = ("edit", self.name, act.identity)
        if act.undone:
            edit: _Edit = act.memory[key]
            content = edit.old
        else:
            edit = act.memory[key] = self._edit(act)
            content = edit.new
        if content is None:
            yield writing.remove_path(edit.path)
        else:
            yield from writing.replace_host_file(edit.path, content, act, self.default_mode(act))

    def _edit(self, act: Act) -> _Edit:
        """Work out the new content of the file itself, where the path is a link to it."""
        path = act.preconditions[0].path if act.preconditions else act.at(act.options["path"])
        old: Blob | None = act.have.get("content")
        text = self.edited(act.options, act.verb is Verb.DELETE, _decode_content(old))
        return _Edit(path, old, Blob.of(text, private=old is not None and old.private))


def _decode_content(content: Blob | None) -> str:
    if content is None:
        return ""
    if content.data is None:
        raise DeviceError("the content was not kept")
    return content.data.decode("utf-8", "surrogateescape")


def _removed_lines(old: str, new: str, private: bool) -> dict[str, Any]:
    """Return the lines that go."""
    kept = new.split("\n")
    gone = [line for line in old.split("\n") if line not in kept]
    return {"lines": Blob.of("\n".join(gone), private=private)} if gone else {}


class LineKind(PartKind):
    name = "host.line"
    summary = "One line of a file"
    example = 'host.line: {path: /etc/ssh/sshd_config, regexp: "^#?PrintMotd", line: PrintMotd no}'
    identity = ("path", "regexp")  # and `line`, where there is no regexp
    specs = (
        FieldSpec("path", "path", "the file", required=True),
        FieldSpec("line", "content", "the line as it is to be"),
        FieldSpec("regexp", "text", "which line it takes the place of: the last that matches"),
        *_AROUND,
    )
    part = "line"

    def part_name(self, fields: Mapping[str, Value]) -> Value:
        words = fields.get("regexp") or fields.get("line")
        if isinstance(words, Secret):
            return Problem("line", "is a secret: regexp: must say which line it is", "regexp: ^password=")
        return Problem("line", "is missing") if words is None else words

    def problems(self, fields: dict[str, Value], absent: bool) -> Iterable[Problem]:
        yield from PartKind.problems(self, fields, absent)
        if not absent and "line" not in fields:
            yield Problem("line", "is missing")
        elif "line" in fields and b"\n" in fields["line"].data:
            yield Problem("line", "is more than one line", "host.block has several")

    def edited(self, fields: Mapping[str, Value], absent: bool, text: str) -> str:
        line = _decode_content(fields["line"]) if "line" in fields else None
        if absent or line is None:
            return without_lines(text, line, fields.get("regexp"))
        return with_line(text, line, fields.get("regexp"), _insertion_point(fields))


class BlockKind(PartKind):
    name = "host.block"
    summary = "Lines of a file between two marks"
    example = 'host.block: {path: /etc/hosts, block: "192.0.2.1 one\\n192.0.2.2 two\\n"}'
    identity = ("path", "marker")
    specs = (
        FieldSpec("path", "path", "the file", required=True),
        FieldSpec("block", "content", "the lines"),
        FieldSpec("marker", "text", "the marks; {mark} becomes BEGIN and END", default="# {mark} fazai"),
        *_AROUND,
    )
    part = "block"

    def part_name(self, fields: Mapping[str, Value]) -> Value:
        return fields.get("marker")

    def problems(self, fields: dict[str, Value], absent: bool) -> Iterable[Problem]:
        yield from PartKind.problems(self, fields, absent)
        if _MARK not in fields.get("marker", _MARK) or "\n" in fields.get("marker", ""):
            yield Problem("marker", f"must be one line that holds {_MARK}", f'marker: "# {_MARK} app"')
        if not absent and "block" not in fields:
            yield Problem("block", "is missing")
        if "block" in fields:
            marks = _block_marks(fields)
            lines = (line.removesuffix("\r") for line in _decode_content(fields["block"]).split("\n"))
            if mark := next((line for line in lines if line in marks), None):
                hint = 'marker: "# {mark} app"'
                yield Problem("block", f'holds a line that is one of its marks: "{mark}"', hint)

    def edited(self, fields: Mapping[str, Value], absent: bool, text: str) -> str:
        begin, end = _block_marks(fields)
        if absent:
            return without_block(text, begin, end)
        return with_block(text, _decode_content(fields["block"]), begin, end, _insertion_point(fields))


def _block_marks(fields: Mapping[str, Value]) -> tuple[str, str]:
    """Return the lines around a block."""
    marker = str(fields.get("marker", f"# {_MARK} fazai"))
    return marker.replace(_MARK, "BEGIN"), marker.replace(_MARK, "END")


def _insertion_point(fields: Mapping[str, Value]) -> InsertionPoint:
    return InsertionPoint(fields.get("insertafter"), fields.get("insertbefore"))


KINDS = (LineKind(), BlockKind())
