// Runs and what they changed; the approval of a plan that waits for one.

import { get, operations, post, Refused } from "./api.js";
import { diff } from "./diff.js";
import { deliberately, h, setText } from "./dom.js";
import { age, count, machine, moment } from "./format.js";
import { repeat } from "./poll.js";

const EVERY_MS = 10_000;
const OPEN_AT_ONCE = 20; // changes of a target that are shown without being asked for
const MOST = 2000;

const VERBS = { create: "+", update: "~", delete: "-", move: ">", run: "!" };

function outcome(run) {
  if (run.state !== "finished") return run.state === "queued" ? "waits" : "runs";
  const names = { 0: "converged", 1: "failed", 2: "pending", 3: "bad input", 4: "unreachable", 5: "locked", 6: "stale plan", 7: "refused", 130: "interrupted" };
  return names[run.exit_code] ?? `exit ${run.exit_code}`;
}

function weight(run) {
  if (run.state !== "finished" || run.exit_code === 0) return "";
  return run.exit_code === 2 ? "drifted" : "bad";
}

function took(run) {
  return run.finished_at ? age((Date.parse(run.finished_at) - Date.parse(run.started_at)) / 1000) : "";
}

function totals(run) {
  return ["targets", "changed", "pending", "unchanged", "failed", "unreachable"]
    .filter((name) => run.totals?.[name])
    .map((name) => (name === "targets" ? count(run.totals[name], "target") : `${run.totals[name].toLocaleString("en")} ${name}`))
    .join(", ");
}

export function runsView(main, parts, session) {
  const body = h("tbody");
  const said = h("p", { id: "summary", role: "status" }, "loading");
  const heads = [["Run", ""], ["Began", ""], ["Took", "num wide"], ["Result", ""], ["", ""], ["Counts", "wide"]];
  main.append(
    h("h1", {}, "Runs"),
    said,
    h("div", { class: "across" }, h("table", { id: "runs" }, h("thead", {}, h("tr", {}, heads.map(([text, kind]) => h("th", { scope: "col", class: kind }, text)))), body)),
  );
  let before = "";
  const loop = repeat(async (signal) => {
    const { runs } = await get("runs", { limit: 200 }, signal);
    const text = JSON.stringify(runs);
    if (text === before) return;
    before = text;
    setText(said, runs.length ? `${count(runs.length, "run")}, the newest first` : "No run yet: fazai apply, plan and drift make them.");
    body.replaceChildren(...runs.map(row));
  }, session, EVERY_MS);
  return loop.stop;
}

function row(run) {
  const href = `#/run/${encodeURIComponent(run.run_id)}`;
  const waits = run.plan_state === "pending";
  return h(
    "tr",
    {},
    h("td", {}, h("a", { href }, `${run.command} ${run.run_id.slice(-8)}`), run.playbook ? ` ${run.playbook}` : null),
    h("td", {}, moment(run.started_at)),
    h("td", { class: "num wide" }, took(run)),
    h("td", {}, h("span", { class: weight(run) }, outcome(run))),
    h("td", {}, waits ? h("a", { href, class: "drifted" }, "approve") : null),
    h("td", { class: "wide" }, totals(run)),
  );
}

// -- one run

function title(change) {
  const sign = VERBS[change.verb] ?? change.verb;
  return `${sign} ${change.kind} ${change.identity}`;
}

function changeItem(change) {
  return h(
    "li",
    { class: "change" },
    h("div", { class: "what" }, h("strong", {}, title(change)), h("span", { class: change.status === "failed" || change.status === "refused" ? "bad" : "quiet" }, change.status), change.adopts ? h("span", { class: "quiet" }, "adopts") : null),
    change.note ? h("div", { class: "quiet" }, change.note) : null,
    change.error ? h("div", { class: "bad" }, change.error) : null,
    diff(change),
  );
}

function targetItem(name, target, changes) {
  const list = h("ul", { class: "changes" });
  const open = changes.length > 0 && changes.length <= OPEN_AT_ONCE;
  const status = target?.status ?? "";
  const bad = !["converged", "changed", "pending", "", "skipped"].includes(status);
  const element = h(
    "details",
    { class: "target", "data-target": name },
    h(
      "summary",
      {},
      h("strong", {}, name),
      h("span", { class: bad ? "bad" : status === "pending" ? "drifted" : "quiet" }, status),
      h("span", { class: "quiet" }, changes.length ? count(changes.length, "change") : ""),
    ),
    h("p", {}, h("a", { href: machine("any", name) }, "its page")),
    (target?.errors ?? []).map((text) => h("p", { class: "bad" }, text)),
    (target?.notes ?? []).map((text) => h("p", { class: "quiet" }, text)),
    list,
  );
  const fill = () => list.children.length || list.append(...changes.map(changeItem));
  element.addEventListener("toggle", () => element.open && fill());
  if (open || bad) {
    fill();
    element.open = true;
  }
  return element;
}

// Targets with what differs first, then those that only say that all is well.
function byTarget(answer, changes) {
  const found = new Map(answer.targets.map((target) => [target.target, { target, changes: [] }]));
  for (const change of changes) {
    if (!found.has(change.target)) found.set(change.target, { target: null, changes: [] });
    found.get(change.target).changes.push(change);
  }
  const rank = ({ target, changes: of }) => (of.length ? 0 : (target?.errors ?? []).length ? 0 : 1);
  return [...found].sort((a, b) => rank(a[1]) - rank(b[1])).map(([name, one]) => targetItem(name, one.target, one.changes));
}

function facts(run) {
  const pairs = [
    ["Result", h("span", { class: weight(run) }, outcome(run))],
    ["Command", run.playbook ? `${run.command} ${run.playbook}` : run.command],
    ["Began", moment(run.started_at)],
    ["Took", took(run)],
    ["Counts", totals(run)],
    ["Asked by", run.by],
    ["Reason", run.reason],
    ["Error", run.error],
    ["Run", run.run_id],
  ].filter(([, value]) => value);
  return h("dl", { class: "facts", id: "facts" }, pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

// The button is there only when this daemon has the route and the plan waits; what is approved is the hash
// of the plan that the daemon showed.
async function approval(run, session, signal) {
  if (run.plan_state !== "pending" || !session.may("operator")) return null;
  const table = await operations();
  if (!table.has("post /runs/{id}/approve") || !table.has("get /runs/{id}/plan")) return null;
  const { plan } = await get(`runs/${encodeURIComponent(run.run_id)}/plan`, {}, signal);
  if (plan.state !== "pending") return null;
  const said = h("p", { role: "alert" });
  const button = h("button", { type: "button", id: "approve" }, `Approve ${count(plan.changes.length, "change")} on ${count(plan.targets.length, "target")}`);
  deliberately(button, async () => {
    if (button.dataset.sure === undefined) {
      button.dataset.sure = "";
      setText(button, `Really apply plan ${plan.plan_hash.slice(0, 12)}`);
      return;
    }
    button.disabled = true;
    try {
      const answer = await post(`runs/${encodeURIComponent(run.run_id)}/approve`, { plan_hash: plan.plan_hash });
      location.hash = `#/run/${encodeURIComponent(answer.run_id)}`;
    } catch (error) {
      button.disabled = false;
      delete button.dataset.sure;
      setText(said, error.message);
      said.className = "bad";
    }
  });
  return h("section", { class: "approve", "aria-label": "Approval" }, h("p", {}, `This plan waits for an approval. Its hash is ${plan.plan_hash}.`), button, said);
}

export function runView(main, parts, session) {
  const id = parts[0] ?? "";
  const known = h("section", { "aria-label": "Run" }, h("p", { role: "status" }, "loading"));
  const asked = h("div");
  const listed = h("div", { id: "changes" });
  const heading = h("h2", {}, "Targets");
  main.append(h("h1", {}, `Run ${id.slice(-8)}`), known, asked, heading, listed);
  let before = "";
  const loop = repeat(async (signal) => {
    const path = `runs/${encodeURIComponent(id)}`;
    let answer;
    try {
      answer = await get(path, {}, signal);
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== 404) throw error;
      known.replaceChildren(h("p", { role: "status" }, "The daemon does not know this run (any more)."));
      heading.hidden = true;
      return undefined; // one that was asked for just now may come
    }
    heading.hidden = false;
    const found = await get(`${path}/changes`, { limit: MOST }, signal);
    const text = JSON.stringify([answer, found]);
    if (text !== before) {
      before = text;
      known.replaceChildren(facts(answer.run));
      const more = found.total > found.changes.length ? h("p", { class: "drifted" }, `Only the first ${found.changes.length} of ${found.total} changes are shown; all of them: fazai show ${id}`) : null;
      listed.replaceChildren(...[more].filter(Boolean), ...byTarget(answer, found.changes));
      const section = await approval(answer.run, session, signal);
      asked.replaceChildren(...[section].filter(Boolean));
    }
    if (answer.run.state === "finished" && answer.run.plan_state !== "pending") {
      session.say("");
      return false; // it will not change any more
    }
    return true;
  }, session, 3000);
  return loop.stop;
}
