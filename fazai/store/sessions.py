"""Protocol of the store of the action loop: sessions, their journals, long outputs, tools of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from msgspec import Struct, field

from fazai.store.events import NewEvent

Source = Literal["api", "mcp", "rule"]


class SessionRecord(Struct, kw_only=True):
    """A session of the action loop; its journal has the rest. Times in seconds since the epoch, UTC. `owner`
    is the principal that opened it; `params` are the parameters of its generations (SPEC.md, 1.1)."""

    session_id: str
    owner: str
    created: float
    used: float
    source: Source = "api"
    params: dict[str, Any] = field(default_factory=dict)


class ToolSpecRecord(Struct, frozen=True, kw_only=True):
    """A tool that `tool_spec` named and an admin approved: `argv` with `{name}` where a parameter goes."""

    name: str
    argv: tuple[str, ...]
    description: str
    approved_by: str
    approved: float
    session_id: str


class SessionStore(Protocol):
    """The sessions. Every call may raise StateError; writes are durable when they return."""

    async def put(self, record: SessionRecord) -> None:
        """Create a session, or replace its record."""
        ...

    async def all(self) -> list[SessionRecord]:
        """Return all sessions, in the order of their ids."""
        ...

    async def delete(self, session_id: str) -> None:
        """Drop a session, its journal and its outputs."""
        ...

    async def append(
        self, session_id: str, seq: int, entries: Sequence[bytes], events: Sequence[NewEvent] = ()
    ) -> list[int]:
        """Append to the journal, `seq` being the number of the first entry, and publish the events, all or
        nothing; return the events' ids."""
        ...

    async def journal(self, session_id: str) -> list[bytes]:
        """Return the entries of a session, in order."""
        ...

    async def put_output(self, session_id: str, output_id: str, data: bytes) -> None:
        """Keep the whole of an observation, of which the model is shown a part; a session keeps 16."""
        ...

    async def output(self, session_id: str, output_id: str) -> bytes | None:
        """Return the whole of an observation."""
        ...

    async def put_tool_spec(self, record: ToolSpecRecord) -> None:
        """Keep a tool that an admin approved."""
        ...

    async def tool_specs(self) -> list[ToolSpecRecord]:
        """Return the tools that were approved."""
        ...

    async def delete_tool_spec(self, name: str) -> bool:
        """Drop such a tool, and return whether there was one."""
        ...
