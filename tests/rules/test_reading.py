"""rules.yml is read strictly; every mistake has its line, and with one no rule acts."""

from __future__ import annotations

from pathlib import Path

import pytest

from fazai.errors import FazaiError
from fazai.rules.reading import load_rules, parse_rules
from fazai.rules.values import EntryAction, ObjectiveAction

RULE = """
never: [192.0.2.0/24, 2001:db8::/32]
rules:
  - name: scan
    source: telemetry
    where: {severity: 1}
    group_by: src_ip
    threshold: 5
    within: 10m
    throttle: 2h
    per_hour: 7
    reason: scans
    then:
      entry: {job: edge, alias: attackers, for: 24h, most: 9, private: true}
  - name: failed
    source: event
    types: [outcome]
    then: {objective: "look at {group}: {count} by {rule}"}
"""
JOBS = {"edge": True, "night": False}


def test_a_whole_file_is_read() -> None:
    found = parse_rules(RULE.encode(), "rules.yml", JOBS)
    scan, failed = found.rules
    assert (scan.line, scan.threshold, scan.within_s, scan.throttle_s, scan.per_hour) == (
        4,
        5,
        600.0,
        7200.0,
        7,
    )
    assert scan.then == EntryAction(job="edge", alias="attackers", for_s=86400.0, most=9, private=True)
    assert failed.then == ObjectiveAction(text="look at {group}: {count} by {rule}")
    assert (failed.throttle_s, failed.types) == (3600.0, ("outcome",))
    assert [str(network) for network in found.never] == ["192.0.2.0/24", "2001:db8::/32"]
    assert found.aliases() == {"edge": {"attackers"}}
    assert parse_rules(b"", "rules.yml").rules == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rule: []", "rules.yml:1:1: the file knows no 'rule' (did you mean \"rules\"?)"),
        ("- x", "event rules are a mapping"),
        ("never: [300.0.0.0/8]", "never has no network '300.0.0.0/8'"),
        ("never: [192.0.2.1/24]", "has host bits set"),
        ("never: []", "never lists 1 to 1000 values"),
        ("never: [5]", "never lists addresses and networks"),
        (RULE.replace("source: telemetry", "source: log"), "source has no 'log'"),
        (RULE.replace("source: telemetry", "on: telemetry"), "the key on is no text but a truth value"),
        (RULE.replace("    source: telemetry\n", ""), "the rule scan needs `source`"),
        (RULE.replace("name: scan", "name: failed"), "there are two rules 'failed', the other in line 4"),
        (
            "rules: [{name: a, source: event, threshold: 2, then: {objective: x}},"
            " {name: a, source: event, threshold: 2, then: {objective: y}}]",
            "there are two rules 'a', the other in line 1 (what a rule did is kept by the name)",
        ),
        (RULE.replace("threshold: 5", "threshold: 0"), "threshold is a whole number from 1 to 10000"),
        (RULE.replace("within: 10m", "within: 10"), "within is a time such as 90s"),
        (RULE.replace("within: 10m", "within: 8d"), "within is a time such as"),
        (RULE.replace("{severity: 1}", "{severity: {atleast: 1}}"), "severity has no 'atleast'"),
        (RULE.replace("{severity: 1}", "{severity: {at_least: x}}"), "severity at_least wants a number"),
        (RULE.replace("{severity: 1}", "{severity: {at_least: .nan}}"), "at_least wants a number"),
        (RULE.replace("{severity: 1}", "{severity: {}}"), "severity is compared with nothing"),
        (
            RULE.replace("{severity: 1}", "{severity: }"),
            "severity is compared with a text, number or truth value",
        ),
        (
            RULE.replace("{severity: 1}", "{severity: {matches: '(a+)+b'}}"),
            "matches is no pattern that can be used",
        ),
        (RULE.replace("{severity: 1}", "{severity: {in: [x]}}"), "in has no network 'x'"),
        (RULE.replace("{severity: 1}", "{a..b: 1}"), "is a field such as alert.severity, not 'a..b'"),
        (RULE.replace("{severity: 1}", "{}"), "where is a mapping of fields"),
        (RULE.replace("where: {severity: 1}", "types: [x]"), "types are those of events"),
        (
            RULE.replace("    types: [outcome]\n", ""),
            "the rule failed needs `where`: it would act on everything",
        ),
        (RULE.replace("    group_by: src_ip\n", ""), "and needs `group_by`: an address"),
        (RULE.replace("then: {objective", "then: {objctive"), "then knows no 'objctive'"),
        (
            RULE.replace("then: {objective: ", "then: {entry: {}, objective: "),
            "then needs either `entry` or `objective`",
        ),
        (RULE.replace("{group}", "{grup}"), "objective has no {grup}"),
        (RULE.replace("{group}", "{group!r}"), "objective has a place with more than a name"),
        (RULE.replace("{group}", "{group.__class__}"), "objective has no {group.__class__}"),
        (RULE.replace("{group}", "{"), "objective has a brace that stands alone"),
        (
            RULE.replace("job: edge", "job: egde"),
            "the daemon's configuration has no job 'egde' (known are: edge",
        ),
        (
            RULE.replace("job: edge", "job: night"),
            "the job night takes no entries (in the daemon's configuration",
        ),
        (RULE.replace("alias: attackers", "alias: a-b"), "alias is the name of an alias"),
        (RULE.replace("for: 24h", "for: 10s"), "for is a time such as"),
        (RULE.replace("for: 24h, ", ""), "entry needs `for` (how long it stands"),
        (RULE.replace("private: true", "private: 1"), "private is true or false"),
        ("$ANSIBLE_VAULT;1.1", "is not encrypted"),
    ],
)
def test_mistakes_are_said_with_their_place(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(FazaiError) as found:
        parse_rules(text.encode(), "rules.yml", JOBS)
    said = [str(error) for error in found.value.errors]
    assert any(words in each for each in said), said
    assert all(each.startswith("rules.yml") for each in said)
    file = tmp_path / "rules.yml"
    file.write_text(text)
    broken = load_rules(file, JOBS)
    assert broken.rules == ()
    assert str(file) in str(broken.broken)


def test_networks_are_those_of_the_addresses_that_are_looked_for() -> None:
    """Nothing would be in a network of mapped addresses, as they are read as those of IPv4."""
    found = parse_rules(b"never: ['::ffff:192.0.2.0/120', '::ffff:198.51.100.7', '::/95']", "rules.yml")
    assert [str(network) for network in found.never] == ["192.0.2.0/24", "198.51.100.7/32", "::/95"]


def test_a_file_that_others_may_write_has_no_rules(tmp_path: Path) -> None:
    file = tmp_path / "rules.yml"
    file.write_text(RULE)
    file.chmod(0o666)
    assert "others can write to" in str(load_rules(file, JOBS).broken)
    file.chmod(0o600)
    assert len(load_rules(file, JOBS).rules) == 2
