"""docs/inventory.md is true: its examples load, its tables say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fazai.errors import InventoryError
from fazai.inventory import Inventory, load_inventory
from fazai.inventory.patterns import select_hosts
from fazai.inventory.ranges import HOSTS_MAX, expand_hosts
from fazai.yamltext import DEFAULT_YAML_LIMITS

PAGE = (Path(__file__).parents[2] / "docs" / "inventory.md").read_text()
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    section = PAGE.split(f"\n{heading}\n", 1)[1]
    lines = section[section.index("\n|") + 1 :].split("\n\n", 1)[0].splitlines()
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def opened(text: str, folder: Path) -> Inventory:
    for path in re.findall(r"\.\./playbooks/[\w-]+\.yml", text):
        target = folder / "inv" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    file = folder / "inv" / "inventory.yml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return load_inventory(file)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_examples_load(number: int, tmp_path: Path) -> None:
    assert opened(EXAMPLES[number], tmp_path).hosts


def test_the_ini_example_loads(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```ini\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "hosts").write_text(text)
    inventory = load_inventory(tmp_path / "hosts")
    assert inventory.members("site") == ("web-01.example.net", "web-02.example.net", "web-03.example.net")
    assert inventory.variables("web-02.example.net") == {
        "domain": "example.net",
        "http_port": 8080,
        "labels": ["a", "b"],
    }


def test_the_ranges_of_the_table() -> None:
    seen = 0
    for pattern, hosts in rows("### Many hosts at once"):
        for text in re.findall(r"`([^`]+)`", pattern):
            names, port = expand_hosts(text)
            said = re.findall(r"`([^`]+)`", hosts)
            if port is None and "…" in hosts:
                assert [names[0], names[-1]] == said[:2]
            elif port is None:
                assert names == said
            seen += 1
    assert seen == 6
    assert f"{HOSTS_MAX:,} hosts at most" in PAGE


def test_the_patterns_of_the_table_select(tmp_path: Path) -> None:
    inventory = opened(
        "edge: {hosts: {'fw-[01:04]': }}\ncore: {hosts: {fw-11: }}\n"
        "lisbon: {hosts: {fw-01: , fw-02: , fw-lis: }}\n",
        tmp_path,
    )
    seen = 0
    for pattern, _ in rows("## Patterns"):
        for text in re.findall(r"`([^`]+)`", pattern.replace("\\|", "|")):
            if text.startswith("@"):
                (tmp_path / "failed.txt").write_text("fw-01\n")
                text = f"@{tmp_path}/failed.txt"
            assert select_hosts(inventory, text)
            seen += 1
    assert seen == 16


def test_the_limits_are_those_of_the_code() -> None:
    assert f"{DEFAULT_YAML_LIMITS.size_bytes // 2**20} MiB a file" in PAGE
    assert f"{DEFAULT_YAML_LIMITS.depth} levels" in PAGE
    assert f"{DEFAULT_YAML_LIMITS.values:,} values" in PAGE


def test_the_precedence_is_that_of_the_table(tmp_path: Path) -> None:
    group = "a"
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "host_vars").mkdir()
    places = {
        "`vars:` of `all` in the inventory files": ("inv.yml", "all: {vars: {v: 1}}"),
        "`vars:` of the other groups in the inventory files": ("inv.yml", f"{group}: {{vars: {{v: 2}}}}"),
        "`group_vars/all`": ("group_vars/all", "v: 3"),
        "`group_vars/GROUP` of the other groups": (f"group_vars/{group}", "v: 4"),
        "the host in the inventory files": ("inv.yml", "ungrouped: {hosts: {h1: {v: 5}}}"),
        "`host_vars/HOST`": ("host_vars/h1", "v: 6"),
    }
    written: dict[str, list[str]] = {}
    (tmp_path / "groups.yml").write_text(f"{group}: {{hosts: {{h1: }}}}\n")
    for number, place in rows("## Variables"):
        file, text = places.pop(place)
        written.setdefault(file, []).append(text)
        (tmp_path / file).write_text("\n".join(written[file]) + "\n")
        found = load_inventory([tmp_path / "groups.yml", tmp_path / "inv.yml"])
        assert found.variables("h1")["v"] == int(number)
    assert not places


def test_the_error_of_the_page_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inventory.yml").write_text("---\nall:\n  host: {fw-01: }\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InventoryError) as caught:
        load_inventory("inventory.yml")
    assert f"```text\n{caught.value}\n```" in PAGE
