"""One call of a tool: whose it is, and what it may use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fazai.daemon.http.auth import Principal
from fazai.wire.events import EventBase

if TYPE_CHECKING:
    from fazai.daemon.services import Services


async def _nobody(event: EventBase) -> None:
    return


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool in the daemon. `emit` shows an event on the session's stream (`exec_log`)."""

    services: Services
    who: Principal
    session_id: str | None = None
    action_id: str | None = None
    emit: Callable[[EventBase], Awaitable[None]] = _nobody
    approved_by: str = ""  # of an effect that is carried out

    @property
    def policy_generation(self) -> str:
        """The mark of the policy by which an effect is judged."""
        return self.services.policy.generation

    @property
    def approval_ttl_s(self) -> float:
        """Seconds for which an effect that was shown can be approved."""
        return self.services.settings.config.loop.approval_s
