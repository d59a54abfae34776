"""Matches lines with a regular expression of a user, within a limit of time.

Python's `re` backtracks, has no timeout and lets nothing else run meanwhile. What is surely quick is done
here; the rest by a process of its own that may use so much time and memory, so that a line in a file of
somebody else's can hold up nobody.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import field
from functools import lru_cache
from typing import Final

from fazai.compat.language import dataclass
from fazai.errors import DeviceError

#: Steps of the matcher that nobody notices (some hundredths of a second).
_STEPS: Final = 2_000_000
_CPU_S: Final = 1
_WALL_S: Final = 60.0  # for a machine that is busy with others
_MEMORY_BYTES: Final = 1 << 30
#: What makes the number of ways explode: repetition of a group, or of what was matched before.
_EXPLODES: Final = re.compile(r"\)[*+{]|\\[1-9]|\(\?P=|\(\?\(")
_CHILD: Final = f"""import json, re, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, ({_CPU_S}, {_CPU_S}))
resource.setrlimit(resource.RLIMIT_AS, ({_MEMORY_BYTES}, {_MEMORY_BYTES}))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
pattern, lines = json.load(sys.stdin)
search = re.compile(pattern).search
json.dump([number for number, line in enumerate(lines) if search(line)], sys.stdout)
"""


def matching_lines(pattern: str, lines: Sequence[str]) -> frozenset[int]:
    """Return the numbers of the lines in which the pattern is found. Raises DeviceError when it takes too
    long."""
    if surely_quick(pattern, lines):
        search = re.compile(pattern).search
        return frozenset(number for number, line in enumerate(lines) if search(line))
    return _match_apart(pattern, _HashedLines.of(lines))


def surely_quick(pattern: str, lines: Sequence[str]) -> bool:
    """Tell whether nobody would notice how long the pattern takes on these lines, whatever they hold."""
    return _count_steps(pattern, lines) <= _STEPS


def _count_steps(pattern: str, lines: Sequence[str]) -> int:
    """Return an upper bound of the matcher's steps; every repetition is thought to meet every other one."""
    if _EXPLODES.search(pattern):
        return _STEPS + 1
    power = sum(map(pattern.count, "*+{"))
    anchored = pattern.startswith(("^", r"\A")) and "|" not in pattern
    power = min(8, max(1, power if anchored else power + 1))
    ways = 1 << min(pattern.count("?") + pattern.count("|"), 32)
    return sum(ways * (len(line) + 1) ** power for line in lines)


@dataclass(frozen=True, slots=True)
class _HashedLines:
    """Lines that are equal by their hash, and forgotten once they were looked through."""

    sha256: str
    lines: list[str] = field(compare=False, repr=False)

    @classmethod
    def of(cls, lines: Sequence[str]) -> _HashedLines:
        digest = hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape"))
        return cls(digest.hexdigest(), list(lines))


@lru_cache(maxsize=256)
def _match_apart(pattern: str, lines: _HashedLines) -> frozenset[int]:
    """Match in a process of its own; remembered, as plan, write and read-back ask the same."""
    given = json.dumps([pattern, lines.lines]).encode()
    longest = max(map(len, lines.lines), default=0)
    lines.lines.clear()
    words = [sys.executable, "-I", "-S", "-c", _CHILD]
    try:
        done = subprocess.run(words, input=given, capture_output=True, check=True, timeout=_WALL_S)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        raise _too_long(pattern, longest) from None
    return frozenset(json.loads(done.stdout))


def _too_long(pattern: str, longest: int) -> DeviceError:
    return DeviceError(
        f"the regular expression {pattern} takes more than {_CPU_S} s on this file,"
        f" whose longest line has {longest} characters",
        hint="anchor it with ^, and let no two repetitions meet: ^\\s*(#\\s*)?x rather than ^\\s*#?\\s*x",
    )
