"""A session of the action loop for people: each action as a short line, what it showed, what waits for
approval. All of it was written by a model, by devices or by others: nothing in it steers the terminal."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from fazai.model import Change, Verb
from fazai.outcome import ActionOutcome, TargetOutcome, TargetStatus
from fazai.report.events import event_line, event_style
from fazai.report.lines import Paint, escape_controls, printable, unstyled
from fazai.report.text import TextReport

_VALUE_CHARS = 200
_TITLES = 5


@dataclass(slots=True)
class SessionReport:
    """Writes the events of a session. `columns`: how long a line of a change may be."""

    out: TextIO
    paint: Paint = unstyled
    columns: int = 160
    _remark: str | None = None  # the action whose observation was shown with it
    _rests: dict[str, str] = field(default_factory=dict)  # of output: the line that has not ended yet

    def event(self, event: Mapping[str, Any]) -> None:
        """Write an event; what only machines need is left out."""
        type_ = event.get("type")
        if type_ != "exec_log":
            self._end_output()
        writer = self._writers().get(str(type_))
        if writer is not None:
            writer(event)
        elif type_ not in ("token", "plan", "ask", "error"):  # said by the action, or by who reads the stream
            self._line(f"  {self.paint(event_line(event), event_style(event))}")
        self.out.flush()

    def _writers(self) -> Mapping[str, Callable[[Mapping[str, Any]], None]]:
        return {
            "action": self._action,
            "observe": self._observation,
            "exec_log": self._output,
            "research_result": self._documents,
            "done": self._end,
        }

    def _action(self, event: Mapping[str, Any]) -> None:
        self._remark = str(event.get("action_id")) if event.get("action") == "observe" else None
        for line in action_lines(event):
            self._line(line)
        if event.get("changes"):
            self.changes(event["changes"])

    def changes(self, changes: Sequence[Mapping[str, Any]]) -> None:
        """Write the changes of an effect as `fazai plan --diff` does: all of what an approval is for."""
        report = TextReport(self.out, lambda _: "target", self.paint, diff=True, columns=self.columns)
        for outcome in effect_outcomes(changes):
            report.target(outcome)

    def _observation(self, event: Mapping[str, Any]) -> None:
        if self._remark is None or self._remark != event.get("action_id"):
            for line in str(event.get("note", "")).splitlines():
                self._line(f"  {printable(line)}")

    def _output(self, event: Mapping[str, Any]) -> None:
        stream = str(event.get("stream", "stdout"))
        text = self._rests.pop(stream, "") + str(event.get("chunk", ""))
        *lines, rest = text.split("\n")
        for line in lines:
            self._line(f"  | {self._of_stream(line, stream)}")
        if rest:
            self._rests[stream] = rest

    def _of_stream(self, line: str, stream: str) -> str:
        text = printable(line.rstrip("\r"))
        return self.paint(text, "dim") if stream == "stderr" else text

    def _end_output(self) -> None:
        for stream, rest in self._rests.items():
            self._line(f"  | {self._of_stream(rest, stream)}")
        self._rests.clear()

    def _documents(self, event: Mapping[str, Any]) -> None:
        docs = list(event.get("docs") or ())
        titles = ", ".join(_short(str(doc.get("title", ""))) for doc in docs[:_TITLES])
        more = f", and {len(docs) - _TITLES} more" if len(docs) > _TITLES else ""
        self._line(f"  {len(docs)} found: {titles}{more}" if docs else "  nothing was found")

    def _end(self, event: Mapping[str, Any]) -> None:
        for line in result_lines(event.get("result"), self.paint):
            self._line(line)

    def _line(self, text: str) -> None:
        self.out.write(text.rstrip() + "\n")


def action_lines(action: Mapping[str, Any]) -> Iterator[str]:
    """Yield what an action says: the tool and its arguments, the steps, the remark."""
    name = str(action.get("action"))
    match name:
        case "use_tool":
            words = [f"{key}={_value(value)}" for key, value in (action.get("args") or {}).items()]
            yield f"> {escape_controls(' '.join([str(action.get('name')), *words]))}"
        case "plan":
            yield "> plan"
            for number, step in enumerate(action.get("steps") or (), 1):
                yield f"  {number}. {_short(str(step))}"
        case "observe":
            yield f"> {_short(str(action.get('summary')), 2000)}"
        case "shell":
            argv = shlex.join(map(str, action.get("argv") or ()))
            yield f"> shell on {_short(str(action.get('target')))}: {_short(argv, 2000)}"
        case "tool_spec":
            argv = shlex.join(map(str, action.get("argv") or ()))
            yield f"> tool_spec {_short(str(action.get('name')))}: {_short(argv, 2000)}"
        case "research":
            yield f"> research {_short(', '.join(map(str, action.get('queries') or ())))}"
        case "commit_kb":
            yield f"> commit_kb {_short(str(action.get('title')))}"
        case "ask" | "done":
            return
        case _:
            yield f"> {escape_controls(name)}"


def result_lines(result: Any, paint: Paint = unstyled) -> Iterator[str]:
    """Yield how an objective ended: its result, or why it rests or ended without one."""
    said = result if isinstance(result, Mapping) else {"result": result}
    reason = str(said.get("stop_reason", "done"))
    if reason in ("approval", "answer"):
        return
    if said.get("result") is not None:
        found = said["result"]
        text = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False, indent=1)
        yield from (printable(line) for line in text.splitlines())
    if reason != "done":
        note = f": {escape_controls(str(said['note']))}" if said.get("note") else ""
        yield paint(f"{escape_controls(reason)}{note}", "yellow")
    used = said.get("usage")
    if isinstance(used, Mapping):
        counts = ", ".join(f"{used.get(name)} {name}" for name in ("iterations", "tokens"))
        yield paint(f"({escape_controls(counts)})", "dim")


def effect_outcomes(changes: Sequence[Mapping[str, Any]]) -> Iterator[TargetOutcome]:
    """Yield the changes of an effect as outcomes of a plan, a target each."""
    by_target: dict[str, list[ActionOutcome]] = {}
    for one in changes:
        change = _change_of(one)
        by_target.setdefault(change.target, []).append(ActionOutcome(change, "planned"))
    for target, actions in by_target.items():
        yield TargetOutcome(target, "", "", TargetStatus.PENDING, len(actions), tuple(actions))


def _change_of(one: Mapping[str, Any]) -> Change:
    """Return a change of an effect as a change of a plan; what runs has its whole argv as the note."""
    after = dict(one.get("after") or {})
    argv = after.get("argv")
    try:
        verb = Verb(str(one.get("verb")))
    except ValueError:  # of a later release
        verb = Verb.RUN
    return Change(
        target=str(one.get("target", "")),
        kind=str(one.get("kind", "")),
        identity=str(one.get("identity", "")),
        verb=verb,
        before=dict(one.get("before") or {}),
        after=after,
        ref="",
        note=shlex.join(map(str, argv)) if isinstance(argv, list | tuple) else "",
    )


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and (not value or " " in value):
        text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _VALUE_CHARS else f"{text[: _VALUE_CHARS - 1]}…"


def _short(text: str, most: int = _VALUE_CHARS) -> str:
    shown = escape_controls(" ".join(text.split("\n")))
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"
