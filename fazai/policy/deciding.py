"""Decides on an effect: whether a rule allows it, a person is asked, or it is refused. Pure.

A rule allows only when it covers every change. What is denied is refused before any rule is looked at, and
what the policy does not understand is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fazai.errors import count_noun
from fazai.loop.effects import Effect, EffectChange
from fazai.policy.arguments import match_arguments, quote_value
from fazai.policy.bounds import describe_field, explain_bound
from fazai.policy.names import NamePattern, fold
from fazai.policy.protection import find_protection
from fazai.policy.values import (
    PROGRAM,
    PROVIDER,
    SETTING_VERBS,
    AllowRule,
    Decision,
    DenyRule,
    Policy,
    ProgramPattern,
)
from fazai.timestamps import format_time

#: An argument list that is longer than this, or has a longer argument, fits no rule.
_ARGUMENTS_MAX = 256
_ARGUMENT_MAX = 4096


@dataclass(frozen=True, slots=True)
class RuleAnswer:
    """Answer of one rule to an effect: `against` is the first reason why it does not allow it, None where it
    does. `cap`: that reason is the number of its uses. `met`: where it allows it, the bounds that the new
    values meet, in words."""

    rule: AllowRule
    against: str | None
    cap: bool = False
    met: tuple[str, ...] = ()


def decide(policy: Policy, effect: Effect, *, tainted: bool, uses: Mapping[str, int], now: float) -> Decision:
    """Decide on an effect. `tainted`: what devices, hosts or notes said was read before it was proposed;
    `uses`: how often each rule was used within the last hour, by its name; `now`: seconds since the epoch."""
    stopped = _find_stop(policy, effect, now)
    if stopped is not None:
        return stopped
    if (why := _reason_to_ask(policy, effect, tainted)) is not None:
        return Decision(verdict="ask", reason=why)
    answers = explain_rules(policy, effect, uses=uses, now=now)
    for answer in answers:
        if answer.against is None:
            text = f"the rule {answer.rule.name} allows it"
            return Decision(verdict="allow", reason=text, rule=answer.rule.name)
    capped = next((answer for answer in answers if answer.cap), None)
    if capped is not None:
        return Decision(verdict="ask", reason=str(capped.against), rule=capped.rule.name, cap=True)
    if len(answers) == 1:
        only = answers[0]
        return Decision(verdict="ask", reason=f"the rule {only.rule.name} does not allow it: {only.against}")
    return Decision(verdict="ask", reason="no rule allows it")


def _find_stop(policy: Policy, effect: Effect, now: float) -> Decision | None:
    """Return the refusal that no rule and no person can change, if there is one."""
    if policy.broken is not None:
        return Decision(verdict="refuse", reason=f"the policy cannot be used: {policy.broken}")
    for rule in policy.deny:
        for change in effect.changes:
            if _is_denied(rule, effect.tool, change):
                why = f": {rule.reason}" if rule.reason else ""
                text = f"{rule.name} denies {_show(change)}{why}"
                return Decision(verdict="refuse", reason=text, rule=rule.name)
    for change in effect.changes:
        if (refusal := _find_shell_refusal(policy, change)) is not None:
            return Decision(verdict="refuse", reason=refusal)
    if effect.expires <= now:
        text = f"it expired at {format_time(effect.expires)}; propose it again"
        return Decision(verdict="refuse", reason=text)
    return None


def _reason_to_ask(policy: Policy, effect: Effect, tainted: bool) -> str | None:
    """Return why a person is asked whatever the rules are; None where a rule may allow it."""
    if not effect.changes:
        return "it does not say what it changes"
    for change in effect.changes:
        if (why := find_protection(change, policy.protected)) is not None:
            return why
    if tainted and effect.free:
        return "a model chose a part of it after it had read what devices, hosts or notes say"
    return None


def explain_rules(policy: Policy, effect: Effect, *, uses: Mapping[str, int], now: float) -> list[RuleAnswer]:
    """Return what each rule says of an effect, in their order; what holds for all of them is left out."""
    return [_ask_rule(rule, effect, uses.get(rule.name, 0), now) for rule in policy.rules]


def _ask_rule(rule: AllowRule, effect: Effect, used: int, now: float) -> RuleAnswer:
    if effect.tool not in rule.tools:
        return RuleAnswer(rule, f"it is about {', '.join(rule.tools)}, not {effect.tool[:80]}")
    for change in effect.changes:
        if (why := _explain_change(rule, change)) is not None:
            return RuleAnswer(rule, f"{_show(change)}: {why}")
    if rule.expires <= now:
        return RuleAnswer(rule, f"it expired at {format_time(rule.expires)}")
    if len(effect.changes) > rule.max_changes:
        most = count_noun(rule.max_changes, "change")
        return RuleAnswer(rule, f"it allows {most} at a time, and this has {len(effect.changes)}")
    if used >= rule.per_hour:
        times = f"{rule.per_hour} time{'' if rule.per_hour == 1 else 's'} an hour"
        return RuleAnswer(rule, f"the rule {rule.name} allows it {times}, and that is used up", True)
    touched = {name for change in effect.changes for name in change.after}
    met = tuple(describe_field(name, bound) for name, bound in rule.bounds if name in touched)
    return RuleAnswer(rule, None, met=met)


def _explain_change(rule: AllowRule, change: EffectChange) -> str | None:
    """Return the first thing of a change that the rule does not cover; None where it covers it."""
    if not _fits_any(rule.targets, change.target):
        return f"the rule is about {_join(rule.targets)}"
    if rule.program is not None:
        return _explain_program(rule.program, change)
    if change.kind not in rule.kinds:
        return f"the rule is about {', '.join(rule.kinds)}"
    if rule.identities and not _fits_any(rule.identities, change.identity):
        return f"the rule is about {_join(rule.identities)}"
    if change.verb not in rule.verbs:
        return f"the rule lets it {', '.join(rule.verbs)}"
    if rule.bounds and change.verb not in SETTING_VERBS:
        return f"the rule bounds new values, and there is none to {change.verb}"
    if change.verb in ("delete", "run"):
        return None
    fields = {*change.before, *change.after}
    if not fields and change.verb != "move":
        return "it does not say which fields change"
    others = sorted(fields.difference(rule.fields))
    if others:
        return f"the rule does not cover {', '.join(others)[:200]}"
    return _explain_bounds(rule, change)


def _explain_bounds(rule: AllowRule, change: EffectChange) -> str | None:
    """Return the first bound of a rule that a new value does not meet; None where all are met. A field that
    an update leaves alone has no new value; one that is missing when an item is made gets whatever the target
    gives it."""
    made = change.verb == "create"
    for name, bound in rule.bounds:
        if name not in change.after:
            if made or name in change.before:
                return f"{describe_field(name, bound)}; it has no new value"
            continue
        before = change.before.get(name, () if made else None)
        if (why := explain_bound(bound, before, change.after[name])) is not None:
            return f"{describe_field(name, bound)}; {why}"
    return None


def _explain_program(program: ProgramPattern, change: EffectChange) -> str | None:
    """Return why this is not the program of a rule with arguments that it means; None where it is."""
    if change.kind != PROGRAM or change.verb != "run":
        return f"the rule is about the program {program.path}"
    if change.before or set(change.after) - {PROVIDER} != {"argv"}:
        return "the rule is about a program and its arguments alone"
    argv: Any = change.after["argv"]
    if not isinstance(argv, list | tuple) or not argv or not all(isinstance(word, str) for word in argv):
        return "its argv is no list of texts"
    if argv[0] != change.identity:
        return "its argv does not begin with the program"
    return explain_argv(program, argv)


def explain_argv(program: ProgramPattern, argv: list[str] | tuple[str, ...]) -> str | None:
    """Return why an argument list, its first one the program's path, is not among those that are meant."""
    if argv[0] != program.path:
        return f"the program is {program.path}"
    if len(argv) > _ARGUMENTS_MAX or any(len(word) > _ARGUMENT_MAX for word in argv):
        return f"at most {_ARGUMENTS_MAX} arguments of {_ARGUMENT_MAX} characters are looked at"
    return match_arguments(argv[1:], program.args)[1]


def _find_shell_refusal(policy: Policy, change: EffectChange) -> str | None:
    """Return why a program may not be proposed, where it does not go through an agent, which has a policy of
    its own."""
    if change.kind != PROGRAM or change.after.get(PROVIDER) == "agent":
        return None
    argv = change.after.get("argv")
    if not isinstance(argv, list | tuple) or not all(isinstance(word, str) for word in argv):
        return "its argv is no list of texts"
    return find_shell_refusal(policy, change.target, argv)


def find_shell_refusal(policy: Policy, target: str, argv: list[str] | tuple[str, ...]) -> str | None:
    """Return why this program may not be proposed for a host that is reached over SSH; None where it may."""
    if policy.broken is not None:
        return f"the policy cannot be used: {policy.broken}"
    if not argv:
        return "there is no program"
    rules = [rule for rule in policy.shell if _fits_any(rule.targets, target)]
    if not rules:
        return f"the policy has no program for {target[:80]}: `shell` in {policy.file or 'policy.yml'}"
    same = [rule for rule in rules if rule.program.path == argv[0]]
    if not same:
        known = ", ".join(sorted({rule.program.path for rule in rules}))
        return f"{quote_value(argv[0])} is not among the programs for {target[:80]}: {known[:500]}"
    reasons = [explain_argv(rule.program, argv) for rule in same]
    return None if None in reasons else "; or ".join(dict.fromkeys(map(str, reasons)))


def _is_denied(rule: DenyRule, tool: str, change: EffectChange) -> bool:
    touched = {fold(name) for name in (*change.before, *change.after)}
    return (
        _could_mean(rule.tools, tool)
        and _could_mean(rule.kinds, change.kind)
        and _could_mean(rule.targets, change.target)
        and _could_mean(rule.identities, change.identity)
        and (not rule.verbs or fold(change.verb) in rule.verbs)
        and (not rule.fields or change.verb == "delete" or not touched.isdisjoint(map(fold, rule.fields)))
    )


def _could_mean(patterns: tuple[NamePattern, ...], name: str) -> bool:
    return not patterns or any(pattern.could_mean(name) for pattern in patterns)


def _fits_any(patterns: tuple[NamePattern, ...], name: str) -> bool:
    return any(pattern.fits(name) for pattern in patterns)


def _join(patterns: tuple[NamePattern, ...]) -> str:
    return ", ".join(pattern.text for pattern in patterns)


def _show(change: EffectChange) -> str:
    name = f"{change.target}/{change.kind}/{change.identity}"
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in name[:160])
