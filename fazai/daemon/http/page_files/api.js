// The daemon's API: requests with the token of this tab, and the stream of events with resume.

const KEY = "fazai.token";
const WAIT_MOST_MS = 15_000;

export class Refused extends Error {
  constructor(status, text, code, hint) {
    super(text);
    this.status = status;
    this.code = code;
    this.hint = hint;
  }
}

export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: (text) => sessionStorage.setItem(KEY, text),
  drop: () => sessionStorage.removeItem(KEY),
};

function headers(more) {
  const text = token.get();
  return text ? { ...more, Authorization: `Bearer ${text}` } : { ...more };
}

async function refusal(answer) {
  let body = {};
  try {
    body = await answer.json();
  } catch {
    // not from the daemon: a proxy's page
  }
  return new Refused(answer.status, body.error ?? `the daemon answered ${answer.status}`, body.code, body.hint);
}

async function ask(path, settings) {
  const answer = await fetch(path, { cache: "no-store", credentials: "same-origin", ...settings });
  if (answer.ok) return answer;
  const error = await refusal(answer);
  if (error.status === 401) document.dispatchEvent(new CustomEvent("fazai-unauthorized"));
  throw error;
}

export function query(path, values) {
  const pairs = Object.entries(values).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return pairs.length ? `${path}?${new URLSearchParams(pairs)}` : path;
}

export async function get(path, values = {}, signal = undefined) {
  const answer = await ask(query(path, values), { headers: headers({}), signal });
  return answer.json();
}

export async function post(path, body) {
  const answer = await ask(path, {
    method: "POST",
    headers: headers({ "Content-Type": "application/json" }),
    body: JSON.stringify(body),
  });
  return answer.json();
}

// Begins what answers with a stream, and does not stay to read it: GET /events has the same.
export async function begin(path, body) {
  const answer = await ask(path, {
    method: "POST",
    headers: headers({ "Content-Type": "application/json" }),
    body: JSON.stringify(body),
  });
  await answer.body?.cancel();
}

// Which operations this daemon has: `"post /runs"` -> the operation. Asked once.
let described = null;
export function operations() {
  described ??= get("openapi.json").then((found) => {
    const table = new Map();
    for (const [path, methods] of Object.entries(found.paths)) {
      for (const [method, operation] of Object.entries(methods)) table.set(`${method} ${path}`, operation);
    }
    return table;
  });
  described.catch(() => (described = null));
  return described;
}

// One server-sent event a call of `take`, one id without an event a call of `begin`; lines end with LF, as the daemon writes them.
class Frames {
  constructor(take, begin) {
    this.take = take;
    this.begin = begin;
    this.rest = "";
  }

  push(text) {
    this.rest += text;
    let end = this.rest.indexOf("\n\n");
    while (end >= 0) {
      this.frame(this.rest.slice(0, end));
      this.rest = this.rest.slice(end + 2);
      end = this.rest.indexOf("\n\n");
    }
  }

  frame(block) {
    const fields = {};
    for (const line of block.split("\n")) {
      const colon = line.indexOf(": ");
      if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 2);
    }
    if (fields.data !== undefined) this.take({ id: fields.id, ...JSON.parse(fields.data) });
    else if (fields.id !== undefined) this.begin(fields.id);
  }
}

// GET /events until `stop()`. Comes back by itself with the last id, so that nothing is missed; `state` hears
// "live", "waiting" or "refused".
export class Stream {
  constructor(values, take, state) {
    this.values = values;
    this.take = take;
    this.state = state;
    this.last = null;
    this.wait = 500;
    this.control = new AbortController();
    this.run();
  }

  stop() {
    this.control.abort();
  }

  async run() {
    const { signal } = this.control;
    while (!signal.aborted) {
      try {
        await this.once(signal);
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof Refused && [400, 401, 403].includes(error.status)) {
          this.state("refused", error.message);
          return;
        }
      }
      if (signal.aborted) return;
      this.state("waiting");
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, this.wait * (0.75 + Math.random() / 2));
        signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
      });
      this.wait = Math.min(this.wait * 2, WAIT_MOST_MS);
    }
  }

  async once(signal) {
    const values = { ...this.values };
    const more = { Accept: "text/event-stream" };
    if (this.last !== null) {
      more["Last-Event-ID"] = this.last;
      delete values.since_time;
    }
    const answer = await ask(query("events", values), { headers: headers(more), signal });
    this.state("live");
    const frames = new Frames((event) => {
      this.last = event.id ?? this.last;
      this.wait = 500;
      this.take(event);
    }, (id) => (this.last = id));
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      frames.push(value);
    }
  }
}
