// Machines with what the registry knows of their remote agents.

import { get } from "./api.js";

const LIVES = new Set(["execution", "observation", "handshake"]);

// Whether an agent of the registry is a remote one: a telemetry host or the worker is no such agent.
function isRemote(one) {
  return one.contract !== undefined || one.protocol === "websocket";
}

function upOf(agent) {
  return LIVES.has(agent.state) ? true : agent.state === "registration" ? undefined : false;
}

// The rows of GET /fleet, each with its `agent`; an agent that nothing else tells of is a row of its own.
export function joinAgents(rows, agents) {
  const remote = new Map(agents.filter(isRemote).map((one) => [one.agent_id, one]));
  const joined = rows.map((row) => {
    const agent = row.kind === "firewall" ? undefined : remote.get(row.name);
    if (!agent) return row;
    remote.delete(row.name);
    return { ...row, agent, up: row.up ?? upOf(agent), last_seen: row.last_seen ?? agent.last_seen, version: row.version ?? agent.version };
  });
  for (const agent of remote.values()) {
    joined.push({ name: agent.agent_id, kind: "agent", up: upOf(agent), last_seen: agent.last_seen, version: agent.version, error: agent.last_error, agent });
  }
  return joined;
}

// An agent in a few words: its state, how long it takes to answer, how its last action ended.
export function agentText(row) {
  if (!row.agent) return "";
  const { state, latency_ms: latency, last_outcome: outcome } = row.agent;
  return [state, latency === undefined || state === "closing" ? "" : `${latency < 10 ? latency.toFixed(1) : Math.round(latency)} ms`, outcome ?? ""].filter(Boolean).join(", ");
}

export async function getFleet(signal) {
  const [fleet, registry] = await Promise.all([get("fleet", {}, signal), get("agents", {}, signal)]);
  return { ...fleet, rows: joinAgents(fleet.rows, registry.agents) };
}
