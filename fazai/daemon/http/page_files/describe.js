// An event in one line of text.

import { number } from "./format.js";

const MARKS = { create: "+", update: "~", delete: "-", move: ">", run: "!" };

function totals(event) {
  const parts = ["changed", "pending", "unchanged", "failed", "unreachable"].map((name) => [name, event.totals?.[name]]);
  return parts.filter(([, value]) => value).map(([name, value]) => `, ${value} ${name}`).join("");
}

const TEXTS = {
  run: (e) => `${e.command ?? "run"} ${e.state}${e.exit_code === undefined ? "" : `, exit ${e.exit_code}`}${totals(e)}`,
  play: (e) => `play ${e.name}: ${e.targets} targets`,
  target: (e) => e.status,
  change: (e) => `${MARKS[e.verb] ?? e.verb} ${e.kind} ${e.identity} ${e.status}${e.error ? `: ${e.error}` : ""}`,
  activate: (e) => `${e.service} takes effect`,
  undo: (e) => `${e.undone} changes taken back, ${e.kept} kept`,
  outcome: (e) => `${e.status}${totals({ totals: e })}${(e.errors ?? []).map((text) => `; ${text}`).join("")}`,
  telemetry: (e) => `reports${e.load ? `, load ${e.load.map((one) => number(one)).join(" ")}` : ""}`,
  agent: (e) => `${e.state}${e.reason ? `: ${e.reason}` : ""}`,
  log: (e) => `${e.logger ? `${e.logger}: ` : ""}${e.message}`,
  error: (e) => e.message,
  gap: (e) => `events ${e.lost_from} to ${e.lost_to} are not shown here: ${e.reason === "trimmed" ? "no longer kept" : "this reader was too slow"}`,
  observe: (e) => e.note,
  ask: (e) => e.question,
  plan: (e) => (e.steps ?? []).join("; "),
  exec_log: (e) => e.chunk,
  action: (e) => [e.action, e.name ?? e.argv?.join(" ") ?? ""].join(" "),
  done: (e) => (typeof e.result?.stop_reason === "string" ? `rests: ${e.result.stop_reason}` : "done"),
};

export function describe(event) {
  const text = TEXTS[event.type];
  return text ? text(event).trim() : JSON.stringify(event);
}

const BAD = new Set(["failed", "unreachable", "refused", "locked", "stale", "interrupted"]);

// "bad", "warn" or "": how much the line asks to be looked at.
export function weight(event) {
  if (event.type === "gap") return "warn";
  if (event.type === "error" || ["error", "critical"].includes(event.level) || event.error) return "bad";
  if (event.type === "outcome" && BAD.has(event.status)) return "bad";
  if (event.type === "run" && event.exit_code && event.exit_code !== 2) return "bad";
  if (event.level === "warning" || (event.type === "agent" && event.state === "closing")) return "warn";
  if (event.status === "pending" || event.type === "undo") return "warn";
  return "";
}
