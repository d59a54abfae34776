// The knowledge base: a search, and one note.

import { get, Refused } from "./api.js";
import { field, h, setText } from "./dom.js";
import { visible } from "./exact.js";
import { count, moment } from "./format.js";

const address = (id) => `#/note/${encodeURIComponent(id)}`;

function standing(doc) {
  return doc.status ? h("span", { class: `standing ${doc.status}` }, doc.status) : null;
}

function hit(doc) {
  const about = [doc.source, doc.target, ...(doc.tags ?? []).map((tag) => `#${tag}`)].filter(Boolean).join(", ");
  return h(
    "li",
    { class: "hit", "data-note": doc.id },
    h("div", { class: "what" }, h("a", { href: address(doc.id) }, visible(doc.title)), standing(doc), doc.contradicted ? h("span", { class: "warn" }, "contradicted") : null, h("span", { class: "quiet" }, visible(about))),
    doc.snippet ? h("p", { class: "text" }, visible(doc.snippet, { lines: true })) : null,
  );
}

export function kbView(main, parts, session) {
  const input = h("input", { type: "search", id: "query", maxlength: 4096, autocomplete: "off", spellcheck: "false", placeholder: "words, a name, an address" });
  const said = h("p", { id: "summary", role: "status" }, "");
  const list = h("ol", { class: "hits", id: "hits", "aria-label": "Notes, the best first" });
  const form = h("form", { class: "bar", role: "search" }, h("h1", {}, "Knowledge"), field("Search", input), h("button", { type: "submit" }, "Search"));
  let control = new AbortController();

  async function search(text) {
    control.abort();
    control = new AbortController();
    const { signal } = control;
    list.replaceChildren();
    setText(said, text ? "looking" : "");
    try {
      if (text) {
        const { docs } = await get("kb/search", { q: text }, signal);
        if (signal.aborted) return;
        list.replaceChildren(...docs.map(hit));
        setText(said, docs.length ? `${count(docs.length, "note")}, the best first` : "No note has these words.");
      }
      session.say("");
    } catch (error) {
      if (signal.aborted) return;
      setText(said, error instanceof Refused && error.status === 404 ? "This daemon has no knowledge base." : "");
      session.say(error.message, true);
    }
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = input.value.trim();
    history.replaceState(null, "", `#/kb/${encodeURIComponent(text)}`); // a note that is left comes back to its search
    search(text);
  });
  main.append(form, said, list);
  input.value = parts[0] ?? "";
  search(input.value.trim());
  return () => control.abort();
}

function facts(note) {
  const pairs = [
    ["Status", note.status && standing(note)],
    ["Verified", note.verified_at && `${moment(note.verified_at)} by ${note.verified_by ?? "a person"}`],
    ["From", note.origin],
    ["By", note.author],
    ["Source", note.source],
    ["Target", note.target],
    ["Tags", note.tags?.join(", ")],
    ["Written", note.created_at && moment(note.created_at)],
    ["Session", note.session_id && h("a", { href: `#/session/${encodeURIComponent(note.session_id)}` }, note.session_id)],
    ["Run", note.run_id && h("a", { href: `#/run/${encodeURIComponent(note.run_id)}` }, note.run_id)],
  ].filter(([, value]) => value);
  return h("dl", { class: "facts", id: "facts" }, pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, typeof value === "string" ? visible(value) : value))));
}

const RELATIONS = { parent: "derived from", contradicts: "says that it is wrong:" };

function linked(answer, id) {
  const titles = new Map((answer.linked ?? []).map((doc) => [doc.id, doc.title]));
  const rows = (answer.links ?? []).map((link) => {
    const other = link.note === id ? link.other : link.note;
    const way = link.note === id ? RELATIONS[link.relation] : link.relation === "parent" ? "another was derived from it:" : "another says that it is wrong:";
    return h("li", {}, `${way} `, h("a", { href: address(other) }, visible(titles.get(other) ?? other)));
  });
  return rows.length ? [h("h2", {}, "Linked"), h("ul", {}, rows)] : [];
}

export function noteView(main, parts, session) {
  const id = parts[0] ?? "";
  const control = new AbortController();
  const title = h("h1", { class: "machine" }, "Note");
  const place = h("section", { "aria-label": "Note" }, h("p", { role: "status" }, "loading"));
  main.append(title, place);
  async function load() {
    try {
      const answer = await get(`kb/${encodeURIComponent(id)}`, {}, control.signal);
      const { note } = answer;
      title.replaceChildren(...visible(note.title));
      place.replaceChildren(facts(note), h("p", { class: "note-text", id: "note-text" }, visible(note.text ?? note.snippet ?? "", { lines: true })), ...linked(answer, id));
    } catch (error) {
      if (control.signal.aborted) return;
      if (error instanceof Refused && error.status === 404) place.replaceChildren(h("p", { role: "status" }, "The knowledge base does not have this note (any more)."));
      else session.say(error.message, true);
    }
  }
  load();
  return () => control.abort();
}
