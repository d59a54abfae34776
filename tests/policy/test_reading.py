"""policy.yml is read strictly: one wrong word, and nothing is allowed; every mistake has its line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fazai.errors import FazaiError
from fazai.policy.reading import KnownWords, digest_of, load_policy, parse_policy
from fazai.policy.warnings import find_warnings
from tests.campaign import with_examples
from tests.policy.effects import ALIAS, KNOWN, NOW, SHELL, ask, change, effect, policy_of

RULE = ALIAS.partition("rules:\n")[2]


def problems(text: str) -> list[str]:
    with pytest.raises(FazaiError) as found:
        policy_of(text)
    return [str(error) for error in found.value.errors]


def test_a_whole_policy_is_read_with_its_lines() -> None:
    policy = policy_of(ALIAS + "deny: [{name: stop, targets: '*'}]\n" + "shell: []\n")
    (rule,) = policy.rules
    assert (rule.name, rule.line, rule.tools, rule.kinds) == (
        "scanners",
        3,
        ("reconcile.apply",),
        ("opnsense.alias",),
    )
    assert (rule.max_changes, rule.per_hour, rule.expires) == (2, 3, 1_814_313_600.0)
    assert policy.find_rule("scanners") is rule
    assert policy.find_rule("stop") is None
    assert [one.name for one in policy.deny] == ["stop"]


def test_generation_is_the_digest_of_the_bytes() -> None:
    one, other = policy_of(ALIAS), policy_of(ALIAS + "# seen\n")
    assert one.generation == digest_of(ALIAS.encode())
    assert one.generation != other.generation
    assert one.rules == other.rules


def test_an_empty_policy_asks_for_everything() -> None:
    for text in ("", "# nothing\n", "rules: []\n"):
        assert ask(text, effect(change())).reason == "no rule allows it"


#: A policy with a mistake, and what is said of it.
WRONG: list[tuple[str, str]] = [
    ("rule: []", "policy.yml:1:1: the policy knows no 'rule' (did you mean \"rules\"?)"),
    ("- a", "policy.yml:1:1: a policy is a mapping"),
    ("rules: {}", "policy.yml:1:8: rules is a list of at most 1000 mappings"),
    ("rules:", "rules is a list of at most 1000 mappings"),
    ("rules: [x]", "policy.yml:1:9: an item of rules is a mapping"),
    (ALIAS + "    field: [x]", "a rule knows no 'field' (did you mean \"fields\"?)"),
    (ALIAS.replace("name: scanners", "name: a b"), "name is a name of letters"),
    (ALIAS.replace("name: scanners", "tags: [a]"), "a rule needs `name`"),
    (ALIAS.replace("name: scanners", "name: no"), "at most 64 (put it in quotes)"),
    (ALIAS.replace("reconcile.apply", "reconcile.aply"), "tool has no 'reconcile.aply' (did you mean"),
    (
        ALIAS.replace("reconcile.apply", "fleet.list"),
        "tool is fleet.list, which only reads (it needs no rule)",
    ),
    (ALIAS.replace("opnsense.alias", "opnsense.alais"), "kinds has no 'opnsense.alais' (did you mean"),
    (ALIAS.replace("opnsense.alias", "host.agent"), "host.agent, which no rule allows: it holds the policy"),
    (ALIAS.replace("opnsense.alias", "host.command"), "host.command, which runs what it is given"),
    (ALIAS.replace("[content]", "[contents]"), "fields has no 'contents' (did you mean \"content\"?)"),
    (ALIAS.replace("[content]", "[action]"), "fields has no 'action'"),
    (ALIAS.replace("[content]", "[]"), "fields lists 1 to 1000 values"),
    (ALIAS.replace("fields: [content]", "reason: x"), "the rule scanners needs `fields`"),
    (ALIAS.replace("[update]", "[upsert]"), "verbs has no 'upsert'"),
    (ALIAS.replace("[update]", "yes"), "verbs has no 'True'"),
    (ALIAS.replace("[update]", "[update, update]"), "verbs says one thing twice"),
    (ALIAS.replace("[fw-edge-*]", ""), "targets is a text of one line"),
    (ALIAS.replace("[fw-edge-*]", "[]"), "targets lists 1 to 1000 values"),
    (ALIAS.replace("[fw-edge-*]", "['fw-**']"), "targets has no pattern 'fw-**'"),
    (ALIAS.replace("[fw-edge-*]", "['fw-[12]']"), "targets has no pattern 'fw-[12]'"),
    (ALIAS.replace("[fw-edge-*]", "['edge:!fw-core']"), "targets has no pattern 'edge:!fw-core'"),
    (ALIAS.replace("[fw-edge-*]", "['~fw.*']"), "targets has no pattern '~fw.*'"),
    (ALIAS.replace("[fw-edge-*]", "['fw-é']"), "targets has no pattern"),
    (ALIAS.replace("[fw-edge-*]", "['fw/../x']"), "targets has no pattern 'fw/../x'"),
    (
        ALIAS.replace("[fw-edge-*]", "[5]"),
        "targets is a text of one line, of at most 1024 characters (put it in",
    ),
    (ALIAS.replace("[fw-edge-*]", '["a\\nb"]'), "targets is a text of one line"),
    (ALIAS.replace("[fw-edge-*]", "[!env X]"), "targets is a text of one line"),
    (ALIAS.replace("per_hour: 3", "per_hour: 0"), "per_hour is a whole number from 1 to 3600"),
    (ALIAS.replace("per_hour: 3", "per_hour: 1e3"), "per_hour is a whole number"),
    (ALIAS.replace("per_hour: 3", "per_hour: true"), "per_hour is a whole number"),
    (ALIAS.replace("per_hour: 3", "per_hour: .inf"), "per_hour is a whole number"),
    (ALIAS.replace("per_hour: 3", "reason: x"), "the rule scanners needs `per_hour`"),
    (ALIAS.replace("max_changes: 2", "max_changes: -1"), "max_changes is a whole number from 1 to 1000"),
    (ALIAS.replace("max_changes: 2", "max_changes:"), "max_changes is a whole number"),
    (ALIAS.replace("expires: 2027-06-30", "reason: x"), "needs `expires` (no approval is for ever"),
    (ALIAS.replace("2027-06-30", "never"), "expires is a day such as 2027-06-30"),
    (ALIAS.replace("2027-06-30", "2027-02-30"), "expires is a day such as 2027-06-30"),
    (ALIAS.replace("2027-06-30", "9999999999"), "expires is a day such as 2027-06-30"),
    (
        ALIAS.replace("[update]", "[update, delete]").replace("max_changes: 2", "reason: x"),
        "needs `max_changes`",
    ),
    (
        ALIAS.replace("[update]", "[delete]").replace("identities: [blocklist, block_*]", "reason: x"),
        "the rule scanners deletes, and needs `identities` (what is deleted by a rule is named",
    ),
    (ALIAS + "    args: []", "args needs `program`"),
    (ALIAS + RULE, "policy.yml:13: there are two rules 'scanners', the other in line 3"),
    (ALIAS + "    name: again", 'the key "name" stands twice'),
    (SHELL.replace("/usr/bin/systemctl", "systemctl"), "program is an absolute path"),
    (SHELL.replace("/usr/bin/systemctl", "/usr/../bin/systemctl"), "program is an absolute path"),
    (SHELL.replace("nginx|php-fpm", "(a+)+b"), "pattern is no pattern that can be used: this regular"),
    (SHELL.replace("nginx|php-fpm", "(a"), "pattern is no regular expression: missing )"),
    (SHELL.replace("[restart, {pattern", "[restart, {patern"), "an argument knows no 'patern'"),
    (SHELL.replace("[restart, ", "[1, "), "an argument is a text or {pattern: …} (put it in quotes)"),
    (SHELL.replace("[restart, ", "[{pattern: x, rest: true}, "), "`rest: true` belongs to the last argument"),
    (SHELL.replace("[restart, ", "[{}, "), "an argument needs either `pattern` or `text`"),
    (
        SHELL.replace('args: [restart, {pattern: "nginx|php-fpm"}]', "reason: x"),
        "a program, and needs `args`",
    ),
    (SHELL.replace("per_hour: 5", "per_hour: 5\n    kinds: [host.file]"), "kinds does not go together with"),
    ("deny: [{name: x}]", "a deny rule says what it denies"),
    ("deny: [{targets: x}]", "a deny rule needs `name`"),
    ("deny: [{name: x, targets: []}]", "targets lists 1 to 1000 values"),
    ("deny: [{name: x, kinds: [opnsens.*]}]", "kinds means no kind: 'opnsens.*'"),
    ("deny: [{name: x, target: [fw]}]", "a deny rule knows no 'target' (did you mean \"targets\"?)"),
    ("deny: [{name: x, targets: [fw], verbs: [remove]}]", "verbs has no 'remove'"),
    ("shell: [{targets: [fw]}]", "an entry of shell needs `program`"),
    ("shell: [{program: /bin/x, args: []}]", "an entry of shell needs `targets`"),
    ("shell: [{targets: [fw], program: /bin/x}]", "names a program, and needs `args`"),
    ("rules: [*x]", "policy.yml:1"),
    ("rules: !!python/object:os.system []", "policy.yml:1"),
    ("$ANSIBLE_VAULT;1.1;AES256\n6162", "a policy is not encrypted"),
    ("rules: [\n", "policy.yml:2"),
    ("\x00", "policy.yml"),
    ("a: &a [*a]", "policy.yml:1"),
    ("{}\n---\n{}", "policy.yml"),
    ("rules: []\n" + " " * 300_000, "too large"),
    ("rules: " + "[" * 100, "policy.yml:1"),
]


@pytest.mark.parametrize(("text", "words"), WRONG)
def test_one_wrong_word_is_said_with_its_place_and_nothing_is_allowed(
    text: str, words: str, tmp_path: Path
) -> None:
    found = problems(text)
    assert any(words in each for each in found), found
    assert all(each.startswith("policy.yml") for each in found)
    file = tmp_path / "policy.yml"
    file.write_text(text)
    policy = load_policy(file, KNOWN)
    assert policy.broken is not None
    assert policy.broken.startswith(str(file))
    assert (policy.rules, policy.deny, policy.shell) == ((), (), ())
    assert ask(policy, effect(change())).verdict == "refuse"


def test_all_mistakes_are_found_at_once() -> None:
    text = ALIAS.replace("opnsense.alias", "x").replace("per_hour: 3", "per_hour: x") + "deny: [{name: x}]"
    assert len(problems(text)) == 3


def test_kinds_and_tools_are_not_looked_at_where_they_are_not_known() -> None:
    text = ALIAS.replace("opnsense.alias", "opnsense.new").replace("reconcile.apply", "other.tool")
    assert parse_policy(text.encode(), "policy.yml", KnownWords()).rules[0].kinds == ("opnsense.new",)


@with_examples(200, 2000)
def test_whatever_stands_in_the_file_there_is_a_policy_and_a_broken_one_allows_nothing(
    count: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    words = [
        "rules:",
        "deny:",
        "- ",
        "name: x",
        "\n",
        "  ",
        "targets: ",
        "[",
        "]",
        "{",
        "}",
        "'",
        "*",
        "&a ",
        "!env ",
    ]
    file = tmp_path_factory.mktemp("any") / "policy.yml"
    texts = st.one_of(
        st.binary(max_size=200),
        st.lists(st.sampled_from([*words, *ALIAS.split(" ")]), max_size=40).map(
            lambda w: "".join(w).encode()
        ),
    )

    @settings(max_examples=count, deadline=None)
    @given(texts)
    def check(data: bytes) -> None:
        file.write_bytes(data)
        policy = load_policy(file, KNOWN)
        if policy.broken is not None:
            assert ask(policy, effect(change())).verdict == "refuse"

    check()


# -- the file itself


def test_a_file_that_others_may_write_is_no_policy(tmp_path: Path) -> None:
    file = tmp_path / "policy.yml"
    file.write_text(ALIAS)
    file.chmod(0o666)
    assert "others can write to" in str(load_policy(file, KNOWN).broken)
    file.chmod(0o600)
    assert load_policy(file, KNOWN).broken is None
    tmp_path.chmod(0o777)
    assert "others can write to" in str(load_policy(file, KNOWN).broken)
    tmp_path.chmod(0o1777)  # where only owners rename
    assert load_policy(file, KNOWN).broken is None


def test_a_file_that_cannot_be_read_is_no_policy(tmp_path: Path) -> None:
    assert "there is no policy" in str(load_policy(tmp_path / "policy.yml", KNOWN).broken)
    assert "cannot read the file" in str(load_policy(tmp_path, KNOWN).broken)
    os.mkfifo(tmp_path / "pipe")
    closed = os.open(tmp_path / "pipe", os.O_RDWR | os.O_NONBLOCK)
    os.write(closed, b"rules: []")
    os.close(closed)
    (tmp_path / "key.yml").write_text("-----BEGIN PRIVATE KEY-----\nx\n")
    assert "this is a key or a certificate" in str(load_policy(tmp_path / "key.yml", KNOWN).broken)


# -- warnings


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ALIAS, None),
        (SHELL, None),
        (ALIAS.replace("2027-06-30", "2027-01-15"), "it expired at 2027-01-15 00:00:00Z, and allows nothing"),
        (ALIAS.replace("2027-06-30", "2027-01-20"), "it expires at 2027-01-20 00:00:00Z"),
        (ALIAS.replace("2027-06-30", "2037-01-20"), "it holds for more than a year"),
        (ALIAS.replace("[fw-edge-*]", "'*'"), "it is about every target"),
        (ALIAS.replace("[blocklist, block_*]", "['*']"), "it is about every name"),
        (ALIAS.replace("identities: [blocklist, block_*]", "reason: x"), "it is about every opnsense.alias"),
        (ALIAS.replace("[update]", "[delete]"), "it deletes"),
        (ALIAS.replace("max_changes: 2", "max_changes: 51"), "it allows 51 changes at a time"),
        (
            ALIAS.replace("opnsense.alias", "host.file").replace("[content]", "[content, validate]"),
            "a machine runs what stands in validate",
        ),
        (SHELL.replace("nginx|php-fpm", ".*"), "argument 2: the pattern .* admits anything"),
        (SHELL.replace("nginx|php-fpm", "[a-z]*"), "argument 2: the pattern [a-z]* admits an empty text"),
        (SHELL.replace('fpm"}', 'fpm", dash: true}'), "argument 2: a value may be taken for an option"),
        (SHELL.replace("/usr/bin/cat", "/usr/bin/find"), "/usr/bin/find can start other programs"),
        ("shell: [{targets: [a], program: /bin/sh, args: [{pattern: '[a-z]+'}]}]", "/bin/sh can start other"),
    ],
)
def test_what_is_wide_or_over_is_warned_of(text: str, words: str | None) -> None:
    found = find_warnings(policy_of(text), NOW)
    assert found == [] if words is None else any(words in each for each in found), found
    assert all(each.startswith("policy.yml:") for each in found)
