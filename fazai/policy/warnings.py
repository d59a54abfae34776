"""Says what should be looked at again in a policy that can be used: rules that are wide, expired, or dead."""

from __future__ import annotations

from collections.abc import Iterator

from fazai.policy.arguments import ArgumentRule, compile_pattern
from fazai.policy.bounds import Bound, ListBound, NetworkBound, PatternBound
from fazai.policy.values import AllowRule, Policy, ProgramPattern
from fazai.timestamps import format_time

_LONG_S = 366 * 86400.0
_SOON_S = 14 * 86400.0
#: Texts that have nothing in common: what fits them all fits anything.
_ANYTHING = ("x", "/etc/shadow", "a b", "$(id)", "https://evil.example/?a=1", "a;b|c&d", "A" * 100)
#: Fields whose text a machine runs.
_RUN = frozenset(
    {"validate", "job", "command", "parameters", "start", "stop", "environment", "unless", "shell"}
)
_LAUNCHERS_TEXT = """
sh bash dash zsh ksh busybox env sudo su doas xargs find nice nohup timeout setsid ssh python3 perl ruby awk
sed vi vim less man git tar rsync curl wget systemd-run watch script
"""
_LAUNCHERS = frozenset(_LAUNCHERS_TEXT.split())


def find_warnings(policy: Policy, now: float) -> list[str]:
    """Return the warnings, each with its place. `now`: seconds since the epoch."""
    found = []
    for rule in policy.rules:
        found += [f"{policy.file}:{rule.line}: {rule.name}: {text}" for text in _check_rule(rule, now)]
    for entry in policy.shell:
        name = entry.program.path.rpartition("/")[2]
        found += [f"{policy.file}:{entry.line}: {name}: {text}" for text in _check_program(entry.program)]
    return found


def _check_rule(rule: AllowRule, now: float) -> Iterator[str]:
    if rule.expires <= now:
        yield f"it expired at {format_time(rule.expires)}, and allows nothing"
    elif rule.expires - now < _SOON_S:
        yield f"it expires at {format_time(rule.expires)}"
    elif rule.expires - now > _LONG_S:
        yield "it holds for more than a year"
    if any(pattern.is_wide for pattern in rule.targets):
        yield "it is about every target (`targets`)"
    if rule.program is not None:
        yield from _check_program(rule.program)
        return
    if not rule.identities:
        yield f"it is about every {', '.join(rule.kinds)} (`identities` names those that are meant)"
    elif any(pattern.is_wide for pattern in rule.identities):
        yield "it is about every name (`identities`)"
    if "delete" in rule.verbs:
        yield "it deletes"
    if risky := sorted(_RUN.intersection(rule.fields)):
        yield f"a machine runs what stands in {', '.join(risky)}"
    for name, bound in rule.bounds:
        yield from (f"{name}: {text}" for text in _check_bound(bound))
    if rule.max_changes > 50:
        yield f"it allows {rule.max_changes} changes at a time"


def _check_bound(bound: Bound | None) -> Iterator[str]:
    if isinstance(bound, ListBound):
        if bound.each is None:
            yield "it bounds how many entries change, and not which (`each`)"
        yield from _check_bound(bound.each)
    elif isinstance(bound, PatternBound):
        yield from _check_argument(bound.place)
    elif isinstance(bound, NetworkBound):
        for network in bound.networks:
            if not network.prefixlen and not dict(bound.least_prefix).get(network.version):
                yield f"{network} is every address of IPv{network.version}"


def _check_program(program: ProgramPattern) -> Iterator[str]:
    free = any(argument.pattern is not None for argument in program.args)
    name = program.path.rpartition("/")[2]
    if name in _LAUNCHERS and free:
        yield f"{program.path} can start other programs or write files; see that no free place leads there"
    for number, argument in enumerate(program.args, 1):
        yield from (f"argument {number}: {text}" for text in _check_argument(argument))


def _check_argument(argument: ArgumentRule) -> Iterator[str]:
    if argument.pattern is None:
        return
    fits = compile_pattern(argument.pattern).fullmatch
    if all(map(fits, _ANYTHING)):
        yield f"the pattern {argument.pattern} admits anything"
    if fits(""):
        yield f"the pattern {argument.pattern} admits an empty text"
    if argument.dash:
        yield "a value may be taken for an option (`dash: true`)"
