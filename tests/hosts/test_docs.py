"""docs/hosts.md is true: its examples resolve, and it names every option."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fazai.registry import Registry
from tests.hosts.conftest import World

PAGE = (Path(__file__).parents[2] / "docs/hosts.md").read_text()
BLOCKS = dict(re.findall(r"```yaml\n# ([^\n]+)\n(.*?)```", PAGE, re.DOTALL))


def test_the_examples_resolve(world: World) -> None:
    (world.folder / "inventory.yml").write_text(BLOCKS["inventory.yml"])
    (world.folder / "p.yml").write_text(BLOCKS["playbook"])
    found = world.fazai("validate", "-p", world.folder / "p.yml")
    assert (found.code, "valid: 3 targets, 12 resources" in found.out) == (0, True), found


def test_the_example_with_agents_resolves(world: World) -> None:
    (world.folder / "inventory.yml").write_text(BLOCKS["agents.yml"])
    found = world.fazai("validate")
    assert (found.code, "valid: 2 targets, 2 resources" in found.out) == (0, True), found


@pytest.mark.parametrize("provider", ["ssh", "local", "agent"])
def test_every_option_is_named(provider: str) -> None:
    options = Registry().provider(provider).options
    assert [name for name in options if f"`{name}`" not in PAGE] == []


@pytest.mark.parametrize("provider", ["local", "agent"])
def test_every_kind_is_served_by_all(provider: str) -> None:
    registry = Registry()
    assert dict(registry.provider("ssh").kinds).keys() == dict(registry.provider(provider).kinds).keys()
