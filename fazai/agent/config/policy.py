"""The allow-list of command.exec: tells whether a request is one of the ways that agent.yml names.

The whole argument list is matched, each argument in its place (`fazai.policy.arguments` says how). Nothing
is looked up in PATH, expanded or split.

A pattern may take for ever on some texts: callers match in a process of their own, under a deadline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fazai.agent.errors import Refused
from fazai.errors import did_you_mean
from fazai.policy.arguments import CONTROL, SHOWN, compile_pattern, match_arguments

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fazai.agent.config.settings import ProgramRule


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
        raise Refused("not_allowed", f'"{command[:SHOWN]}" is not on the allow-list', hint)
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
            return reached, f"the variable {name[:SHOWN]} may not be set"
        if CONTROL.search(value) or compile_pattern(allowed[name]).fullmatch(value) is None:
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
    if not cwd.startswith("/") or any(part in ("", ".", "..") for part in parts) or CONTROL.search(cwd):
        return f'`cwd` must be an absolute path without ".", ".." and "//": "{cwd[:SHOWN]}"'
    if any(root == "/" or cwd == root or cwd.startswith(f"{root}/") for root in roots):
        return None
    allowed = f" or below {', '.join(roots)}" if roots else ""
    return f'`cwd` may not be "{cwd[:SHOWN]}", only /{allowed}'
