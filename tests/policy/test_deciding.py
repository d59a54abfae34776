"""What a rule means, and nothing beside it: no prefix, no look-alike, no argument that hides another."""

from __future__ import annotations

from typing import Any

import pytest

from fazai.loop.effects import Effect
from fazai.policy.deciding import explain_rules, find_shell_refusal
from fazai.policy.values import Policy
from tests.policy.effects import ALIAS, NOW, SHELL, ask, change, effect, policy_of, program

# -- what is meant is allowed


@pytest.mark.parametrize(
    "what",
    [
        effect(change()),
        effect(change(identity="block_tor")),
        effect(change(target="fw-edge-")),
        effect(change(), change(target="fw-edge-02")),
        effect(change(before={})),
    ],
)
def test_what_a_rule_covers_is_allowed(what: Effect) -> None:
    found = ask(ALIAS, what)
    assert (found.verdict, found.rule, found.reason) == ("allow", "scanners", "the rule scanners allows it")


@pytest.mark.parametrize(
    "argv", [("/usr/bin/systemctl", "restart", "nginx"), ("/usr/bin/cat", "/var/log/a b.log")]
)
def test_a_program_that_a_rule_covers_is_allowed(argv: tuple[str, ...]) -> None:
    assert ask(SHELL, effect(program(*argv))).verdict == "allow"


# -- B2: what only looks alike is not

#: A change that is nearly the covered one, and words of the first reason against it.
NEAR: list[tuple[dict[str, Any], str | None]] = [
    ({"target": "fw-edge"}, "the rule is about fw-edge-*"),
    ({"target": "xfw-edge-01"}, "the rule is about fw-edge-*"),
    ({"target": "FW-EDGE-01"}, "the rule is about fw-edge-*"),
    ({"target": "fw-edge-01\n"}, "the rule is about fw-edge-*"),
    ({"target": "\nfw-edge-01"}, "the rule is about fw-edge-*"),
    ({"target": "fw-edge-01/../fw-core"}, "the rule is about fw-edge-*"),
    ({"target": "fw-edge-0\x001"}, "the rule is about fw-edge-*"),
    ({"target": "fw-edge-０１"}, "the rule is about fw-edge-*"),  # full width
    ({"target": "fw‑edge-01"}, "the rule is about fw-edge-*"),  # a hyphen that does not break
    ({"target": "fw-еdge-01"}, "the rule is about fw-edge-*"),  # Cyrillic
    ({"target": "fw-edge-01​"}, "the rule is about fw-edge-*"),  # a space without width
    ({"target": "fw-edge-*"}, None),  # a name like another, that fits
    ({"target": ""}, "the rule is about fw-edge-*"),
    ({"kind": "opnsense.aliases"}, "the rule is about opnsense.alias"),
    ({"kind": "opnsense"}, "the rule is about opnsense.alias"),
    ({"kind": "opnsense.alias.x"}, "the rule is about opnsense.alias"),
    ({"kind": "OPNsense.alias"}, "the rule is about opnsense.alias"),
    ({"kind": "opnsense.alias "}, "the rule is about opnsense.alias"),
    ({"kind": "opnsense.new_kind"}, "the rule is about opnsense.alias"),
    ({"identity": "blocklist2"}, "the rule is about blocklist, block_*"),
    ({"identity": "Blocklist"}, "the rule is about blocklist, block_*"),
    ({"identity": "block"}, "the rule is about blocklist, block_*"),
    ({"identity": "block_/x"}, "the rule is about blocklist, block_*"),
    ({"identity": "block_ .. x"}, "the rule is about blocklist, block_*"),
    ({"identity": "block_\x7f"}, "the rule is about blocklist, block_*"),
    ({"identity": "block_é"}, "the rule is about blocklist, block_*"),
    ({"identity": "block_" + "a" * 5000}, "the rule is about blocklist, block_*"),
    ({"identity": "blocklist "}, "the rule is about blocklist, block_*"),
    ({"verb": "create"}, "the rule lets it update"),
    ({"verb": "delete"}, "the rule lets it update"),
    ({"verb": "Update"}, "the rule lets it update"),
    ({"verb": "upsert"}, "the rule lets it update"),
    ({"verb": ""}, "the rule lets it update"),
    ({"after": {"content": [], "enabled": False}}, "the rule does not cover enabled"),
    ({"after": {"enabled": False}}, "the rule does not cover enabled"),
    ({"before": {"description": "x"}, "after": {}}, "the rule does not cover description"),
    ({"after": {"Content": []}}, "the rule does not cover Content"),
    ({"after": {"content.x": []}}, "the rule does not cover content.x"),
    ({"after": {"content ": []}}, "the rule does not cover content "),
    ({"after": {"(adopts)": True}}, "the rule does not cover (adopts)"),
    ({"before": {}, "after": {}}, "it does not say which fields change"),
]


@pytest.mark.parametrize(("near", "words"), NEAR)
def test_what_only_looks_like_a_covered_change_is_asked(near: dict[str, Any], words: str | None) -> None:
    found = ask(ALIAS, effect(change(**near)))
    if words is None:
        assert found.verdict == "allow"
        return
    assert found.verdict == "ask"
    assert words in found.reason
    beside = ask(ALIAS, effect(change(), change(**near)))
    assert (beside.verdict, words in beside.reason) == ("ask", True)


#: argv that resembles an allowed one, and words of the reason.
ARGV: list[tuple[tuple[str, ...], str]] = [
    (("/usr/bin/systemctl", "restart", "nginx; reboot"), "does not match"),
    (("/usr/bin/systemctl", "restart", "nginx && reboot"), "does not match"),
    (("/usr/bin/systemctl", "restart", "nginx\nreboot"), "control character"),
    (("/usr/bin/systemctl", "restart", "nginx\n"), "control character"),
    (("/usr/bin/systemctl", "restart", "nginx", "sshd"), "nothing more is allowed"),
    (("/usr/bin/systemctl", "restart", "nginx sshd"), "does not match"),
    (("/usr/bin/systemctl", "restart", "nginx.service"), "does not match"),
    (("/usr/bin/systemctl", "restart", "'nginx'"), "does not match"),
    (("/usr/bin/systemctl", "restart", '"nginx"'), "does not match"),
    (("/usr/bin/systemctl", "restart", "$(reboot)"), "does not match"),
    (("/usr/bin/systemctl", "restart", "`reboot`"), "does not match"),
    (("/usr/bin/systemctl", "restart", "ngin?"), "does not match"),
    (("/usr/bin/systemctl", "restart", "NGINX"), "does not match"),
    (("/usr/bin/systemctl", "restart", "nɡinx"), "does not match"),
    (("/usr/bin/systemctl", "restart", "-H"), "may be taken for an option"),
    (("/usr/bin/systemctl", "restart", "--root=/tmp"), "may be taken for an option"),
    (("/usr/bin/systemctl", "--force", "restart", "nginx"), '"restart" is expected'),
    (("/usr/bin/systemctl", "restart"), "is missing"),
    (("/usr/bin/systemctl",), "is missing"),
    (("/usr/bin/systemctl", "Restart", "nginx"), '"restart" is expected'),
    (("/usr/bin/systemctl restart nginx",), "the program is /usr/bin/systemctl"),
    (("/usr/bin/systemctl2", "restart", "nginx"), "the program is /usr/bin/systemctl"),
    (("/usr/bin/../bin/systemctl", "restart", "nginx"), "the program is /usr/bin/systemctl"),
    (("/usr//bin/systemctl", "restart", "nginx"), "the program is /usr/bin/systemctl"),
    (("systemctl", "restart", "nginx"), "the program is /usr/bin/systemctl"),
    (("/bin/systemctl", "restart", "nginx"), "the program is /usr/bin/systemctl"),
    (("/bin/sh", "-c", "/usr/bin/systemctl restart nginx"), "the program is"),
    (("/usr/bin/env", "/usr/bin/systemctl", "restart", "nginx"), "the program is"),
    (("/usr/bin/cat", "/var/log/../../etc/shadow"), 'a part ".."'),
    (("/usr/bin/cat", "/var/log/x", "/etc/shadow"), "nothing more is allowed"),
    (("/usr/bin/cat", "/etc/shadow"), "does not match"),
    (("/usr/bin/cat", "/var/log/x\n/etc/shadow"), "control character"),
    (("/usr/bin/cat", "-A", "/var/log/x"), "may be taken for an option"),
    (("/usr/bin/cat", "/var/log/" + "x" * 5000), "at most 256 arguments of 4096 characters"),
    (("/usr/bin/cat", *["/var/log/x"] * 300), "at most 256 arguments"),
]


@pytest.mark.parametrize(("argv", "words"), ARGV)
def test_no_way_around_the_argument_list(argv: tuple[str, ...], words: str) -> None:
    what = effect(program(*argv))
    assert ask(SHELL, what).verdict == "ask"
    against = [str(answer.against) for answer in explain_rules(policy_of(SHELL), what, uses={}, now=NOW)]
    assert any(words in text for text in against), against


AGENT = {"provider": "agent"}


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ({"after": {"provider": "agent"}}, "a program and its arguments alone"),
        ({"after": {"argv": "systemctl restart nginx", **AGENT}}, "its argv is no list of texts"),
        ({"after": {"argv": [], **AGENT}}, "its argv is no list of texts"),
        ({"after": {"argv": ["/usr/bin/systemctl", 1], **AGENT}}, "its argv is no list of texts"),
        ({"after": {"argv": ["/usr/bin/systemctl", ["restart"]], **AGENT}}, "its argv is no list of texts"),
        ({"identity": "/usr/bin/uptime"}, "its argv does not begin with the program"),
        (
            {
                "after": {
                    "argv": ["/usr/bin/systemctl", "restart", "nginx"],
                    "env": {"LD_PRELOAD": "x"},
                    **AGENT,
                }
            },
            "a program and its arguments alone",
        ),
        (
            {"after": {"argv": ["/usr/bin/systemctl", "restart", "nginx"], "stdin": "", **AGENT}},
            "a program and its arguments alone",
        ),
        ({"before": {"argv": []}}, "a program and its arguments alone"),
    ],
)
def test_a_program_is_its_argv_and_nothing_beside_it(odd: dict[str, Any], words: str) -> None:
    what = effect(program("/usr/bin/systemctl", "restart", "nginx", **odd))
    answers = explain_rules(policy_of(SHELL), what, uses={}, now=NOW)
    assert words in str(answers[0].against)
    assert ask(SHELL, what).verdict == "ask"


def test_a_rule_is_for_its_tools_alone() -> None:
    found = ask(ALIAS, effect(change(), tool="reconcile.apply.now"))
    assert found.verdict == "ask"
    assert "it is about reconcile.apply, not reconcile.apply.now" in found.reason
    assert (
        ask(SHELL, effect(program("/usr/bin/systemctl", "restart", "nginx"), tool="tool_spec")).verdict
        == "ask"
    )


# -- every change, caps, expiry


def test_an_effect_without_changes_is_asked() -> None:
    assert ask(ALIAS, effect()) == ask("", effect())
    assert ask(ALIAS, effect()).reason == "it does not say what it changes"


def test_two_rules_do_not_add_up() -> None:
    both = (
        f"{ALIAS}{ALIAS.replace('rules:', '').replace('scanners', 'second').replace('fw-edge-*', 'fw-core')}"
    )
    parts = change(), change(target="fw-core")
    assert [ask(both, effect(part)).rule for part in parts] == ["scanners", "second"]
    assert ask(both, effect(*parts)).verdict == "ask"


def test_caps_are_kept_and_named() -> None:
    three = effect(*(change(target=f"fw-edge-{n}") for n in range(3)))
    assert ask(ALIAS, three).reason.endswith("it allows 2 changes at a time, and this has 3")
    assert ask(ALIAS, effect(change()), scanners=2).verdict == "allow"
    found = ask(ALIAS, effect(change()), scanners=3)
    assert (found.verdict, found.rule, found.cap) == ("ask", "scanners", True)
    assert found.reason == "the rule scanners allows it 3 times an hour, and that is used up"


def test_another_rule_that_covers_it_is_taken_where_one_is_used_up() -> None:
    both = ALIAS + ALIAS.replace("rules:", "").replace("scanners", "second")
    assert ask(both, effect(change()), scanners=3).rule == "second"
    assert ask(both, effect(change()), scanners=3, second=3).verdict == "ask"


def test_expired_rules_and_effects_allow_nothing() -> None:
    over = ALIAS.replace("2027-06-30", "2027-01-15")
    assert "it expired at 2027-01-15 00:00:00Z" in ask(over, effect(change())).reason
    at_eight = ALIAS.replace("2027-06-30", "2027-01-15T08:00:00Z")
    assert ask(at_eight, effect(change())).verdict == "ask"
    assert ask(at_eight.replace("08:00:00", "08:00:01"), effect(change())).verdict == "allow"
    late = ask(ALIAS, effect(change(), expires=NOW))
    assert (late.verdict, late.reason) == ("refuse", "it expired at 2027-01-15 08:00:00Z; propose it again")


# -- B10


def test_what_a_model_wrote_after_it_read_is_never_allowed() -> None:
    free = effect(change(), free=True)
    assert ask(ALIAS, free).verdict == "allow"
    assert ask(ALIAS, effect(change()), tainted=True).verdict == "allow"
    found = ask(ALIAS, free, tainted=True)
    assert found.verdict == "ask"
    assert "a model chose a part of it after it had read" in found.reason


# -- what no rule reaches

FILES = """
rules:
  - name: files
    tool: reconcile.apply
    kinds: [host.file, host.service]
    targets: ["*"]
    verbs: [create, update, delete, run]
    identities: ["*", /etc/*, /etc/fazai/*, /etc/fazai, /etc, /var/lib/fazai/*, "/srv/own/*", /srv]
    fields: [path, content, mode, state, validate]
    max_changes: 5
    per_hour: 10
    expires: 2027-06-30
  - name: any
    targets: ["*"]
    program: /usr/bin/cat
    args: [{pattern: ".*", rest: true, dash: true}]
    per_hour: 10
    expires: 2027-06-30
"""

PROTECTED: list[tuple[Any, str]] = [
    (change(kind="host.file", identity="/etc/fazai/policy.yml", after={"content": "x"}), "fazai's own"),
    (change(kind="host.file", identity="/etc/fazai", after={"mode": "0777"}), "fazai's own"),
    (change(kind="host.file", identity="/etc//fazai/./policy.yml", after={"content": "x"}), "fazai's own"),
    (change(kind="host.file", identity="/etc", after={"mode": "0777"}), "a folder that fazai's own files"),
    (change(kind="host.file", identity="/", after={"mode": "0777"}), "a folder that fazai's own files"),
    (change(kind="host.file", identity="/srv", after={"mode": "0777"}), "a folder that fazai's own files"),
    (change(kind="host.file", identity="/srv/own/tokens", after={"content": "x"}), "a file of fazai's own"),
    (change(kind="host.file", identity="/srv/x/../own/y", after={"content": "x"}), "a file of fazai's own"),
    (change(kind="host.file", identity="/etc/x", after={"content": "x", "validate": "/srv/own/x"}), "own"),
    (
        change(kind="host.file", identity="/etc/cron.d/x", after={"content": "rm /etc/fazai/policy.yml"}),
        "own",
    ),
    (change(kind="host.file", identity="/etc/x", after={"content": "***"}), "a change of a secret"),
    (change(kind="host.service", identity="fazai-agent", after={"state": "stopped"}), "fazai's own"),
    (change(kind="host.service", identity="FAZAI", after={"state": "stopped"}), "fazai's own"),
    (change(kind="host.agent", identity="", after={"programs": []}), "it holds the policy of an agent"),
    (change(kind="host.authorized_key", identity="root", after={"key": "x"}), "it lets somebody log in"),
    (change(kind="opnsense.user", after={"password": "x"}), "it lets somebody log in"),
    (change(kind="host.command", after={"argv": ["id"]}), "it runs what it is given"),
    (program("/usr/bin/cat", "/etc/fazai/policy.yml"), "fazai's own"),
    (program("/usr/bin/cat", "--file=/srv/own/key"), "a file of fazai's own"),
    (program("/usr/bin/cat", "/srv//own/key"), "a file of fazai's own"),
    (program("/usr/bin/cat", "/srv/own"), "a file of fazai's own"),
    (program("/usr/bin/cat", "/run/ｆａｚａｉ/x"), "fazai's own"),  # full width
]


@pytest.mark.parametrize(("one", "words"), PROTECTED)
def test_no_rule_reaches_fazais_own_files_secrets_and_logins(one: Any, words: str) -> None:
    policy = policy_of(FILES, ("/srv/own",))
    found = ask(policy, effect(one))
    assert found.verdict == "ask"
    assert words in found.reason
    good = (
        program("/usr/bin/cat", "/x")
        if one.kind == "program"
        else change(kind="host.file", identity="/etc/motd", after={"content": "x"}, before={})
    )
    assert ask(policy, effect(good)).verdict == "allow"
    assert ask(policy, effect(good, one)).verdict == "ask"


# -- deny wins

DENY = """
deny:
  - {name: core, targets: [fw-edge-core*], reason: the core is changed by hand}
  - {name: no-disable, kinds: [opnsense.*], fields: [enabled]}
  - {name: no-delete, verbs: [delete], tool: reconcile.*}
  - {name: passwd, identities: [/etc/passwd*]}
"""


@pytest.mark.parametrize(
    ("one", "rule"),
    [
        (change(target="fw-edge-core1"), "core"),
        (change(target="FW-EDGE-CORE1"), "core"),
        (change(target="fw-edge-core/../x"), "core"),
        (change(target="ｆｗ-edge-core"), "core"),  # full width
        (change(kind="opnsense.anything", after={"enabled": "0"}), "no-disable"),
        (change(kind="OPNSENSE.rule", after={"Enabled": "0"}), "no-disable"),
        (change(kind="opnsense.rule", verb="delete", after={}, before={}), "no-disable"),
        (change(kind="host.file", verb="delete"), "no-delete"),
        (change(kind="host.file", verb="DELETE"), "no-delete"),
        (change(kind="host.file", identity="/etc/../etc//passwd-"), "passwd"),
        (change(kind="host.file", identity="/etc/passwd.d/x\ny"), "passwd"),
    ],
)
def test_what_is_denied_is_refused_whatever_else_is_there(one: Any, rule: str) -> None:
    found = ask(ALIAS + DENY, effect(change(), one))
    assert (found.verdict, found.rule) == ("refuse", rule)
    assert found.reason.startswith(f"{rule} denies ")
    assert "\n" not in found.reason
    assert ask(ALIAS + DENY, effect(change())).verdict == "allow"


def test_a_broken_policy_refuses_everything() -> None:
    found = ask(Policy(broken="policy.yml:3:5: wrong"), effect(change()))
    assert (found.verdict, found.reason) == ("refuse", "the policy cannot be used: policy.yml:3:5: wrong")


# -- what may be proposed over SSH

PROGRAMS = """
shell:
  - {targets: [web*], program: /usr/bin/journalctl, args: ["-n", {pattern: "[0-9]{1,4}"}]}
  - {targets: [web*, db1], program: /usr/bin/uptime, args: []}
"""


@pytest.mark.parametrize(
    ("target", "argv", "words"),
    [
        ("web1", ("/usr/bin/journalctl", "-n", "50"), None),
        ("db1", ("/usr/bin/uptime",), None),
        ("db1", ("/usr/bin/journalctl", "-n", "50"), "is not among the programs for db1: /usr/bin/uptime"),
        ("db2", ("/usr/bin/uptime",), "the policy has no program for db2: `shell` in policy.yml"),
        ("web1", ("uptime",), '"uptime" is not among the programs for web1'),
        ("web1", ("/usr/bin/uptime", "-p"), "nothing more is allowed"),
        ("web1", ("/usr/bin/journalctl", "-n", "50", "--vacuum-size=1"), "nothing more is allowed"),
        ("web1", ("/usr/bin/journalctl", "-n", "50\n"), "control character"),
        ("web1", (), "there is no program"),
    ],
)
def test_only_listed_programs_may_be_proposed(target: str, argv: tuple[str, ...], words: str | None) -> None:
    found = find_shell_refusal(policy_of(PROGRAMS), target, argv)
    assert found is None if words is None else words in str(found)


def test_a_program_over_ssh_that_is_not_listed_is_refused_and_a_listed_one_still_needs_a_rule() -> None:
    policy = SHELL + PROGRAMS
    for provider in ("ssh", "local", "", "Agent"):
        over = program("/usr/bin/systemctl", "restart", "nginx", provider=provider)
        found = ask(policy, effect(over))
        assert found.verdict == "refuse"
        assert found.reason.startswith('"/usr/bin/systemctl" is not among the programs for web1')
        listed = program("/usr/bin/uptime", provider=provider)
        assert ask(policy, effect(listed)).verdict == "ask"
        assert ask(policy, effect(listed, over)).verdict == "refuse"
    assert ask(policy, effect(program("/usr/bin/systemctl", "restart", "nginx"))).verdict == "allow"
    missing = program("/usr/bin/systemctl", after={"argv": ["/usr/bin/systemctl", "restart", "nginx"]})
    assert ask(policy, effect(missing)).verdict == "refuse"
    both = policy + "  - {targets: [web1], program: /usr/bin/systemctl, args: [restart, nginx]}\n"
    assert ask(both, effect(over)).verdict == "allow"


def test_without_a_policy_no_program_may_be_proposed() -> None:
    assert find_shell_refusal(Policy(), "web1", ("/usr/bin/uptime",)) is not None
    broken = find_shell_refusal(Policy(broken="x"), "web1", ("/usr/bin/uptime",))
    assert broken == "the policy cannot be used: x"
