// What an action showed, as the session's journal has it: for whose session it is, and for admins.

import { get } from "./api.js";
import { h, setText } from "./dom.js";
import { visible } from "./exact.js";

const RANGE_CHARS = 65_536;

export class Journal {
  constructor(id) {
    this.path = `agent/sessions/${encodeURIComponent(id)}`;
    this.read = 0;
    this.observed = new Map(); // of an action: what it showed
  }

  async find(action) {
    let next = this.read;
    while (!this.observed.has(action) && next !== undefined) {
      const answer = await get(`${this.path}/journal`, { since: next });
      for (const one of answer.entries) if (one.entry === "observed") this.observed.set(one.action_id, one);
      this.read += answer.entries.length;
      next = answer.next;
    }
    return this.observed.get(action);
  }

  async whole(output, take) {
    for (let offset = 0, total = 1; offset < total; offset += RANGE_CHARS) {
      const answer = await get(`${this.path}/outputs/${encodeURIComponent(output)}`, { offset, limit: RANGE_CHARS });
      total = answer.total;
      take(answer.text);
    }
  }

  // A button that shows what the model was told, and one for the rest where that is a part.
  button(action) {
    const place = h("span", {});
    const button = h("button", { type: "button", class: "found" }, "what it showed");
    const said = h("span", { class: "bad" });
    const work = (task) => async () => {
      button.disabled = true;
      setText(said, "");
      try {
        await task();
      } catch (error) {
        setText(said, error.message);
      }
      button.disabled = false;
    };
    button.addEventListener("click", work(async () => {
      const entry = await this.find(action);
      const text = entry?.text ?? "";
      const shown = h("pre", {}, ...visible(text || "nothing beside this sentence", { lines: true }));
      place.replaceChildren(shown);
      if (!entry?.output_id) return;
      const more = h("button", { type: "button", class: "found" }, "all of it");
      more.addEventListener("click", work(async () => {
        shown.replaceChildren();
        more.remove();
        await this.whole(entry.output_id, (part) => shown.append(...visible(part, { lines: true })));
      }));
      place.append(more);
    }));
    place.append(button, said);
    return place;
  }
}
