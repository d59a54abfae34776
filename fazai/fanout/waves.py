"""The sizes of waves and the budget of failures, as the command line says them."""

from __future__ import annotations

import re
from typing import Final

from fazai.errors import UsageError
from fazai.playbook.resolving import count_share

_SIZE: Final = re.compile(r"([0-9]{1,7})(%?)", re.ASCII)


def parse_waves(text: str | None, count: int) -> tuple[int, ...]:
    """Return the sizes of the waves for so many targets, as `serial:` of a play has them: the last one
    repeats; none: all at once. Raises UsageError."""
    if text is None:
        return ()
    sizes = [_parse_size(part.strip(), least=1) for part in text.split(",")]
    if None in sizes:
        hint = "numbers of hosts or percentages, such as: --wave 10, --wave 1,10%,100%"
        raise UsageError(f"--wave {text[:40]!r} is no list of sizes", hint=hint)
    return tuple(count_share(size, count) or 1 for size in sizes if size is not None)


def parse_budget(text: str | None, count: int) -> int | None:
    """Return how many of so many targets may fail before the next wave is left alone; None: any number.
    Raises UsageError."""
    if text is None:
        return None
    size = _parse_size(text.strip(), least=0)
    if size is None:
        hint = "a number of hosts or a percentage, such as: --max-failures 3, --max-failures 10%"
        raise UsageError(f"--max-failures {text[:40]!r} is no number", hint=hint)
    return count_share(size, count)


def _parse_size(text: str, *, least: int) -> int | str | None:
    """Return a number, or a percentage as text; None for anything else."""
    found = _SIZE.fullmatch(text)
    if found is None or int(found[1]) < least or (found[2] and int(found[1]) > 100):
        return None
    return text if found[2] else int(found[1])
