"""The report for people: plays and targets as they finish, live progress at a terminal, one line a target
when piped, nothing when quiet and converged."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TextIO

from fazai.errors import Mark, count_noun
from fazai.model import TargetWork, Work
from fazai.outcome import ActionOutcome, EngineEvent, RunOutcome, TargetOutcome, TargetStatus
from fazai.report.lines import (
    SIGNS,
    Paint,
    activation_lines,
    change_details,
    change_title,
    diff_lines,
    error_lines,
    escape_controls,
    result_words,
    unstyled,
)

_STYLE = {"+": "green", "~": "yellow", "-": "red", ">": "yellow", "!": "yellow", "=": "dim"}
_TITLE_WIDTH = 26
_REDRAW_S = 0.1


@dataclass(slots=True)
class TextReport:
    """Report for people. `live`: a terminal that can show progress. `every_change`: a line a change (else a
    line a target). `noun(provider)` is what its targets are called. `columns`: how long a line of a change
    may be."""

    out: TextIO
    noun: Callable[[str], str]
    paint: Paint = unstyled
    live: bool = False
    every_change: bool = True
    diff: bool = False
    explain: bool = False
    quiet: bool = False
    columns: int = 160
    recorded: bool = True  # else there is no run to show
    _play: str = ""
    _status: str = ""
    _drawn: float = 0.0
    _total: int = 0
    _finished: int = 0
    _width: int = 12
    _lost: OSError | None = None
    _plays: dict[str, str] = field(default_factory=dict)

    # -- as it happens ----------------------------------------------------------------------------------

    def event(self, event: EngineEvent) -> None:
        """Show progress, at a terminal only."""
        if not self.live:
            return
        if event.type == "change":
            what = f"{event.data['kind']} {event.data['identity']}"
            self._draw_progress(f"{event.target} {event.data['verb']} {what}")
        elif event.type == "activate":
            self._draw_progress(f"{event.target} activating {event.data['service']}")
        elif event.type == "target":
            self._draw_progress(f"{event.target} observing")

    def begin(self, works: Iterable[Work]) -> None:
        """Take the plays that are to come: their targets, and how many resources each has."""
        plays: dict[str, list[TargetWork]] = {}
        for work in works:
            plays.setdefault(work.name, []).extend(work.targets)
        names = [item.target.name for items in plays.values() for item in items]
        self._width, self._total = min(max([4, *map(len, names)]), 40), len(names)
        for play, items in plays.items():
            nouns = Counter(self.noun(item.target.provider) for item in items)  # ssh and local are both hosts
            counts = [count_noun(number, noun) for noun, number in nouns.items()]
            counts.append(count_noun(sum(len(item.resources) for item in items), "resource"))
            self._plays[play] = f"{f'PLAY {escape_controls(play)}':<56} {', '.join(counts)}"

    def target(self, outcome: TargetOutcome) -> None:
        """Report one target that is finished."""
        self._finished += 1
        if self.quiet and outcome.status is TargetStatus.CONVERGED and not outcome.notes:
            return
        if outcome.play != self._play:
            self._play = outcome.play
            title = self._plays.get(outcome.play, f"PLAY {escape_controls(outcome.play)}")
            self._write_line(self.paint(title, "bold"))
        if self.every_change or self.diff or self.explain:
            self._write_changes(outcome)
        else:
            self._write_row(outcome, self._summary(outcome))
        # what failed twice for one reason is told once
        for lines in dict.fromkeys(tuple(error_lines(error, self.paint)) for error in outcome.errors):
            for line in lines:
                self._write_row(outcome, line)
        for note in outcome.notes:
            self._write_row(outcome, f"{self.paint('note:', 'dim')} {escape_controls(note)}")

    def end(self, outcome: RunOutcome) -> None:
        """Write the recap. Raises OSError when something of the report could not be written."""
        self._clear_progress()
        self._write_recap(outcome)
        if self._lost is not None:
            raise self._lost

    def _write_recap(self, outcome: RunOutcome) -> None:
        if self.quiet and outcome.exit_code == 0 and not outcome.totals()["changed"]:
            return
        style = "green" if outcome.exit_code == 0 else "yellow" if outcome.exit_code == 2 else "red"
        run = outcome.run_id[:13]
        tail = f"   {outcome.duration_s:.1f} s" + f"   run {run}   fazai show {run}" * self.recorded
        self._write_line(self.paint("RESULT " + ", ".join(self._result_words(outcome)), style) + tail)

    def _result_words(self, outcome: RunOutcome) -> list[str]:
        return result_words(outcome)

    # -- lines ------------------------------------------------------------------------------------------

    def _write_row(self, outcome: TargetOutcome, text: str) -> None:
        """Write a line about a target, its name in front."""
        self._write_line(f"  {escape_controls(outcome.target):<{self._width}}  {text}".rstrip())

    def _write_changes(self, outcome: TargetOutcome) -> None:
        if not outcome.actions:
            sign = "=" if outcome.status is TargetStatus.CONVERGED else "!"
            self._write_row(outcome, self.paint(f"{sign} {outcome.status}", _STYLE[sign]))
        for action in outcome.actions:
            self._write_action(outcome, action)
        for word, name in activation_lines(outcome):
            style = "red" if word == "not activated" else _STYLE["!"]
            title = self.paint(f"! {word:<{_TITLE_WIDTH - 2}}", style)
            self._write_row(outcome, f"{title}  {escape_controls(name)}")

    def _write_action(self, outcome: TargetOutcome, action: ActionOutcome) -> None:
        change = action.change
        sign = SIGNS[change.verb]
        title = self.paint(f"{sign} {change_title(change):<{_TITLE_WIDTH}}", _STYLE[sign])
        state = "" if action.status in ("done", "planned", "refused") else f"[{action.status}] "
        used = self._width + max(_TITLE_WIDTH, len(change_title(change))) + 8 + len(state)
        details = change_details(change, max(self.columns - used, 20))
        self._write_row(outcome, f"{title}  {self.paint(state, 'red')}{details}")
        if self.explain:
            for name in change.after:
                mark: Mark | None = change.origins.get(name)
                self._write_line(f"      {name:<24} from {mark or change.mark or 'the device'}")
        if self.diff:
            for line in diff_lines(change):
                style = {"+": "green", "-": "red", "@": "dim"}.get(line[:1], "")
                self._write_line(f"      {self.paint(line, style) if style else line}")

    def _summary(self, outcome: TargetOutcome) -> str:
        words = [
            f"{count} to {verb}" if outcome.count("planned") else f"{count} {_past_tense(verb)}"
            for verb, count in sorted(outcome.verbs.items())
        ]
        sign = "=" if outcome.status is TargetStatus.CONVERGED else "~" if not outcome.errors else "!"
        words += [f"{word} {escape_controls(name)}" for word, name in activation_lines(outcome)]
        what = ", ".join([*words, f"{outcome.unchanged} unchanged"])
        text = f"{sign} {outcome.status}"
        return f"{self.paint(f'{text:<13}', _STYLE[sign])}  {what}   {outcome.duration_s:.1f} s"

    # -- the terminal -----------------------------------------------------------------------------------

    def _write_line(self, text: str) -> None:
        self._clear_progress()
        self._write(text + "\n")

    def _draw_progress(self, text: str) -> None:
        now = time.monotonic()
        if now - self._drawn < _REDRAW_S:
            return
        self._drawn = now
        status = escape_controls(f"  {self._finished}/{self._total}  {text}")[:78]
        self._write(f"\r\x1b[K{self.paint(status, 'dim')}", flush=True)
        self._status = status

    def _clear_progress(self) -> None:
        if self._status:
            self._write("\r\x1b[K")
            self._status = ""

    def _write(self, text: str, *, flush: bool = False) -> None:
        """Write, and keep a failure for `end`: a reader that went away or a full disk must not end a run
        half-way."""
        try:
            self.out.write(text)
            if flush:
                self.out.flush()
        except OSError as error:
            self._lost = error


def _past_tense(verb: Any) -> str:
    return {"run": "run"}.get(str(verb), f"{str(verb).removesuffix('e')}ed")
