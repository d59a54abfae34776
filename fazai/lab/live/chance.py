"""The generator of what the lab makes up: the same for the same seed and the same thing."""

from __future__ import annotations

import random

from fazai.lab.box import Box


def chance_of(box: Box, what: object) -> random.Random:
    """Return a generator of its own for one thing."""
    return random.Random(f"{box.settings.traffic} {what}")  # noqa: S311 - made-up figures, no secrets
