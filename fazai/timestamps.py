"""Points in time as messages and reports show them: always UTC, with the zone; and durations as people write
them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import overload

_UNITS_S = {"m": 60.0, "h": 3600.0, "d": 86_400.0}


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


def parse_duration_s(text: str) -> float | None:
    """Return the seconds of a text such as 30m, 12h or 90d; None where it is no duration."""
    found = re.fullmatch(r"([1-9][0-9]{0,5})([mhd])", text)
    return float(found[1]) * _UNITS_S[found[2]] if found else None
