"""The provider `agent`: hosts without SSH, through their agents and the daemon that these dial."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from fazai.errors import InputError
from fazai.model import FieldSpec, Session, Target
from fazai.providers.hosts.options import read_option
from fazai.providers.hosts.provider import HostProvider

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from fazai.providers.hosts.remote.relay import AgentRelay, RelayAddress, Relays

OPTIONS: Mapping[str, FieldSpec] = {
    spec.name: spec
    for spec in (
        FieldSpec("agent_id", "text", "the agent's name in its certificate; the host's own when not given"),
        FieldSpec(
            "daemon",
            "text",
            "the daemon that the agent dials: wss://HOST:3121, with FAZAI_TOKEN_FILE (role operator) and"
            " FAZAI_CA_FILE; else FAZAI_AGENTS_URL, else the local one",
        ),
        FieldSpec("timeout", "number", "seconds for one step", default=60, minimum=1, maximum=3600),
    )
}


class AgentProvider(HostProvider):
    """Provider of hosts through their agents. There is no way back to SSH: a host has one provider."""

    name = "agent"

    @property
    def options(self) -> Mapping[str, FieldSpec]:
        return OPTIONS

    @cached_property
    def relays(self) -> Relays:
        from fazai.providers.hosts.remote.relay import Relays

        return Relays()

    def _find_address(self, target: Target) -> RelayAddress:
        """Return the address of the daemon that a target's agent dials. Raises InputError."""
        from fazai.providers.hosts.remote.relay import find_relay

        url = read_option(target, "daemon")
        return find_relay(os.environ, root=os.geteuid() == 0, url=None if url is None else str(url))

    def problems(self, target: Target) -> Iterator[tuple[str, str, str | None]]:
        try:
            self._find_address(target)
        except InputError as error:
            yield "daemon", error.message, error.hint
        agent_id = agent_id_of(target)
        if not (
            agent_id.isascii() and agent_id.isprintable() and " " not in agent_id and len(agent_id) <= 64
        ):
            yield "agent_id", f"cannot be the name of an agent: {agent_id[:64]!r}", None

    def box_of(self, target: Target) -> str:
        """Name the agent: one machine has one, whatever its hosts are called."""
        return f"agent:{agent_id_of(target)}"

    def connect(self, target: Target) -> Session:
        from fazai.providers.hosts.remote.session import AgentSession

        timeout_s = float(read_option(target, "timeout", default=60))
        way = self.relay_to(target)
        agent, shared = agent_id_of(target), self.relays.shared
        return AgentSession(target, self.kinds, way, agent, timeout_s=timeout_s, shared=shared)

    def relay_to(self, target: Target) -> AbstractAsyncContextManager[AgentRelay]:
        """Return the connection through which a target's agent is asked, shared with the other targets."""
        return self.relays.use(self._find_address(target))


def agent_id_of(target: Target) -> str:
    """Return the name of the agent that is asked for a target."""
    return str(read_option(target, "agent_id", default=target.name))


PROVIDER = AgentProvider()
