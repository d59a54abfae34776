// The changes of an effect, each as it would happen; nothing of them is shortened.

import { diff } from "./diff.js";
import { h } from "./dom.js";
import { exact, words } from "./exact.js";
import { count } from "./format.js";

const SIGNS = { create: "+", update: "~", delete: "\u2212", move: ">", run: "!" };

export function changeItem(change) {
  const { argv, ...after } = change.after ?? {};
  const program = Array.isArray(argv) && argv.every((word) => typeof word === "string");
  const shown = { before: change.before ?? {}, after: program ? after : (change.after ?? {}) };
  const differs = !program || Object.keys(shown.before).length + Object.keys(after).length > 0;
  return h(
    "li",
    { class: "change", "data-verb": change.verb },
    h(
      "div",
      { class: "what" },
      h("strong", { class: change.verb === "delete" ? "bad" : "" }, `${SIGNS[change.verb] ?? "?"} `, exact(String(change.verb))),
      exact(change.kind, "span", "quiet"),
      exact(change.identity, "strong", "identity"),
      h("span", {}, "on ", exact(change.target, "strong", "on")),
    ),
    program ? words(argv) : null,
    differs ? diff(shown) : null,
  );
}

export function summary(changes) {
  const targets = new Set(changes.map((one) => one.target));
  return `${count(changes.length, "change")} on ${count(targets.size, "target")}`;
}
