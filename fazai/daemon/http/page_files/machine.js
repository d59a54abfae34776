// One machine: what is known of it now, its figures over time, what happened on it.

import { agentText, getFleet } from "./agents.js";
import { Stream, get, operations } from "./api.js";
import { Chart } from "./chart.js";
import { h, options, setText, field } from "./dom.js";
import { Feed } from "./events.js";
import { age, bytes, moment, number, percent } from "./format.js";

const EVERY_MS = 15_000;
const DAY_MS = 86_400_000;
const RANGES = [["3600", "1 hour"], ["21600", "6 hours"], ["86400", "24 hours"], ["604800", "7 days"], ["2592000", "30 days"]];
const rate = (value) => `${bytes(value)}/s`;

const CHARTS = () => [
  new Chart({ title: "Load", series: [["load1", "1 min"], ["load5", "5 min"], ["load15", "15 min"]], format: number, top: 1 }),
  new Chart({ title: "CPU busy", series: [["cpu_busy_ratio", "busy"]], format: percent, top: 1 }),
  new Chart({ title: "Memory", series: [["used", "used"], ["memory_total_bytes", "there"]], format: bytes, base: 1024 }),
  new Chart({ title: "Network", series: [["receive", "received"], ["transmit", "sent"]], format: rate, base: 1024, top: 1024 }),
  new Chart({ title: "Disk", series: [["disk_used", "used"], ["disk_total_bytes", "there"]], format: bytes, base: 1024 }),
];

// A counter's growth a second; null across a restart, where it begins anew.
export function growth(times, values) {
  return values.map((value, at) => {
    const before = values[at - 1];
    if (at === 0 || value === null || before === null || value < before) return null;
    return (value - before) / (times[at] - times[at - 1]);
  });
}

function less(from, what) {
  return from.map((value, at) => (value === null || what[at] === null ? null : value - what[at]));
}

export function columnsOf(found) {
  const { times, fields } = found;
  const available = fields.memory_available_bytes.map((value, at) => value ?? fields.memory_free_bytes[at]);
  return {
    ...fields,
    used: less(fields.memory_total_bytes, available),
    disk_used: less(fields.disk_total_bytes, fields.disk_free_bytes),
    receive: growth(times, fields.network_receive_bytes_total),
    transmit: growth(times, fields.network_transmit_bytes_total),
  };
}

class Figures {
  constructor(host, place, session) {
    this.host = host;
    this.session = session;
    this.control = new AbortController();
    this.charts = CHARTS();
    this.range = options(h("select", { id: "range" }), RANGES, "3600");
    this.range.addEventListener("input", () => this.load());
    place.append(
      h("div", { class: "bar" }, h("h2", {}, "Figures"), field("Time", this.range)),
      h("div", { class: "charts" }, this.charts.map((chart) => chart.element)),
    );
    this.load();
  }

  async load() {
    clearTimeout(this.timer);
    const end = Date.now() / 1000;
    const begin = end - Number(this.range.value);
    const asked = { host: this.host, since: new Date(begin * 1000).toISOString(), until: new Date(end * 1000).toISOString(), points: 400 };
    try {
      if (!document.hidden) {
        const found = await get("telemetry", asked, this.control.signal);
        const apart_s = 3.5 * Math.max(found.step_s, found.interval_s || 60);
        const columns = columnsOf(found);
        for (const chart of this.charts) chart.show({ times: found.times, columns, begin, end, apart_s });
      }
    } catch (error) {
      if (this.control.signal.aborted) return;
      this.session.say(`the figures are not up to date: ${error.message}`, true);
    }
    if (!this.control.signal.aborted) this.timer = setTimeout(() => this.load(), EVERY_MS);
  }

  stop() {
    this.control.abort();
    clearTimeout(this.timer);
    for (const chart of this.charts) chart.stop();
  }
}

function facts(row, now) {
  const pairs = [];
  const add = (name, value) => value !== undefined && value !== null && value !== "" && pairs.push([name, value]);
  add("State", row.up === undefined ? "unknown" : row.up ? "up" : row.kind === "host" ? "silent" : "down");
  add("Kind", row.kind);
  add("Seen", row.last_seen && `${age((now - Date.parse(row.last_seen)) / 1000)} ago (${moment(row.last_seen)})`);
  add("Reports every", row.interval_s && age(row.interval_s));
  add("Version", row.version);
  add("Agent", agentText(row));
  add("Contract", row.agent?.contract);
  add("Reconciling", row.agent?.reconcile);
  add("Serves", row.agent?.capabilities?.join(", "));
  add("Error", row.error);
  if (row.drift) {
    const text = row.drift.status === "pending" ? `${row.drift.pending} changes pending` : row.drift.status;
    add("Last run", h("a", { href: `#/run/${encodeURIComponent(row.drift.run_id)}` }, `${text}, ${moment(row.drift.time)}`));
  }
  return h("dl", { class: "facts", id: "facts" }, pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

// What the daemon itself asks of a firewall, where it has those routes.
async function firewall(id, place, signal) {
  const table = await operations();
  if (!table.has("get /opn/{id}/metrics")) return;
  const { data } = await get(`opn/${encodeURIComponent(id)}/metrics`, {}, signal);
  const pairs = [
    ["CPU", data.cpu_percent === null ? null : `${number(data.cpu_percent)} %`],
    ["Memory", data.mem_percent === null ? null : `${number(data.mem_percent)} %`],
    ["States", data.sessions],
    ["Uptime", typeof data.uptime === "number" ? age(data.uptime) : data.uptime],
  ].filter(([, value]) => value !== null && value !== undefined);
  const heads = ["Interface", "State", "Addresses", "Received", "Sent"];
  const rows = data.ifaces.map((one) =>
    h("tr", {}, [one.description ?? one.name, one.status, (one.addresses ?? []).join(", "), bytes(one.rx_bytes), bytes(one.tx_bytes)].map((text) => h("td", {}, text))),
  );
  place.replaceChildren(
    h("h2", {}, "Firewall"),
    h("dl", { class: "facts" }, pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, String(value))))),
    h("div", { class: "across" }, h("table", {}, h("thead", {}, h("tr", {}, heads.map((text) => h("th", { scope: "col" }, text)))), h("tbody", {}, rows))),
  );
}

export function machineView(main, parts, session) {
  const [kind, name = ""] = parts;
  const control = new AbortController();
  const said = h("p", { role: "status" }, "loading");
  const known = h("section", { "aria-label": "State" }, said);
  const device = h("section", { "aria-label": "Firewall" });
  const figures = h("section", { "aria-label": "Figures" });
  const list = h("ol", { class: "events", id: "events", "aria-label": "Events, the newest first" });
  const feed = new Feed(list, () => true);
  const stops = [() => control.abort()];
  main.append(h("h1", { class: "machine" }, name), known, device, figures, h("h2", {}, "What happened, last 24 hours"), list);

  let timer = null;
  let begun = false;
  async function load() {
    try {
      const found = await getFleet(control.signal);
      const rows = found.rows.filter((row) => row.name === name && (kind === "any" || row.kind === kind));
      const row = rows.find((one) => one.kind !== "target") ?? rows[0];
      if (!row) setText(said, "The daemon does not know this machine (any more).");
      else known.replaceChildren(facts(row, Date.parse(found.time)));
      if (row && !begun) {
        begun = true;
        begin(row);
      }
    } catch (error) {
      if (control.signal.aborted) return;
      session.say(`not up to date: ${error.message}`, true);
    }
    if (!control.signal.aborted) timer = setTimeout(load, EVERY_MS);
  }

  function begin(row) {
    if (row.kind === "host") {
      const shown = new Figures(name, figures, session);
      stops.push(() => shown.stop());
    }
    if (row.kind === "firewall" && row.id) {
      firewall(row.id, device, control.signal).catch((error) => {
        if (!control.signal.aborted) device.replaceChildren(h("p", { class: "bad" }, `It cannot be asked now: ${error.message}`));
      });
    }
    const asked = { target: name, since_time: new Date(Date.now() - DAY_MS).toISOString() };
    const stream = new Stream(asked, (event) => feed.take(event), (state, why) => state === "live" || session.say(why ?? "the stream is away; coming back", true));
    stops.push(() => stream.stop());
  }

  load();
  return () => {
    clearTimeout(timer);
    for (const stop of stops) stop();
  };
}
