"""Policies and effects as tests write them, short."""

from __future__ import annotations

from typing import Any

from fazai.loop.effects import Effect, EffectChange
from fazai.policy.deciding import decide
from fazai.policy.reading import KnownWords, parse_policy
from fazai.policy.values import Decision, Policy

NOW = 1_800_000_000.0  # 2027-01-15 08:00:00Z
KNOWN = KnownWords(
    tools=frozenset({"reconcile.apply", "shell", "rules.entries"}),
    readers=frozenset({"fleet.list"}),
    kinds={
        "opnsense.alias": frozenset({"name", "content", "description", "enabled"}),
        "opnsense.rule": frozenset({"description", "enabled", "action"}),
        "host.file": frozenset({"path", "content", "mode", "validate"}),
        "host.service": frozenset({"name", "state", "enabled"}),
    },
)

ALIAS = """
rules:
  - name: scanners
    tool: reconcile.apply
    kinds: opnsense.alias
    targets: [fw-edge-*]
    identities: [blocklist, block_*]
    verbs: [update]
    fields: [content]
    max_changes: 2
    per_hour: 3
    expires: 2027-06-30
"""
SHELL = """
rules:
  - name: restart
    targets: [web*]
    program: /usr/bin/systemctl
    args: [restart, {pattern: "nginx|php-fpm"}]
    per_hour: 5
    expires: 2027-06-30
  - name: readable
    targets: [web*]
    program: /usr/bin/cat
    args: [{pattern: "/var/log/.*"}]
    per_hour: 5
    expires: 2027-06-30
"""


def policy_of(text: str, protected: tuple[str, ...] = ()) -> Policy:
    return parse_policy(text.encode(), "policy.yml", KNOWN, protected)


def change(**more: Any) -> EffectChange:
    plain: dict[str, Any] = {
        "target": "fw-edge-01",
        "kind": "opnsense.alias",
        "identity": "blocklist",
        "verb": "update",
        "before": {"content": ["192.0.2.1"]},
        "after": {"content": ["192.0.2.1", "192.0.2.2"]},
    }
    return EffectChange(**{**plain, **more})


def program(*argv: str, target: str = "web1", **more: Any) -> EffectChange:
    return EffectChange(
        target=target,
        kind="program",
        identity=more.pop("identity", argv[0]),
        verb="run",
        after=more.pop("after", {"argv": list(argv), "provider": more.pop("provider", "agent")}),
        **more,
    )


def effect(*changes: EffectChange, **more: Any) -> Effect:
    plain: dict[str, Any] = {
        "tool": "shell" if changes and changes[0].kind == "program" else "reconcile.apply",
        "base": "b" * 64,
        "inventory": "i" * 64,
        "policy": "",
        "expires": NOW + 600,
    }
    return Effect(changes=changes, **{**plain, **more})


def ask(text: str | Policy, what: Effect, *, tainted: bool = False, **uses: int) -> Decision:
    policy = policy_of(text) if isinstance(text, str) else text
    return decide(policy, what, tainted=tainted, uses=uses, now=NOW)
