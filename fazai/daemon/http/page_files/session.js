// One session of the action loop: what it does, what it waits for, and what a person may say to it.

import { Stream, get, post, Refused } from "./api.js";
import { deliberately, h, setText } from "./dom.js";
import { visible } from "./exact.js";
import { bytes, moment } from "./format.js";
import { Journal } from "./journal.js";
import { repeat } from "./poll.js";
import { Proposal, Question } from "./proposal.js";
import { budgetOf, objectiveForm } from "./sessions.js";
import { Transcript } from "./transcript.js";

const EVERY_MS = 5000;
const NEWS = new Set(["action", "ask", "observe", "done", "error", "log"]); // after these the session is not as it was

function facts(row) {
  const { usage } = row;
  const budget = budgetOf(row);
  const of = (used, most) => `${used.toLocaleString("en")} of ${most.toLocaleString("en")}`;
  const pairs = [
    ["Status", h("span", { class: `status ${row.status}` }, row.status)],
    ["Why", row.why && visible(row.why)],
    ["Owner", visible(row.owner)],
    ["From", row.source],
    ["Iterations", usage && of(usage.iterations, budget.iterations)],
    ["Tokens", usage && of(usage.tokens, budget.tokens)],
    ["Time", usage && `${of(Math.round(usage.seconds), budget.seconds)} s`],
    ["Read", usage && `${bytes(usage.bytes)} of ${bytes(budget.bytes)}`],
    ["Has read", row.tainted && "text of devices or other people: no rule approves for it by itself"],
    ["Opened", moment(row.created_at)],
    ["Session", row.session_id],
  ].filter(([, value]) => value);
  return h("dl", { class: "facts", id: "facts" }, pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

const BUTTONS = { running: ["pause", "abort"], waiting: ["pause", "abort"], paused: ["resume", "abort"] };
const TITLES = { pause: "Pause", resume: "Resume", abort: "Abort" };

class SessionPage {
  constructor(main, id, session) {
    this.id = id;
    this.session = session;
    this.objective = h("p", { class: "objective-text", id: "objective-text" });
    this.known = h("section", { "aria-label": "Session" }, h("p", { role: "status" }, "loading"));
    this.controls = h("div", { class: "bar", id: "controls" });
    this.notice = h("p", { role: "alert", id: "notice", tabindex: "-1" });
    this.asked = h("div");
    this.next = h("div");
    this.transcript = new Transcript();
    this.waiting = null; // the Proposal or Question that is shown
    this.decisions = 0;
    this.shown = { facts: "", waiting: "null", controls: "" };
    this.troubles = { poll: "", stream: "" };
    main.append(h("h1", {}, "Session"), this.objective, this.known, this.controls, this.notice, this.asked, h("h2", {}, "What happened"), this.transcript.element, this.next);
    this.loop = repeat((signal) => this.load(signal), { say: (text) => this.trouble("poll", text) }, EVERY_MS);
  }

  trouble(name, text) {
    this.troubles[name] = text;
    const told = this.troubles.poll || this.troubles.stream;
    this.session.say(told || (this.stream ? "live" : ""), told !== "");
  }

  async load(signal) {
    let row;
    const decisions = this.decisions;
    try {
      row = (await get(`agent/sessions/${encodeURIComponent(this.id)}`, {}, signal)).session;
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== 404) throw error;
      this.known.replaceChildren(h("p", { role: "status" }, "The daemon does not know this session (any more)."));
      this.asked.replaceChildren();
      this.controls.replaceChildren();
      return false;
    }
    if (decisions !== this.decisions) return true; // it was asked before the decision, and is asked again
    this.row = row;
    this.draw(row);
    if (!this.stream) this.follow(row);
    return true;
  }

  follow(row) {
    if (this.mine) this.transcript.journal = new Journal(this.id);
    const asked = { session: this.id, since_time: row.created_at };
    this.stream = new Stream(asked, (event) => {
      this.transcript.take(event);
      if (NEWS.has(event.type)) this.loop.now();
    }, (state, why) => this.trouble("stream", state === "live" ? "" : state === "waiting" ? "the stream is away; coming back" : why));
  }

  get mine() {
    return this.session.may("operator") && (this.row.owner === this.session.name || this.session.may("admin"));
  }

  // Each part is drawn again only when what it shows has changed: nobody loses a place, or a word that he typed.
  draw(row) {
    this.part("facts", [row.status, row.why, row.usage, row.budget, row.tainted, row.objective], () => {
      this.known.replaceChildren(facts(row));
      this.objective.replaceChildren(...visible(row.objective ?? "", { lines: true }));
    });
    this.part("controls", [row.status, row.source, this.mine], () => this.drawControls(row));
    this.part("waiting", row.waiting ?? null, () => this.drawWaiting(row));
  }

  part(name, value, draw) {
    const text = JSON.stringify(value);
    if (this.shown[name] === text) return;
    if (draw() !== false) this.shown[name] = text;
  }

  drawControls(row) {
    const names = this.mine ? (BUTTONS[row.status] ?? []) : [];
    this.controls.replaceChildren(...names.map((name) => {
      const button = h("button", { type: "button", id: name }, TITLES[name]);
      deliberately(button, () => this.say(name, button));
      return button;
    }));
    const rests = ["idle", "ended"].includes(row.status) && row.source === "api" && this.mine;
    this.next.replaceChildren(...(rests ? [objectiveForm("What else?", async () => this.id, { waits: this.loop })] : []));
  }

  async say(name, button) {
    button.disabled = true;
    try {
      await post(`agent/${name}`, { session_id: this.id });
      this.tell("");
    } catch (error) {
      this.tell(error.message, true);
    }
    button.disabled = false;
    this.loop.now();
  }

  tell(text, bad = false) {
    setText(this.notice, text);
    this.notice.className = bad ? "bad" : "";
  }

  // While somebody decides on what was shown to him, nothing else is put in its place.
  drawWaiting(row) {
    if (this.waiting?.busy) {
      this.waiting.outdated();
      return false;
    }
    this.waiting?.stop();
    this.waiting = null;
    if (row.waiting) {
      if (!this.notice.classList.contains("bad")) this.tell(""); // it was about the one before
      const decided = (text, bad, keep) => this.decided(text, bad, keep);
      this.waiting = row.waiting.kind === "approval" ? new Proposal(row, this.session, decided) : new Question(row, this.mine, decided);
    }
    const had = this.asked.contains(document.activeElement);
    this.asked.replaceChildren(...(this.waiting ? [this.waiting.element] : []));
    if (had) this.asked.closest("main").focus({ preventScroll: true }); // the keyboard stays on the page
    return true;
  }

  // `keep`: what was refused may be tried again as it stands.
  decided(text, bad, keep = false) {
    this.tell(text, bad);
    if (!keep) {
      this.decisions += 1;
      this.waiting?.stop();
      this.waiting = null;
      this.asked.replaceChildren();
      this.shown.waiting = "null";
      this.notice.focus({ preventScroll: true }); // the keyboard goes on from here
    }
    this.loop.now();
    this.session.waits?.now();
  }

  stop() {
    this.loop.stop();
    this.stream?.stop();
    this.waiting?.stop();
  }
}

export function sessionView(main, parts, session) {
  const page = new SessionPage(main, parts[0] ?? "", session);
  return () => page.stop();
}
