// The fields that a change changes, as lines that were and lines that will be.

import { h } from "./dom.js";
import { visible } from "./exact.js";

function shown(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

// Whether two lists have the same entries in the same order, of those that both have.
function sameRest(before, after, old, now) {
  const stayed = before.filter((one) => now.has(one));
  const stays = after.filter((one) => old.has(one));
  return stayed.length === stays.length && stayed.every((one, at) => one === stays[at]);
}

// [[sign, text]]: of two lists only what came and what went, of anything else both.
export function lines(before, after) {
  if (Array.isArray(before) && Array.isArray(after)) {
    const [was, is] = [before.map(shown), after.map(shown)];
    const [old, now] = [new Set(was), new Set(is)];
    const gone = [...old].filter((one) => !now.has(one)).map((one) => ["-", one]);
    const come = [...now].filter((one) => !old.has(one)).map((one) => ["+", one]);
    if ((gone.length || come.length) && sameRest(was, is, old, now)) return [...gone, ...come];
  }
  const found = [];
  if (before !== undefined && before !== null) found.push(["-", shown(before)]);
  if (after !== undefined && after !== null) found.push(["+", shown(after)]);
  return found;
}

const CLASSES = { "-": "gone", "+": "come" };

export function diff(change) {
  const names = [...new Set([...Object.keys(change.before), ...Object.keys(change.after)])];
  const rows = names.flatMap((name) =>
    lines(change.before[name], change.after[name]).map(([sign, text]) =>
      h("div", { class: CLASSES[sign] }, h("span", { class: "sign" }, sign), h("span", { class: "fieldname" }, visible(name), ": "), h("span", { class: "exact" }, visible(text, { lines: true }))),
    ),
  );
  for (const [name, value] of Object.entries(change.options ?? {})) {
    rows.push(h("div", { class: "quiet" }, h("span", { class: "fieldname" }, "(", visible(name), ": "), visible(shown(value)), ")"));
  }
  return h("div", { class: "diff" }, rows.length ? rows : h("div", { class: "quiet" }, "no field differs"));
}
