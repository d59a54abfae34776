"""The report for people of one program, or one file, for many targets: what each printed, behind its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fazai.errors import count_noun
from fazai.outcome import EngineEvent, ProgramResult, RunOutcome, TargetOutcome, TargetStatus
from fazai.report.lines import error_lines, escape_controls, printable
from fazai.report.text import TextReport

_NAMES_SHOWN = 20
_SHOWN_BYTES = 1024 * 1024  # less is there at once
_BAD = {TargetStatus.PENDING: "yellow", TargetStatus.SKIPPED: "yellow"}


@dataclass(slots=True)
class FanoutReport(TextReport):
    """`results`: what a program printed, by target; None where it is files that are copied. `group`: targets
    that printed the same stand together, at the end."""

    results: Mapping[str, ProgramResult] | None = None
    group: bool = False
    _same: dict[tuple[object, ...], list[TargetOutcome]] = field(default_factory=dict)

    def event(self, event: EngineEvent) -> None:
        """Show progress, at a terminal only: also the last line that was printed somewhere."""
        if not self.live:
            return
        if event.type == "exec_log":
            lines = str(event.data["chunk"]).splitlines() or [""]
            self._draw_progress(f"{event.target} {printable(lines[-1])}")
        elif event.type == "target":
            self._draw_progress(f"{event.target} …")
        else:
            TextReport.event(self, event)

    def transfer(self, target: str, done: int, total: int) -> None:
        """Show how much of a file was sent or read, at a terminal only."""
        if self.live and total >= _SHOWN_BYTES:
            self._draw_progress(f"{target} {min(done, total) / 2**20:.1f} of {total / 2**20:.1f} MiB")

    def target(self, outcome: TargetOutcome) -> None:
        """Report one target that is finished."""
        if self.results is None:
            TextReport.target(self, outcome)
            return
        self._finished += 1
        if self.quiet and outcome.exit_code == 0:
            return
        if self.group:
            result = self._result_of(outcome)
            said = () if result is None else (result.exit_status, result.stdout, result.stderr)
            self._same.setdefault((outcome.ending, *said), []).append(outcome)
            return
        name = f"{escape_controls(outcome.target):<{self._width}}"
        self._write_line(f"{name}  {self._status_text(outcome)}   {outcome.duration_s:.1f} s")
        for sign, line in _output_lines(self._result_of(outcome)):
            self._write_line(f"{name} {self.paint(sign, 'red' if sign == '!' else 'dim')} {line}".rstrip())
        self._write_errors(outcome, name)

    def _result_of(self, outcome: TargetOutcome) -> ProgramResult | None:
        return None if self.results is None else self.results.get(outcome.target)

    def _status_text(self, outcome: TargetOutcome) -> str:
        result, word = self._result_of(outcome), outcome.ending
        if result is not None and result.exit_status is not None:
            word = f"exit {result.exit_status}"
        style = "green" if outcome.exit_code == 0 else _BAD.get(outcome.status, "red")
        return self.paint(word, style)

    def _write_errors(self, outcome: TargetOutcome, name: str) -> None:
        result = self._result_of(outcome)
        if result is None or not result.exit_status or result.exit_status > 125:
            for error in outcome.errors:
                for line in error_lines(error, self.paint):
                    self._write_line(f"{name}  {line}")
        for note in outcome.notes:
            self._write_line(f"{name}  {self.paint('note:', 'dim')} {escape_controls(note)}")

    # -- the end ----------------------------------------------------------------------------------------

    def end(self, outcome: RunOutcome) -> None:
        """Write the groups, who gave no answer, and the recap. Raises OSError as `TextReport.end`."""
        place = {one.target: number for number, one in enumerate(outcome.targets)}
        groups = [sorted(same, key=lambda one: place[one.target]) for same in self._same.values()]
        for same in sorted(groups, key=lambda same: place[same[0].target]):
            names = _name_list([one.target for one in same])
            count = f" ({count_noun(len(same), 'target')})" if len(same) > 1 else ""
            self._write_line(f"{self.paint(names, 'bold')}{count}  {self._status_text(same[0])}")
            for sign, line in _output_lines(self._result_of(same[0])):
                self._write_line(f"  {self.paint(sign, 'red' if sign == '!' else 'dim')} {line}".rstrip())
            for one in same if same[0].errors else ():
                self._write_errors(one, f"  {escape_controls(one.target)}")
        lost = [one for one in outcome.targets if not one.answered]
        if lost:
            words = [f"{escape_controls(one.target)} ({one.ending})" for one in lost]
            self._write_line(f"{self.paint('not answered:', 'red')} {_cut(words)}")
        left = [one for one in outcome.targets if not one.asked]
        if left:
            why = next((note for one in left for note in one.notes), "")
            names = _name_list([one.target for one in left])
            self._write_line(f"{self.paint('not asked:', 'yellow')} {names}{f': {why}' if why else ''}")
        TextReport.end(self, outcome)

    def _write_recap(self, outcome: RunOutcome) -> None:
        if not self.quiet or outcome.exit_code:
            TextReport._write_recap(self, outcome)

    def _result_words(self, outcome: RunOutcome) -> list[str]:
        """Return how many targets ended in which way, the good ones first."""
        if self.results is None:
            return TextReport._result_words(self, outcome)
        words = ["ran" if one.exit_code == 0 else one.ending for one in outcome.targets]
        counts = {word: words.count(word) for word in sorted(words, key=lambda word: word != "ran")}
        return [f"{number} {word}" for word, number in counts.items()]


def _output_lines(result: ProgramResult | None) -> Iterator[tuple[str, str]]:
    """Yield the lines that a program printed: `|` before those of its output, `!` before its errors."""
    if result is None:
        return
    for sign, text in (("|", result.stdout), ("!", result.stderr)):
        for line in (
            text.replace("\r\n", "\n").split("\n")[: None if text[-1:] != "\n" else -1] if text else ()
        ):
            yield sign, printable(line)
    if result.truncated:
        yield "!", "… (it printed more than is kept)"


def _name_list(names: Sequence[str]) -> str:
    return _cut([escape_controls(name) for name in names])


def _cut(words: Sequence[str]) -> str:
    more = f" and {len(words) - _NAMES_SHOWN} more" if len(words) > _NAMES_SHOWN else ""
    return ", ".join(words[:_NAMES_SHOWN]) + more
