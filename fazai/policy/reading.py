"""Reads policy.yml, strictly: with one wrong word in it nothing is allowed (docs/policy.md)."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fazai.errors import FazaiError, InputError, YamlError, raise_found
from fazai.policy import fields as read
from fazai.policy.bounds_reading import read_fields
from fazai.policy.fields import FieldReader
from fazai.policy.names import NamePattern
from fazai.policy.protection import FREE_KIND, PROTECTED_KINDS
from fazai.policy.values import (
    SETTING_VERBS,
    SHELL,
    VERBS,
    AllowRule,
    DenyRule,
    Policy,
    ProgramPattern,
    ShellRule,
)
from fazai.yamltext import YamlLimits, YamlMap, parse_yaml, read_limited

DEFAULT_POLICY = "/etc/fazai/policy.yml"

_LIMITS = YamlLimits(size_bytes=256 << 10, depth=16, values=50_000)
_TOP = ("rules", "deny", "shell")
_RULE = (
    *("name", "tool", "kinds", "targets", "identities", "verbs", "fields", "program", "args"),
    *("max_changes", "per_hour", "expires", "reason", "tags"),
)
_DENY = ("name", "tool", "kinds", "targets", "identities", "verbs", "fields", "reason")
_SHELL = ("targets", "program", "args")
_NONE: tuple[Any, ...] = ()
_NO_END = "no approval is for ever: expires: 2027-06-30"


@dataclass(frozen=True, slots=True)
class KnownWords:
    """The words that rules may use: tools that have an effect, tools that only read, and the fields of each
    kind. None: they are not looked at."""

    tools: frozenset[str] | None = None
    readers: frozenset[str] = frozenset()
    kinds: Mapping[str, frozenset[str]] | None = None


def read_policy(path: Path, known: KnownWords, protected: tuple[str, ...] = ()) -> Policy:
    """Read the file. Raises InputError, YamlError, Errors with everything that is wrong."""
    refuse_foreign(path)
    data = read_limited(path, _LIMITS, "policy")
    return parse_policy(data, str(path), known, protected)


def load_policy(path: Path, known: KnownWords, protected: tuple[str, ...] = ()) -> Policy:
    """Read the file; where it cannot be used, return a policy that is `broken` and allows nothing."""
    try:
        return read_policy(path, known, protected)
    except FazaiError as error:
        first = error.errors[0]
        more = f" (and {len(error.errors) - 1} more)" if len(error.errors) > 1 else ""
        where = "" if first.where is None or str(path) in str(first.where) else f"{path}: "
        text = f"{where}{first}{more}"
        return Policy(file=str(path), generation=digest_of(text.encode()), protected=protected, broken=text)


def refuse_foreign(path: Path) -> None:
    """Check that nobody but root and this user can write the file, or put another in its place. Raises
    YamlError, InputError."""
    for place in (path, path.absolute().parent):
        try:
            found = place.stat()
        except OSError:
            return  # reading it says why
        sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
        if found.st_uid not in (0, os.geteuid()):
            raise InputError(
                f"{place} belongs to user {found.st_uid}, who could allow anything", where=str(path)
            )
        if not sticky and (
            found.st_mode & stat.S_IWOTH
            or (found.st_mode & stat.S_IWGRP and found.st_gid not in (0, os.getegid()))
        ):
            text = f"others can write to {place}, and allow anything"
            raise InputError(text, where=str(path), hint=f"chmod go-w {place}")


def digest_of(data: bytes) -> str:
    """Return the generation of a policy that was read from these bytes."""
    return hashlib.sha256(data).hexdigest()


def parse_policy(data: bytes, name: str, known: KnownWords, protected: tuple[str, ...] = ()) -> Policy:
    """Read the text of a policy; `name` stands in errors. Raises InputError, YamlError, Errors."""
    generation = digest_of(data)
    if data.startswith(b"$ANSIBLE_VAULT"):
        raise YamlError("a policy is not encrypted", where=name)
    node = parse_yaml(data, name, limits=_LIMITS)
    empty = Policy(file=name, generation=generation, protected=protected)
    if node is None:
        return empty
    if not isinstance(node, YamlMap):
        raise InputError("a policy is a mapping", where=node.mark(), hint="rules: [], deny: [], shell: []")
    problems: list[InputError] = []
    top = FieldReader(node, "the policy", _TOP, problems)
    rules = tuple(_read_rule(one, known, problems) for one in top.maps("rules"))
    deny = tuple(_read_deny(one, known, problems) for one in top.maps("deny"))
    shell = tuple(_read_shell(one, problems) for one in top.maps("shell"))
    names = [(rule.name, rule.line) for rule in rules] + [(rule.name, rule.line) for rule in deny]
    refuse_twins(names, name, problems, "uses are counted by the name")
    raise_found(problems)
    return replace(empty, rules=rules, deny=deny, shell=shell)


def refuse_twins(names: Iterable[tuple[str, int]], file: str, problems: list[InputError], hint: str) -> None:
    """Note each name that a rule before has. `names`: those of all rules, each with its line; `hint`: why one
    name is one rule."""
    seen: dict[str, int] = {}
    for name, line in names:
        if name in seen:
            text = f"there are two rules {name!r}, the other in line {seen[name]}"
            problems.append(InputError(text, where=f"{file}:{line}", hint=hint))
        elif name:
            seen[name] = line


def _read_rule(node: YamlMap, known: KnownWords, problems: list[InputError]) -> AllowRule:
    fields = FieldReader(node, "a rule", _RULE, problems)
    name = fields.require("name", read.read_name, "")
    fields.title = f"the rule {name}" if name else "a rule"
    is_program = fields.has("program")
    rule = AllowRule(
        name=name,
        line=fields.line,
        tools=_read_tools(fields, known, is_program),
        targets=fields.require("targets", read.read_list(read.read_target_pattern), _NONE),
        identities=() if is_program else fields.read("identities", read.read_list(read.read_pattern), _NONE),
        program=_read_program(fields) if is_program else None,
        max_changes=fields.read("max_changes", read.read_number(1, 1000), 1),
        per_hour=fields.require("per_hour", read.read_number(1, 3600), 1, "how often: per_hour: 10"),
        expires=fields.require("expires", read.read_date, 0.0, _NO_END),
        reason=fields.read("reason", read.read_text, ""),
        tags=fields.read("tags", read.read_list(read.read_name), _NONE),
    )
    if is_program:
        for key in ("kinds", "identities", "verbs", "fields"):
            if fields.has(key):
                fields.note(key, f"{key} does not go together with `program`")
        return rule
    if fields.has("args"):
        fields.note("args", "args needs `program`")
    return _read_kinds(fields, known, rule)


def _read_kinds(fields: FieldReader, known: KnownWords, rule: AllowRule) -> AllowRule:
    """Return a rule about kinds with what it says of them."""
    kinds = fields.require("kinds", read.read_list(_kind_reader(known)), _NONE)
    verbs = fields.require("verbs", read.read_list(read.read_choice(VERBS)), _NONE)
    if not fields.has("fields") and any(verb in SETTING_VERBS for verb in verbs):
        fields.note(None, f"{fields.title} needs `fields`")
    names, bounds = read_fields(fields, "fields", _field_reader(known, kinds))
    if bounds and (others := [verb for verb in verbs if verb not in SETTING_VERBS]):
        text = f"{fields.title} bounds what {bounds[0][0]} becomes, and lets it {', '.join(others)}"
        fields.note("verbs", text, "there is no new value then: let another rule do that")
    if "delete" in verbs:
        for key in ("identities", "max_changes"):
            if not fields.has(key):
                hint = "what is deleted by a rule is named, and counted"
                fields.note("verbs", f"{fields.title} deletes, and needs `{key}`", hint)
    return replace(rule, kinds=kinds, verbs=verbs, fields=names, bounds=bounds)


def _read_tools(fields: FieldReader, known: KnownWords, is_program: bool) -> tuple[str, ...]:
    def reader(value: object) -> str:
        if isinstance(value, str) and value in known.readers:
            raise read.WrongValue(f"is {value}, which only reads", "it needs no rule")
        if known.tools is not None:
            return read.read_choice(known.tools)(value)
        return read.read_name(value)

    if is_program and not fields.has("tool"):
        return (SHELL,)
    return fields.require("tool", read.read_list(reader), _NONE)


def _kind_reader(known: KnownWords) -> Callable[[object], str]:
    def reader(value: object) -> str:
        if isinstance(value, str) and value in PROTECTED_KINDS:
            raise read.WrongValue(f"is {value}, which no rule allows: {PROTECTED_KINDS[value]}")
        if value == FREE_KIND:
            hint = "a rule about a program names it: program: /usr/bin/…, args: […]"
            raise read.WrongValue(f"is {FREE_KIND}, which runs what it is given", hint)
        if known.kinds is not None:
            return read.read_choice(known.kinds)(value)
        return read.read_name(value)

    return reader


def _field_reader(known: KnownWords, kinds: tuple[str, ...]) -> Callable[[object], str]:
    def reader(value: object) -> str:
        if known.kinds is None or not kinds:
            return read.read_text(value)
        names = {name for kind in kinds for name in known.kinds.get(kind, _NONE)}
        return read.read_choice(names)(value)

    return reader


def _read_program(fields: FieldReader) -> ProgramPattern:
    path = fields.read("program", read.read_path, "")
    if not fields.has("args"):
        fields.note("program", f"{fields.title} names a program, and needs `args`", "args: [] for none")
    return ProgramPattern(path, read.read_arguments(fields, "args"))


def _read_deny(node: YamlMap, known: KnownWords, problems: list[InputError]) -> DenyRule:
    fields = FieldReader(node, "a deny rule", _DENY, problems)
    patterns = read.read_list(read.read_pattern)

    def kind(value: object) -> NamePattern:
        pattern = read.read_pattern(value)
        kinds = known.kinds
        if kinds is not None and not any(map(pattern.could_mean, (*kinds, "program"))):
            raise read.WrongValue(f"means no kind: {pattern.text[:80]!r}", "see: fazai kinds")
        return pattern

    rule = DenyRule(
        name=fields.require("name", read.read_name, ""),
        line=fields.line,
        tools=fields.read("tool", patterns, _NONE),
        kinds=fields.read("kinds", read.read_list(kind), _NONE),
        targets=fields.read("targets", patterns, _NONE),
        identities=fields.read("identities", patterns, _NONE),
        verbs=fields.read("verbs", read.read_list(read.read_choice(VERBS)), _NONE),
        fields=fields.read("fields", read.read_list(read.read_text), _NONE),
        reason=fields.read("reason", read.read_text, ""),
    )
    if not any(fields.has(key) for key in _DENY[1:-1]):
        fields.note(None, "a deny rule says what it denies", "targets: ['*'] denies everything")
    return rule


def _read_shell(node: YamlMap, problems: list[InputError]) -> ShellRule:
    fields = FieldReader(node, "an entry of shell", _SHELL, problems)
    if not fields.has("program"):
        fields.note(None, "an entry of shell needs `program`")
    return ShellRule(
        line=fields.line,
        targets=fields.require("targets", read.read_list(read.read_target_pattern), _NONE),
        program=_read_program(fields) if fields.has("program") else ProgramPattern(""),
    )
