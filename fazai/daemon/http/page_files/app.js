// The page: who is there, and which view is shown. A view is a function (main, parts, session) that fills
// `main` and returns what is to be done when it is left.

import { Refused, get, token } from "./api.js";
import { h, setText } from "./dom.js";
import { eventsView } from "./events.js";
import { fleetView } from "./fleet.js";
import { kbView, noteView } from "./kb.js";
import { machineView } from "./machine.js";
import { runView, runsView } from "./runs.js";
import { sessionView } from "./session.js";
import { sessionsView, watchWaiting } from "./sessions.js";

const VIEWS = {
  ...{ fleet: fleetView, events: eventsView, machine: machineView, runs: runsView, run: runView },
  ...{ sessions: sessionsView, session: sessionView, kb: kbView, note: noteView },
};

const main = document.getElementById("main");
const who = document.getElementById("who");
const link = document.getElementById("link");
const leaveButton = document.getElementById("leave");

const badge = document.getElementById("waiting");

const session = {
  role: null,
  name: null,
  waits: null, // counts what waits for a person, while somebody is signed in
  may(role) {
    const roles = ["viewer", "operator", "admin"];
    return this.role !== null && roles.indexOf(this.role) >= roles.indexOf(role);
  },
  say(text, bad = false) {
    setText(link, text);
    link.classList.toggle("bad", bad);
  },
};

const PARENTS = { run: "runs", machine: "fleet", session: "sessions", note: "kb" }; // whose pages these are
let leave = null;

function show(event) {
  leave?.();
  leave = null;
  if (session.role === null) return;
  const [name, ...parts] = location.hash.replace(/^#\/?/, "").split("/");
  const view = VIEWS[name] ?? fleetView;
  for (const anchor of document.querySelectorAll("nav a")) {
    const here = anchor.getAttribute("href") === `#/${PARENTS[name] ?? (VIEWS[name] ? name : "fleet")}`;
    if (here) anchor.setAttribute("aria-current", PARENTS[name] ? "true" : "page");
    else anchor.removeAttribute("aria-current");
  }
  session.say("");
  main.replaceChildren();
  leave = view(main, parts.map(decode), session) ?? null;
  if (event) main.focus({ preventScroll: true }); // who went on with the keyboard goes on there
  window.scrollTo(0, 0);
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function signedOut() {
  leave?.();
  leave = null;
  session.role = null;
  session.waits?.stop();
  session.waits = null;
  badge.hidden = true;
}

function login(text) {
  signedOut();
  setText(who, "");
  leaveButton.hidden = true;
  const input = h("input", { type: "password", id: "token", autocomplete: "off", required: true, spellcheck: "false" });
  const said = h("p", { role: "alert", class: "bad" }, text);
  const form = h(
    "form",
    {
      class: "login",
      onsubmit: (event) => {
        event.preventDefault();
        token.set(input.value.trim());
        start(true);
      },
    },
    h("h1", {}, "Sign in"),
    h("p", {}, "This daemon asks for a token. It stays in this tab, until the tab is closed."),
    h("label", { for: "token" }, "Token"),
    input,
    h("button", { type: "submit" }, "Sign in"),
    said,
    h("p", { class: "quiet" }, "No token yet: ", h("code", {}, "fazai token create NAME --role viewer")),
  );
  main.replaceChildren(form);
  input.focus();
}

async function start(tried) {
  try {
    const found = await get("whoami");
    if (!found.role) {
      login("");
      return;
    }
    session.role = found.role;
    session.name = found.name;
    session.waits?.stop();
    session.waits = watchWaiting(badge);
    setText(who, `${found.name} (${found.role})`);
    leaveButton.hidden = token.get() === null;
    show();
  } catch (error) {
    if (error instanceof Refused && (error.status === 401 || error.status === 429)) {
      token.drop();
      login(tried || error.status === 429 ? error.message : "The token of this tab is no longer valid.");
      return;
    }
    session.say("the daemon does not answer; trying again", true);
    setTimeout(() => start(tried), 3000);
  }
}

leaveButton.addEventListener("click", () => {
  token.drop();
  start(false);
});
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address belongs to the views
  main.focus();
});
document.addEventListener("fazai-unauthorized", () => {
  if (session.role !== null) {
    token.drop();
    login("The token is not valid any more.");
  }
});
window.addEventListener("hashchange", show);
start(false);
