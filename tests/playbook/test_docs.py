"""docs/playbooks.md is true: its examples resolve, its tables say what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fazai.inventory import load_inventory
from fazai.model import Work
from fazai.playbook import Selection, load_playbooks, resolve_work
from fazai.playbook.grammar import _BESIDE, _PLAY
from fazai.playbook.scopes import HostScopes
from fazai.registry import Registry
from fazai.secrets import SecretReader
from fazai.template import Templates
from fazai.template.engine import TemplateEngine
from fazai.template.filters.base import TEXT_MAX
from fazai.template.filters.network import _ALIASES, _QUERIES
from fazai.template.filters.pattern import check_pattern
from fazai.template.filters.table import FILTERS
from fazai.template.limits import CHAIN_MAX, DEPTH_MAX, OPERATIONS, TEMPLATE_MAX

PAGE = (Path(__file__).parents[2] / "docs/playbooks.md").read_text()
BLOCKS = re.findall(r"```yaml\n# ([^\n]+)\n(.*?)```", PAGE, re.DOTALL)
INVENTORY = next(text for name, text in BLOCKS if name == "inventory.yml")


def section(title: str) -> str:
    return re.split(r"\n#{2,3} ", PAGE.split(f"# {title}\n")[1])[0]


def names(text: str) -> set[str]:
    return set(re.findall(r"`([^` ]+)`", text))


def run(folder: Path, inventory: str, playbook: str | None) -> tuple[Work, ...]:
    (folder / "inventory.yml").write_text(inventory)
    (folder / "p.yml").write_text(playbook or "[]")
    registry = Registry()
    return resolve_work(
        load_inventory(folder / "inventory.yml"),
        load_playbooks([folder / "p.yml"]),
        providers=registry.provider,
        kinds=registry.kind,
        selection=Selection(),
        extra_vars={"secret": {"api_key": "k", "api_secret": "s"}},
        secrets=SecretReader(environ={}),
    )


@pytest.mark.parametrize(("name", "text"), BLOCKS, ids=lambda value: value[:20])
def test_examples(tmp_path: Path, name: str, text: str) -> None:
    if name == "inventory.yml":
        works = run(tmp_path, text, None)
    elif name == "playbook":
        works = run(tmp_path, INVENTORY, text)
        assert [(work.serial, work.max_fail) for work in works] == [((1, 2), 0)]
    else:
        assert name == "resources"
        lines = "".join(f"    {line}\n" for line in text.splitlines())
        works = run(tmp_path, INVENTORY, f"- hosts: all\n  resources:\n{lines}")
    assert sum(len(work.targets) for work in works) >= 2


def test_there_are_examples_of_each_sort() -> None:
    assert {name for name, _ in BLOCKS} == {"inventory.yml", "playbook", "resources"}
    assert len(re.findall("```yaml", PAGE)) == len(BLOCKS)


def test_the_override_of_the_page(tmp_path: Path) -> None:
    text = [text for name, text in BLOCKS if name == "inventory.yml"][1]
    (work,) = run(tmp_path, text, None)
    (admins,) = work.targets[1].resources
    assert list(admins.fields["content"]) == ["198.51.100.0/24"]
    assert (admins.fields["type"], admins.fields["description"]) == ("network", "who may log in")


def test_templates_give_what_the_page_says(tmp_path: Path) -> None:
    rows = re.findall(r"^\| `(\{.+?|fw\..+?)` \| `(.+?)` \|$", section("Templates"), re.MULTILINE)
    assert len(rows) >= 9
    (tmp_path / "inventory.yml").write_text(INVENTORY)
    scope = HostScopes(load_inventory(tmp_path / "inventory.yml"), Templates(), {}).host("fw-01")
    for template, value in rows:
        assert scope.render(template.replace("\\|", "|")) == json.loads(value), template


def test_all_filters_are_on_the_page() -> None:
    table = section("Filters").split("\nQueries")[0]
    assert names("\n".join(line for line in table.splitlines() if line.startswith("| "))) == set(FILTERS)


def test_all_queries_are_on_the_page() -> None:
    listed = section("Filters").split("Queries of `ipaddr`:")[1].split("\n\n")[0]
    assert names(listed) == {*_QUERIES, *_ALIASES} - {""}


def test_all_tests_are_on_the_page() -> None:
    listed = section("Filters").split("\nTests:")[1].split("\n\n")[0]
    assert names(listed) == set(TemplateEngine().tests)


def test_all_functions_are_on_the_page() -> None:
    assert names(section("Filters").split("\nFunctions:")[1]) == set(TemplateEngine().globals) - {"omit"}


@pytest.mark.parametrize(("title", "keys"), [("Plays", _PLAY), ("Resources", _BESIDE)])
def test_all_keys_are_on_the_page(title: str, keys: tuple[str, ...]) -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", section(title), re.MULTILINE)) == set(keys)


def test_the_bounds_are_those_of_the_page() -> None:
    text = section("Limits of templates")
    assert f"{OPERATIONS:,} operations" in text
    assert f"texts of {TEXT_MAX >> 20} MiB, templates of {TEMPLATE_MAX >> 10} KiB" in text
    assert f"values {DEPTH_MAX} levels deep, chains of {CHAIN_MAX} variables" in text
    check_pattern(r"\w+=\w+", 4_400)
    check_pattern(r"^\w+=\w+", 65_536)
    with pytest.raises(ValueError, match="too long"):
        check_pattern(r"\w+=\w+", 4_600)
