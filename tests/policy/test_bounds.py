"""What a rule lets a field become: every form with values that meet it and values that only seem to."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from fazai.policy.deciding import explain_rules
from fazai.policy.warnings import find_warnings
from tests.policy.effects import ALIAS, NOW, ask, change, effect, policy_of
from tests.policy.test_reading import problems

HOME = "{within: 198.51.100.0/24}"
BOTH = "{within: [198.51.100.0/24, '2001:db8::/32'], least_prefix: {ipv4: 28, ipv6: 64}}"


def bounded(bound: str, field: str = "content") -> str:
    return ALIAS.replace("[content]", f"[name, {{{field}: {bound}}}]").replace("[update]", "[create, update]")


def against(bound: str, after: Any, before: Any = "x", **more: Any) -> str | None:
    """What the rule with this bound has against a new value; None where it allows it."""
    what = effect(change(**{"before": {"content": before}, "after": {"content": after}, **more}))
    policy = policy_of(bounded(bound))
    (answer,) = explain_rules(policy, what, uses={}, now=NOW)
    assert (ask(policy, what).verdict == "allow") is (answer.against is None)
    assert (answer.against is None) is bool(answer.met)
    return answer.against


#: A bound, and new values that meet it.
ALLOWED: list[tuple[str, list[Any]]] = [
    ("block", ["block"]),
    ("{is: block}", ["block"]),
    ("''", [""]),
    ('"a\\nb\\n"', ["a\nb\n"]),
    ("true", [True]),
    ("5", [5, 5.0]),
    ("[block, reject, 5, false]", ["block", "reject", 5, False]),
    ("{one_of: [block, reject]}", ["block", "reject"]),
    ("{at_least: 1, at_most: 10}", [1, 10, 2.5, "1", "10", "2.5"]),
    ("{at_least: -5}", [-5, 0, 10**15, "-5", "0"]),
    ("{at_most: 0.5}", [0.5, -(10**30), "0.5", "0", "-1"]),
    ('{pattern: "mx-[0-9]+"}', ["mx-1", "mx-" + "0" * 4000]),
    ('{pattern: "-?[0-9]+", dash: true}', ["-1", "1"]),
    ('{pattern: ".*"}', ["", "a b", "é"]),
    (HOME, ["198.51.100.0", "198.51.100.255", "198.51.100.0/24", "198.51.100.8/29", "198.51.100.7/32"]),
    (HOME, ["::ffff:198.51.100.7", "::FFFF:c633:6407", "::ffff:198.51.100.0/120"]),
    ("{within: '::ffff:198.51.100.0/120'}", ["198.51.100.7", "::ffff:198.51.100.7"]),
    ("{within: 'fe80::/10'}", ["fe80::1", "fe80::1%eth0", "FE80::1%vtnet0.20"]),
    ("{within: [203.0.113.0/24, 198.51.100.0/25, 198.51.100.0/24]}", ["198.51.100.200", "203.0.113.0/24"]),
    ("{within: 198.51.100.0/24, least_prefix: 28}", ["198.51.100.7", "198.51.100.0/28", "198.51.100.7/32"]),
    (BOTH, ["198.51.100.0/28", "2001:db8::/64", "2001:db8::1", "::ffff:198.51.100.0/124"]),
    ("{each: [a, b]}", [[], ["a"], ["b", "a"], ["a", "a"]]),
    (f"{{each: {HOME}}}", [["198.51.100.7", "198.51.100.0/28"], []]),
    ("{each: {at_least: 1}}", [[1, "2"]]),
    ("{each: true}", [[True]]),
]

#: A bound, new values that do not meet it, and words of the reason.
REFUSED: list[tuple[str, list[Any], str]] = [
    ("block", ["Block", "block ", " block", "block\n", "ｂlock", "blо" + "ck", ""], 'it is not "block"'),
    ("block", [["block"], ("block",), {"is": "block"}, None, [], float("nan")], "it is no single value"),
    ("true", ["true", "1", 1, False, 1.0], "it is not true"),
    ("1", [True, "1", 2], "it is not 1"),
    ("'5'", [5, "5.0", "05", "５"], 'it is not "5"'),
    ("[a, b]", ["c", "a,b", "a\nb"], 'it is not "a" or "b"'),
    ("{at_least: 1, at_most: 10}", [0, 11, "0", "11", 1e300, 10**5000, -(10**5000)], "not at least 1 and at"),
    (
        "{at_least: 1, at_most: 10}",
        [True, "", "five", "５", "٣", "+5", "05", " 5", "5 ", "5\n", "1e0", "0x5", "1_0", "5.", ".5", "5-6"],
        "it is no number",
    ),
    ("{at_least: 1}", ["1" * 10_000, "NaN", "inf"], "it is no number"),
    ("{at_least: 1}", [float("inf"), float("nan"), None, [5]], "it is no single value"),
    ('{pattern: "mx-[0-9]+"}', ["mx-", "mx-1x", "xmx-1", "MX-1", "mx-1 ", "mx-１", "mx-٣"], "does not match"),
    ('{pattern: "mx-[0-9]+"}', ["mx-1\n", "\nmx-1", "mx-1\r", "mx-1\x00", "mx-1\x85"], "is not printed"),
    ('{pattern: "mx-[0-9]+|y"}', ["mx-1|y", "mx-1y"], "does not match"),
    ('{pattern: "^mx$"}', ["mx\n"], "is not printed"),
    ('{pattern: ".*"}', ["a\nb", "a\u2028b", "a\u202eb", "a\u200bb", "a\xa0b"], "is not printed"),
    ('{pattern: "\\\\d+"}', ["１２", "٣"], "does not match"),
    ('{pattern: ".*"}', ["-x"], "begins with -"),
    ('{pattern: "/srv/.*"}', ["/srv/../etc/x"], 'a part ".."'),
    ('{pattern: ".*"}', ["x" * 4097], "more than 4096 characters"),
    ('{pattern: ".*"}', [5, True, 1.5], "it is no text"),
    (HOME, ["0.0.0.0/0", "198.51.100.0/23", "198.51.101.1", "198.51.99.255"], "not within 198.51.100.0/24"),
    (HOME, ["::ffff:0:0/96", "::ffff:198.51.101.1", "::198.51.100.7", "::/0"], "not within 198.51.100.0/24"),
    (HOME, ["64:ff9b::198.51.100.7", "2002:c633:6407::", "2001:db8::1"], "not within 198.51.100.0/24"),
    (
        HOME,
        [
            *("198.51.100.1/0", "198.51.100.7/24", "198.51.100.0/255.255.255.0", "198.51.100.0/0.0.0.255"),
            *(
                "198.51.100.0/024",
                "198.51.100.0/33",
                "198.51.100.0/-1",
                "198.51.100.0/",
                "198.51.100.0/24/24",
            ),
            *(
                "198.51.100.7 ",
                " 198.51.100.7",
                "198.51.100.7\n",
                "198.51.100.7\n0.0.0.0/0",
                "198.51.100.7,::",
            ),
            *("１９８.51.100.7", "198.51.100.٧", "198.051.100.7", "198.51.100", "3325256711", "0xc6336407"),
            *("!198.51.100.7", "198.51.100.7-198.51.100.9", "example.com", "blocklist", "", "::", "fe80::1%"),
            *(
                "fe80::1%e;id",
                "fe80::1%a%b",
                "fe80::1%eth0/128",
                "198.51.100.7%eth0",
                "::ffff:198.51.100.7/96",
            ),
        ],
        "",
    ),
    (HOME, [3325256711, True, 198.51], "it is no address or network"),
    ("{within: 198.51.100.0/24, least_prefix: 28}", ["198.51.100.0/27", "198.51.100.0/24"], "wider than /28"),
    ("{within: 198.51.100.0/24, least_prefix: 28}", ["::ffff:198.51.100.0/120"], "wider than /28"),
    (BOTH, ["198.51.100.0/27"], "it is 198.51.100.0/27, wider than /28"),
    (BOTH, ["2001:db8::/63"], "it is 2001:db8::/63, wider than /64"),
    ("{within: '::/0'}", ["198.51.100.7", "::ffff:198.51.100.7", "0.0.0.0/0"], "not within ::/0"),
    ("{within: 0.0.0.0/0}", ["::", "2001:db8::1", "::/0"], "not within 0.0.0.0/0"),
    (
        f"{{each: {HOME}}}",
        [["198.51.100.7", "0.0.0.0/0"]],
        "entry 2 is 0.0.0.0/0, not within 198.51.100.0/24",
    ),
    (f"{{each: {HOME}}}", [[["198.51.100.7"]], [("198.51.100.7",)], [None], [{}]], "entry 1 is no single"),
    (f"{{each: {HOME}}}", ["198.51.100.7", {"198.51.100.7": 1}, None, 5, True], "it is no list"),
    ("{each: [a, b]}", [["a", "A"], ["a", "a\n"], ["a", "a,b"]], "entry 2 is not"),
    ("{most_added: 9}", [[[]], ["a", ["b"]]], "is no single value"),
]


@pytest.mark.parametrize(("bound", "values"), ALLOWED)
def test_a_value_that_meets_the_bound_is_allowed(bound: str, values: list[Any]) -> None:
    for value in values:
        assert against(bound, value) is None, value


@pytest.mark.parametrize(("bound", "values", "words"), REFUSED)
def test_a_value_that_only_seems_to_meet_the_bound_is_asked(
    bound: str, values: list[Any], words: str
) -> None:
    for value in values:
        said = against(bound, value)
        assert said is not None, value
        assert words in said, value
        assert said.startswith("fw-edge-01/opnsense.alias/blocklist: content: ")
        assert said.isprintable()
        assert len(said) < 400


ADDED = "{each: {within: 198.51.100.0/24}, most_added: 2, most_removed: 1}"
ONE, TWO, THREE, FOUR = (f"198.51.100.{n}" for n in range(1, 5))


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ([], [ONE, TWO], None),
        ([ONE], [ONE, TWO, THREE], None),
        ([ONE, TWO], [TWO, ONE], None),
        ([ONE, TWO], [TWO, THREE, FOUR], None),
        ((ONE, TWO), (ONE,), None),
        ([], [ONE, TWO, THREE], "it gets 3 more, and at most 2 may be added"),
        ([ONE], [ONE] * 4, "it gets 3 more, and at most 2 may be added"),
        ([ONE], [f"{ONE}/32", f"::ffff:{ONE}", TWO], "it gets 3 more"),
        ([ONE, TWO], [], "it loses 2, and at most 1 may be removed"),
        ([ONE, TWO, THREE], [FOUR], "it loses 3"),
        ([ONE], [ONE, "203.0.113.1"], "entry 2 is 203.0.113.1, not within"),
        ([ONE, "203.0.113.1"], [ONE, "203.0.113.1"], "entry 2 is 203.0.113.1, not within"),
        (f"{ONE}\n{TWO}", [ONE], "it was no list of single values"),
        ([[ONE]], [ONE], "it was no list of single values"),
        ({ONE: 1}, [ONE], "it was no list of single values"),
        (None, [ONE], "it does not say what it was"),
        (["***"], [ONE], "it was a secret"),
        ([ONE], [ONE, "***"], "entry 2 is a secret"),
    ],
)
def test_what_is_added_and_removed_in_one_change_is_counted(
    before: Any, after: Any, words: str | None
) -> None:
    said = against(ADDED, after, before)
    assert said is None if words is None else words in str(said)


def test_numbers_and_truth_values_are_different_entries() -> None:
    assert against("{most_added: 0}", [1, True, "1"], [True, "1", 1]) is None
    assert "it gets 1 more" in str(against("{most_added: 0}", [1, 1], [1, True]))


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ({"after": {}}, "content: each within 198.51.100.0/24; it has no new value"),
        ({"after": {"name": "x"}, "before": {"name": "y", "content": [ONE]}}, "it has no new value"),
        ({"after": {"content": None}}, "it is no list"),
        ({"after": {"content": [ONE], "enabled": True}}, "the rule does not cover enabled"),
        ({"after": {"content": [ONE], "validate": "id"}}, "the rule does not cover validate"),
        ({"after": {"content": [ONE], "(adopts)": True}}, "the rule does not cover (adopts)"),
        ({"verb": "create", "before": {}, "after": {"name": "x"}}, "it has no new value"),
        ({"verb": "create", "before": {}, "after": {"name": "x", "content": ["::"]}}, "entry 1 is ::"),
        (
            {"verb": "create", "before": {}, "after": {"content": [ONE], "enabled": True}},
            "does not cover enabled",
        ),
        ({"verb": "delete", "after": {}}, "the rule lets it create, update"),
        ({"verb": "run"}, "the rule lets it create, update"),
        ({"verb": "move"}, "the rule lets it create, update"),
    ],
)
def test_a_value_that_is_not_there_and_fields_beside_it_are_asked(odd: dict[str, Any], words: str) -> None:
    policy = policy_of(bounded(f"{{each: {HOME}}}"))
    what = effect(change(**{"before": {"content": [ONE]}, "after": {"content": [ONE]}, **odd}))
    (answer,) = explain_rules(policy, what, uses={}, now=NOW)
    assert words in str(answer.against)
    assert ask(policy, what).verdict == "ask"
    both = effect(change(before={"content": []}, after={"content": [ONE]}), change(**odd))
    assert ask(policy, both).verdict == "ask"


def test_a_field_that_an_update_leaves_alone_has_no_new_value_to_bound() -> None:
    policy = policy_of(bounded(HOME))
    assert ask(policy, effect(change(before={"name": "a"}, after={"name": "b"}))).verdict == "allow"
    made = change(verb="create", before={}, after={"name": "b", "content": ONE})
    assert ask(policy, effect(made)).verdict == "allow"


SECRET = "correct horse battery staple"


@pytest.mark.parametrize(
    "bound",
    ["block", "[a, b]", "{at_least: 1}", '{pattern: "[a-z]+"}', HOME, "{each: [a]}", "{each: {pattern: x}}"],
)
def test_no_text_of_a_change_stands_in_a_reason(bound: str) -> None:
    for value in (SECRET, [SECRET], f"***{SECRET}", [[SECRET]], {SECRET: SECRET}):
        said = against(bound, value, value)
        assert said is not None
        assert not any(word in said for word in SECRET.split())


def test_a_secret_meets_no_bound() -> None:
    for bound in ('{pattern: ".*"}', '{each: {pattern: ".*"}}', "{most_added: 9}"):
        for value in ("***", "a***b", ["***"]):
            assert against(bound, value, []) is not None


@pytest.mark.parametrize(
    ("bound", "entry"),
    [
        (HOME, "198.51.100.{}"),
        (BOTH, "2001:db8::{:x}"),
        (json.dumps({"within": [f"198.51.{n}.0/25" for n in range(256)]}), "198.51.7.{}"),
        ('{pattern: "(?:[a-z0-9-]{1,20}[.]){1,8}com"}', "a.a.a.a.a.a.{}.example.com"),
        (json.dumps([f"v{n}" for n in range(1000)]), "v{}"),
        ("{at_least: 0}", "{}"),
        (r'{pattern: "[a-z.0-9]+\\.example\\.com"}', "a.a.a.a.a.a.{}.example.com"),
        (r'{pattern: "[a-z.0-9]+\\.example\\.com"}', ".example.com" * 8 + "{}"),
    ],
)
def test_a_hundred_thousand_entries_take_bounded_time(bound: str, entry: str) -> None:
    entries = [entry.format(n % 100) for n in range(100_000)]
    policy = policy_of(bounded(f"{{each: {bound}, most_added: 100000, most_removed: 0}}"))
    what = effect(change(before={"content": entries[:50_000]}, after={"content": entries}))
    began = time.process_time()
    (answer,) = explain_rules(policy, what, uses={}, now=NOW)
    assert time.process_time() - began < 10
    assert answer.against is None or "does not match" in answer.against


def test_what_is_met_is_said() -> None:
    policy = policy_of(bounded(ADDED))
    what = effect(change(before={"content": []}, after={"content": [ONE]}))
    (answer,) = explain_rules(policy, what, uses={}, now=NOW)
    assert answer.met == ("content: each within 198.51.100.0/24, at most 2 added, at most 1 removed",)
    assert ask(policy, what).reason == "the rule scanners allows it"


#: A bound with a mistake, and what is said of it.
WRONG: list[tuple[str, str]] = [
    ("", "policy.yml:9:30: content says no text, number or truth value (a value, a list"),
    ("{}", "policy.yml:9:30: the bound of content says nothing (a value, a list of values"),
    ("{with: 198.51.100.0/24}", "policy.yml:9:31: the bound of content knows no 'with'"),
    ("{is: a, pattern: b}", "policy.yml:9:30: the bound of content says two things"),
    ("{is: [a]}", "policy.yml:9:35: is says no text, number"),
    ("{is: .nan}", "is says no text, number"),
    ("{is: '***'}", "is says no text, number"),
    ("{is: !env X}", "policy.yml:9"),
    ("[a, a]", "content says one thing twice"),
    ("[]", "content lists 1 to 1000 values"),
    ("[[a]]", "content says no text, number"),
    ("[{pattern: a}]", "content says no text, number"),
    ("{one_of: a}", "one_of is a list of values"),
    ("{at_least: a}", "policy.yml:9:41: at_least is a number"),
    ("{at_least: true}", "at_least is a number"),
    ("{at_least: .inf}", "at_least is a number"),
    ("{at_most: 1e300}", "at_most is a number"),
    ("{at_least: 5, at_most: 4}", "no number is at least 5 and at most 4"),
    ("{pattern: '(a+)+b'}", "pattern is no pattern that can be used: this regular"),
    ("{pattern: '.*a.*'}", "could take too long on 65536 characters"),
    ("{pattern: '(a'}", "pattern is no regular expression"),
    ("{pattern: 5}", "pattern is a text of one line"),
    ("{dash: true}", "dash needs `pattern`"),
    ("{pattern: a, dash: 1}", "dash is true or false"),
    ("{within: 198.51.100.1/24}", "within has no network '198.51.100.1/24' (with its prefix, and no bits"),
    ("{within: 198.51.100.1}", "within has no network '198.51.100.1'"),
    ("{within: 198.51.100.0/255.255.255.0}", "within has no network"),
    ("{within: edge}", "within has no network 'edge'"),
    ("{within: 5}", "within has no network 5"),
    ("{within: []}", "within lists 1 to 1000 values"),
    ("{least_prefix: 24}", "least_prefix needs `within`"),
    ("{within: 198.51.100.0/24, least_prefix: 33}", "least_prefix is a whole number from 0 to 32"),
    ("{within: 198.51.100.0/24, least_prefix: /28}", "least_prefix is a whole number"),
    ("{within: 198.51.100.0/24, least_prefix: {ipv6: 64}}", "least_prefix needs `ipv4`"),
    ("{within: 198.51.100.0/24, least_prefix: {ipv4: 28, ipv6: 64}}", "within has no network of ipv6"),
    ("{within: [198.51.100.0/24, '::/0'], least_prefix: 28}", "is one for each version of IP here (least_p"),
    ("{each: {each: a}}", "each knows no 'each'"),
    ("{each: }", "each says no text, number"),
    ("{each: a, within: 198.51.100.0/24}", "the bound of content knows no 'within'"),
    ("{each: a, most_added: -1}", "most_added is a whole number from 0"),
    ("{each: a, most_added: true}", "most_added is a whole number"),
    ("{most_removed: x}", "most_removed is a whole number"),
]


@pytest.mark.parametrize(("bound", "words"), WRONG)
def test_a_bound_that_is_not_understood_is_said_with_its_place(bound: str, words: str) -> None:
    found = problems(bounded(bound))
    assert any(words in each for each in found), found
    assert all(each.startswith("policy.yml:9") for each in found)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("[{contents: a}]", "fields has no 'contents' (did you mean \"content\"?)"),
        ("[content, {content: a}]", "fields says one thing twice"),
        ("[{content: a}, {content: b}]", "fields says one thing twice"),
        ("{}", "fields has no '{}'"),
        ("[[content]]", "fields has no"),
    ],
)
def test_a_bound_is_of_one_field_that_there_is(fields: str, words: str) -> None:
    found = problems(ALIAS.replace("[content]", fields))
    assert any(words in each for each in found), found


def test_bounds_stand_in_a_mapping_or_a_list_of_them() -> None:
    for fields in ("{content: a, name: b}", "[{content: a, name: b}]", "[{content: a}, {name: b}]"):
        (rule,) = policy_of(ALIAS.replace("[content]", fields)).rules
        assert (rule.fields, [name for name, _ in rule.bounds]) == (("content", "name"), ["content", "name"])


@pytest.mark.parametrize("verb", ["delete", "move", "run"])
def test_a_rule_that_bounds_values_only_sets_them(verb: str) -> None:
    text = bounded("a").replace("[create, update]", f"[update, {verb}]")
    said = f"the rule scanners bounds what content becomes, and lets it {verb} (there is no new value then"
    assert said in problems(text)[0]


def test_a_rule_that_denies_has_no_bounds() -> None:
    found = problems("deny: [{name: x, fields: [{content: a}]}]")
    assert "fields is a text of one line" in found[0]


@pytest.mark.parametrize(
    ("bound", "words"),
    [
        (HOME, None),
        (ADDED, None),
        ("{within: [198.51.100.0/24, '::/0']}", "content: ::/0 is every address of IPv6"),
        ("{each: {within: 0.0.0.0/0}}", "content: 0.0.0.0/0 is every address of IPv4"),
        ("{within: 0.0.0.0/0, least_prefix: 32}", None),
        ('{pattern: ".*"}', "content: the pattern .* admits anything"),
        ("{most_added: 5}", "content: it bounds how many entries change, and not which (`each`)"),
    ],
)
def test_wide_bounds_are_warned_of(bound: str, words: str | None) -> None:
    found = find_warnings(policy_of(bounded(bound)), NOW)
    assert found == [] if words is None else any(words in each for each in found), found
