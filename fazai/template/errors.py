"""The error that rendering tells apart from all others."""

from __future__ import annotations

from fazai.errors import TemplateError

__all__ = ["UndefinedName"]


class UndefinedName(TemplateError):
    """A name that is not there: the only error that `default` and `is defined` take in their stride."""
