"""All filters and tests by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fazai.template.filters import checks, data, network, regex, sequences, text
from fazai.template.filters.base import TemplateFilter

FILTERS: Final[Mapping[str, TemplateFilter]] = {
    **data.FILTERS,
    **text.FILTERS,
    **sequences.FILTERS,
    **regex.FILTERS,
    **network.FILTERS,
}
TESTS: Final[Mapping[str, TemplateFilter]] = {**checks.TESTS, **regex.TESTS}
