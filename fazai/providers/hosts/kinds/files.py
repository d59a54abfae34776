"""host.file, host.directory, host.link"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from fazai.model import FieldSpec, Problem, Value, Verb
from fazai.providers.hosts.blob import Blob
from fazai.providers.hosts.folder_names import inside_question, read_names
from fazai.providers.hosts.kind import PRESENCE, Act, Answers, Block, Have, HostKind, Want
from fazai.providers.hosts.kinds.shared.paths import WholePathKind
from fazai.providers.hosts.shell import writing
from fazai.providers.hosts.shell.preconditions import Precondition, add_names, check_empty_line
from fazai.providers.hosts.shell.questions import FileAt, Output, OutputOf, PathState, Question
from fazai.providers.hosts.shell.quoting import quote
from fazai.providers.hosts.shell.walking import MOUNTED, MOUNTED_HINT

_TARGET_BYTES = 4095
_AWAY = "move it away first, or declare another path; what is in it is not thrown away"


class FileKind(WholePathKind):
    """A regular file, whole."""

    name = "host.file"
    summary = "A file: content, mode, owner"
    example = 'host.file: {path: /etc/app/app.conf, mode: "0644", content: "listen=127.0.0.1\\n"}'
    identity = ("path",)
    by_hash = "content"
    options = frozenset(("backup", "validate"))
    specs = (
        FieldSpec("path", "path", "where it is", required=True),
        FieldSpec("content", "content", "the whole text"),
        FieldSpec("src", "source", "a file beside the playbook or inventory that has the content"),
        FieldSpec("template", "template", "a Jinja2 file beside the playbook or inventory"),
        *writing.ATTRIBUTES,
        *writing.REPLACING,
        PRESENCE,
    )
    joins = True

    def problems(self, fields: dict[str, Value], absent: bool) -> Iterable[Problem]:
        given = [name for name in ("content", "src", "template") if name in fields]
        for name in given[1:]:
            yield Problem(name, f"and {given[0]} are two contents of one file")
        yield from writing.check_replacing(fields)
        for name in given:
            fields["content"] = fields.pop(name)
        content = fields.get("content")
        if content is not None and "mode" in fields and not int(fields["mode"], 8) & 0o004:
            fields["content"] = content.hidden()

    def question(self, want: Want) -> FileAt:
        return FileAt(self.path(want), "content" in want.fields)

    def ask_more(self, want: Want, answers: Answers) -> Iterable[Question]:
        state, content = self.path_state(want, answers), want.fields.get("content")
        if state.type == "file" and (want.absent or (content is not None and state.sha256 != content.sha256)):
            yield self.content_question(want)

    def read(self, want: Want, answers: Answers) -> Have | None:
        content, state = want.fields.get("content"), self.path_state(want, answers)
        undeclared = content is None and not want.absent
        if state.type == "missing":
            if undeclared:
                raise want.error("there is no such file, and no content is declared", "content: …")
            return None
        if state.type == "link":
            if undeclared:  # `chmod` would follow it
                text = f"there is a link to {state.target}, and no content is declared"
                raise want.error(text, "path: what it leads to; or content: …, and a file takes its place")
            return {"link": state.target}
        if state.type != "file":
            raise want.error(f"there is a {state.noun}, not a file", _AWAY)
        have = writing.seen_attributes(want, state)
        if not undeclared:
            have["content"] = self._found_content(want, state, answers, content)
        return have

    def _found_content(self, want: Want, state: PathState, answers: Answers, wanted: Blob | None) -> Blob:
        """Return the content of the file; hidden when others may not read it."""
        if wanted is not None and state.sha256 == wanted.sha256:
            return wanted
        private = not state.mode & 0o004 or (wanted is not None and wanted.private)
        found = self.kept_content(want, state, answers, private=private)
        if not found.sha256 and not want.absent:
            raise want.error("the file may not be read", "become: true")
        return found

    def differing(self, want: Want, have: Have) -> dict[str, Any]:
        if "link" in have:  # a file takes the link's place
            return {**self.declared(want), "link": ""}
        return HostKind.differing(self, want, have)

    def left(self, path: str, act: Act) -> Precondition:
        content = act.after.get("content")
        if content is None:
            return writing.file_left(path, act, "0644", "")
        return writing.file_left(path, act, content.default_mode, content.sha256)

    def put(self, path: str, act: Act) -> Iterator[Block]:
        known, content = act.have.get("content"), act.after.get("content")
        if act.after.get("link"):
            yield _replace_with_link(path, act.after["link"], act.token)
        elif content is not None:
            yield from writing.replace_host_file(path, content, act, content.default_mode)
        elif act.have.get("shared") and known is not None and known.data is not None:
            yield from writing.replace_host_file(
                path, known, act, "0600"
            )  # what stands there is given to nobody
        else:
            yield writing.change_attributes(path, act)


def _replace_with_link(path: str, target: str, token: str, owner: str = "") -> Block:
    """Return a block that puts a link in place of a link or a file. `mv` would go into a directory that is
    linked to."""
    script = f"set -e; fz_open {quote(path)} {token}\nfz_relink {quote(target)} {owner}"
    return Block(script, writing.temporary_path(path, token))


def _make_link(path: str, target: str, token: str) -> Block:
    """Return a block that makes a link where nothing was; what came since stays, and `ln` would put the link
    into a directory."""
    script = f"set -e; fz_open {quote(path)} {token}\nfz_link {quote(target)}"
    plain = f"fz_t={quote(path)}; fz_link {quote(target)}"
    return Block(script, at=path, plain=plain, below="loose")


class DirectoryKind(WholePathKind):
    """A directory and its attributes; its parents are made."""

    name = "host.directory"
    summary = "A directory: mode, owner; its parents are made"
    example = 'host.directory: {path: /var/lib/app, mode: "0750", owner: root}'
    identity = ("path",)
    options = frozenset(("recurse",))
    specs = (
        FieldSpec("path", "path", "where it is", required=True),
        *writing.ATTRIBUTES,
        FieldSpec("recurse", "boolean", "with state: absent: also what is in it; cannot be taken back"),
        PRESENCE,
    )
    joins = True
    hollow = True

    def ask_more(self, want: Want, answers: Answers) -> Iterable[Question]:
        if want.absent and self.path_state(want, answers).type == "directory":
            yield self._mount_question(want)
            if self.spans_below(want):
                yield inside_question(self.path(want))

    def _mount_question(self, want: Want) -> OutputOf:
        return OutputOf(f"{MOUNTED}fz_mounted {quote(self.path(want))}")

    def spans_below(self, want: Want) -> bool:
        return want.absent and bool(want.fields.get("recurse"))

    def read(self, want: Want, answers: Answers) -> Have | None:
        state = self.path_state(want, answers)
        if state.type == "missing":
            return None
        if state.type != "directory":
            raise want.error(f"there is a {state.noun}, not a directory", _AWAY)
        mounted = answers.get(self._mount_question(want))
        if isinstance(mounted, Output) and mounted.out:
            where = mounted.text.strip().removeprefix(want.at("/").rstrip("/"))
            raise want.error(f"{where} is a mount point: nothing is removed", MOUNTED_HINT)
        have = writing.seen_attributes(want, state)
        if self.spans_below(want):
            have["holds"], _ = read_names(self.path(want), answers)
            if not have["holds"]:
                raise want.error("what is in it cannot be told", "become: true")
        return have

    def rests_on(self, want: Want, answers: Answers) -> tuple[Precondition, ...]:
        found = HostKind.rests_on(self, want, answers)
        return tuple(add_names(each, answers) for each in found) if self.spans_below(want) else found

    def is_lasting(self, verb: Verb, before: Mapping[str, Value], options: Mapping[str, Value]) -> bool:
        return verb is Verb.DELETE and bool(options.get("recurse"))

    def left(self, path: str, act: Act) -> Precondition:
        if act.verb is Verb.CREATE:  # its mode may have bits of the folder above
            return Precondition(path, "directory")
        return replace(writing.file_left(path, act, "", ""), type="directory")

    def remove(self, path: str, act: Act) -> Iterator[Block]:
        word = quote(path)
        if act.options.get("recurse"):
            yield Block(f"fz_rmtree {word}", at=path, plain=f"(fz_rmtree {word})")
            return
        first = check_empty_line(path) if act.undone else ""
        script = f'set -e; fz_in {word}; {first}rmdir "./$fz_name"'
        yield Block(script, at=path, plain=f"{first}rmdir {word}")
        yield from writing.remove_made_folders(path, act)

    def put(self, path: str, act: Act) -> Iterator[Block]:
        yield _folder_block(path, act) if act.verb is Verb.CREATE else writing.change_attributes(path, act)


def _folder_block(path: str, act: Act) -> Block:
    word, mode = quote(path), act.after.get("mode", "0755")
    if "mode" in act.after:  # five digits: also without what the folder above hands down
        mode = f"0{mode}"
    owner, group = (str(act.after.get(name, "")) for name in ("owner", "group"))
    account = writing.account_of(owner, group)
    # a change of the owner drops set-user-id bits, and `mkdir -m` need not know of them
    later = mode if account or len(mode.lstrip("0")) > 3 else None
    lines = writing.set_attributes(word, later, owner, group)
    if "mode" in act.after and later is None:
        lines += f"\n[ ! -g {word} ] || chmod {mode} {word}"
    top = f"fz_top {word} {act.token}\n"
    plain = f"{top}umask 022\nmkdir -p -m {mode[-3:]} {word}\n{lines}"
    script = f"set -e; {top}fz_parents {word} {act.token}\n{writing.check_recipient(act)}"
    script += f"fz_make {act.token} {mode} {account or quote('')}"
    return Block(script, at=path, plain=plain, below=writing.trust_below(act))


class LinkKind(WholePathKind):
    """A symbolic link."""

    name = "host.link"
    summary = "A symbolic link"
    example = "host.link: {path: /etc/localtime, target: /usr/share/zoneinfo/UTC}"
    identity = ("path",)
    specs = (
        FieldSpec("path", "path", "where it is", required=True),
        FieldSpec("target", "text", "where it leads, as it is written in the link", required=True),
        PRESENCE,
    )
    joins = True

    def problems(self, fields: dict[str, Value], absent: bool) -> Iterable[Problem]:
        size = len(fields.get("target", "").encode("utf-8", "surrogateescape"))
        if size > _TARGET_BYTES:
            yield Problem("target", f"is {size} bytes long, and no link can hold more than {_TARGET_BYTES}")

    def read(self, want: Want, answers: Answers) -> Have | None:
        state = self.path_state(want, answers)
        if state.type == "missing":
            return None
        if state.type != "link":
            raise want.error(f"there is a {state.noun}, not a link", _AWAY)
        return {"target": state.target, "uid": state.uid, "gid": state.gid}

    def left(self, path: str, act: Act) -> Precondition:
        return Precondition(path, "link", target=act.after["target"])

    def put(self, path: str, act: Act) -> Iterator[Block]:
        if act.verb is Verb.CREATE and not act.undone:
            yield _make_link(path, act.after["target"], act.token)
        else:
            owner = f"{act.have['uid']}:{act.have['gid']}" if "uid" in act.have else ""
            yield _replace_with_link(path, act.after["target"], act.token, owner)


KINDS = (FileKind(), DirectoryKind(), LinkKind())
