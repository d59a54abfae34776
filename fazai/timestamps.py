"""Points in time as messages and reports show them: always UTC, with the zone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import overload


def utc_now() -> datetime:
    """Return the present time."""
    return datetime.now(UTC)


@overload
def timestamp(seconds: float) -> datetime: ...
@overload
def timestamp(seconds: float | None) -> datetime | None: ...
def timestamp(seconds: float | None) -> datetime | None:
    """Return the time that is `seconds` after the epoch; None for None, a time that is not known."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def format_time(seconds: float) -> str:
    """Return the time that is `seconds` after the epoch as messages say it: 2026-11-30 08:15:00Z."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
