"""Faults: which of them a call meets, and the effect on its answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from fazai.compat.timeouts import deadline
from fazai.lab.server.http import LabConnection
from fazai.lab.server.wire import LabReply, make_json_reply
from fazai.lab.settings import Fault

PAGE: Final = b"<!DOCTYPE html>\n<html><body>Please wait</body></html>\n"


@dataclass(slots=True)
class _ArmedFault:
    """A fault, how many calls it matched, and how many of them it hit."""

    fault: Fault
    seen: int = 0
    hits: int = 0

    def strikes(self, method: str, path: str) -> bool:
        fault = self.fault
        if not fault.matches(method, path):
            return False
        self.seen += 1
        if self.seen <= fault.after or (fault.times and self.hits >= fault.times):
            return False
        self.hits += 1
        return True


class ArmedFaults:
    """The faults of one firewall."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        self._armed = [_ArmedFault(fault) for fault in faults]
        self._cleared = asyncio.Event()

    def inject(self, fault: Fault) -> None:
        self._armed.append(_ArmedFault(fault))

    def clear(self) -> None:
        """Disarm all faults, and let go what a delay holds up."""
        self._armed.clear()
        self._cleared.set()
        self._cleared = asyncio.Event()

    async def delay(self, delay_s: float) -> None:
        """Wait so long, or until the faults are cleared."""
        with contextlib.suppress(TimeoutError):
            async with deadline(delay_s):
                await self._cleared.wait()

    def striking(self, method: str, path: str) -> list[Fault]:
        """Return the faults that hit this call, lockouts apart."""
        if not self._armed:
            return []
        return [a.fault for a in self._armed if a.fault.kind != "lockout" and a.strikes(method, path)]

    def lockout(self, method: str, path: str) -> Fault | None:
        """Return the lockout that this apply brings, if any."""
        return next(
            (a.fault for a in self._armed if a.fault.kind == "lockout" and a.strikes(method, path)), None
        )


def answer_instead(fault: Fault, path: str) -> LabReply | None:
    """Return a fault's answer in place of the firewall's own; the call is not carried out then."""
    if fault.kind == "status":
        headers = [] if fault.retry_after_s is None else [("retry-after", str(fault.retry_after_s))]
        return LabReply(fault.status, fault.body.encode(), headers=headers)
    if fault.kind == "html":
        return LabReply(200, PAGE, "text/html; charset=UTF-8")
    if fault.kind == "login":
        return LabReply(302, b"", "text/html; charset=UTF-8", headers=[("location", f"/?url={path}")])
    if fault.kind == "unauthorized":
        return make_json_reply({"status": 401, "message": "Authentication Failed"}, 401)
    if fault.kind == "not_found":
        return make_json_reply({"errorMessage": "Endpoint not found"}, 404, session=False)
    return None


async def carry_out(
    faults: list[Fault],
    connection: LabConnection,
    path: str,
    dispatch: Callable[[], LabReply],
    wait_s: float,
    delay: Callable[[float], Awaitable[None]],
) -> LabReply | None:
    """Answer a call with faults and delays. None: the answer was sent, or cut, here."""
    for fault in faults:
        if fault.kind == "delay":
            await delay(fault.delay_s)  # deadline: the fault's own delay
    for fault in faults:
        if fault.kind == "cut" and fault.at == "before":
            connection.abort()
            return None
        reply = answer_instead(fault, path)
        if reply is not None:
            return reply
    reply = dispatch()
    await asyncio.sleep(wait_s + reply.delay_s)
    for fault in faults:
        if fault.kind == "truncate":
            reply.body = reply.body[: max(1, len(reply.body) // 2)]
        elif fault.kind == "cut" and fault.at == "after":
            connection.abort()
            return None
        elif fault.kind == "cut":
            head, body = connection.render_reply(reply)
            await connection.send(head + body[: len(body) // 2])  # deadline: Connection.send
            connection.close()
            return None
        elif fault.kind == "drip":
            await _drip_reply(connection, reply, fault.bytes_per_s)
            return None
    return reply


async def _drip_reply(connection: LabConnection, reply: LabReply, bytes_per_s: int) -> None:
    head, body = connection.render_reply(reply)
    data = head + body
    step = max(1, bytes_per_s // 20)
    for start in range(0, len(data), step):
        if not await connection.send(data[start : start + step]):  # deadline: Connection.send
            return
        await asyncio.sleep(step / bytes_per_s)
    connection.finish()
