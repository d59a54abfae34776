"""The allow-list of command.exec: tells whether a request is one of the ways that agent.yml names.

The whole argument list is matched, each argument in its place, by a literal text or by a pattern that must
fit all of it. A value that a pattern stands for may not begin with `-` (unless `dash: true`), have a part
`..` or hold control characters, whatever the pattern says. Nothing is looked up in PATH, expanded or split.

A pattern may take for ever on some texts: callers match in a process of their own, under a deadline.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fazai.agent.config.programs import compile_pattern
from fazai.agent.errors import Refused
from fazai.errors import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fazai.agent.config.settings import ArgumentRule, ProgramRule

_CONTROL = re.compile("[\x00-\x1f\x7f]")
_PART = re.compile(r"[/=:,\s]")
_SHOWN = 80


@dataclass(frozen=True)
class ExecRequest:
    """The fields of command.exec that the policy looks at."""

    command: str
    args: tuple[str, ...]
    cwd: str = "/"
    env: tuple[tuple[str, str], ...] = ()
    stdin: str | None = None

    @classmethod
    def from_message(cls, message: Mapping[str, object]) -> ExecRequest:
        """Take the fields from a checked message."""
        args, env, stdin = message.get("args"), message.get("env"), message.get("stdin")
        return cls(
            command=str(message["command"]),
            args=tuple(map(str, args)) if isinstance(args, (list, tuple)) else (),
            cwd=str(message.get("cwd") or "/"),
            env=tuple((str(name), str(value)) for name, value in env.items())
            if isinstance(env, dict)
            else (),
            stdin=None if stdin is None else str(stdin),
        )


def find_rule(request: ExecRequest, programs: Sequence[ProgramRule]) -> ProgramRule:
    """Return the first rule that allows the request. Raises Refused with the reason of the nearest one."""
    candidates = _find_program(request.command, programs)
    nearest: tuple[int, Refused] | None = None
    for rule in candidates:
        reached, reason = _explain_refusal(request, rule)
        if reason is None:
            return rule
        if nearest is None or reached > nearest[0]:
            hint = f"line {rule.line} of the agent's configuration" if rule.line else None
            nearest = reached, Refused("not_allowed", f"{rule.path}: {reason}", hint)
    assert nearest is not None
    raise nearest[1]


def _find_program(command: str, programs: Sequence[ProgramRule]) -> list[ProgramRule]:
    """Return the rules of the program that is named by its path, its name, or its path's last part."""
    if not programs:
        raise Refused(
            "not_allowed", "this agent runs no programs", "name them under `programs` in its agent.yml"
        )
    found = [rule for rule in programs if command in (rule.path, rule.name)]
    if not found and "/" not in command:
        found = [rule for rule in programs if rule.path.rpartition("/")[2] == command]
        paths = sorted({rule.path for rule in found})
        if len(paths) > 1:
            raise Refused("not_allowed", f'"{command}" may be {" or ".join(paths)}', "ask for it by its path")
    if not found:
        known = {
            name for rule in programs for name in (rule.name, rule.path, rule.path.rpartition("/")[2]) if name
        }
        meant = did_you_mean(command[:200], sorted(known), 0.8)
        hint = f'did you mean "{meant}"?' if meant else None
        raise Refused("not_allowed", f'"{command[:_SHOWN]}" is not on the allow-list', hint)
    return found


def _explain_refusal(request: ExecRequest, rule: ProgramRule) -> tuple[int, str | None]:
    """Return how far the request fits the rule, and the first thing that does not; None where all does."""
    reached, reason = match_arguments(request.args, rule.args)
    if reason is not None:
        return reached, reason
    reached = len(request.args) + 1
    allowed = dict(rule.env)
    for name, value in request.env:
        if name not in allowed:
            return reached, f"the variable {name[:_SHOWN]} may not be set"
        if _CONTROL.search(value) or compile_pattern(allowed[name]).fullmatch(value) is None:
            return reached, f"the value of {name} does not match {allowed[name]}"
    if request.stdin is not None and not rule.stdin:
        return reached + 1, "it is given no standard input (`stdin: true` allows it)"
    if request.cwd != "/":
        reason = _explain_folder(request.cwd, rule.cwd)
        if reason is not None:
            return reached + 2, reason
    return reached + 3, None


def _explain_folder(cwd: str, roots: Sequence[str]) -> str | None:
    parts = cwd.split("/")[1:]
    if not cwd.startswith("/") or any(part in ("", ".", "..") for part in parts) or _CONTROL.search(cwd):
        return f'`cwd` must be an absolute path without ".", ".." and "//": "{cwd[:_SHOWN]}"'
    if any(root == "/" or cwd == root or cwd.startswith(f"{root}/") for root in roots):
        return None
    allowed = f" or below {', '.join(roots)}" if roots else ""
    return f'`cwd` may not be "{cwd[:_SHOWN]}", only /{allowed}'


def match_arguments(args: Sequence[str], rules: Sequence[ArgumentRule]) -> tuple[int, str | None]:
    """Match a whole argument list; return how many arguments fit, and why the next does not (None: all do).

    Each state is the number of rules that are done with; the last rule may go on where it has `rest`.
    """
    states = _skip_optional({0}, rules)
    for index, value in enumerate(args):
        following: set[int] = set()
        reasons: list[str] = []
        for state in sorted(states):
            more = state == len(rules) and bool(rules) and rules[-1].rest
            rule = rules[-1] if more else rules[state] if state < len(rules) else None
            reason = "nothing more is allowed" if rule is None else explain_value(value, rule)
            if reason is None:
                following.add(state if more else state + 1)
            else:
                reasons.append(reason)
        if not following:
            return index, f"argument {index + 1}, {_show(value)}, is not allowed: {_join(reasons)}"
        states = _skip_optional(following, rules)
    if len(rules) in states:
        return len(args), None
    missing = rules[min(states)]
    what = (
        _show(missing.literal) if missing.literal is not None else f"a value that matches {missing.pattern}"
    )
    return len(args), f"argument {len(args) + 1} is missing: {what}"


def _skip_optional(states: set[int], rules: Sequence[ArgumentRule]) -> set[int]:
    found = set(states)
    for state in range(len(rules)):
        if state in found and rules[state].optional:
            found.add(state + 1)
    return found


def explain_value(value: str, rule: ArgumentRule) -> str | None:
    """Return why a value does not fit a place; None where it does."""
    if rule.literal is not None:
        return None if value == rule.literal else f"{_show(rule.literal)} is expected"
    assert rule.pattern is not None
    if value.startswith("-") and not rule.dash:
        return "a value that begins with - may be taken for an option"
    if ".." in _PART.split(value):
        return 'it has a part ".."'
    if _CONTROL.search(value):
        return "it holds a control character"
    if compile_pattern(rule.pattern).fullmatch(value) is None:
        return f"it does not match {rule.pattern}"
    return None


def _show(value: str) -> str:
    """Quote a value for people, on one line, cut where it is long."""
    text = value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…"
    return '"' + "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text) + '"'


def _join(reasons: Sequence[str]) -> str:
    return "; or ".join(dict.fromkeys(reasons))
