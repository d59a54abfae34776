"""Numbers in what a host says."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["whole_number"]

_DIGITS: Final = re.compile(r"[0-9]{1,18}")


def whole_number(text: str) -> int | None:
    """The number that the text is; None for anything else. (`str.isdigit` also takes "²", and `int` takes
    "1_0", and neither minds a million digits.)"""
    return int(text) if _DIGITS.fullmatch(text) else None
