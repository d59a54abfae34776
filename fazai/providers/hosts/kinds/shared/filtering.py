"""A file that others write to as well, changed by lines: the host filters its own copy, and renames it.

What came into the file after it was looked at stays; what travels is only the lines that change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from fazai.providers.hosts.kind import Act, Answers, Block, HostKind, Want
from fazai.providers.hosts.shell.preconditions import MOVED, Precondition
from fazai.providers.hosts.shell.questions import ContentOf, FileAt
from fazai.providers.hosts.shell.quoting import quote
from fazai.providers.hosts.shell.writing import remove_made_folders, temporary_path

#: The exit status of a shell that has no such program.
NO_PROGRAM: Final = 127
_LIMIT_BYTES: Final = 1024 * 1024
#: The beginning of a filter: `put()` prints what takes the place of the lines that go, once; without such
#: lines it comes at the end. awk's ENVIRON takes any text as it is. `out()` counts what it prints, as
#: busybox's awk says nothing of a disk that is full.
FILTER_BEGIN: Final = """function out(s) { print s; bytes += length(s) + 1 }
function put() { if (!done && ENVIRON["fz_new"] != "") out(ENVIRON["fz_new"]); done = 1 }
END { put(); if (ENVIRON["fz_count"]) print bytes + 0 >"/dev/stderr" }
"""


def filter_command(program: str, environ: Mapping[str, str]) -> str:
    """Return the command that filters standard input with an awk program."""
    words = " ".join(f"{name}={quote(value)}" for name, value in environ.items())
    return f"{words} awk {quote(program)}"


def edit_script(
    word: str, command: str, token: str, *, mode: str = "0644", owner: str = "", drop_empty: bool = False
) -> str:
    """Return a script that puts the file at a path (`word` of the script), or where a link there leads,
    through a command. It keeps mode and owner; a new one gets these. `drop_empty`: a file of which nothing is
    left goes."""
    lines = [
        f"set -e; fz_open {word} {token} 1; fz_old",
        '[ -z "$fz_e" ] || [ -n "$fz_was" ] || fz_fail "there is something else than a file"',
        'umask 077; set -C; : >"$fz_tmp"; set +C',
        'if [ -n "$fz_was" ]; then fz_h=$(fz_hash <"$fz_was"); cp -p "$fz_was" "$fz_tmp"; fz_in=$fz_was',
        "else fz_h= fz_in=/dev/null",
        f'fz_set "$fz_tmp" {mode} "{owner}"; fi',
        f'fz_k=$(fz_count=1 {command} 2>&1 <"$fz_in" >"$fz_tmp") || case $fz_k in',
        '*[!0-9]*) fz_fail "$fz_k";; *) fz_k=;; esac',  # mawk counts, and fails at the end without a word
        '[ "$fz_k" = $(($(wc -c <"$fz_tmp"))) ] || fz_fail "no space left: it was not written"',
    ]
    lines += [  # somebody else may have written the file while it went through the command
        'if [ -n "$fz_h" ]; then [ "$fz_h" = "$(fz_hash 2>/dev/null <"$fz_t")" ]',
        f'else [ ! -e "$fz_t" ] && [ ! -h "$fz_t" ]; fi || {{ fz_m moved {word}; exit {MOVED}; }}',
    ]
    if drop_empty:
        lines.append('[ -s "$fz_tmp" ] || { rm -f "$fz_tmp" "$fz_t"; exit 0; }')
    return "\n".join([*lines, 'fz_sync "$fz_tmp"', "fz_take"])


class SharedLineKind(HostKind):
    """Base of the kinds whose item is a line, which is changed in the file as it is by then."""

    asked = True

    def rests_on(self, want: Want, answers: Answers) -> tuple[Precondition, ...]:
        return ()


def file_questions(path: str) -> tuple[FileAt, ContentOf]:
    """Return the questions about such a file."""
    return FileAt(path, follow=True), ContentOf(path, _LIMIT_BYTES)


def file_content(want: Want, path: str, answers: Answers) -> bytes:
    """Return the file's content; empty when it is not there. Raises DeviceError where that cannot be told, as
    it cannot be edited then."""
    at_path, content_of = file_questions(path)
    state, content = want.state(answers, at_path), want.output(answers, content_of)
    shown = path.removeprefix(want.at("/").rstrip("/"))
    if state.type == "missing":
        return b""
    if state.type != "file":  # a link is followed: this is what it leads to
        raise want.error(f"{shown} is a {state.noun}, not a file", "move it away first")
    if content.exit and state.size > _LIMIT_BYTES:
        raise want.error(f"{shown} is larger than {_LIMIT_BYTES >> 20} MiB")
    if content.exit:
        raise want.error(f"{shown} may not be read", "become: true")
    return content.out


def note_made(word: str, token: str) -> str:
    """Return a line that notes which folders are made with a file that is not there (`fz_top`)."""
    return f"[ -e {word} ] || [ -h {word} ] || fz_top {word} {token}\n"


def edit_file(path: str, command: str, act: Act) -> Iterator[Block]:
    """Iterate over blocks that edit a file, of which nothing need be left; its folder is made as root would
    by hand. When that is undone both go again, if they were made for it and nothing else is in them."""
    word = quote(path)
    drops = not act.undone or ("made", act.undoes) in act.memory
    made = f"set -e; {note_made(word, act.token)}fz_parents {word} {act.token}\n"
    yield Block(
        made + edit_script(word, command, act.token, drop_empty=drops), temporary_path(path, act.token)
    )
    yield from remove_made_folders(path, act)
