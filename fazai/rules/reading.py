"""Reads rules.yml, strictly: with one wrong word in it no rule does anything (docs/rules.md)."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from fazai.errors import FazaiError, InputError, YamlError, raise_found
from fazai.policy import fields as read
from fazai.policy.fields import FieldReader, WrongValue
from fazai.policy.reading import digest_of, refuse_foreign, refuse_twins
from fazai.rules.addresses import parse_network
from fazai.rules.values import (
    OPERATORS,
    Action,
    Comparison,
    EntryAction,
    EventRule,
    FieldPath,
    Network,
    ObjectiveAction,
    RuleSet,
    Source,
    compile_text,
)
from fazai.template.filters.base import FilterError
from fazai.template.filters.pattern import check_pattern
from fazai.yamltext import YamlLimits, YamlList, YamlMap, parse_yaml, read_limited

DEFAULT_RULES = "/etc/fazai/rules.yml"

_LIMITS = YamlLimits(size_bytes=256 << 10, depth=16, values=50_000)
_TOP = ("never", "rules")
_RULE = (
    *("name", "source", "types", "each", "where", "group_by", "threshold", "within", "throttle", "per_hour"),
    *("reason", "then"),
)
_ENTRY = ("job", "alias", "for", "most", "private")
_THEN = ("entry", "objective")
_RECORD = "record"
_DAY_S = 86400.0
_PLACES = frozenset({"group", "count", "rule"})
_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
_TEXT_MAX = 4096
_NONE: tuple[Any, ...] = ()


def read_rules(path: Path, jobs: Mapping[str, bool] | None = None) -> RuleSet:
    """Read the file. `jobs`: the daemon's jobs, and whether each has `entries: true`. Raises InputError,
    YamlError, Errors with everything that is wrong."""
    refuse_foreign(path)
    return parse_rules(read_limited(path, _LIMITS, "file of event rules"), str(path), jobs)


def load_rules(path: Path, jobs: Mapping[str, bool] | None = None) -> RuleSet:
    """Read the file; where it cannot be used, return a set that is `broken` and has no rules."""
    try:
        return read_rules(path, jobs)
    except FazaiError as error:
        first = error.errors[0]
        more = f" (and {len(error.errors) - 1} more)" if len(error.errors) > 1 else ""
        return RuleSet(file=str(path), generation=digest_of(str(first).encode()), broken=f"{first}{more}")


def parse_rules(data: bytes, name: str, jobs: Mapping[str, bool] | None = None) -> RuleSet:
    """Read the text of a file; `name` stands in errors. Raises as `read_rules`."""
    if data.startswith(b"$ANSIBLE_VAULT"):
        raise YamlError("a file of event rules is not encrypted", where=name)
    node = parse_yaml(data, name, limits=_LIMITS)
    empty = RuleSet(file=name, generation=digest_of(data))
    if node is None:
        return empty
    if not isinstance(node, YamlMap):
        raise InputError("event rules are a mapping", where=node.mark(), hint="rules: []")
    problems: list[InputError] = []
    top = FieldReader(node, "the file", _TOP, problems)
    never = top.read("never", read.read_list(_read_network), _NONE)
    rules = tuple(_read_rule(one, jobs, problems) for one in top.maps("rules"))
    names = [(rule.name, rule.line) for rule in rules]
    refuse_twins(names, name, problems, "what a rule did is kept by the name")
    raise_found(problems)
    return replace(empty, rules=rules, never=never)


def _read_rule(node: YamlMap, jobs: Mapping[str, bool] | None, problems: list[InputError]) -> EventRule:
    fields = FieldReader(node, "a rule", _RULE, problems)
    name = fields.require("name", read.read_name, "")
    fields.title = f"the rule {name}" if name else "a rule"
    source = fields.require("source", read.read_choice(("telemetry", "event")), "telemetry")
    within_s = fields.read("within", read.read_span(1, 7 * _DAY_S), 600.0)
    each = fields.read("each", _read_field, None)
    rule = EventRule(
        name=name,
        line=fields.line,
        source=cast("Source", source),
        then=ObjectiveAction(text=""),
        types=fields.read("types", read.read_list(read.read_name), _NONE),
        each=each,
        where=_read_where(fields, each is not None),
        group_by=fields.read("group_by", lambda value: _read_path(value, each is not None), None),
        threshold=fields.read("threshold", read.read_number(1, 10_000), 1),
        within_s=within_s,
        throttle_s=fields.read("throttle", read.read_span(1, 30 * _DAY_S), max(within_s, 3600.0)),
        per_hour=fields.read("per_hour", read.read_number(1, 3600), 20),
        reason=fields.read("reason", read.read_text, ""),
    )
    if rule.types and rule.source == "telemetry":
        fields.note("types", "types are those of events, and this rule is on telemetry")
    if not fields.has("where") and rule.threshold == 1 and not rule.types:
        fields.note(None, f"{fields.title} needs `where`: it would act on everything")
    return replace(rule, then=_read_then(fields, rule, jobs))


def _read_then(fields: FieldReader, rule: EventRule, jobs: Mapping[str, bool] | None) -> Action:
    nothing = ObjectiveAction(text="")
    node = fields.node.get("then")
    if not isinstance(node, YamlMap):
        fields.note("then", f"{fields.title} needs `then`", "then: {entry: {…}}, or then: {objective: …}")
        return nothing
    inner = FieldReader(node, "then", _THEN, fields.problems)
    if inner.has("entry") == inner.has("objective"):
        inner.note(None, "then needs either `entry` or `objective`")
        return nothing
    if inner.has("objective"):
        return ObjectiveAction(text=inner.read("objective", _read_objective, ""))
    if rule.group_by is None:
        fields.note(None, f"{fields.title} puts its group into an alias, and needs `group_by`: an address")
    entry = node["entry"]
    if not isinstance(entry, YamlMap):
        inner.note("entry", "entry is a mapping", "entry: {job: edge, alias: attackers, for: 24h}")
        return nothing
    return _read_entry(FieldReader(entry, "entry", _ENTRY, fields.problems), jobs)


def _read_entry(fields: FieldReader, jobs: Mapping[str, bool] | None) -> EntryAction:
    action = EntryAction(
        job=fields.require("job", read.read_name, "", "a name below `runs:` in the daemon's configuration"),
        alias=fields.require("alias", _read_alias, ""),
        for_s=fields.require("for", read.read_span(60, 90 * _DAY_S), 60.0, "how long it stands: for: 24h"),
        most=fields.read("most", read.read_number(1, 10_000), 256),
        private=fields.read("private", read.read_switch, False),
    )
    if jobs is not None and action.job:
        if action.job not in jobs:
            known = ", ".join(sorted(jobs)) or "none"
            fields.note("job", f"the daemon's configuration has no job {action.job!r}", f"known are: {known}")
        elif not jobs[action.job]:
            text = f"the job {action.job} takes no entries"
            fields.note("job", text, f"in the daemon's configuration: runs.{action.job}.entries: true")
    return action


def _read_where(fields: FieldReader, listed: bool) -> tuple[Comparison, ...]:
    node = fields.node.get("where")
    if not fields.has("where"):
        return ()
    if not isinstance(node, YamlMap) or not node:
        fields.note(
            "where", "where is a mapping of fields to what they are compared with", "where: {severity: 1}"
        )
        return ()
    found: list[Comparison] = []
    inner = FieldReader(node, "where", tuple(node), fields.problems)
    for key in node:
        try:
            path = _read_path(key, listed)
        except WrongValue as wrong:
            inner.note(key, f"the field {key[:80]!r} {wrong.text}", wrong.hint)
            continue
        comparisons = inner.read(key, _read_comparisons, _NONE)
        found += [Comparison(path.keys, op, wanted, path.of_record) for op, wanted in comparisons]
    return tuple(found)


def _read_comparisons(value: Any) -> tuple[tuple[str, Any], ...]:
    """Return the operators of a field, and what they compare with: `5` is `{is: 5}`, a list `{one_of: …}`."""
    if isinstance(value, YamlList):
        return (("one_of", _WANTED["one_of"](value)),)
    if not isinstance(value, YamlMap):
        return (("is", _read_scalar(value)),)
    if not value:
        raise WrongValue("is compared with nothing", f"known are: {', '.join(OPERATORS)}")
    found = []
    for operator, wanted in value.items():
        read.read_choice(OPERATORS)(operator)
        try:
            found.append((operator, _WANTED[operator](wanted)))
        except WrongValue as wrong:
            raise WrongValue(f"{operator} {wrong.text}", wrong.hint) from None
    return tuple(found)


def _read_scalar(value: Any) -> str | int | float | bool:
    if not isinstance(value, str | int | float | bool) or (isinstance(value, str) and len(value) > _TEXT_MAX):
        raise WrongValue("is compared with a text, number or truth value")
    return value


def _read_numeric(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise WrongValue("wants a number")
    return value


def _read_regex(value: Any) -> str:
    text = read.read_text(value)
    try:
        check_pattern(text, _TEXT_MAX)
        compile_text(text)
    except FilterError as error:
        raise WrongValue(f"is no pattern that can be used: {error}", error.hint) from None
    except (re.error, ValueError, RecursionError, OverflowError) as error:
        raise WrongValue(f"is no regular expression: {error}") from None
    return text


def _read_network(value: Any) -> Network:
    try:
        if isinstance(value, str):
            return parse_network(value)
    except ValueError as error:
        raise WrongValue(f"has no network {value[:80]!r}: {error}") from None
    raise WrongValue("lists addresses and networks", "such as 192.0.2.0/24; put it in quotes")


_WANTED: Mapping[str, Callable[[Any], Any]] = {
    "is": _read_scalar,
    "one_of": read.read_list(_read_scalar),
    "at_least": _read_numeric,
    "at_most": _read_numeric,
    "contains": read.read_text,
    "matches": _read_regex,
    "in": read.read_list(_read_network),
    "not_in": read.read_list(_read_network),
    "exists": read.read_switch,
}


def _read_path(value: Any, listed: bool) -> FieldPath:
    """Return a field: its keys with dots between them; `record.` before it leads out of an item of a list."""
    text = read.read_text(value)
    keys = tuple(text.split("."))
    if any(not key for key in keys) or len(keys) > 16:
        raise WrongValue(f"is a field such as alert.severity, not {text[:80]!r}")
    if listed and keys[0] == _RECORD and len(keys) > 1:
        return FieldPath(keys=keys[1:], of_record=True)
    return FieldPath(keys=keys)


def _read_field(value: Any) -> FieldPath | None:
    return _read_path(value, False)


def _read_alias(value: Any) -> str:
    if not isinstance(value, str) or not _ALIAS.fullmatch(value):
        raise WrongValue("is the name of an alias: letters, digits and _, at most 32")
    return value


def _read_objective(value: Any) -> str:
    text = read.read_text(value)
    try:
        places = [part for _, part, _, _ in string.Formatter().parse(text) if part is not None]
    except ValueError as error:
        raise WrongValue(f"has a brace that stands alone: {error}") from None
    if unknown := [place for place in places if place not in _PLACES]:
        raise WrongValue(f"has no {{{unknown[0][:40]}}}", "known are: {group}, {count}, {rule}")
    if any("{" + place + "}" not in text for place in places):
        raise WrongValue("has a place with more than a name", "{group}, {count}, {rule}")
    return text
