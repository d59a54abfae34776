"""Writes refused requests to the audit log, and no more of them than a disk can bear."""

from __future__ import annotations

import time
from collections.abc import Callable

from fazai.daemon.events.announcer import AUDIT
from fazai.service.log import Log
from fazai.wire.base import WireError

#: Refusals that say who may not do what; others are mistakes of a client, or overload.
_CODES = frozenset(
    {"unauthorized", "forbidden", "not_allowed", "plan_mismatch", "bad_signature", "bad_clock", "replayed"}
)
_MINUTE_S = 60.0
_LINES_PER_MINUTE = 100


class RefusalLog:
    """Logs one line for each refusal, at most 100 in a minute; then their number."""

    def __init__(self, log: Log, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._log, self._monotonic = log, monotonic
        self._since = float("-inf")
        self._lines = 0

    def note(self, asked: str, address: str, refusal: WireError) -> None:
        """Write down a refusal; `asked` is the method and path of the request."""
        if refusal.code not in _CODES:
            return
        now = self._monotonic()
        if now - self._since >= _MINUTE_S:
            if self._lines > _LINES_PER_MINUTE:
                self._say(f"{self._lines - _LINES_PER_MINUTE} more requests were refused")
            self._since, self._lines = now, 0
        self._lines += 1
        if self._lines <= _LINES_PER_MINUTE:
            self._say(f"refused: {asked} from {address}: {refusal.code}: {refusal.message}")

    def _say(self, text: str) -> None:
        self._log.say("warning", text, logger=AUDIT)
