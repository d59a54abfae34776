"""Preconditions of a change: the state of its paths when they were looked at.

They travel with the change and are compared in the script, in the step that writes: what moved on since then
is not written to. The precondition of an undo is what the change left.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from fazai.compat.language import dataclass
from fazai.providers.hosts.folder_names import INSIDE, read_names
from fazai.providers.hosts.shell.questions import Answer, PathState, Question
from fazai.providers.hosts.shell.quoting import quote

#: The exit status of a script whose preconditions did not hold, and that wrote nothing.
MOVED: Final = 85
_TYPE_BITS: Final = {"file": 0o100000, "directory": 0o040000, "link": 0o120000}

#: `fz_base PATH missing`, or PATTERN in place of `missing`, then SHA256 TARGET PLACE: the pattern is for the
#: beginning of what `fz_stat` says; an empty hash, target or place is not compared. The hash of a folder is
#: that of the names in it (`fz_inside`). What is not as it was is named: the block ends there. In a folder
#: host the path is walked to (`walking`), as its links do not lead out of it; so is one of which the place is
#: given.
#: `fz_top PATH TOKEN` says how long the name of the first folder is that is not there yet.
CHECKING: Final = rf"""{INSIDE}
fz_base() {{
if [ -n "$5" ] || {{ [ -n "$fz_prefix" ] && [ -z "$fz_flat" ]; }}; then
( fz_k=; fz_enter "$1" || {{ [ $? = 3 ] || exit 0; [ "$2" = missing ] || exit; fz_name=$fz_rest fz_k=1; }}
[ -z "$5" ] || [ "$fz_prefix${{fz_here#"$fz_root"}}/$fz_name" = "$5" ] || exit
[ -z "$fz_k" ] || exit 0
shift; fz_same "./$fz_name" "$@" ) && return
else fz_same "$@" && return; fi
fz_m moved "$1"
exit {MOVED}
}}
fz_same() {{
if [ "$2" = missing ]; then [ ! -e "$1" ] && [ ! -h "$1" ]; return; fi
fz_y=$(fz_stat "$1") || fz_y=
case $fz_y in $2' '*) ;; *) return 1;; esac
[ -z "$3" ] || case $(if [ -d "$1" ]; then fz_inside "$1"; else fz_hash <"$1"; fi 2>/dev/null) in
*"$3"*) ;; *) false;; esac &&
{{ [ -z "$4" ] || [ "$(readlink "$1" && echo .)" = "$4$fz_nl." ]; }}
}}
fz_top() {{
fz_d=$1
while fz_c=${{fz_d%/*}}; [ -n "$fz_c" ] && [ ! -e "$fz_c" ] && [ ! -h "$fz_c" ]; do fz_d=$fz_c; done
fz_m made $2 ${{#fz_d}}
}}
"""


#: What `fz_top` says, behind a mark.
_MADE_MARK: Final = re.compile(rb"\n([0-9a-f]+) made ([0-9a-f]+) (\d+)(?=\n)")
_BACKUP_MARK: Final = re.compile(rb"\n([0-9a-f]+) backup ([0-9a-f]+) (\d+:\d+) ([.0-9TZ]+~)(?=\n)")


@dataclass(frozen=True, slots=True)
class Precondition:
    """The state that a path must be in. None, or an empty text: that is not compared. `type` and
    `place` as in `PathState`; `sha256` of a folder: of the names in it (`inside`)."""

    path: str
    type: str
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    target: str = ""
    sha256: str = ""
    place: str = ""

    @classmethod
    def of(cls, path: str, seen: PathState, sha256: str = "") -> Precondition:
        """Demand what was seen there. `sha256`: of a content that was read in place of its hash."""
        if seen.type not in _TYPE_BITS:
            return cls(path, seen.type, place=seen.place)
        mode = None if seen.type == "link" else seen.mode  # not every system has one of links
        sha256 = seen.sha256 or sha256
        return cls(path, seen.type, mode, seen.uid, seen.gid, seen.target, sha256, seen.place)


def check_lines(preconditions: Sequence[Precondition]) -> str:
    """Return lines that end a script with `MOVED` when one of these does not hold."""
    return "".join(f"fz_base {quote(each.path)} {_expected_words(each)}\n" for each in preconditions)


def _expected_words(wanted: Precondition) -> str:
    place = quote(wanted.place)
    if wanted.type == "missing":
        return f"missing '' '' {place}" if wanted.place else "missing"
    bits = _TYPE_BITS.get(wanted.type)
    if bits is None or wanted.mode is None:
        mode = "*" if bits is None else f"{bits >> 12:x}*"
    else:
        mode = f"{bits | wanted.mode:x}"
    account = " ".join("*" if number is None else str(number) for number in (wanted.uid, wanted.gid))
    return f"{quote(f'{mode} {account}')} {quote(wanted.sha256)} {quote(wanted.target)} {place}"


def add_names(wanted: Precondition, answers: Mapping[Question, Answer]) -> Precondition:
    """Return the precondition of a change that removes a folder with all that is in it: these names."""
    return replace(wanted, sha256=read_names(wanted.path, answers)[1])


def check_empty_line(path: str) -> str:
    """Return a line that ends a script with `MOVED` when something is in a folder."""
    return f'[ -z "$(ls -A {quote(path)})" ] || {{ fz_m moved {quote(path)}; exit {MOVED}; }}\n'


def read_side_effects(out: bytes, nonce: str) -> dict[object, Any]:
    """Read the notes that a script printed about its changes, by their tokens: the length of the first path
    that was not there (`fz_top`); the number of a backup, and the end of its name (`fz_backup`)."""
    ours = nonce.encode()
    made = [(token, size) for mark, token, size in _MADE_MARK.findall(out) if mark == ours]
    found: dict[object, Any] = {("made", token.decode()): int(size) for token, size in made}
    kept = [each[1:] for each in _BACKUP_MARK.findall(out) if each[0] == ours]
    found.update({("backup", token.decode()): (node.decode(), end.decode()) for token, node, end in kept})
    return found


def find_moved_path(preconditions: Sequence[Precondition], out: bytes, nonce: str) -> str | None:
    """Return the path of which a script said that it is not as it was; None: it said nothing of the kind."""
    _, found, rest = out.partition(f"\n{nonce} moved ".encode())
    if not found:
        return None
    said = rest.decode("utf-8", "surrogateescape")
    paths = [each.path for each in preconditions if said.startswith(each.path)]
    return max(paths, key=len, default=said.partition("\n")[0])
