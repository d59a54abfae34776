"""What is never deleted, and how much may be pruned at once."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest

from fazai.errors import Refused
from fazai.lab import LabFirewall
from fazai.model import Resource, Verb
from tests.opnsense.helpers import apply, plan, resource, run, target

E_ACUTE = "caf\u00e9"  # one character
E_AND_ACUTE = unicodedata.normalize("NFD", E_ACUTE)  # two


def rule(description: str, **more: Any) -> Resource:
    return resource("opnsense.rule", {"description": description, "interface": ["lan"]}, **more)


@pytest.mark.parametrize(
    ("pattern", "name", "protected"),
    [
        ("srv[1]", "srv[1]", True),
        ("srv[1]", "srv1", True),
        ("srv[1]", "srv2", False),
        ("what?", "what?", True),
        ("a*", "a*", True),
        ("[!x]", "[!x]", True),
        (E_ACUTE, E_AND_ACUTE, True),
        (E_AND_ACUTE, E_ACUTE, True),
        (f"{E_AND_ACUTE}*", f"{E_ACUTE} guests", True),
        ("Srv1", "srv1", False),
    ],
)
def test_equal_text_protects(firewall: LabFirewall, pattern: str, name: str, protected: bool) -> None:
    run(apply(target(firewall), [rule(name)]))
    to = target(firewall, protected=[pattern], prune=["opnsense.rule"], max_prune="100%")
    pruned = run(plan(to, [], prune=True))
    assert [change.verb for change in pruned.changes] == ([] if protected else [Verb.DELETE])
    absent = run(plan(to, [rule(name, state="absent")]))
    assert [reason.message for _, reason in absent.refused] == (
        [f'"{unicodedata.normalize("NFC", name)}" is protected and is not deleted'] if protected else []
    )


def test_a_name_in_another_unicode_form_is_the_same_item(firewall: LabFirewall) -> None:
    run(apply(target(firewall), [rule(E_ACUTE)]))
    done = run(apply(target(firewall), [rule(E_AND_ACUTE)]))
    assert [change.verb for change in done.diff.changes] == [Verb.UPDATE]  # its notation, nothing else
    assert done.after.steps == ()


@pytest.mark.parametrize(
    ("limit", "owned", "cap"),
    [
        ("20%", 10, 2),
        ("10%", 10, 1),
        ("10%", 19, 1),
        ("10%", 20, 2),
        ("1%", 5, 1),
        (3, 10, 3),
        (0, 3, 0),
        ("0%", 3, 0),
    ],
)
@pytest.mark.parametrize("beyond", [0, 1])
def test_as_many_as_the_cap_are_pruned_and_not_one_more(
    firewall: LabFirewall, limit: int | str, owned: int, cap: int, beyond: int
) -> None:
    aliases = [resource("opnsense.alias", {"name": f"a{n}", "type": "host"}) for n in range(owned)]
    run(apply(target(firewall), aliases))
    count = cap + beyond
    to = target(firewall, prune=True, max_prune=limit)
    diff = run(plan(to, aliases[count:], prune=True))
    if beyond:
        assert diff.changes == ()
        assert len(diff.refused) == count
        for _, reason in diff.refused:
            assert isinstance(reason, Refused)
            assert reason.message == (
                f"{count} of {owned} items of opnsense.alias on fw-01 would be pruned, "
                f"and at most {cap} may be"
            )
    else:
        assert (len(diff.changes), diff.refused) == (count, ())


def test_nothing_is_pruned_while_it_is_not_clear_what_is_wanted(firewall: LabFirewall) -> None:
    run(apply(target(firewall), [rule("a"), rule("b")]))
    firewall.seed("rule", [{"description": "twin", "interface": name} for name in ("lan", "wan")])
    to = target(firewall, prune=True, max_prune="100%")
    twin = resource("opnsense.rule", {"description": "twin"})
    diff = run(plan(to, [rule("a"), twin], prune=True))
    assert (len(diff.errors), diff.changes) == (1, ())
