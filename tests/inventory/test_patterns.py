"""Patterns where we differ from Ansible: what matches nothing is an error with the next step."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fazai.errors import Errors, InventoryError
from fazai.inventory import Inventory, load_inventory
from fazai.inventory.patterns import select_hosts, split_pattern

STEADY = settings(deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Inventory:
    path = tmp_path_factory.mktemp("inv") / "inv.yml"
    path.write_text(
        "web: {hosts: {'web-[01:05]': }}\n"
        "db: {hosts: {db-01: , web-01: , '2001:db8::1': }}\nempty: {hosts: }\n"
    )
    return load_inventory(path)


WRONG = [
    ("wbe", 'the pattern "wbe" matches no group and no host', 'did you mean "web"?'),
    ("web:wbe", 'the pattern "wbe" matches no group and no host', 'did you mean "web"?'),
    ("web:!dbb", 'the pattern "dbb" matches no group', 'did you mean "db"?'),
    ("web:&dbb", 'the pattern "dbb" matches no group', 'did you mean "db"?'),
    ("x*", 'the pattern "x*" matches no group', "--graph"),
    ("~^x", 'the pattern "~^x" matches no group', "--graph"),
    ("web-01:22", 'the pattern "web-01:22" matches no group', 'leave the port away: "web-01"'),
    ("web-0[12]", 'the pattern "web-0[12]" matches no group', 'write "web-0*" or ~regex'),
    ("web[9]", '"web[9]" takes no host: "web" has 5 hosts', "from 0 to 4"),
    ("web[3:1]", '"web[3:1]" takes no host', "from 0 to 4"),
    ("web[-9]", '"web[-9]" takes no host', "from 0 to 4"),
    ("web[99999999999999999999999999]", "numbers", ""),
    ("~(", '"~(" is no regular expression', ""),
    ("empty", 'the host pattern "empty" leaves no host', "the group has no hosts"),
    ("web:!web", 'the host pattern "web:!web" leaves no host', "what & and ! leave over"),
    ("", "the host pattern is empty", '"all"'),
    (" , ", "the host pattern is empty", '"all"'),
    ("!", "the host pattern is empty", '"all"'),
    ("localhost", 'the pattern "localhost" matches no group and no host', ""),
    ("all:!2001:db8::1", "has an empty part", "separate the parts with commas"),
    ("@/none/such", 'there is no limit file "/none/such"', 'there is no folder "/none"'),
]


@pytest.mark.parametrize(("pattern", "message", "hint"), WRONG)
def test_what_selects_nothing_is_an_error(
    inventory: Inventory, pattern: str, message: str, hint: str
) -> None:
    with pytest.raises(InventoryError) as caught:
        select_hosts(inventory, pattern)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")
    assert caught.value.exit_code == 3


def test_every_wrong_part_is_named(inventory: Inventory) -> None:
    with pytest.raises(Errors) as caught:
        select_hosts(inventory, "wbe,bd,web")
    assert [str(error).split('"')[1] for error in caught.value.errors] == ["wbe", "bd"]


def test_an_empty_rest_can_be_allowed(inventory: Inventory) -> None:
    assert select_hosts(inventory, "web:!web", empty_ok=True) == ()
    with pytest.raises(InventoryError, match='"wbe" matches no group and no host'):
        select_hosts(inventory, "wbe", empty_ok=True)


def test_several_patterns_are_one(inventory: Inventory) -> None:
    assert select_hosts(inventory, ["db", "web", "!web-02"]) == select_hosts(inventory, "db,web,!web-02")
    assert select_hosts(inventory, "2001:db8::1") == ("2001:db8::1",)
    assert select_hosts(inventory, "db,!2001:db8::1") == ("db-01", "web-01")


def test_a_limit_file_has_a_pattern_a_line(inventory: Inventory, tmp_path: Path) -> None:
    path = tmp_path / "limit"
    path.write_text("# failed yesterday\nweb-02\n\n  db \n!db-01\n")
    assert select_hosts(inventory, f"@{path}") == ("web-02", "web-01", "2001:db8::1")
    path.write_bytes(b"\xff")
    with pytest.raises(InventoryError, match="is not UTF-8 text"):
        select_hosts(inventory, f"@{path}")


SPLIT = [
    ("a,b", ["a", "b"]),
    ("a:b:&c:!d", ["a", "b", "&c", "!d"]),
    ("a b", ["a", "b"]),
    ("web[0:2]:db", ["web[0:2]", "db"]),
    ("web[0:2]", ["web[0:2]"]),
    ("2001:db8::1", ["2001:db8::1"]),
    ("!2001:db8::1", ["!2001:db8::1"]),
    ("[2001:db8::1]:22", ["[2001:db8::1]:22"]),
    ("a,2001:db8::1", ["a", "2001:db8::1"]),
    ("fw-01:22", ["fw-01:22"]),
    ("fw-01:22a", ["fw-01", "22a"]),
]


@pytest.mark.parametrize(("text", "parts"), SPLIT)
def test_split(text: str, parts: list[str]) -> None:
    assert split_pattern(text) == parts


@STEADY
@given(st.text(alphabet="web-01db*?[]:,&!~ .()^$", max_size=14))
def test_any_pattern_selects_hosts_or_is_an_error_of_ours(inventory: Inventory, text: str) -> None:
    try:
        hosts = select_hosts(inventory, text)
    except (InventoryError, Errors):
        return
    assert hosts
    assert len(set(hosts)) == len(hosts)
    assert set(hosts) <= set(inventory.hosts)


@pytest.mark.parametrize(
    "text",
    [
        "edge:&",
        "edge,&",
        "edge:!",
        "edge:~",
        "edge,",
        ",edge",
        "edge:",
        ":edge",
        "edge,,core",
        "edge,&~",
        "edge,!",
        "edge:&~",
    ],
)
def test_an_empty_part_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "inv.yml").write_text("edge: {hosts: {fw-01: , fw-02: }}\ncore: {hosts: {fw-11: }}\n")
    with pytest.raises(InventoryError, match="has an empty part") as caught:
        select_hosts(load_inventory(tmp_path / "inv.yml"), text)
    assert f'"{text}"' in caught.value.message
    assert "an empty variable of the shell?" in (caught.value.hint or "")


def test_one_empty_pattern_of_several_is_refused(tmp_path: Path) -> None:
    (tmp_path / "inv.yml").write_text("edge: {hosts: {fw-01: }}\n")
    with pytest.raises(InventoryError, match="the host pattern is empty"):
        select_hosts(load_inventory(tmp_path / "inv.yml"), ["edge", " "])
