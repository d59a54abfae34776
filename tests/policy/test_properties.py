"""For any rules and any effect: nothing outside a rule is allowed, a deny never widens, caps only bound."""

from __future__ import annotations

import json
from typing import Any

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
