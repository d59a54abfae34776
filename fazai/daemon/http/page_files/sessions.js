// The sessions of the action loop: their list, a new objective, how many wait for a person.

import { begin, get, post } from "./api.js";
import { h, setText } from "./dom.js";
import { visible } from "./exact.js";
import { count, moment } from "./format.js";
import { repeat } from "./poll.js";

const EVERY_MS = 5000;
const SHOWN_CHARS = 160; // of an objective, in a line
const OBJECTIVE_CHARS = 262_144;

// What a budget does not say is this (SPEC.md, 2.1).
const BUDGET = { iterations: 20, tokens: 20_000, seconds: 900, bytes: 1_048_576 };

export const budgetOf = (row) => ({ ...BUDGET, ...row.budget });

export const address = (id) => `#/session/${encodeURIComponent(id)}`;

export function short(text) {
  const line = (text ?? "").replace(/\s+/g, " ").trim();
  return line.length > SHOWN_CHARS ? `${line.slice(0, SHOWN_CHARS)}\u2026` : line;
}

export function waitsFor(row) {
  if (!row.waiting) return "";
  return row.waiting.kind === "answer" ? "a question" : `${count(row.waiting.changes?.length ?? 0, "change")} to approve`;
}

export function usedText(row) {
  const { usage } = row;
  return usage ? `${usage.iterations} of ${budgetOf(row).iterations} iterations, ${usage.tokens.toLocaleString("en")} tokens` : "";
}

// A form for an objective. `open` gives the session's id: of a new one, or of the one that goes on.
export function objectiveForm(label, open, session) {
  const input = h("textarea", { id: "objective", rows: 2, maxlength: OBJECTIVE_CHARS, required: true, placeholder: "which firewall has drifted?" });
  const button = h("button", { type: "submit", id: "ask" }, "Ask");
  const said = h("p", { role: "alert", class: "bad" });
  const form = h("form", { class: "ask" }, h("label", {}, h("span", {}, label), input), button, said);
  const send = async () => {
    const objective = input.value.trim();
    if (!objective || button.disabled) return;
    button.disabled = true;
    setText(said, "");
    try {
      const id = await open();
      await begin("agent/generate", { session_id: id, objective, detach: true });
      input.value = "";
      session.waits?.now();
      location.hash = address(id);
    } catch (error) {
      setText(said, error.message);
    }
    button.disabled = false;
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!event.repeat) send();
  });
  return form;
}

export function sessionsView(main, parts, session) {
  const body = h("tbody");
  const said = h("p", { id: "summary", role: "status" }, "loading");
  const heads = [["Status", ""], ["Objective", ""], ["Waits for", ""], ["Owner", "wide"], ["From", "wide"], ["Used", "wide"]];
  const place = h("div");
  main.append(
    h("h1", {}, "Sessions"),
    place,
    said,
    h("div", { class: "across" }, h("table", { id: "sessions" }, h("thead", {}, h("tr", {}, heads.map(([text, kind]) => h("th", { scope: "col", class: kind }, text)))), body)),
  );
  if (session.may("operator")) {
    const open = async () => (await post("agent/sessions", {})).session_id;
    place.append(objectiveForm("What is to be found out or reached?", open, session));
  }
  let before = "";
  const loop = repeat(async (signal) => {
    const { sessions } = await get("agent/sessions", {}, signal);
    const text = JSON.stringify(sessions);
    if (text === before) return;
    before = text;
    setText(said, sessions.length ? `${count(sessions.length, "session")}, the one used last first` : "No session yet: an objective opens one.");
    body.replaceChildren(...sessions.map(row));
  }, session, EVERY_MS);
  return loop.stop;
}

function row(one) {
  return h(
    "tr",
    { "data-session": one.session_id },
    h("td", {}, h("span", { class: `status ${one.status}` }, one.status)),
    h("td", { class: "objective" }, h("a", { href: address(one.session_id) }, one.objective ? visible(short(one.objective)) : one.session_id)),
    h("td", {}, one.waiting ? h("a", { href: address(one.session_id), class: "drifted" }, waitsFor(one)) : null),
    h("td", { class: "wide" }, visible(one.owner)),
    h("td", { class: "wide" }, one.source),
    h("td", { class: "wide" }, `${moment(one.used_at)}${one.usage ? `; ${usedText(one)}` : ""}`),
  );
}

// The number in the menu: what waits for a person. Asked again and again, for a stream would take one of the
// few connections that a browser has to one address.
export function watchWaiting(badge) {
  return repeat(async (signal) => {
    const { sessions } = await get("agent/sessions", {}, signal);
    const waits = sessions.filter((one) => one.waiting).length;
    badge.hidden = waits === 0;
    setText(badge, waits ? String(waits) : "");
    badge.setAttribute("aria-label", `${waits} ${waits === 1 ? "waits" : "wait"} for a person`);
    document.title = waits ? `(${waits}) fazai` : "fazai";
  }, { say: () => {} }, EVERY_MS);
}
