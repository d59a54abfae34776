// What is asked again and again: one question at a time, not while the tab is out of sight.

// `work` says false when there is nothing more to ask. `now()` asks at once, or once more after what is being asked.
export function repeat(work, session, every) {
  const control = new AbortController();
  let timer = null;
  let busy = false;
  let again = false;
  async function turn() {
    again = busy;
    if (busy) return;
    clearTimeout(timer);
    busy = true;
    let more = true;
    try {
      if (!document.hidden) more = (await work(control.signal)) !== false;
      if (!control.signal.aborted) session.say("");
    } catch (error) {
      if (!control.signal.aborted) session.say(error.message, true);
    }
    busy = false;
    if (control.signal.aborted) return;
    if (again) turn();
    else if (more) timer = setTimeout(turn, every);
  }
  turn();
  return { stop: () => (control.abort(), clearTimeout(timer)), now: turn };
}
