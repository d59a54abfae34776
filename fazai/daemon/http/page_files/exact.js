// Text of devices and models as it is: what could not be seen, or would turn the order of what can, is spelled out.

import { h } from "./dom.js";
import { count } from "./format.js";

const HIDDEN = /([\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800]|(?! )\p{Zs})\1*/gu;
const NAMES = { "\n": "\u21b5", "\r": "CR", "\t": "\u21e5" };
const APART = 3; // of one character in a row, so many are spelled out each

function spelled(one, times) {
  const code = one.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
  const text = NAMES[one] ?? `U+${code}`;
  return h("span", { class: "hidden-character", title: `U+${code}` }, times > 1 ? `${text} \u00d7 ${times}` : text);
}

// The parts of a text: strings, and an element for each character that has no shape of its own. `lines`: a line's end ends the line, too.
export function visible(text, { lines = false } = {}) {
  const parts = [];
  let from = 0;
  for (const { 0: found, 1: one, index } of text.matchAll(HIDDEN)) {
    if (index > from) parts.push(text.slice(from, index));
    const times = found.length / one.length;
    const end = lines && one === "\n" ? ["\n"] : [];
    if (times > APART) parts.push(spelled(one, times), ...end);
    else for (let at = 0; at < times; at += 1) parts.push(spelled(one, 1), ...end);
    from = index + found.length;
  }
  if (from < text.length) parts.push(text.slice(from));
  return parts;
}

export function exact(text, tag = "span", kind = "") {
  return h(tag, { class: `exact ${kind}`.trim() }, visible(text));
}

// The words of a program, each in a box of its own: where one ends is no matter of spaces and quotes.
export function words(argv) {
  return h("ol", { class: "argv", "aria-label": count(argv.length, "word") }, argv.map((word) => h("li", {}, word === "" ? h("span", { class: "hidden-character" }, "empty") : exact(word, "code"))));
}
