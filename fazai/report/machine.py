"""Reports for machines: one JSON document, JUnit XML, Markdown for a pull request. Always whole."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from fazai.errors import FazaiError
from fazai.outcome import (
    ONCE_COMMANDS,
    ProgramResult,
    RunOutcome,
    TargetOutcome,
    TargetStatus,
    change_record,
    error_record,
)
from fazai.report.lines import (
    SIGNS,
    activation_lines,
    change_details,
    change_title,
    diff_lines,
    escape_controls,
    printable,
    result_words,
)
from fazai.timestamps import timestamp

FORMAT = "fazai-run/1"


#: Characters that JSON leaves as they are, and that a terminal may obey.
_STEERING = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
#: What programs printed, by target.
Results = Mapping[str, ProgramResult]


def run_record(
    outcome: RunOutcome | None,
    command: str,
    errors: Iterable[FazaiError] = (),
    results: Results = MappingProxyType({}),
) -> dict[str, Any]:
    """Return the document of docs/output.schema.json. Without an outcome: nothing was contacted."""
    found = list(errors)
    result: dict[str, Any] = {"format": FORMAT, "command": command}
    if outcome is not None:
        result |= {
            "run_id": outcome.run_id,
            "check": outcome.check,
            "started": timestamp(outcome.started).isoformat(timespec="milliseconds"),
            "duration_s": round(outcome.duration_s, 3),
            "exit_code": outcome.exit_code,
            "interrupted": outcome.interrupted,
            "totals": outcome.totals(),
            "plays": list(outcome.plays),
            "unanswered": [target.target for target in outcome.targets if not target.answered],
            "not_asked": [target.target for target in outcome.targets if not target.asked],
            "targets": [
                _target_record(target) | _end_record(target, command, results.get(target.target))
                for target in outcome.targets
            ],
        }
    else:
        result |= {"exit_code": max((int(e.exit_code) for e in found), default=0), "targets": []}
    result["errors"] = [item for error in found for item in error_record(error)]
    return result


def _target_record(target: TargetOutcome) -> dict[str, Any]:
    changes = []
    for action in target.actions:
        change = change_record(action.change, origins=True) | {"status": action.status}
        del change["target"]
        if action.error is not None:
            change["error"] = str(action.error)
        if action.action_id:
            change["action_id"] = action.action_id
        changes.append(change)
    return {
        "name": target.target,
        "provider": target.provider,
        "play": target.play,
        "status": str(target.status),
        "exit_code": target.exit_code,
        "resources": target.resources,
        "unchanged": target.unchanged,
        "changes": changes,
        "activated": list(target.activated),
        "to_activate": list(target.activations) if target.status is TargetStatus.PENDING else [],
        "not_activated": [target.not_activated] if target.not_activated else [],
        "errors": [item for error in target.errors for item in error_record(error)],
        "notes": list(target.notes),
        "duration_s": round(target.duration_s, 3),
    }


def _end_record(target: TargetOutcome, command: str, result: ProgramResult | None) -> dict[str, Any]:
    ending = {"ending": target.ending} if command in ONCE_COMMANDS else {}
    return ending if result is None else {**ending, "result": asdict(result)}


def render_outcome(
    output: str,
    outcome: RunOutcome | None,
    command: str,
    errors: Iterable[FazaiError] = (),
    results: Results = MappingProxyType({}),
) -> str:
    """Return the report in the format that was asked for: json, junit or markdown."""
    if output == "json":
        text = json.dumps(run_record(outcome, command, errors, results), indent=1, ensure_ascii=False)
        return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"
    return (as_junit if output == "junit" else as_markdown)(outcome, command, errors, results)


def as_junit(
    outcome: RunOutcome | None,
    command: str,
    errors: Iterable[FazaiError] = (),
    results: Results = MappingProxyType({}),
) -> str:
    """Return JUnit XML: a suite a play, a case a target; pending changes are failures of type "drift"."""
    suites: dict[str, list[TargetOutcome]] = {}
    for target in outcome.targets if outcome else ():
        suites.setdefault(target.play, []).append(target)
    parts = [_junit_suite(name, targets, results) for name, targets in suites.items()]
    found = list(errors)
    if found:
        cases = "".join(
            f'  <testcase classname="input" name={_quoted(str(e.where or "command line"))}>'
            f'<error type="{type(e).__name__}" message={_quoted(e.message)}>{_xml_text(str(e))}</error>'
            "</testcase>\n"
            for e in found
        )
        head = f'<testsuite name="input" tests="{len(found)}" errors="{len(found)}">'
        parts.append(f"{head}\n{cases}</testsuite>\n")
    head = f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name={_quoted(f"fazai {command}")}>'
    return f"{head}\n{''.join(parts)}</testsuites>\n"


def _junit_suite(name: str, targets: list[TargetOutcome], results: Results) -> str:
    skipped = sum(t.status is TargetStatus.SKIPPED for t in targets)
    failures = sum(t.exit_code != 0 for t in targets) - skipped
    head = (
        f'<testsuite name={_quoted(name)} tests="{len(targets)}" failures="{failures}"'
        f' skipped="{skipped}" time="{sum(t.duration_s for t in targets):.3f}">\n'
    )
    cases = (_junit_case(target, results.get(target.target)) for target in targets)
    return head + "".join(cases) + "</testsuite>\n"


def _junit_case(target: TargetOutcome, result: ProgramResult | None) -> str:
    text = "\n".join(_plain_lines(target))
    body = ""
    if target.status is TargetStatus.SKIPPED:
        body = f"<skipped message={_quoted('; '.join(target.notes))}/>"
    elif target.exit_code:
        kind = "drift" if target.status is TargetStatus.PENDING else str(target.status)
        first = str(target.errors[0]) if target.errors else f"{target.count('planned')} changes pending"
        body = f'<failure type="{kind}" message={_quoted(first)}>{_xml_text(text)}</failure>'
    elif text and result is None:
        body = f"<system-out>{_xml_text(text)}</system-out>"
    for name, said in (
        () if result is None else (("system-out", result.stdout), ("system-err", result.stderr))
    ):
        body += f"<{name}>{_xml_text(said)}</{name}>" if said else ""
    head = f'classname={_quoted(target.play)} name={_quoted(target.target)} time="{target.duration_s:.3f}"'
    return f"  <testcase {head}>{body}</testcase>\n"


def _plain_lines(target: TargetOutcome) -> Iterable[str]:
    for action in target.actions:
        change = action.change
        yield f"{SIGNS[change.verb]} {change_title(change)}  {change_details(change)}  [{action.status}]"
    yield from (f"! {word} {name}" for word, name in activation_lines(target))
    yield from (str(error) for error in target.errors)
    yield from target.notes


def _xml_text(text: str) -> str:
    return escape("\n".join(printable(line) for line in text.splitlines()))


def _quoted(text: str) -> str:
    return quoteattr(escape_controls(" ".join(text.split())))


def as_markdown(
    outcome: RunOutcome | None,
    command: str,
    errors: Iterable[FazaiError] = (),
    results: Results = MappingProxyType({}),
) -> str:
    """Return a table of targets and a folded diff for each that has changes, as a pull request shows it."""
    lines = [f"### fazai {command}", ""]
    lines += [f"- **{type(error).__name__}** {_markdown_cell(str(error))}" for error in errors]
    if outcome is not None:
        lines += _markdown_table(outcome)
        for target in outcome.targets:
            lines += _markdown_details(target) if target.target not in results else ()
            lines += _markdown_output(target.target, results.get(target.target))
    return "\n".join(lines) + "\n"


def _markdown_table(outcome: RunOutcome) -> list[str]:
    lines = [
        f"**{', '.join(result_words(outcome))}** (exit {outcome.exit_code})",
        "",
        "| target | play | status | changes | unchanged | |",
        "|---|---|---|---|---|---|",
    ]
    for t in outcome.targets:
        word = t.errors[0].message if t.errors else "; ".join(t.notes)
        cells = (t.target, t.play, str(t.status), str(len(t.actions)), str(t.unchanged), word)
        lines.append(f"| {' | '.join(map(_markdown_cell, cells))} |")
    return [*lines, ""]


def _markdown_details(target: TargetOutcome) -> list[str]:
    activations = [f"! {word} {escape_controls(name)}" for word, name in activation_lines(target)]
    if not target.actions and not activations:
        return []
    lines: list[str] = []
    for change in (action.change for action in target.actions):
        lines += diff_lines(change) or [f"# {change_title(change)} {change_details(change)}"]
    body = [line.replace("```", "'''") for line in [*lines, *activations]]
    head = f"<details><summary>{escape(escape_controls(target.target))}</summary>"
    return [head, "", "```diff", *body, "```", "</details>", ""]


def _markdown_output(name: str, result: ProgramResult | None) -> list[str]:
    if result is None or not (result.stdout or result.stderr):
        return []
    body = [printable(line).replace("```", "'''") for line in (result.stdout + result.stderr).splitlines()]
    head = f"<details><summary>{escape(escape_controls(name))}</summary>"
    return [head, "", "```", *body, "```", "</details>", ""]


def _markdown_cell(text: str) -> str:
    return escape_controls(" ".join(text.split())).replace("|", "\\|").replace("<", "&lt;")
