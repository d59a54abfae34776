"""Names in a folder that is to be removed with all that is in it.

Names are counted and hashed, not contents: a file that grows, as a log does, is no reason to stop; what came
into the folder since it was looked at, or went, is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from fazai.providers.hosts.shell.questions import Answer, Output, OutputOf, Question
from fazai.providers.hosts.shell.quoting import quote

#: So many names are told apart; of a folder with more, the first ones that it lists.
_MOST: Final = 100_000
#: `fz_inside FOLDER`: how many names are in it, at any depth and with its own, and their hash. No link is
#: followed.
INSIDE: Final = rf"""
fz_inside() (
cd -P "$1" || exit
{{ find . 2>/dev/null | head -n {_MOST + 2} | sort |
awk '{{ print }} END {{ print "count", NR >"/dev/stderr" }}' | fz_hash; }} 2>&1
)
"""
_COUNT: Final = re.compile(rb"^count ([0-9]+)$", re.MULTILINE)
_HASH: Final = re.compile(rb"^\\?([0-9a-f]{64})", re.MULTILINE)
_SHOWN: Final = 16


def inside_question(path: str) -> OutputOf:
    """Return the question what is in a folder."""
    return OutputOf(f"{INSIDE}fz_cd {quote(path)}; fz_inside .")


def read_names(path: str, answers: Mapping[Question, Answer]) -> tuple[str, str]:
    """Say in words what is in a folder, and give the hash of the names; both empty where that was not asked
    or cannot be told."""
    answer = answers.get(inside_question(path))
    if not isinstance(answer, Output) or answer.exit:
        return "", ""
    count, sha256 = _COUNT.search(answer.out), _HASH.search(answer.out)
    if count is None or sha256 is None:
        return "", ""
    number, found = int(count[1]) - 1, sha256[1].decode()
    if number < 0:  # there is no `find`
        return "", ""
    said = f"more than {_MOST}" if number > _MOST else str(number)
    return f"{said} name{'' if number == 1 else 's'} (sha256 {found[:_SHOWN]}…)", found
