// The fleet: every machine in one table. Only the rows in sight are in the document.

import { agentText, getFleet } from "./agents.js";
import { field, h, options, setText } from "./dom.js";
import { age, count, machine, number, percent } from "./format.js";

const EVERY_MS = 15_000;
const ROW_PX = 32;
const AROUND = 12; // rows above and below what is in sight

const DRIFTED = new Set(["pending", "failed", "unreachable", "refused", "locked", "stale", "interrupted"]);

function driftText(row) {
  if (!row.drift) return "";
  const { status, pending } = row.drift;
  return status === "pending" ? `${pending} pending` : status;
}

function stateText(row) {
  if (row.up === true) return "up";
  if (row.up === false) return row.kind === "host" ? "silent" : "down";
  return "unknown";
}

const RANK = { down: 0, silent: 0, unknown: 2, up: 3 };

// What asks for attention first: down or silent, drifted, never seen, well.
function attention(row) {
  const rank = RANK[stateText(row)];
  return rank && row.drift && DRIFTED.has(row.drift.status) ? 1 : rank;
}

// name, title, class, text of a cell, value to sort by
const COLUMNS = [
  ["state", "State", "", stateText, attention],
  ["name", "Name", "name", (row) => row.name, (row) => row.name],
  ["kind", "Kind", "wide", (row) => row.kind, (row) => row.kind],
  ["seen", "Seen", "num", (row, now) => (row.last_seen ? age((now - Date.parse(row.last_seen)) / 1000) : ""), (row) => (row.last_seen ? -Date.parse(row.last_seen) : undefined)],
  ["drift", "Drift", "", driftText, (row) => (row.drift ? (DRIFTED.has(row.drift.status) ? -1 - row.drift.pending : 0) : undefined)],
  ["version", "Version", "wide", (row) => row.version ?? "", (row) => row.version],
  ["agent", "Agent", "wide", agentText, (row) => row.agent && agentText(row)],
  ["load", "Load", "num wide", (row) => number(row.load1), (row) => (row.load1 === undefined ? undefined : -row.load1)],
  ["cpu", "CPU", "num wide", (row) => percent(row.cpu), (row) => (row.cpu === undefined ? undefined : -row.cpu)],
  ["memory", "Memory", "num wide", (row) => percent(row.memory), (row) => (row.memory === undefined ? undefined : -row.memory)],
  ["disk", "Disk", "num wide", (row) => percent(row.disk), (row) => (row.disk === undefined ? undefined : -row.disk)],
];

const collator = new Intl.Collator("en", { numeric: true });

function compare(a, b) {
  if (a === undefined || b === undefined) return (a === undefined) - (b === undefined); // unknown: last
  return typeof a === "number" && typeof b === "number" ? a - b : collator.compare(String(a), String(b));
}

const FILTERS = {
  "": () => true,
  trouble: (row) => row.up === false || (row.drift && DRIFTED.has(row.drift.status)),
  down: (row) => row.up === false,
  drift: (row) => row.drift && DRIFTED.has(row.drift.status),
  unknown: (row) => row.up === undefined,
};

class Table {
  constructor() {
    this.rows = [];
    this.now = Date.now();
    this.active = 0; // the row that the Tab key reaches
    this.made = new Map(); // key -> tr in the document
    this.above = h("tr", { class: "space", "aria-hidden": "true" }, h("td"));
    this.below = h("tr", { class: "space", "aria-hidden": "true" }, h("td"));
    this.body = h("tbody", {}, this.above, this.below);
    this.heads = COLUMNS.map(([name, title, kind]) =>
      h("th", { scope: "col", class: kind, "data-column": name }, h("button", { type: "button" }, title)),
    );
    this.table = h("table", { class: "fleet" }, h("thead", {}, h("tr", {}, this.heads)), this.body);
    this.scroller = h("div", { class: "scroller", id: "fleet" }, this.table);
    this.scroller.addEventListener("scroll", () => this.later(), { passive: true });
    this.body.addEventListener("keydown", (event) => this.key(event));
    this.body.addEventListener("focusin", (event) => this.focused(event.target));
    this.size = new ResizeObserver(() => this.later());
    this.size.observe(this.scroller);
  }

  later() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.draw();
    });
  }

  show(rows, now) {
    const at = this.rows[this.active];
    const key = at && keyOf(at);
    this.rows = rows;
    this.now = now;
    const found = key ? rows.findIndex((row) => keyOf(row) === key) : -1;
    this.active = found >= 0 ? found : 0;
    this.table.setAttribute("aria-rowcount", rows.length + 1);
    this.draw();
  }

  draw() {
    const top = this.scroller.scrollTop;
    const first = Math.max(0, Math.floor(top / ROW_PX) - AROUND);
    const seen = Math.ceil(this.scroller.clientHeight / ROW_PX) + 2 * AROUND;
    const begin = Math.min(first, Math.max(0, this.rows.length - seen));
    const end = Math.min(this.rows.length, begin + seen);
    const wanted = new Map();
    for (let index = begin; index < end; index += 1) wanted.set(keyOf(this.rows[index]), index);
    let lost = false;
    for (const [key, row] of this.made) {
      if (wanted.has(key)) continue;
      lost ||= row.contains(document.activeElement);
      row.remove();
      this.made.delete(key);
    }
    let after = this.above;
    for (const [key, index] of wanted) {
      let row = this.made.get(key);
      if (!row) {
        row = this.make();
        this.made.set(key, row);
      }
      this.fill(row, index);
      if (after.nextSibling !== row) after.after(row);
      after = row;
    }
    this.above.firstChild.style.height = `${begin * ROW_PX}px`;
    this.below.firstChild.style.height = `${(this.rows.length - end) * ROW_PX}px`;
    if (this.scroller.scrollTop !== top) this.scroller.scrollTop = top; // the table was shorter for a moment
    if (lost) this.scroller.closest("main")?.focus({ preventScroll: true }); // the keyboard stays on the page
  }

  make() {
    return h("tr", {}, COLUMNS.map(([name, , kind]) => h("td", { class: kind }, name === "name" ? h("a", { tabindex: -1 }) : h("span", {}))));
  }

  fill(element, index) {
    const row = this.rows[index];
    element.setAttribute("aria-rowindex", index + 2);
    element.dataset.index = index;
    COLUMNS.forEach(([name, , , text], place) => {
      const inner = element.children[place].firstChild;
      setText(inner, text(row, this.now));
      if (name === "name") {
        inner.setAttribute("href", machine(row.kind, row.name));
        inner.setAttribute("title", row.name);
        inner.tabIndex = index === this.active ? 0 : -1;
      } else if (name === "state") {
        inner.className = `state ${stateText(row)}`;
      } else if (name === "drift") {
        inner.className = row.drift && DRIFTED.has(row.drift.status) ? "drifted" : "";
      }
    });
  }

  focused(target) {
    const index = Number(target.closest("tr")?.dataset.index);
    if (Number.isInteger(index) && index !== this.active) {
      this.active = index;
      this.draw();
    }
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.scroller.clientHeight / ROW_PX) - 2);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -this.rows.length, End: this.rows.length };
    const step = steps[event.key];
    if (step === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.active = Math.min(this.rows.length - 1, Math.max(0, this.active + step));
    const top = this.active * ROW_PX;
    const room = this.scroller.clientHeight - this.heads[0].offsetHeight - ROW_PX - 1;
    if (top < this.scroller.scrollTop) this.scroller.scrollTop = top;
    else if (top > this.scroller.scrollTop + room) this.scroller.scrollTop = top - room;
    this.draw();
    this.made.get(keyOf(this.rows[this.active]))?.querySelector("a").focus({ preventScroll: true });
  }
}

function keyOf(row) {
  return `${row.kind}/${row.name}`;
}

export function fleetView(main, parts, session) {
  const table = new Table();
  const said = h("p", { id: "summary", role: "status" }, "loading");
  const text = h("input", { type: "search", id: "filter", placeholder: "name or version", autocomplete: "off", spellcheck: "false" });
  const kind = options(h("select", { id: "kind" }), [["", "all"], ["firewall", "firewalls"], ["host", "hosts"], ["target", "only in runs"], ["agent", "with an agent"]], "");
  const state = options(
    h("select", { id: "state" }),
    [["", "all"], ["trouble", "down or drifted"], ["down", "down or silent"], ["drift", "drifted"], ["unknown", "unknown"]],
    "",
  );
  let all = [];
  let now = Date.now();
  let sorted = { name: "state", up: true };

  function refresh() {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = FILTERS[state.value];
    const rows = all.filter((row) => {
      const hay = `${row.name} ${row.version ?? ""}`.toLowerCase();
      return (!kind.value || (kind.value === "agent" ? row.agent : row.kind === kind.value)) && wanted(row) && words.every((word) => hay.includes(word));
    });
    const value = COLUMNS.find(([name]) => name === sorted.name)[4];
    const keyed = rows.map((row) => [value(row), row]);
    keyed.sort((a, b) => (sorted.up || a[0] === undefined || b[0] === undefined ? 1 : -1) * compare(a[0], b[0]) || collator.compare(a[1].name, b[1].name));
    table.show(keyed.map(([, row]) => row), now);
    summary(rows.length);
  }

  function summary(shown) {
    const tally = { up: 0, down: 0, silent: 0, unknown: 0 };
    let drifted = 0;
    for (const row of all) {
      tally[stateText(row)] += 1;
      drifted += FILTERS.drift(row) ? 1 : 0;
    }
    const bad = tally.down + tally.silent;
    table.scroller.hidden = !all.length;
    const shownText = shown === all.length ? "" : ` · ${shown.toLocaleString("en")} shown`;
    setText(said, all.length ? `${count(all.length, "machine")}: ${[[tally.up, "up"], [bad, "down or silent"], [tally.unknown, "unknown"], [drifted, "drifted"]].map(([value, name]) => `${value.toLocaleString("en")} ${name}`).join(", ")}${shownText}` : "No machine yet: a host that reports, an agent, a firewall that is registered or a run make one.");
  }

  for (const [place, [name]] of COLUMNS.entries()) {
    table.heads[place].firstChild.addEventListener("click", () => {
      sorted = { name, up: sorted.name === name ? !sorted.up : true };
      heads();
      refresh();
    });
  }
  function heads() {
    for (const [place, [name]] of COLUMNS.entries()) {
      if (name === sorted.name) table.heads[place].setAttribute("aria-sort", sorted.up ? "ascending" : "descending");
      else table.heads[place].removeAttribute("aria-sort");
    }
  }

  const control = new AbortController();
  let timer = null;
  async function load() {
    clearTimeout(timer);
    if (!document.hidden) {
      try {
        const found = await getFleet(control.signal);
        all = found.rows;
        now = Date.parse(found.time);
        session.say("");
        refresh();
      } catch (error) {
        if (control.signal.aborted) return;
        session.say(`the fleet is not up to date: ${error.message}`, true);
      }
    }
    if (!control.signal.aborted) timer = setTimeout(load, EVERY_MS);
  }
  const visible = () => document.hidden || load();
  document.addEventListener("visibilitychange", visible);
  for (const control of [text, kind, state]) control.addEventListener("input", refresh);
  text.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") {
      event.preventDefault();
      table.body.querySelector('a[tabindex="0"]')?.focus();
    }
  });

  heads();
  main.append(
    h("div", { class: "bar" }, h("h1", {}, "Fleet"), field("Filter", text), field("Kind", kind), field("State", state)),
    said,
    table.scroller,
  );
  load();
  return () => {
    control.abort();
    clearTimeout(timer);
    table.size.disconnect();
    document.removeEventListener("visibilitychange", visible);
  };
}
