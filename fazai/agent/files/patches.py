"""Unified diffs of texts, made and applied: pure, exact, in bounded time.

    --- /etc/motd<TAB>sha256:45e5…        /dev/null instead of the path where there is no file
    +++ /etc/motd
    @@ -1 +1 @@
    -Hello.
    +Welcome.

A patch applies to the text that it was made from and to no other one. Lines stand where the patch says,
without fuzz; and where the hunks do not show the whole old text, its hash stands behind the path. Lines end
with a line feed alone: a carriage return, and what else Python takes for an end, belongs to the line.
"""

from __future__ import annotations

import hashlib
import re

from fazai.agent.errors import Refused
from fazai.agent.files.comparing import find_changes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_CONTEXT = 3
_NO_NEWLINE = "\\ No newline at end of file\n"
_RANGE = r"(0|[1-9][0-9]{0,9})(?:,(0|[1-9][0-9]{0,9}))?"
_HUNK = re.compile(f"@@ -{_RANGE} \\+{_RANGE} @@\n")
_ABSENT = "/dev/null"

#: A text with more characters or lines than this is not made patches of, nor is one applied.
MOST_CHARACTERS = 8 * 1024 * 1024
MOST_LINES = 400_000

_Change = tuple[int, int, int, int]


def hash_text(text: str) -> str:
    """Return the SHA-256 of a text's UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def make_patch(path: str, old: str | None, new: str) -> str:
    """Return what makes `new` of `old`, which is None where there is no file; "" where nothing does."""
    if old == new:
        return ""
    old_lines, new_lines = _split_lines(old or ""), _split_lines(new)
    hunks: list[str] = []
    shown = 0
    for group in _grouped(find_changes(old_lines, new_lines), len(old_lines)):
        shown += _write_hunk(hunks, group, old_lines, new_lines)
    base = _ABSENT if old is None else path
    if old is not None and shown < len(old_lines):
        base += f"\tsha256:{hash_text(old)}"
    return f"--- {base}\n+++ {path}\n{''.join(hunks)}"


def apply_patch(path: str, old: str | None, patch: str, *, base_known: bool = False) -> str:
    """Return what a patch makes of `old`, which is None where there is no file.

    With `base_known` it was made from this very text, and needs neither show all of it nor name its hash.
    Raises Refused: `conflict` where it was made from another text, `bad_request` where it is no patch for
    this path.
    """
    if not patch:
        if old is None:
            raise Refused("conflict", f"{path} is not there, and the patch is empty")
        return old
    lines = _split_lines(patch)
    digest = _read_header(path, old, lines)
    old_lines = _split_lines(old or "")
    if digest is not None and digest != hash_text(old or ""):
        raise _moved_on(path, "its hash is another one")
    made: list[str] = []
    at = shown = 0  # lines of the old text that were passed, and of these the ones in hunks
    place = 2
    while place < len(lines):
        start, hunk_old, new_start, hunk_new, place = _read_hunk(lines, place)
        if start < at:
            raise _no_patch(place, "the hunks are not in order")
        if old_lines[start : start + len(hunk_old)] != hunk_old:
            raise _moved_on(path, f"line {start + 1} or one of the next {len(hunk_old)} is another one")
        made += old_lines[at:start]
        if len(made) != new_start:
            raise _no_patch(place, "its new lines stand elsewhere than the hunk's head says")
        made += hunk_new
        at, shown = start + len(hunk_old), shown + len(hunk_old)
    if digest is None and shown < len(old_lines) and not base_known:
        raise _moved_on(path, "it has lines that the patch does not show, and the patch names no hash")
    made += old_lines[at:]
    if not all(line.endswith("\n") for line in made[:-1]):
        raise _no_patch(len(lines), "a line in the middle has no line feed")
    return "".join(made)


def is_too_long(text: str) -> bool:
    """Return whether a text is beyond what patches are made of."""
    return len(text) > MOST_CHARACTERS or text.count("\n") > MOST_LINES


def _moved_on(path: str, reason: str) -> Refused:
    return Refused("conflict", f"{path} is not what the patch was made from: {reason}", "compare it again")


def _no_patch(place: int, reason: str) -> Refused:
    return Refused("bad_request", f"line {place} of the patch: {reason}", "send what file.diff answered")


def _split_lines(text: str) -> list[str]:
    """Return the lines of a text, each with its line feed; the last one may have none."""
    lines = [f"{line}\n" for line in text.split("\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines


def _grouped(changes: list[_Change], size: int) -> Iterator[list[_Change]]:
    """Return changes whose context meets together, as one hunk shows them."""
    group: list[_Change] = []
    for change in changes:
        if group and change[0] - group[-1][1] > 2 * _CONTEXT:
            yield group
            group = []
        group.append(change)
    if group:
        yield group


def _write_hunk(hunks: list[str], group: list[_Change], old: list[str], new: list[str]) -> int:
    """Add one hunk's text to `hunks`, and return how many lines of the old text it shows."""
    first, last = max(group[0][0] - _CONTEXT, 0), min(group[-1][1] + _CONTEXT, len(old))
    new_first = group[0][2] - (group[0][0] - first)
    new_last = group[-1][3] + (last - group[-1][1])
    hunks.append(f"@@ -{_range(first, last)} +{_range(new_first, new_last)} @@\n")
    at = first
    for a1, a2, b1, b2 in group:
        hunks += _marked(" ", old[at:a1])
        hunks += _marked("-", old[a1:a2])
        hunks += _marked("+", new[b1:b2])
        at = a2
    hunks += _marked(" ", old[at:last])
    return last - first


def _range(first: int, last: int) -> str:
    """Return lines as a hunk's head names them, counted from 1; none stand behind the line before them."""
    if last - first == 1:
        return str(first + 1)
    return f"{first + 1 if last > first else first},{last - first}"


def _marked(mark: str, lines: list[str]) -> Iterator[str]:
    for line in lines:
        yield f"{mark}{line}" if line.endswith("\n") else f"{mark}{line}\n{_NO_NEWLINE}"


def _read_header(path: str, old: str | None, lines: list[str]) -> str | None:
    """Read the first two lines; return the old text's hash where it stands there."""
    if len(lines) < 2 or lines[1] != f"+++ {path}\n":
        raise _no_patch(2, f"`+++ {path}` is expected")
    base = lines[0][:-1].partition("--- ")[2] if lines[0].startswith("--- ") else ""
    if base == _ABSENT:
        if old is not None:
            raise _moved_on(path, "it is there now")
        return None
    hashed = re.fullmatch("\\tsha256:([0-9a-f]{64})", base[len(path) :])
    if not base.startswith(path) or (base != path and hashed is None):
        raise _no_patch(1, f"`--- {path}` is expected, or `--- {_ABSENT}`")
    if old is None:
        raise _moved_on(path, "it is not there any more")
    return hashed.group(1) if hashed is not None else None


def _read_hunk(lines: list[str], place: int) -> tuple[int, list[str], int, list[str], int]:
    """Return where a hunk begins in the old text (from 0) and its lines, the same of the new text, and the
    place in the patch behind it."""
    head = _HUNK.fullmatch(lines[place])
    if head is None:
        raise _no_patch(place + 1, "the head of a hunk is expected")
    start, count, new_start, new_count = (int(number or "1") for number in head.groups())
    sides: dict[str, list[str]] = {"-": [], "+": []}
    place += 1
    while len(sides["-"]) < count or len(sides["+"]) < new_count:
        mark = lines[place][:1] if place < len(lines) else ""
        if not mark or mark not in " -+" or not lines[place].endswith("\n"):
            raise _no_patch(place + 1, "a line that begins with a space, - or + is expected")
        line, place = lines[place][1:], place + 1
        if place < len(lines) and lines[place] == _NO_NEWLINE:
            line, place = line[:-1], place + 1
        for side in "-+" if mark == " " else mark:
            sides[side].append(line)
    if len(sides["-"]) != count or len(sides["+"]) != new_count:
        raise _no_patch(place, "the hunk has other lines than its head says")
    start, new_start = start - 1 if count else start, new_start - 1 if new_count else new_start
    return start, sides["-"], new_start, sides["+"], place
