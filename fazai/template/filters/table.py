"""All filters and tests by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fazai.template.filters import checks, data, network, regex, sequences, text
from fazai.template.filters.base import Filter

__all__ = ["FILTERS", "TESTS"]

FILTERS: Final[Mapping[str, Filter]] = {
    **data.FILTERS,
    **text.FILTERS,
    **sequences.FILTERS,
    **regex.FILTERS,
    **network.FILTERS,
}
TESTS: Final[Mapping[str, Filter]] = {**checks.TESTS, **regex.TESTS}
