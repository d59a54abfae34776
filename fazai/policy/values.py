"""The policy as values: rules that allow, rules that deny, programs that may be proposed, and a decision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fazai.policy.arguments import ArgumentRule
from fazai.policy.bounds import Bound
from fazai.policy.names import NamePattern

Verdict = Literal["allow", "ask", "refuse"]

#: The kind of the change that is a program which is run (`fazai.loop.effects`).
PROGRAM = "program"
#: Where such a change says by which provider the target is reached: `ssh` or `agent`.
PROVIDER = "provider"
#: The tool that runs a program on a target.
SHELL = "shell"
VERBS = ("create", "update", "delete", "move", "run")
#: The verbs that give a field a new value, which a rule may bound.
SETTING_VERBS = ("create", "update")


@dataclass(frozen=True, slots=True)
class ProgramPattern:
    """A program by its absolute path, with the argument lists that are meant."""

    path: str
    args: tuple[ArgumentRule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowRule:
    """A rule under which an effect needs no person's word. Every change of the effect must be covered by the
    same rule. `fields` are the only ones that may differ, `bounds` what some of them may become; `program`
    stands in place of kinds, verbs and fields. `expires`: seconds since the epoch."""

    name: str
    line: int
    tools: tuple[str, ...]
    targets: tuple[NamePattern, ...]
    per_hour: int
    expires: float
    kinds: tuple[str, ...] = ()
    identities: tuple[NamePattern, ...] = ()
    verbs: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    bounds: tuple[tuple[str, Bound], ...] = ()
    program: ProgramPattern | None = None
    max_changes: int = 1
    reason: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DenyRule:
    """A rule that refuses an effect, whatever other rules and people say. One change that it means is enough;
    what it does not name it means altogether."""

    name: str
    line: int
    tools: tuple[NamePattern, ...] = ()
    kinds: tuple[NamePattern, ...] = ()
    targets: tuple[NamePattern, ...] = ()
    identities: tuple[NamePattern, ...] = ()
    verbs: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellRule:
    """A program that may be proposed at all on hosts that are reached over SSH."""

    line: int
    targets: tuple[NamePattern, ...]
    program: ProgramPattern


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The whole policy. `generation` is the SHA-256 of the bytes that were read; `broken` says what is wrong
    with them: then nothing is allowed. `protected` are paths of fazai's own that no rule reaches."""

    file: str = ""
    generation: str = ""
    rules: tuple[AllowRule, ...] = ()
    deny: tuple[DenyRule, ...] = ()
    shell: tuple[ShellRule, ...] = ()
    protected: tuple[str, ...] = ()
    broken: str | None = None

    def find_rule(self, name: str) -> AllowRule | None:
        """Return a rule by its name."""
        return next((rule for rule in self.rules if rule.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Word of the policy on an effect. `rule` is the name of the rule that decided, where one did; `cap`:
    it would be allowed, were the rule not used so often already."""

    verdict: Verdict
    reason: str
    rule: str | None = None
    cap: bool = False
