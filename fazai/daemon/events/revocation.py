"""Ends streams whose client may no longer read them."""

from __future__ import annotations

import asyncio

from fazai.daemon.events.broadcaster import Broadcaster
from fazai.daemon.http.auth import Guard
from fazai.timestamps import utc_now
from fazai.wire.events import ErrorEvent

_LOOK_S = 1.0  # streams of a token that was revoked end after at most so long


async def end_revoked_streams(broadcaster: Broadcaster, guard: Guard) -> None:
    """End the streams of clients that may no longer read them, until the daemon stops."""
    while True:
        await asyncio.sleep(_LOOK_S)
        streams = broadcaster.streams
        await guard.refresh()  # deadline: Guard.refresh
        gone = {who for who in {stream.who for stream in streams} if not guard.is_still_valid(who)}
        why = "the token was revoked, or has expired"
        event = ErrorEvent(timestamp=utc_now(), message=why, code="unauthorized")
        for stream in [stream for stream in streams if stream.who in gone and not stream.stopping]:
            broadcaster.end(stream, event)
