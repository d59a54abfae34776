"""GET /agents and /agents/{id}: the registry; POST /agents/{host}/key: the keys of signed HTTP."""

from __future__ import annotations

import asyncio

from fazai.daemon.agent_states import agent_row
from fazai.daemon.events.announcer import AUDIT
from fazai.daemon.http.refusal import Refusal
from fazai.daemon.http.routing import Route, RouteCall
from fazai.daemon.ingest.hostkeys import host_name_ok, hosts_with_keys
from fazai.files import mark_folder
from fazai.secrets.files import write_keys
from fazai.store.daemon import AgentRecord
from fazai.wire.base import OkAnswer
from fazai.wire.daemon import AgentAnswer, AgentKeyBody, AgentsAnswer, AgentsQuery


@Route("GET", "/agents", "All agents.")
async def list_agents(call: RouteCall, query: AgentsQuery) -> AgentsAnswer:
    """Return all agents: the daemon, the worker, telemetry hosts, remote agents."""
    remote = call.services.southbound
    return AgentsAnswer(
        agents=tuple(agent_row(one) for one in await _all_agents(call, removed=query.removed)),
        port=None if remote is None else remote.port,
        ca=None if remote is None else remote.trust.fingerprint,
        state=await asyncio.to_thread(mark_folder, call.services.settings.state),
    )


@Route("GET", "/agents/{id}", "One agent.")
async def show_agent(call: RouteCall) -> AgentAnswer:
    """Return one agent. Raises Refusal(not_found)."""
    wanted = call.path["id"]
    for one in await _all_agents(call, removed=True):
        if one.agent_id == wanted:
            return AgentAnswer(agent=agent_row(one))
    raise Refusal("not_found", f"there is no agent {wanted[:64]!r}", hint="see: GET /agents")


@Route(
    "POST",
    "/agents/{host}/key",
    "Register the keys by which a host signs its telemetry: one, or two while they change.",
    role="admin",
)
async def set_keys(call: RouteCall, body: AgentKeyBody) -> OkAnswer:
    """Replace the keys of a host. Raises Refusal(bad_request), StateError."""
    host = call.path["host"]
    if not host_name_ok(host):
        raise Refusal("bad_request", "the host's name is letters, digits, . _ -; at most 128")
    folder = call.services.settings.secrets / "hosts"
    await asyncio.to_thread(write_keys, folder, host, body.keys)
    text = f"{call.who.name} set {len(body.keys)} key(s) of {host}"
    call.services.log.say("info", text, logger=AUDIT, agent_id=host, target=host)
    return OkAnswer()


async def _all_agents(call: RouteCall, *, removed: bool) -> list[AgentRecord]:
    services = call.services
    remote = services.southbound
    rows = remote.registry.rows() if remote is not None else await services.store.agents()
    known = {one.agent_id for one in rows}  # a key of signed HTTP that is left makes nobody an agent again
    found = [*services.agent_states.rows(), *(one for one in rows if removed or one.removed_at is None)]
    listed = {one.agent_id for one in found}
    found += [one for one in services.ingest.agents(services.started) if one.agent_id not in listed]
    known.update(one.agent_id for one in found)
    keys = await asyncio.to_thread(hosts_with_keys, services.settings.secrets / "hosts")
    found += [
        AgentRecord(host, host, "http", "registration", since)
        for host, since in sorted(keys.items())
        if host not in known
    ]
    return found


ROUTES = (list_agents, show_agent, set_keys)
