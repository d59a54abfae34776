"""Warns in time that the last valid token expires, and that none is valid any more."""

from __future__ import annotations

import asyncio
import math
import time
from typing import NamedTuple

from fazai.daemon.events.announcer import AUDIT, Announcer, log_event
from fazai.daemon.http.auth import Guard
from fazai.wire.events import Level

_LOOK_S = 1.0
_DAY_S = 86_400.0
#: So long before the last token expires it is said, each time once.
_STAGES_S = (3600.0, _DAY_S, 3 * _DAY_S, 14 * _DAY_S)


class Alarm(NamedTuple):
    """A warning about the last valid token. `stage_s`: the time before its expiry from which on it holds."""

    stage_s: float
    level: Level
    text: str


def token_alarm(last_expiry: float | None, now: float) -> Alarm | None:
    """Return the warning for a time of expiry as `Guard.last_expiry` returns it; None: there is nothing to
    say."""
    if last_expiry is None or math.isinf(last_expiry):
        return None
    create = "create one with: fazai token create NAME --role admin"
    if last_expiry <= now:
        text = f"no token is valid any more, and nobody is let in over TCP; {create}"
        return Alarm(0.0, "error", text)
    left_s = last_expiry - now
    stage_s = next((stage_s for stage_s in _STAGES_S if left_s <= stage_s), None)
    if stage_s is None:
        return None
    left = f"{left_s / _DAY_S:.0f} days" if left_s > 2 * _DAY_S else f"{left_s / 3600:.1f} hours"
    return Alarm(stage_s, "warning", f"the last valid token expires in {left}; {create}")


async def warn_of_expiry(guard: Guard, announcer: Announcer) -> None:
    """Give each warning once, in the log and as an event, until the daemon stops."""
    said: float | None = None
    while True:
        await guard.refresh()  # deadline: Guard.refresh
        alarm = token_alarm(guard.last_expiry(), time.time())
        stage_s = alarm.stage_s if alarm is not None else None
        if alarm is not None and stage_s != said:
            announcer.say(alarm.level, log_event(alarm.level, alarm.text, AUDIT), AUDIT)
        said = stage_s
        await asyncio.sleep(_LOOK_S)
