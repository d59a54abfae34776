"""Events as the daemon's store takes and gives them."""

from __future__ import annotations

from typing import NamedTuple


class NewEvent(NamedTuple):
    """An event to be published. `data` is one line of JSON that repeats `type`; the rest is what filters
    ask for."""

    type: str
    data: bytes
    target: str | None = None
    run: str | None = None
    session: str | None = None
    agent: str | None = None
    level: str | None = None


class StoredEvent(NamedTuple):
    """An event of the log. Ids grow, with no reuse after a restart, a trim or a clock that went back, and are
    safe to resume by: once a reader can see an event, none with a smaller id appears any more."""

    id: int
    time_us: int
    type: str
    data: bytes
    target: str | None
    run: str | None
    session: str | None
    agent: str | None
    level: str | None
