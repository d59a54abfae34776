"""ssh.file, ssh.directory, ssh.link"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from fazai.hosts.base import Base, empty
from fazai.hosts.blob import Blob
from fazai.hosts.kind import Act, Answers, Block, Have, HostKind, Want
from fazai.hosts.questions import KEPT_BYTES, ContentOf, FileAt, Output, PathState, Question
from fazai.hosts.quoting import quoted
from fazai.hosts.writing import (
    ATTRIBUTES,
    REPLACING,
    check_replacing,
    denied,
    left_file,
    replaced,
    seen_attributes,
    set_attributes,
    temporary,
    unlike,
)
from fazai.model import FieldSpec, Problem, Value, Verb

__all__ = ["KINDS"]

_AWAY = "move it away first, or declare another path; what is in it is not thrown away"
_PRESENT = FieldSpec("state", "choice", choices=("present", "absent"))


class FileKind(HostKind):
    """A regular file, whole."""

    joins = True

    def problems(self, fields: dict[str, Value], absent: bool) -> Iterable[Problem]:
        given = [name for name in ("content", "src", "template") if name in fields]
        for name in given[1:]:
            yield Problem(name, f"and {given[0]} are two contents of one file")
        yield from check_replacing(fields)
        for name in given:
            fields["content"] = fields.pop(name)
        content = fields.get("content")
        if content is not None and "mode" in fields and not int(fields["mode"], 8) & 0o004:
            fields["content"] = content.hidden()

    def ask(self, want: Want) -> Iterable[Question]:
        yield FileAt(want.at(want.fields["path"]), "content" in want.fields)

    def more(self, want: Want, answers: Answers) -> Iterable[Question]:
        path = _state(want, answers, "content" in want.fields)
        content = want.fields.get("content")
        if path.type == "file" and (want.absent or (content is not None and path.sha256 != content.sha256)):
            yield ContentOf(want.at(want.fields["path"]), KEPT_BYTES)

    def read(self, want: Want, answers: Answers) -> Have | None:
        content = want.fields.get("content")
        path = _state(want, answers, content is not None)
        if path.type == "missing":
            if content is None and not want.absent:
                raise unlike(want, "there is no such file, and no content is declared", "content: …")
            return None
        if path.type == "link":
            return {"link": path.target}
        if path.type != "file":
            what = path.type if path.type == "directory" else "special file"
            raise unlike(want, f"there is a {what}, not a file", _AWAY)
        have = seen_attributes(want, path)
        if content is not None or want.absent:
            have["content"] = _content(want, path, answers, content)
        return have

    def differing(self, want: Want, have: Have) -> dict[str, Any]:
        if "link" in have:  # a file takes the link's place
            return {**self.declared(want), "link": ""}
        return HostKind.differing(self, want, have)

    def lasting(self, verb: Verb, before: Mapping[str, Value], options: Mapping[str, Value]) -> bool:
        content = before.get("content")
        return content is not None and content.data is None  # too large to be kept

    def touches(self, want: Want) -> tuple[str, ...]:
        return (want.at(want.fields["path"]),)

    def leaves(self, act: Act) -> tuple[Base, ...]:
        path = act.at(act.identity)
        if act.verb is Verb.DELETE:
            return (Base(path, "missing"),)
        content = act.after.get("content")
        mode = "0600" if content is not None and content.private else "0644"
        return (left_file(path, act, mode, "" if content is None else content.sha256),)

    def write(self, act: Act) -> Iterator[Block]:
        path = act.at(act.identity)
        if act.verb is Verb.DELETE:
            yield Block(f"rm -f {quoted(path)}", at=path)
        elif act.after.get("link"):
            yield _link(path, act.after["link"], act.token)
        elif "content" in act.after:
            content = act.after["content"]
            yield from replaced(path, content, act, "0600" if content.private else "0644")
        else:
            yield _attributes(path, act)


def _state(want: Want, answers: Answers, hashed: bool = False) -> PathState:
    path = answers[FileAt(want.at(want.fields["path"]), hashed)]
    assert isinstance(path, PathState)
    if path.type == "denied":
        raise denied(want)
    return path


def _content(want: Want, path: PathState, answers: Answers, wanted: Blob | None) -> Blob:
    """What is in the file; hidden when others may not read it."""
    if wanted is not None and path.sha256 == wanted.sha256:
        return wanted
    answer = answers.get(ContentOf(want.at(want.fields["path"]), KEPT_BYTES))
    private = not path.mode & 0o004 or (wanted is not None and wanted.private)
    if isinstance(answer, Output) and answer.exit == 0:
        return Blob.of(answer.out, private=private)
    if not path.sha256 and not want.absent:
        raise unlike(want, "the file may not be read", "become: true")
    return Blob(None, path.sha256, path.size, private)


def _attributes(path: str, act: Act) -> Block:
    """Only those that differ."""
    fields = act.after
    lines = set_attributes(quoted(path), fields.get("mode"), str(fields.get("owner", "")), _group(act))
    return Block(f"set -e\n{lines}", at=path)


def _group(act: Act) -> str:
    return str(act.after.get("group", ""))


def _link(path: str, target: str, token: str) -> Block:
    """A link that takes the place of a link or a file. `mv` would go into a directory that is linked to."""
    tmp = temporary(path, token)
    return Block(
        f"set -e; trap 'rm -f \"$fz_tmp\"' EXIT\n"
        f'ln -s -- {quoted(target)} "$fz_tmp"\n'
        f'mv -fT "$fz_tmp" {quoted(path)} 2>/dev/null || '
        f'{{ rm -f {quoted(path)} && mv -f "$fz_tmp" {quoted(path)}; }}',
        tmp,
    )


def _new_link(path: str, target: str) -> Block:
    """Nothing was there; what came since stays, and `ln` would put the link into a directory."""
    where = quoted(path)
    lines = (
        "fz_y='there is something else by now'",
        f"[ ! -d {where} ] || [ -h {where} ] || fz_y='there is a directory, not a link'",
        f'if [ -e {where} ] || [ -h {where} ]; then echo "$fz_y" >&2; exit 1; fi',
        f"ln -s -- {quoted(target)} {where}",
    )
    return Block("\n".join(lines), at=path)


class DirectoryKind(HostKind):
    """A directory and its attributes; its parents are made."""

    joins = True
    hollow = True

    def ask(self, want: Want) -> Iterable[Question]:
        yield FileAt(want.at(want.fields["path"]))

    def read(self, want: Want, answers: Answers) -> Have | None:
        path = _state(want, answers)
        if path.type == "missing":
            return None
        if path.type != "directory":
            what = "special file" if path.type == "other" else path.type
            raise unlike(want, f"there is a {what}, not a directory", _AWAY)
        return seen_attributes(want, path)

    def lasting(self, verb: Verb, before: Mapping[str, Value], options: Mapping[str, Value]) -> bool:
        return verb is Verb.DELETE and bool(options.get("recurse"))

    def touches(self, want: Want) -> tuple[str, ...]:
        return (want.at(want.fields["path"]),)

    def leaves(self, act: Act) -> tuple[Base, ...]:
        path = act.at(act.identity)
        if act.verb is Verb.DELETE:
            return (Base(path, "missing"),)
        if act.verb is Verb.CREATE:  # its mode may have bits of the folder above
            return (Base(path, "directory"),)
        return (replace(left_file(path, act, "", ""), type="directory"),)

    def write(self, act: Act) -> Iterator[Block]:
        path = act.at(act.identity)
        if act.verb is Verb.DELETE:
            gone = f"rm -rf {quoted(path)}" if act.options.get("recurse") else f"rmdir {quoted(path)}"
            yield Block(f"{empty(path) if act.undone else ''}{gone}", at=path)
        elif act.verb is Verb.CREATE:
            mode = act.after.get("mode", "0755")
            owner, group = str(act.after.get("owner", "")), _group(act)
            # a change of the owner drops set-user-id bits, and `mkdir -m` need not know of them
            later = mode if owner or group or len(mode.lstrip("0")) > 3 else None
            lines = set_attributes(quoted(path), later, owner, group)
            yield Block(f"set -e; umask 022\nmkdir -p -m {mode[-3:]} {quoted(path)}\n{lines}", at=path)
        else:
            yield _attributes(path, act)


class LinkKind(HostKind):
    """A symbolic link."""

    joins = True

    def ask(self, want: Want) -> Iterable[Question]:
        yield FileAt(want.at(want.fields["path"]))

    def read(self, want: Want, answers: Answers) -> Have | None:
        path = _state(want, answers)
        if path.type == "missing":
            return None
        if path.type != "link":
            what = "special file" if path.type == "other" else path.type
            raise unlike(want, f"there is a {what}, not a link", _AWAY)
        return {"target": path.target}

    def touches(self, want: Want) -> tuple[str, ...]:
        return (want.at(want.fields["path"]),)

    def leaves(self, act: Act) -> tuple[Base, ...]:
        path = act.at(act.identity)
        if act.verb is Verb.DELETE:
            return (Base(path, "missing"),)
        return (Base(path, "link", target=act.after["target"]),)

    def write(self, act: Act) -> Iterator[Block]:
        path = act.at(act.identity)
        if act.verb is Verb.DELETE:
            yield Block(f"rm -f {quoted(path)}", at=path)
        elif act.verb is Verb.CREATE and not act.undone:
            yield _new_link(path, act.after["target"])
        else:
            yield _link(path, act.after["target"], act.token)


KINDS = (
    FileKind(
        name="ssh.file",
        summary="A file: content, mode, owner",
        specs=(
            FieldSpec("path", "path", "where it is", required=True),
            FieldSpec("content", "content", "the whole text"),
            FieldSpec("src", "source", "a file beside the playbook or inventory that has the content"),
            FieldSpec("template", "template", "a Jinja2 file beside the playbook or inventory"),
            *ATTRIBUTES,
            *REPLACING,
            _PRESENT,
        ),
        identity=("path",),
        options=frozenset(("backup", "validate")),
        example='ssh.file: {path: /etc/app/app.conf, mode: "0644", content: "listen=127.0.0.1\\n"}',
    ),
    DirectoryKind(
        name="ssh.directory",
        summary="A directory: mode, owner; its parents are made",
        specs=(
            FieldSpec("path", "path", "where it is", required=True),
            *ATTRIBUTES,
            FieldSpec("recurse", "boolean", "with state: absent: also what is in it; cannot be taken back"),
            _PRESENT,
        ),
        identity=("path",),
        options=frozenset(("recurse",)),
        example='ssh.directory: {path: /var/lib/app, mode: "0750", owner: root}',
    ),
    LinkKind(
        name="ssh.link",
        summary="A symbolic link",
        specs=(
            FieldSpec("path", "path", "where it is", required=True),
            FieldSpec("target", "text", "where it leads, as it is written in the link", required=True),
            _PRESENT,
        ),
        identity=("path",),
        example="ssh.link: {path: /etc/localtime, target: /usr/share/zoneinfo/UTC}",
    ),
)
