"""How much is tried. Slow campaigns are short in CI, in full by hand (`FAZAI_CAMPAIGN=1 pytest -m slow`)."""

from __future__ import annotations

import os

import pytest

__all__ = ["campaign_size", "in_full", "with_examples"]


def in_full() -> bool:
    """Whether campaigns are to be gone through in full."""
    return bool(os.environ.get("FAZAI_CAMPAIGN"))


def campaign_size(full: int) -> int:
    """The number of inputs of a campaign: all of them where they are asked for, else a twentieth."""
    return full if in_full() else full // 20


def with_examples(few: int, many: int) -> pytest.MarkDecorator:
    """The test's `count` of examples for hypothesis: few in the fast tests, many in the slow ones."""
    return pytest.mark.parametrize("count", [few, pytest.param(many, marks=pytest.mark.slow)])
