// A line chart in SVG: figures over time, gaps left open, read with the pointer or the arrow keys.

import { h, setText, svg } from "./dom.js";
import { clock, day } from "./format.js";

const HIGH = 150;
const LEFT = 58;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 20;
const STEPS_S = [60, 300, 600, 1800, 3600, 7200, 21600, 43200, 86400, 172800, 604800];

// A round number of at most `most` ticks from 0 to `top`.
export function ticks(top, most, base) {
  if (!(top > 0)) return [0, 1];
  const ten = 10 ** Math.floor(Math.log10(top / most));
  const steps = base === 1024 ? [2 ** Math.ceil(Math.log2(top / most))] : [1, 2, 2.5, 5, 10].map((one) => one * ten);
  const step = steps.find((one) => top / one <= most);
  const found = [];
  for (let value = 0; value < top + step * 0.999; value += step) found.push(value);
  return found;
}

function timeTicks(begin, end, most) {
  const step = STEPS_S.find((one) => (end - begin) / one <= most) ?? STEPS_S.at(-1);
  const shift = new Date(begin * 1000).getTimezoneOffset() * 60; // on the reader's hours, not on UTC's
  const found = [];
  for (let at = Math.ceil((begin - shift) / step) * step + shift; at <= end; at += step) found.push(at);
  return { found, format: (at) => (step >= 86400 ? day(new Date(at * 1000)).slice(5) : clock(new Date(at * 1000), false)) };
}

export class Chart {
  // series: [[field, name]]; format: value -> text; top: the least that the scale shows
  constructor({ title, series, format, top = 0, base = 10 }) {
    Object.assign(this, { title, series, format, top, base });
    this.drawing = svg("svg", { tabindex: 0, role: "img", height: HIGH });
    this.said = h("span", { class: "said" });
    this.keys = series.length > 1 ? series.map(([, name], at) => h("span", { class: `key s${at}` }, name)) : [];
    this.element = h(
      "figure",
      { class: "chart", "data-chart": series[0][0] },
      h("figcaption", {}, h("strong", {}, title), ...this.keys, this.said),
      this.drawing,
    );
    this.data = null;
    this.at = null;
    this.size = new ResizeObserver(() => this.draw());
    this.size.observe(this.element);
    this.drawing.addEventListener("pointermove", (event) => this.point(event));
    this.drawing.addEventListener("pointerleave", () => this.choose(null));
    this.drawing.addEventListener("blur", () => this.choose(null));
    this.drawing.addEventListener("keydown", (event) => this.key(event));
  }

  stop() {
    this.size.disconnect();
  }

  // times: seconds; columns: field -> values; a gap is more than `apart_s` between two points
  show({ times, columns, begin, end, apart_s }) {
    this.data = { times, columns: this.series.map(([name]) => columns[name] ?? []), begin, end, apart_s };
    this.at = null;
    this.draw();
  }

  draw() {
    if (!this.data) return;
    const wide = Math.max(240, this.element.clientWidth);
    const { times, columns, begin, end } = this.data;
    const known = columns.flat().filter((value) => value !== null && value !== undefined);
    const levels = ticks(Math.max(this.top, ...known), 4, this.base);
    const highest = levels.at(-1);
    this.x = (at) => LEFT + ((at - begin) / (end - begin)) * (wide - LEFT - RIGHT);
    this.y = (value) => TOP + (1 - value / highest) * (HIGH - TOP - BOTTOM);
    const hours = timeTicks(begin, end, Math.max(2, Math.floor(wide / 90)));
    this.drawing.setAttribute("viewBox", `0 0 ${wide} ${HIGH}`);
    this.drawing.setAttribute("width", wide);
    this.cursor = svg("line", { class: "cursor", y1: TOP, y2: HIGH - BOTTOM, visibility: "hidden" });
    this.drawing.replaceChildren(
      ...levels.map((value) => svg("line", { class: "grid", x1: LEFT, x2: wide - RIGHT, y1: this.y(value), y2: this.y(value) })),
      ...levels.map((value) => svg("text", { class: "level", x: LEFT - 6, y: this.y(value) + 4 }, this.format(value))),
      ...hours.found.map((at) => svg("text", { class: "hour", x: this.x(at), y: HIGH - 5 }, hours.format(at))),
      ...columns.map((values, at) => svg("path", { class: `line s${at}`, d: this.path(times, values) })),
      this.cursor,
    );
    if (!known.length) this.drawing.append(svg("text", { class: "none", x: wide / 2, y: HIGH / 2 }, "not reported in this time"));
    this.drawing.setAttribute("aria-label", `${this.title}: ${this.summary(columns)}`);
    this.choose(this.at);
  }

  summary(columns) {
    const texts = columns.map((values, at) => {
      const known = values.filter((value) => value !== null && value !== undefined);
      if (!known.length) return `${this.series[at][1]} not reported`;
      const low = known.reduce((a, b) => Math.min(a, b));
      const high = known.reduce((a, b) => Math.max(a, b));
      return `${this.series[at][1]} now ${this.format(known.at(-1))}, from ${this.format(low)} to ${this.format(high)}`;
    });
    return texts.join("; ");
  }

  path(times, values) {
    let text = "";
    let before = null;
    times.forEach((at, place) => {
      const value = values[place];
      if (value === null || value === undefined) {
        before = null;
        return;
      }
      const joined = before !== null && at - before <= this.data.apart_s;
      // a lone point is a dot: a line of no length with round ends
      const place2 = `${this.x(at).toFixed(1)} ${this.y(value).toFixed(1)}`;
      text += joined ? `L${place2}` : `M${place2}h.01`;
      before = at;
    });
    return text;
  }

  point(event) {
    if (!this.data?.times.length) return;
    const box = this.drawing.getBoundingClientRect();
    const x = event.clientX - box.left;
    let best = 0;
    this.data.times.forEach((at, place) => {
      if (Math.abs(this.x(at) - x) < Math.abs(this.x(this.data.times[best]) - x)) best = place;
    });
    this.choose(best);
  }

  key(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    const step = steps[event.key];
    if (step === undefined || !this.data?.times.length) return;
    event.preventDefault();
    const last = this.data.times.length - 1;
    this.choose(Math.min(last, Math.max(0, (this.at ?? last) + step)));
  }

  choose(at) {
    this.at = at;
    if (!this.cursor) return;
    if (at === null) {
      this.cursor.setAttribute("visibility", "hidden");
      const now = this.data.columns.map((values) => values.findLast((value) => value !== null && value !== undefined));
      setText(this.said, this.words(now));
      return;
    }
    const moment = this.data.times[at];
    this.cursor.setAttribute("x1", this.x(moment));
    this.cursor.setAttribute("x2", this.x(moment));
    this.cursor.setAttribute("visibility", "visible");
    setText(this.said, `${clock(new Date(moment * 1000))}  ${this.words(this.data.columns.map((values) => values[at]))}`);
  }

  words(values) {
    return values.map((value) => (value === null || value === undefined ? "–" : this.format(value))).join(" · ");
  }
}
