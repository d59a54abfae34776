// The live stream of events.

import { Stream } from "./api.js";
import { describe, weight } from "./describe.js";
import { field, h, options, setText } from "./dom.js";
import { clock, count, machine } from "./format.js";

const KEPT = 2000; // events in memory
const SHOWN = 300; // lines in the document
const BACK_MS = 15 * 60_000;

const RUNS = "run,play,target,change,activate,undo,outcome";
const HOSTS = "agent,telemetry";
const WORDS = "log,error";
const SESSIONS = "plan,action,ask,observe,exec_log,research_result,done";
const KINDS = [
  [[RUNS, HOSTS, WORDS, SESSIONS].join(","), "all"],
  [RUNS, "runs and changes"],
  ["run,outcome", "outcomes"],
  [HOSTS, "hosts"],
  [WORDS, "log and errors"],
  [SESSIONS, "agents at work"],
];

export function line(event) {
  const target = event.target ?? event.hostname ?? event.agent_id;
  return h(
    "li",
    { class: `event ${weight(event)}`, "data-type": event.type },
    h("time", { datetime: event.timestamp, title: event.timestamp }, event.timestamp ? clock(new Date(event.timestamp)) : ""),
    h("span", { class: "type" }, event.type),
    target ? h("a", { class: "target", href: machine("any", target) }, target) : h("span", { class: "target" }),
    h("span", { class: "text" }, describe(event), event.run_id ? h("a", { class: "run", href: `#/run/${encodeURIComponent(event.run_id)}` }, "run") : null, event.session_id ? h("a", { class: "run", href: `#/session/${encodeURIComponent(event.session_id)}` }, "session") : null),
  );
}

// A list that follows a stream: newest first, drawn once a frame, bounded.
export class Feed {
  constructor(list, wants) {
    this.list = list;
    this.wants = wants;
    this.events = [];
    this.fresh = [];
    this.paused = false;
    this.changed = () => {};
  }

  take(event) {
    this.events.push(event);
    if (this.events.length > KEPT) this.events.splice(0, this.events.length - KEPT);
    this.fresh.push(event);
    if (this.fresh.length > KEPT) this.fresh.splice(0, this.fresh.length - KEPT);
    this.later();
  }

  later() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      if (!this.paused) {
        const lines = this.fresh.filter(this.wants).slice(-SHOWN).map(line);
        this.fresh = [];
        this.list.prepend(...lines.reverse());
        while (this.list.children.length > SHOWN) this.list.lastChild.remove();
      }
      this.changed();
    });
  }

  again() {
    this.fresh = [];
    const lines = this.events.filter(this.wants).slice(-SHOWN).map(line);
    this.list.replaceChildren(...lines.reverse());
    this.changed();
  }

  clear() {
    this.events = [];
    this.again();
  }
}

export function eventsView(main, parts, session) {
  const list = h("ol", { class: "events", id: "events", "aria-label": "Events, the newest first" });
  const kind = options(h("select", { id: "types" }), KINDS, KINDS[0][0]);
  const level = options(h("select", { id: "level" }), [["", "any"], ["info", "info"], ["warning", "warning"], ["error", "error"]], "");
  const text = h("input", { type: "search", id: "filter", placeholder: "target or text", autocomplete: "off", spellcheck: "false" });
  const pause = h("button", { type: "button", id: "pause", "aria-pressed": "false" }, "Pause");
  const said = h("p", { id: "summary", role: "status" });
  const wants = (event) => {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const hay = `${event.target ?? ""} ${event.agent_id ?? ""} ${event.type} ${describe(event)}`.toLowerCase();
    return event.type === "gap" || words.every((word) => hay.includes(word));
  };
  const feed = new Feed(list, wants);
  feed.changed = () => {
    const waiting = feed.paused ? feed.fresh.filter(wants).length : 0;
    setText(said, feed.paused ? `paused, ${count(waiting, "new event")}` : `${count(feed.events.length, "event")} since ${clock(began, false)}`);
  };
  let began = new Date(Date.now() - BACK_MS);
  let stream = null;

  function connect() {
    stream?.stop();
    began = new Date(Date.now() - BACK_MS);
    feed.clear();
    const values = { types: kind.value, level: level.value, since_time: began.toISOString() };
    stream = new Stream(values, (event) => feed.take(event), (state, why) => {
      if (state === "live") session.say("live");
      else session.say(state === "waiting" ? "the stream is away; coming back" : why, true);
    });
  }

  pause.addEventListener("click", () => {
    feed.paused = !feed.paused;
    pause.setAttribute("aria-pressed", String(feed.paused));
    setText(pause, feed.paused ? "Go on" : "Pause");
    if (!feed.paused) feed.again();
    feed.changed();
  });
  kind.addEventListener("input", connect);
  level.addEventListener("input", connect);
  text.addEventListener("input", () => feed.again());
  main.append(
    h("div", { class: "bar" }, h("h1", {}, "Events"), field("Filter", text), field("Kind", kind), field("Log level", level), pause),
    said,
    list,
  );
  connect();
  return () => stream.stop();
}
