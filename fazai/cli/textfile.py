"""`fazai apply --textfile X.prom`: metrics of the run, for node_exporter's textfile collector.

The file is replaced as a whole, also when the run failed or never began: a monitor must see that, too.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, get_args

from fazai.errors import ExitCode, FazaiError, UsageError
from fazai.files import replace_file

if TYPE_CHECKING:
    from fazai.outcome import RunOutcome

#: name -> (help, labels beside `file`)
METRICS: dict[str, tuple[str, str]] = {
    "fazai_apply_exit_code": ("Exit code of the newest run.", ""),
    "fazai_apply_check": ("1 when it was a run with --check.", ""),
    "fazai_apply_end_timestamp_seconds": ("When it ended.", ""),
    "fazai_apply_success_timestamp_seconds": ("When a run last ended with the exit code 0 or 2.", ""),
    "fazai_apply_duration_seconds": ("How long it took.", ""),
    "fazai_apply_changes": ("Changes, by what became of them.", "state"),
    "fazai_apply_targets": ("Targets, by how they ended.", "status"),
    "fazai_apply_target_pending_changes": ("Changes that were found and not made.", "target"),
    "fazai_apply_target_failed": ("1 where the run did not succeed, else 0.", "target"),
}
_SUCCESS = "fazai_apply_success_timestamp_seconds"
_GOOD_EXITS = (ExitCode.OK, ExitCode.PENDING)
_GOOD = ("converged", "changed", "pending")


class MetricsTextfile:
    """A context around one run: `outcome` and `exit` tell it what it then writes. Without a path it does
    nothing. What cannot be written is a warning: it must not fail a run that has done its work."""

    def __init__(self, path: Path | None, *, check: bool) -> None:
        self._path = path
        self._check = check
        self._began = time.time()
        self._outcome: RunOutcome | None = None
        self._code: int = ExitCode.FAILED

    @classmethod
    def of(cls, path: str | None, *, check: bool) -> MetricsTextfile:
        """Make a textfile at `path`. Raises UsageError for a name that node_exporter would not read."""
        if path is not None and not re.fullmatch(r"[^.].*\.prom", os.path.basename(path)):
            hint = "node_exporter reads no others; such as /var/lib/prometheus/node-exporter/fazai.prom"
            raise UsageError(f"--textfile {path!r} does not end in .prom", hint=hint)
        return cls(Path(path) if path is not None else None, check=check)

    def outcome(self, outcome: RunOutcome) -> None:
        self._outcome = outcome

    def exit(self, code: int) -> int:
        self._code = code
        return code

    def __enter__(self) -> MetricsTextfile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, FazaiError):
            self._code = int(error.exit_code)
        elif isinstance(error, KeyboardInterrupt):
            self._code = ExitCode.INTERRUPTED
        if self._path is None:
            return
        try:
            replace_file(self._path, self._format_text(self._path), 0o644)  # for node_exporter
        except OSError as failure:
            import click

            click.echo(f"warning: {self._path} cannot be written: {failure.strerror}", err=True)

    def _format_text(self, path: Path) -> bytes:
        from fazai.service.prometheus import Metric, render_metrics

        file = _printable(path.stem)
        families = []
        for name, values in self._collect_values(path).items():
            help_, more = METRICS[name]
            metric = Metric(name, "gauge", help_, ("file", more) if more else ("file",))
            samples = [((file, _printable(of)) if more else (file,), float(value)) for of, value in values]
            families.append(metric.family(samples))
        return render_metrics(families)

    def _collect_values(self, path: Path) -> dict[str, list[tuple[str, Any]]]:
        now = round(time.time(), 3)
        success = now if self._code in _GOOD_EXITS else _read_last_success(path)
        found: dict[str, list[tuple[str, Any]]] = {
            "fazai_apply_exit_code": [("", int(self._code))],
            "fazai_apply_check": [("", int(self._check))],
            "fazai_apply_end_timestamp_seconds": [("", now)],
            _SUCCESS: [("", success)] if success is not None else [],
            "fazai_apply_duration_seconds": [("", round(now - self._began, 3))],
        }
        if self._outcome is not None:
            found |= _run_values(self._outcome)
        return {name: values for name, values in found.items() if values}


def _run_values(outcome: RunOutcome) -> dict[str, list[tuple[str, Any]]]:
    """Return the metrics of an outcome. A target of several plays counts once, with the worst status."""
    from fazai.outcome import ActionStatus

    changes = Counter(action.status for target in outcome.targets for action in target.actions)
    pending: Counter[str] = Counter()
    statuses: dict[str, str] = {}
    for target in outcome.targets:
        pending[target.target] += target.count("planned")
        before = statuses.get(target.target)
        if before is None or _badness(target.status) >= _badness(before):
            statuses[target.target] = str(target.status)
    return {
        "fazai_apply_changes": [(status, changes[status]) for status in get_args(ActionStatus)],
        "fazai_apply_targets": sorted(Counter(statuses.values()).items()),
        "fazai_apply_target_pending_changes": [(name, pending[name]) for name in statuses],
        "fazai_apply_target_failed": [(name, int(one not in _GOOD)) for name, one in statuses.items()],
    }


def _badness(status: str) -> int:
    return _GOOD.index(status) if status in _GOOD else len(_GOOD)


def _read_last_success(path: Path) -> str | None:
    """Read from the file of the run before when a run last succeeded."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(rf"^{_SUCCESS}{{[^\n]*}} ([0-9.e+]+)$", text, re.MULTILINE)
    return found[1] if found else None


def _printable(text: str) -> str:
    """Return the text with bytes that are not UTF-8 as escapes, for a file must have them so."""
    return text.encode("utf-8", "backslashreplace").decode()
