// What happened in a session, the oldest first: what the model writes, its actions, what they showed.

import { changeItem, summary } from "./changes.js";
import { h } from "./dom.js";
import { exact, visible, words } from "./exact.js";
import { clock, count } from "./format.js";

const KEPT = 500; // items in the document
const CHARS = 4000; // of a text that are shown without being asked for
const OUTPUT_CHARS = 100_000; // of a program's output, the latest

const WAITS = { approval: "waits for an approval", answer: "waits for an answer" };

function asText(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

// A text of which more is shown on request.
function long(value, tag = "span", kind = "") {
  const text = asText(value ?? "");
  const element = h(tag, { class: kind }, visible(text.slice(0, CHARS), { lines: true }));
  if (text.length <= CHARS) return element;
  const more = h("button", { type: "button" }, `${(text.length - CHARS).toLocaleString("en")} characters more`);
  more.addEventListener("click", () => element.replaceChildren(...visible(text, { lines: true })));
  element.append(" \u2026 ", more);
  return element;
}

function args(values) {
  return h("dl", { class: "facts" }, Object.entries(values ?? {}).map(([name, value]) => h("div", {}, h("dt", {}, visible(name)), h("dd", {}, long(asText(value))))));
}

const ACTIONS = {
  use_tool: (e) => [h("strong", {}, exact(e.name)), args(e.args)],
  shell: (e) => [h("p", {}, "on ", h("strong", {}, exact(e.target ?? "no target"))), words(e.argv ?? [])],
  tool_spec: (e) => [h("p", {}, "names ", h("strong", {}, exact(e.name)), ": ", long(e.description ?? "")), words(e.argv ?? [])],
  commit_kb: (e) => [h("strong", {}, long(e.title)), long(e.snippet, "p")],
  research: (e) => [long((e.queries ?? []).join("; "))],
};

// What an action would change, or has changed, drawn when it is opened.
function effect(event) {
  if (!event.plan_hash) return null;
  const list = h("ul", { class: "changes" });
  const element = h("details", {}, h("summary", {}, summary(event.changes ?? []), ", hash ", h("code", {}, event.plan_hash.slice(0, 12))), list);
  element.addEventListener("toggle", () => element.open && !list.children.length && list.append(...(event.changes ?? []).map(changeItem)));
  return element;
}

// Events of their own follow these actions, and say the same.
const SAID_TWICE = new Set(["plan", "ask", "observe", "done"]);

function ending(event) {
  const { stop_reason: reason, result, note, usage } = event.result ?? {};
  const used = usage ? `${count(usage.iterations, "iteration")}, ${count(usage.tokens, "token")}` : "";
  return [h("strong", {}, WAITS[reason] ?? asText(reason ?? "done")), result === undefined ? null : long(asText(result), "p"), note ? long(note, "p") : null, used ? h("span", { class: "quiet" }, ` (${used})`) : null];
}

function documents(event) {
  return event.docs.map((doc) => h("div", {}, h("strong", {}, visible(doc.title)), " ", h("span", { class: "quiet" }, visible(doc.url ?? "")), long(doc.text ?? "", "p")));
}

const ITEMS = {
  action: (e) => (SAID_TWICE.has(e.action) ? null : [h("span", { class: "quiet" }, e.action, " "), ...(ACTIONS[e.action] ?? (() => [long(asText(e))]))(e), effect(e)]),
  plan: (e) => [h("ol", {}, (e.steps ?? []).map((step) => h("li", {}, long(step))))],
  ask: (e) => [long(e.question), e.options?.length ? h("ul", {}, e.options.map((text) => h("li", {}, long(text)))) : null],
  observe: (e) => [long(e.note)],
  research_result: documents,
  done: ending,
  error: (e) => [long(e.message)],
  log: (e) => [long(e.message)],
  gap: (e) => [`events ${e.lost_from} to ${e.lost_to} are not shown here: ${e.reason === "trimmed" ? "no longer kept" : "this reader was too slow"}`],
};

const NAMES = { exec_log: "output", token: "writes", done: "rests", research_result: "found" };

function item(event, ...content) {
  const bad = event.type === "error" || ["error", "critical"].includes(event.level);
  return h(
    "li",
    { class: `step ${bad ? "bad" : event.type === "gap" ? "warn" : ""}`, "data-type": event.type },
    h("time", { datetime: event.timestamp ?? "", title: event.timestamp ?? "" }, event.timestamp ? clock(new Date(event.timestamp)) : ""),
    h("span", { class: "type" }, NAMES[event.type] ?? event.type),
    h("div", { class: "text" }, ...content),
  );
}

export class Transcript {
  // `journal`: where what an action showed can be read, if this reader may.
  constructor() {
    this.journal = null;
    this.remarks = new Set(); // actions that only speak: they show nothing more
    this.element = h("ol", { class: "steps", id: "steps", "aria-label": "What happened, the oldest first" });
    this.fresh = [];
    this.live = null; // { event, text, node }: what grows with each token, or each piece of output
  }

  take(event) {
    this.fresh.push(event);
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      const events = this.fresh;
      this.fresh = [];
      for (const one of events) this.add(one);
      this.draw();
      while (this.element.children.length > KEPT) this.element.firstChild.remove();
    });
  }

  add(event) {
    const grows = event.type === "token" ? event.text : event.type === "exec_log" ? event.chunk : null;
    if (grows !== null) {
      this.grow(event, grows ?? "");
      return;
    }
    this.draw();
    if (event.type === "action" && this.live?.event.type === "token") this.live.element.remove(); // the same, as it was read
    this.live = null;
    if (event.type === "action" && SAID_TWICE.has(event.action)) this.remarks.add(event.action_id);
    const content = (ITEMS[event.type] ?? ((e) => [long(asText(e))]))(event);
    if (content === null) return;
    if (event.type === "observe" && event.action_id && this.journal && !this.remarks.has(event.action_id)) content.push(" ", this.journal.button(event.action_id));
    this.element.append(item(event, ...content));
  }

  grow(event, text) {
    const { live } = this;
    if (live && live.event.type === event.type && live.event.stream === event.stream && live.event.action_id === event.action_id) {
      live.text += text;
      return;
    }
    this.draw();
    const node = h("pre", { class: event.stream === "stderr" ? "warn" : "" });
    const element = item(event, node);
    this.element.append(element);
    this.live = { event, text, node, element, drawn: "" };
  }

  draw() {
    const { live } = this;
    if (!live || live.drawn === live.text) return;
    const cut = Math.max(0, live.text.length - OUTPUT_CHARS);
    live.text = live.text.slice(cut);
    live.cut = (live.cut ?? 0) + cut;
    live.drawn = live.text;
    live.node.replaceChildren(live.cut ? h("span", { class: "quiet" }, `${live.cut.toLocaleString("en")} characters before are left out\n`) : "", ...visible(live.text, { lines: true }));
  }
}
