"""One action being handled, and what its handler may return."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fazai.daemon.loop.session import LoopSession
from fazai.daemon.tools.call import ToolCall
from fazai.loop.effects import Effect
from fazai.loop.tools import AnyTool, Observation
from fazai.wire.events import EventBase

if TYPE_CHECKING:
    from fazai.daemon.services import Services


@dataclass(frozen=True, slots=True)
class Turn:
    """An action of a session, and the services that its handler may use. `call` is a tool's view of it."""

    services: Services
    session: LoopSession
    call: ToolCall
    tools: tuple[AnyTool, ...]


@dataclass(frozen=True, slots=True)
class Told:
    """The action did nothing but speak, or look: the model goes on with the observation. `events` are shown;
    `taints` where others wrote what was seen."""

    observation: Observation
    events: tuple[EventBase, ...] = ()
    taints: bool = False


@dataclass(frozen=True, slots=True)
class WantsEffect:
    """The action would do this; policy or a person decides."""

    effect: Effect


@dataclass(frozen=True, slots=True)
class WantsAnswer:
    """The action asks a person."""

    question: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finish:
    """The objective is reached, as the model says."""

    result: Any = field(default=None)


Handled = Told | WantsEffect | WantsAnswer | Finish
