// What a session waits for: a person's word on an effect, by the hash that was shown, or an answer.

import { post, Refused, token } from "./api.js";
import { changeItem, summary } from "./changes.js";
import { deliberately, h, setText } from "./dom.js";
import { exact, visible } from "./exact.js";
import { age, clock, count } from "./format.js";

const REASON_CHARS = 1000;
const ANSWER_CHARS = 4000;
// Counts down to the time after which the daemon refuses an approval; its clock decides, this one only says.
function countdown(expires) {
  const end = Date.parse(expires);
  const element = h("span", { id: "expires" });
  const tick = () => {
    const left = (end - Date.now()) / 1000;
    setText(element, left > 0 ? `can be approved for ${age(left)}, until ${clock(new Date(end))}` : `expired at ${clock(new Date(end))}`);
    element.classList.toggle("bad", left <= 0);
  };
  tick();
  const timer = setInterval(tick, 1000);
  return { element, stop: () => clearInterval(timer) };
}

// The second step. Of what deletes, the count of it is typed: nobody does that by mistake.
function confirmation(changes, hash, approve, back) {
  const deletes = changes.filter((one) => one.verb === "delete").length;
  const word = `delete ${deletes}`;
  const typed = h("input", { id: "typed", autocomplete: "off", spellcheck: "false" });
  const button = h("button", { type: "button", id: "sure", disabled: deletes > 0 }, `Really approve ${hash.slice(0, 12)}`);
  typed.addEventListener("input", () => (button.disabled = typed.value.trim() !== word));
  deliberately(button, () => approve());
  const cancel = h("button", { type: "button", id: "back" }, "Back");
  deliberately(cancel, back);
  return h(
    "div",
    { class: "confirm", role: "group", tabindex: "-1", "aria-label": "Really approve?" },
    h("p", {}, `This lets ${summary(changes)} happen.`),
    deletes ? h("label", {}, h("p", { class: "bad" }, `${count(deletes, "thing")} will be deleted. To go on, type: ${word}`), typed) : null,
    h("div", { class: "bar" }, button, cancel),
  );
}

// `decided(text, bad)` hears how it ended, or why it was refused.
export class Proposal {
  constructor(row, session, decided) {
    // All that is sent is of the very answer that is drawn here; nothing is looked up when a button is pressed.
    const { action_id, plan_hash, changes = [], expires, tool } = row.waiting;
    this.shown = Object.freeze({ session_id: row.session_id, action_id, plan_hash });
    this.decided = decided;
    this.armed = false;
    this.countdown = expires ? countdown(expires) : null;
    this.note = h("p", { class: "warn", role: "status" });
    this.element = h(
      "section",
      { class: "approve", id: "proposal", "aria-label": "Proposal", "data-hash": plan_hash },
      h("h2", {}, "Waits for an approval"),
      h("p", {}, tool ? h("strong", {}, exact(tool), ": ") : null, summary(changes), this.countdown ? ", " : null, this.countdown?.element),
      h("ul", { class: "changes" }, changes.map(changeItem)),
      h("p", {}, "Hash ", h("code", { id: "hash" }, plan_hash)),
      this.note,
    );
    const role = tool === "tool_spec" ? "admin" : "operator";
    const own = row.source === "mcp" && row.owner === session.name && token.get() !== null;
    if (session.may(role)) this.element.append(...this.buttons(changes, plan_hash, own));
    else this.element.append(h("p", { class: "quiet" }, `Whoever has the role ${role} can approve it.`));
  }

  // `own`: an assistant with this very token proposed it, and does not approve it, whoever holds the token.
  buttons(changes, hash, own) {
    this.reason = h("input", { id: "reason", maxlength: REASON_CHARS, autocomplete: "off" });
    const approve = h("button", { type: "button", id: "approve", class: "main" }, `Approve ${summary(changes)}`);
    const reject = h("button", { type: "button", id: "reject" }, "Reject");
    const bar = h("div", { class: "bar" }, own ? h("span", { class: "quiet" }, "The token that proposed it does not approve it.") : approve, reject);
    const place = h("div", { class: "wide-row" });
    deliberately(reject, () => this.send("reject", "Rejected: it cannot be proposed again until what it rests on changes."));
    const back = () => {
      this.armed = false;
      place.replaceChildren();
      bar.hidden = false;
      approve.focus();
    };
    deliberately(approve, () => {
      this.armed = true;
      bar.hidden = true;
      const asked = confirmation(changes, hash, () => this.send("approve", "Approved."), back);
      place.replaceChildren(asked);
      asked.focus();
    });
    return [h("label", { class: "wide-row" }, h("span", {}, "Reason, for the journal"), this.reason), bar, place];
  }

  async send(what, text) {
    for (const button of this.element.querySelectorAll("button")) button.disabled = true;
    const reason = this.reason.value.trim();
    try {
      await post(`agent/${what}`, reason ? { ...this.shown, reason } : this.shown);
      this.decided(text, false);
    } catch (error) {
      this.refused(what, error);
    }
  }

  refused(what, error) {
    const not = what === "approve" ? "Nothing was approved" : "It was not rejected";
    if (error instanceof Refused && ["plan_mismatch", "conflict", "not_found", "unknown_session"].includes(error.code)) {
      const changed = error.code === "plan_mismatch" ? "The proposal changed after it was shown. " : "";
      this.decided(`${changed}${not} (${error.code}): ${error.message}${error.hint ? ` (${error.hint})` : ""}.`, true);
      return;
    }
    for (const button of this.element.querySelectorAll("button")) button.disabled = false;
    this.decided(`${not}: ${error.message}`, true, true);
  }

  // What is being decided on stays as it was shown; that it is not what waits any more is said.
  outdated() {
    setText(this.note, "This is not what waits any more. The daemon will refuse an approval of it.");
  }

  get busy() {
    return this.armed;
  }

  stop() {
    this.countdown?.stop();
  }
}

// A question of the model, with its options and room for an answer of one's own.
export class Question {
  constructor(row, mine, decided) {
    const { action_id, question, options = [] } = row.waiting;
    const shown = Object.freeze({ session_id: row.session_id, action_id });
    const input = h("textarea", { id: "answer", rows: 2, maxlength: ANSWER_CHARS, "aria-label": "Answer" });
    const choices = options.map((text) => {
      const choice = h("button", { type: "button", class: "option" }, visible(text));
      choice.addEventListener("click", () => {
        input.value = text;
        input.focus();
      });
      return choice;
    });
    const button = h("button", { type: "submit", class: "main", id: "send-answer" }, "Answer");
    const form = h("form", { class: "wide-row" }, choices.length ? h("div", { class: "bar", role: "group", "aria-label": "Options" }, choices) : null, input, button);
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const text = input.value.trim();
      if (!text || button.disabled) return;
      button.disabled = true;
      try {
        await post("agent/answer", { ...shown, text });
        decided("Answered.", false);
      } catch (error) {
        button.disabled = false;
        decided(`Not answered: ${error.message}`, true, !(error instanceof Refused && error.code === "conflict"));
      }
    });
    this.input = input;
    this.element = h("section", { class: "approve", id: "question", "aria-label": "Question" }, h("h2", {}, "Waits for an answer"), h("p", { class: "said-text" }, visible(question ?? "", { lines: true })), mine ? form : h("p", { class: "quiet" }, "Whose session it is, or an admin, can answer."));
  }

  get busy() {
    return this.input.value !== "";
  }

  outdated() {}

  stop() {}
}
