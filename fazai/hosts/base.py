"""What an action rests on: what was at a path when it was looked at.

It travels with the action and is compared in the script, in the step that writes: what moved on since then is
not written to. An undo rests on what the action left, in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from fazai.hosts.inside import INSIDE
from fazai.hosts.questions import PathState
from fazai.hosts.quoting import quoted

__all__ = ["FUNCTION", "MOVED", "Base", "checked", "empty", "moved_path", "reported"]

#: The exit status of a script that found something else than what its action rests on, and wrote nothing.
MOVED: Final = 85
_BITS: Final = {"file": 0o100000, "directory": 0o040000, "link": 0o120000}

#: `fz_base PATH missing`, or PATTERN in place of `missing`, then SHA256 TARGET PLACE: the pattern is for the
#: beginning of what `fz_stat` says; an empty hash, target or place is not compared. The hash of a folder is
#: that of the names in it (`fz_inside`). What is not as it was is named: the block ends there. In a folder
#: host the path is walked to (`walking`), as its links do not lead out of it; so is one of which the place is
#: given.
#: `fz_top PATH TOKEN` says how long the name of the first folder is that is not there yet.
FUNCTION: Final = rf"""{INSIDE}
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
_MADE: Final = re.compile(rb"\n([0-9a-f]+) made ([0-9a-f]+) (\d+)(?=\n)")
_KEPT: Final = re.compile(rb"\n([0-9a-f]+) backup ([0-9a-f]+) (\d+:\d+) ([.0-9TZ]+~)(?=\n)")


@dataclass(frozen=True, slots=True)
class Base:
    """What is to be at a path. None, or an empty text: that is not compared. `type` and `place` as of
    `PathState`; `sha256` of a folder: of the names in it (`inside`)."""

    path: str
    type: str
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    target: str = ""
    sha256: str = ""
    place: str = ""

    @classmethod
    def of(cls, path: str, seen: PathState, sha256: str = "") -> Base:
        """What was seen there. `sha256`: of a content that was read in place of its hash."""
        if seen.type not in _BITS:
            return cls(path, seen.type, place=seen.place)
        mode = None if seen.type == "link" else seen.mode  # not every system has one of links
        sha256 = seen.sha256 or sha256
        return cls(path, seen.type, mode, seen.uid, seen.gid, seen.target, sha256, seen.place)


def checked(bases: Sequence[Base]) -> str:
    """Lines of a script that end it with `MOVED` when one of these is not as it was."""
    return "".join(f"fz_base {quoted(base.path)} {_expected(base)}\n" for base in bases)


def _expected(base: Base) -> str:
    place = quoted(base.place)
    if base.type == "missing":
        return f"missing '' '' {place}" if base.place else "missing"
    bits = _BITS.get(base.type)
    if bits is None or base.mode is None:
        mode = "*" if bits is None else f"{bits >> 12:x}*"
    else:
        mode = f"{bits | base.mode:x}"
    account = " ".join("*" if number is None else str(number) for number in (base.uid, base.gid))
    return f"{quoted(f'{mode} {account}')} {quoted(base.sha256)} {quoted(base.target)} {place}"


def empty(path: str) -> str:
    """A line that ends a script as `checked` does when something is in a folder."""
    return f'[ -z "$(ls -A {quoted(path)})" ] || {{ fz_m moved {quoted(path)}; exit {MOVED}; }}\n'


def reported(out: bytes, nonce: str) -> dict[object, Any]:
    """What a script said of the changes, by their tokens: how long the first path is that was not there
    (`fz_top`); the number of a backup, and how its name ends (`fz_backup`)."""
    ours = nonce.encode()
    made = [(token, size) for mark, token, size in _MADE.findall(out) if mark == ours]
    found: dict[object, Any] = {("made", token.decode()): int(size) for token, size in made}
    kept = [each[1:] for each in _KEPT.findall(out) if each[0] == ours]
    found.update({("backup", token.decode()): (node.decode(), end.decode()) for token, node, end in kept})
    return found


def moved_path(bases: Sequence[Base], out: bytes, nonce: str) -> str | None:
    """The path that a script's output says is not as it was; None: it says nothing of the kind."""
    _, found, rest = out.partition(f"\n{nonce} moved ".encode())
    if not found:
        return None
    said = rest.decode("utf-8", "surrogateescape")
    paths = [base.path for base in bases if said.startswith(base.path)]
    return max(paths, key=len, default=said.partition("\n")[0])
