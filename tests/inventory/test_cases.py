"""The inventory against Ansible itself: recorded answers, and the real one where it is installed."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from fazai.errors import InventoryError
from fazai.inventory import Inventory, load_inventory
from fazai.inventory.patterns import select_hosts
from fazai.inventory.show import as_ansible, as_graph, as_host_variables, as_json
from fazai.secrets.scripts import script_runner
from tests.inventory.make_cases import ansible_inventory

CASES = Path(__file__).parent / "cases"
NAMES = sorted(path.name for path in CASES.iterdir())


@cache
def recorded(name: str) -> Any:
    return json.loads((CASES / name / "expected.json").read_text())


def opened(name: str, monkeypatch: pytest.MonkeyPatch) -> Inventory:
    folder = CASES / name
    monkeypatch.chdir(folder)
    sources = yaml.safe_load((folder / "case.yml").read_text())["sources"]
    return load_inventory(sources, run_script=script_runner({"PATH": os.environ["PATH"]}))


def every(kind: str) -> list[Any]:
    return [pytest.param(name, text, id=f"{name}: {text}") for name in NAMES for text in recorded(name)[kind]]


@pytest.mark.parametrize("name", NAMES)
def test_list_is_ansibles(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inventory = opened(name, monkeypatch)
    assert json.loads(as_json(as_ansible(inventory))) == recorded(name)["list"]


@pytest.mark.parametrize("name", NAMES)
def test_graph_is_ansibles(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert as_graph(opened(name, monkeypatch)) + "\n" == recorded(name)["graph"]


@pytest.mark.parametrize("name", NAMES)
def test_one_host_is_what_the_list_says_of_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inventory = opened(name, monkeypatch)
    for host in inventory.hosts:
        expected = recorded(name)["list"]["_meta"]["hostvars"].get(host, {})
        assert json.loads(as_json(as_host_variables(inventory, host))) == expected


@pytest.mark.parametrize(("name", "limit"), every("limited"))
def test_a_limited_list_is_ansibles(name: str, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inventory = opened(name, monkeypatch)
    chosen = select_hosts(inventory, limit)
    assert json.loads(as_json(as_ansible(inventory, chosen))) == recorded(name)["limited"][limit]


@pytest.mark.parametrize(("name", "pattern"), every("patterns"))
def test_a_pattern_selects_ansibles_hosts_in_ansibles_order(
    name: str, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inventory = opened(name, monkeypatch)
    expected = recorded(name)["patterns"][pattern]
    if expected:
        assert list(select_hosts(inventory, pattern)) == expected
    else:  # no host there is an error here
        with pytest.raises(
            InventoryError, match=r"takes no host|leaves no host|matches no group and no host"
        ):
            select_hosts(inventory, pattern)


@pytest.mark.parametrize(("name", "limit"), every("limits"))
def test_a_limit_selects_ansibles_hosts(name: str, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inventory = opened(name, monkeypatch)
    expected = recorded(name)["limits"][limit]
    assert sorted(select_hosts(inventory, limit)) == sorted(expected)


ROOT = Path(__file__).parents[2]
REAL = Path(os.environ.get("FAZAI_ANSIBLE_INVENTORY", ROOT / ".ansible/bin/ansible-inventory"))

if REAL.exists():  # the recorded answers stand for it elsewhere

    @pytest.mark.slow
    @pytest.mark.parametrize("name", NAMES)
    def test_the_installed_ansible_says_what_was_recorded(name: str) -> None:
        sources = yaml.safe_load((CASES / name / "case.yml").read_text())["sources"]
        answer = ansible_inventory(str(REAL), CASES / name, sources, "--list")
        assert json.loads(answer) == recorded(name)["list"]
        assert ansible_inventory(str(REAL), CASES / name, sources, "--graph") == recorded(name)["graph"]
