"""For any rules and any effect: nothing outside a rule is allowed, a deny never widens, caps only bound."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from fazai.loop.effects import Effect, EffectChange
from fazai.policy.deciding import decide
from fazai.policy.values import Policy
from tests.campaign import with_examples
from tests.policy.effects import NOW, policy_of

TARGETS = ["fw-1", "fw-2", "fw-10", "web", "FW-1", "fw-1\n", "fw/1"]
PATTERNS = ["fw-1", "fw-?", "fw-*", "web", "*"]
KINDS = ["opnsense.alias", "opnsense.rule", "host.file", "program"]
FIELDS = ["content", "description", "enabled", "action", "mode"]
VERBS = ["create", "update", "delete", "run", "move"]
#: What a pattern means, said once more and otherwise than the code says it.
MEANS = {
    "fw-1": {"fw-1"},
    "fw-?": {"fw-1", "fw-2"},
    "fw-*": {"fw-1", "fw-2", "fw-10"},
    "web": {"web"},
    "*": {"fw-1", "fw-2", "fw-10", "web", "FW-1"},
}


@st.composite
def rules(draw: st.DrawFn, name: str) -> dict[str, Any]:
    kinds = draw(st.sets(st.sampled_from(KINDS[:3]), min_size=1))
    return {
        "name": name,
        "tool": "reconcile.apply",
        "kinds": sorted(kinds),
        "targets": draw(st.lists(st.sampled_from(PATTERNS), min_size=1, unique=True)),
        "identities": draw(st.lists(st.sampled_from(PATTERNS), min_size=1, unique=True)),
        "verbs": draw(st.lists(st.sampled_from(VERBS), min_size=1, unique=True)),
        "fields": [
            f for f in draw(st.lists(st.sampled_from(FIELDS), min_size=1, unique=True)) if _known(f, kinds)
        ]
        or ["content" if kinds & {"opnsense.alias", "host.file"} else "enabled"],
        "max_changes": draw(st.integers(1, 3)),
        "per_hour": draw(st.integers(1, 4)),
        "expires": draw(st.sampled_from(["2026-01-01", "2027-06-30"])),
    }


def _known(field: str, kinds: set[str]) -> bool:
    has = {"opnsense.alias": "content description enabled", "opnsense.rule": "description enabled action"}
    return any(field in has.get(kind, "content mode").split() for kind in kinds)


changes = st.builds(
    EffectChange,
    target=st.sampled_from(TARGETS),
    kind=st.sampled_from(KINDS),
    identity=st.sampled_from(TARGETS),
    verb=st.sampled_from([*VERBS, "upsert"]),
    before=st.dictionaries(st.sampled_from([*FIELDS, "Content"]), st.just("x"), max_size=2),
    after=st.dictionaries(st.sampled_from([*FIELDS, "Content"]), st.just("y"), max_size=2),
)
effects = st.builds(
    Effect,
    tool=st.sampled_from(["reconcile.apply", "shell"]),
    changes=st.lists(changes, max_size=4).map(tuple),
    base=st.just(""),
    inventory=st.just(""),
    policy=st.just(""),
    expires=st.sampled_from([NOW + 1, NOW]),
    free=st.booleans(),
)
denies = st.fixed_dictionaries(
    {"name": st.just("no"), "targets": st.lists(st.sampled_from(PATTERNS), min_size=1, unique=True)}
)
cases = st.tuples(rules("one"), rules("two"), effects, st.booleans(), st.integers(0, 4))


def _policy(*found: dict[str, Any], deny: list[dict[str, Any]] | None = None) -> Policy:
    return policy_of(json.dumps({"rules": list(found), "deny": deny or []}))


def _covers(rule: dict[str, Any], effect: Effect, used: int) -> bool:
    """Whether the rule allows it, by the words of docs/policy.md."""
    return (
        effect.tool == rule["tool"]
        and rule["expires"] == "2027-06-30"
        and used < rule["per_hour"]
        and 0 < len(effect.changes) <= rule["max_changes"]
        and all(_covers_change(rule, change) for change in effect.changes)
    )


def _covers_change(rule: dict[str, Any], change: EffectChange) -> bool:
    touched = {*change.before, *change.after}
    return (
        change.kind in rule["kinds"]
        and change.verb in rule["verbs"]
        and any(change.target in MEANS[pattern] for pattern in rule["targets"])
        and any(change.identity in MEANS[pattern] for pattern in rule["identities"])
        and (
            change.verb in ("delete", "run")
            or (touched <= set(rule["fields"]) and (bool(touched) or change.verb == "move"))
        )
    )


def _decide(policy: Policy, effect: Effect, tainted: bool, used: int) -> str:
    uses = {"one": used, "two": used}
    return decide(policy, effect, tainted=tainted, uses=uses, now=NOW).verdict


@with_examples(100, 2_000)
def test_nothing_is_allowed_but_what_one_rule_covers_as_a_whole(count: int) -> None:
    @settings(max_examples=count, deadline=None)
    @given(cases)
    def check(case: tuple[dict[str, Any], dict[str, Any], Effect, bool, int]) -> None:
        one, two, effect, tainted, used = case
        meant = any(_covers(rule, effect, used) for rule in (one, two))
        allowed = meant and effect.expires > NOW and not (tainted and effect.free)
        assert (_decide(_policy(one, two), effect, tainted, used) == "allow") is allowed

    check()


@with_examples(100, 2_000)
def test_a_deny_never_widens_and_caps_only_bound(count: int) -> None:
    @settings(max_examples=count, deadline=None)
    @given(cases, denies)
    def check(case: tuple[dict[str, Any], dict[str, Any], Effect, bool, int], deny: dict[str, Any]) -> None:
        one, two, effect, tainted, used = case
        plain = _decide(_policy(one, two), effect, tainted, used)
        denied = _decide(_policy(one, two, deny=[deny]), effect, tainted, used)
        assert denied in (plain, "refuse")
        if any(change.target in MEANS[p] for change in effect.changes for p in deny["targets"]):
            assert denied == "refuse"
        if plain != "allow":
            lower = {**one, "max_changes": 1, "per_hour": 1}
            assert _decide(_policy(lower, two), effect, tainted, used) != "allow"
            assert _decide(_policy(one, two), effect, tainted, used + 1) != "allow"
            assert _decide(_policy(one), effect, True, used) != "allow"

    check()


#: Bounds, and the values below that meet them, said once more and otherwise than the code says it.
BOUNDS: list[tuple[Any, set[int]]] = [
    ("x", {0}),
    (["x", 7, True], {0, 1, 2}),
    ({"at_least": 5, "at_most": 9}, {1, 3}),
    ({"pattern": "[a-z]|8"}, {0, 3}),
    ({"within": "198.51.100.0/24"}, {4, 5, 6}),
    ({"within": ["198.51.100.0/24", "::/0"], "least_prefix": {"ipv4": 29, "ipv6": 0}}, {4, 6}),
    ({"each": {"within": "198.51.100.0/24"}}, {9, 10, 11}),
    ({"each": {"within": "198.51.100.0/24"}, "most_added": 1}, {9, 10}),
    ({"each": ["x"]}, {9}),
]
VALUES: list[Any] = [
    *("x", 7, True, "8", "198.51.100.7", "198.51.100.0/24", "::ffff:198.51.100.7", "198.51.100.1/0"),
    *("0.0.0.0/0", [], ["198.51.100.7"], ["198.51.100.7", "198.51.100.8/29"], ["0.0.0.0/0"], [["x"]]),
    *(None, {"x": 1}, "***", ["***"], "\uff18", "x\n"),
]


@with_examples(150, 3_000)
def test_a_rule_with_bounds_allows_what_meets_them_and_the_rule_without_them_allows(count: int) -> None:
    bounds = st.dictionaries(st.sampled_from(FIELDS), st.sampled_from(BOUNDS), min_size=1)
    numbers = st.integers(0, len(VALUES) - 1)
    after = st.dictionaries(st.sampled_from(["content", "enabled", "mode"]), numbers, max_size=2)
    drawn = st.lists(st.tuples(changes, after, st.booleans()), min_size=1, max_size=2)

    @settings(max_examples=count, deadline=None)
    @given(rules("one"), bounds, drawn, st.integers(0, 4))
    def check(rule: dict[str, Any], chosen: dict[str, Any], drawn: list[Any], used: int) -> None:
        rule["verbs"] = sorted({"create", "update"} & set(rule["verbs"])) or ["update"]
        held = {name: chosen[name] for name in rule["fields"] if name in chosen}
        fields = [{name: held[name][0]} if name in held else name for name in rule["fields"]]
        near = {"kind": rule["kinds"][0], "verb": rule["verbs"][0], "target": "fw-1", "identity": "fw-1"}
        made = [
            msgspec.structs.replace(
                one,
                before={name: [] for name in one.before},
                after={name: VALUES[number] for name, number in after.items()},
                **(near if is_near else {}),
            )
            for one, after, is_near in drawn
        ]
        effect = Effect(
            tool="reconcile.apply", changes=tuple(made), base="", inventory="", policy="", expires=NOW + 1
        )
        met = all(
            after[name] in allowed if name in after else one.verb != "create" and name not in one.before
            for one, (_, after, _) in zip(made, drawn, strict=True)
            for name, (_, allowed) in held.items()
        )
        plain = _decide(_policy(rule), effect, False, used)
        bounded = _decide(_policy({**rule, "fields": fields}), effect, False, used)
        assert bounded in (plain, "ask")
        assert (bounded == "allow") is (plain == "allow" and met)

    check()
