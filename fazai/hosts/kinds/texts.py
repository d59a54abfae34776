"""ssh.line, ssh.block: a part of a file that others own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from fazai.errors import DeviceError
from fazai.hosts.base import Base
from fazai.hosts.blob import Blob
from fazai.hosts.editing import Place, with_block, with_line, without_block, without_lines
from fazai.hosts.kind import Act, Answers, Block, Have, HostKind, Want
from fazai.hosts.matching import surely_quick
from fazai.hosts.questions import ContentOf, FileAt, Output, PathState, Question
from fazai.hosts.writing import (
    REPLACING,
    check_replacing,
    denied,
    left_file,
    refuse_unsafe,
    removed,
    replaced,
    seen_attributes,
    unlike,
)
from fazai.model import FieldSpec, Problem, Secret, Value, Verb

__all__ = ["KINDS"]

_LIMIT_BYTES = 4 * 1024 * 1024
_MARK = "{mark}"
_PATTERNS = ("regexp", "insertafter", "insertbefore")


class PartKind(HostKind):
    """Base of both: the new text is worked out here, and takes the place of the file that was seen."""

    joins = True
    part = ""

    def edited(self, fields: Mapping[str, Value], absent: bool, text: str) -> str:
        raise NotImplementedError

    def problems(self, fields: dict[str, Value], absent: bool) -> Iterable[Problem]:
        yield from check_replacing(fields)
        if "insertafter" in fields and "insertbefore" in fields:
            yield Problem("insertbefore", "and insertafter are two places")
        for name in _PATTERNS:
            try:
                re.compile(fields.get(name, ""))
            except re.error as error:
                yield Problem(name, f"is no regular expression: {error}")

    def ask(self, want: Want) -> Iterable[Question]:
        path = want.at(want.fields["path"])
        return FileAt(path, follow=True), ContentOf(path, _LIMIT_BYTES)

    def slow_to_read(self, want: Want, answers: Answers) -> bool:
        """Whether a pattern is not surely quick on this file. Another thread costs more than all the rest."""
        patterns = [want.fields[name] for name in _PATTERNS if name in want.fields]
        content = answers.get(ContentOf(want.at(want.fields["path"]), _LIMIT_BYTES))
        if not patterns or not isinstance(content, Output):
            return False
        lines = content.out.decode("utf-8", "surrogateescape").split("\n")
        return not all(surely_quick(pattern, lines) for pattern in patterns)

    def read(self, want: Want, answers: Answers) -> Have | None:
        at = want.at(want.fields["path"])
        path, content = answers[FileAt(at, follow=True)], answers[ContentOf(at, _LIMIT_BYTES)]
        assert isinstance(path, PathState)
        assert isinstance(content, Output)
        refuse_unsafe(want, path)
        if path.type == "denied":
            raise denied(want)
        if path.type == "missing" and path.target and not path.real:
            raise unlike(want, f"a link to {path.target}, where there is no folder", "ssh.directory makes it")
        if path.type == "missing":
            if want.absent or want.fields.get("create"):
                return None
            raise unlike(want, "there is no such file", "create: true makes it")
        if path.type != "file":  # a link is followed: this is what it leads to
            what = "special file" if path.type == "other" else path.type
            raise unlike(want, f"there is a {what}, not a file", "move it away first")
        if content.exit != 0:
            large = path.size > _LIMIT_BYTES
            text = (
                f"the file is larger than {_LIMIT_BYTES >> 20} MiB" if large else "the file may not be read"
            )
            raise unlike(want, text, None if large else "become: true")
        seen = Blob.of(content.out, private=not path.mode & 0o004)
        try:  # a pattern that takes too long is found out here, where others need not wait for it
            self.edited(want.fields, want.absent, _decoded(seen))
        except DeviceError as error:
            raise unlike(want, error.message, error.hint) from None
        return {**seen_attributes(want, path), "content": seen}

    def compare(
        self, want: Want, have: Have | None
    ) -> tuple[Verb, Mapping[str, Value], Mapping[str, Value]] | None:
        seen: Blob | None = have["content"] if have is not None else None
        old = _decoded(seen)
        new = self.edited(want.fields, want.absent, old)
        if new == old and (have is not None or want.absent):
            return None
        part = want.fields.get(self.part)
        private = (seen is not None and seen.private) or (isinstance(part, Blob) and part.private)
        before = _minus(old, new, private)
        if want.absent:
            return Verb.DELETE, before, {}
        value = want.fields[self.part]
        after = {self.part: value.hidden() if private else value}
        return (Verb.UPDATE if before else Verb.CREATE), before, after

    def touches(self, want: Want) -> tuple[str, ...]:
        return (want.at(want.fields["path"]),)

    def rests_on(self, want: Want, answers: Answers) -> tuple[Base, ...]:
        """On the file itself, where the path is a link to it."""
        state = answers.get(FileAt(want.at(want.fields["path"]), follow=True))
        real = state.real if isinstance(state, PathState) else ""
        found = HostKind.rests_on(self, want, answers)
        return tuple(replace(base, path=real, target="", place="") if real else base for base in found)

    def leaves(self, act: Act) -> tuple[Base, ...]:
        found = act.memory.get(("undo", self.name, act.identity))
        return () if found is None else (left_file(found[0], act, self.default_mode(act), found[2].sha256),)

    def default_mode(self, act: Act) -> str:
        """The mode of a file that is made for a part that is a secret, or is none."""
        part = act.options.get(self.part)
        return "0600" if isinstance(part, Blob) and part.private else "0644"

    def write(self, act: Act) -> Iterator[Block]:
        undo = ("undo", self.name, act.identity)
        new: Blob | None
        if act.undone:
            at, new, _ = act.memory[undo]
        else:
            at, now = (act.base[0].path if act.base else act.at(act.options["path"])), act.have.get("content")
            text = self.edited(act.options, act.verb is Verb.DELETE, _decoded(now))
            new = Blob.of(text, private=now is not None and now.private)
            act.memory[undo] = at, now, new
        if new is None:
            yield removed(at)
        else:
            yield from replaced(at, new, act, self.default_mode(act))


def _decoded(content: Blob | None) -> str:
    if content is None:
        return ""
    if content.data is None:
        raise DeviceError("the content was not kept")
    return content.data.decode("utf-8", "surrogateescape")


def _minus(old: str, new: str, private: bool) -> dict[str, Any]:
    """The lines that go."""
    kept = new.split("\n")
    gone = [line for line in old.split("\n") if line not in kept]
    return {"lines": Blob.of("\n".join(gone), private=private)} if gone else {}


class LineKind(PartKind):
    part = "line"

    def identify(self, fields: Mapping[str, Value]) -> str | Problem:
        path = fields.get("path")
        if not isinstance(path, str) or not path:
            return self.misnamed("path", fields) or Problem("path", "is missing: it names the file")
        words = fields.get("regexp") or fields.get("line")
        if isinstance(words, Secret):
            return Problem("line", "is a secret: regexp: must say which line it is", "regexp: ^password=")
        if words is None:
            return Problem("line", "is missing")
        return f"{path}: {words}"

    def problems(self, fields: dict[str, Value], absent: bool) -> Iterable[Problem]:
        yield from PartKind.problems(self, fields, absent)
        if not absent and "line" not in fields:
            yield Problem("line", "is missing")
        elif "line" in fields and b"\n" in fields["line"].data:
            yield Problem("line", "is more than one line", "ssh.block has several")

    def edited(self, fields: Mapping[str, Value], absent: bool, text: str) -> str:
        line = _decoded(fields["line"]) if "line" in fields else None
        if absent or line is None:
            return without_lines(text, line, fields.get("regexp"))
        return with_line(text, line, fields.get("regexp"), _place(fields))


class BlockKind(PartKind):
    part = "block"

    def identify(self, fields: Mapping[str, Value]) -> str | Problem:
        path = fields.get("path")
        if not isinstance(path, str) or not path:
            return self.misnamed("path", fields) or Problem("path", "is missing: it names the file")
        marker = fields.get("marker")
        return path if marker is None else f"{path}: {marker}"

    def problems(self, fields: dict[str, Value], absent: bool) -> Iterable[Problem]:
        yield from PartKind.problems(self, fields, absent)
        if _MARK not in fields.get("marker", _MARK) or "\n" in fields.get("marker", ""):
            yield Problem("marker", f"must be one line that holds {_MARK}", f'marker: "# {_MARK} app"')
        if not absent and "block" not in fields:
            yield Problem("block", "is missing")
        if "block" in fields:
            marks = _marks(fields)
            lines = (line.removesuffix("\r") for line in _decoded(fields["block"]).split("\n"))
            if mark := next((line for line in lines if line in marks), None):
                hint = 'marker: "# {mark} app"'
                yield Problem("block", f'holds a line that is one of its marks: "{mark}"', hint)

    def edited(self, fields: Mapping[str, Value], absent: bool, text: str) -> str:
        begin, end = _marks(fields)
        if absent:
            return without_block(text, begin, end)
        return with_block(text, _decoded(fields["block"]), begin, end, _place(fields))


def _marks(fields: Mapping[str, Value]) -> tuple[str, str]:
    """The lines around a block."""
    marker = str(fields.get("marker", f"# {_MARK} fazai"))
    return marker.replace(_MARK, "BEGIN"), marker.replace(_MARK, "END")


def _place(fields: Mapping[str, Value]) -> Place:
    return Place(fields.get("insertafter"), fields.get("insertbefore"))


_AROUND = (
    FieldSpec("insertafter", "text", "where a new one goes: behind the last line that matches, or EOF"),
    FieldSpec("insertbefore", "text", "where a new one goes: before the last line that matches, or BOF"),
    FieldSpec("create", "boolean", "make the file when it is not there"),
    *REPLACING,
    FieldSpec("state", "choice", choices=("present", "absent")),
)

KINDS = (
    LineKind(
        name="ssh.line",
        summary="One line of a file",
        specs=(
            FieldSpec("path", "path", "the file", required=True),
            FieldSpec("line", "content", "the line as it is to be"),
            FieldSpec("regexp", "text", "which line it takes the place of: the last that matches"),
            *_AROUND,
        ),
        identity=("path", "regexp"),  # and `line`, where there is no regexp
        example='ssh.line: {path: /etc/ssh/sshd_config, regexp: "^#?PrintMotd", line: PrintMotd no}',
    ),
    BlockKind(
        name="ssh.block",
        summary="Lines of a file between two marks",
        specs=(
            FieldSpec("path", "path", "the file", required=True),
            FieldSpec("block", "content", "the lines"),
            FieldSpec("marker", "text", "the marks; {mark} becomes BEGIN and END", default="# {mark} fazai"),
            *_AROUND,
        ),
        identity=("path", "marker"),
        example='ssh.block: {path: /etc/hosts, block: "192.0.2.1 one\\n192.0.2.2 two\\n"}',
    ),
)
